"""Pictures to targets: requests in every form, and everything that can be wrong with files."""

import hashlib
import os
import pathlib

import matplotlib
import ml_collections
import numpy as np
import PIL.Image
import pytest
import skimage.data

from jaxinv import data, pixels
from jaxinv.data import discover, images
from jaxinv.io import safe_name
from jaxinv.types import Generator, GeneratorSpec

GRACE = pathlib.Path(matplotlib.get_data_path(), 'sample_data', 'grace_hopper.jpg')


@pytest.fixture(scope='module')
def portrait():
    """Grace Hopper, small: fast to search."""
    return images.read(GRACE).resize((256, 300))


@pytest.fixture(scope='module')
def folder(tmp_path_factory, portrait):
    """A folder with sound, damaged, hidden and other files, subfolders and links."""
    root = tmp_path_factory.mktemp('my photos')
    (root / 'sub').mkdir()
    portrait.save(root / 'img10.png')
    portrait.save(root / 'img2.b.jpg')
    portrait.save(root / 'sub' / 'img10.webp')
    portrait.rotate(90, expand=True).save(root / 'Ünïcode 漢字.png')
    (root / 'without_suffix').write_bytes((root / 'img2.b.jpg').read_bytes())
    portrait.resize((80, 94)).save(root / 'tiny.png')
    PIL.Image.new('L', (300, 300)).save(root / 'black.png')
    PIL.Image.new('RGB', (1, 1)).save(root / 'one.png')
    (root / 'letter.png').write_text('Dear Grace,')
    (root / 'empty.jpg').touch()
    (root / 'cut.jpg').write_bytes((root / 'img2.b.jpg').read_bytes()[:3000])
    (root / 'notes.txt').write_text('mine')
    (root / '.hidden.png').write_text('mine')
    (root / 'Thumbs.db').write_text('mine')
    os.symlink(root, root / 'sub' / 'loop')
    os.symlink(root / 'nothing', root / 'dangling.png')
    return root


@pytest.fixture(scope='module')
def loaded(folder):
    return data.load_images(folder, resolution=64)


def test_demo_is_two_people_ready_to_invert():
    targets = data.load_images('demo', resolution=128)
    assert targets.names == ['grace_hopper', 'eileen_collins'] and not targets.skipped
    assert targets.images_uint8.shape == (2, 128, 128, 3)
    assert targets.images_uint8.dtype == np.uint8
    source = targets.sources[0]
    assert source['sha256'] == hashlib.sha256(GRACE.read_bytes()).hexdigest()
    assert source['face']['count'] == 1 and 300 < source['face']['side'] < 360
    assert source['warning'] is None
    assert (
        'eileen_collins' in data.load_images('demo', resolution=128, faces='all').names
    )  # and no badge


def test_enlarged_faces_carry_a_warning(portrait, tmp_path):
    portrait.save(tmp_path / 'a.png')
    (source,) = data.load_images(tmp_path, resolution=512).sources
    assert 'were enlarged to 512' in source['warning']


def test_every_good_file_is_taken_in_natural_order_with_distinct_names(loaded):
    assert loaded.names == ['img2.b', 'img10', 'img10_2', 'without_suffix', 'Ünïcode_漢字']
    assert len(loaded.sources) == len(loaded.images_uint8) == 5


def test_every_bad_file_is_listed_with_its_reason(loaded):
    reasons = {pathlib.Path(entry['file']).name: entry['reason'] for entry in loaded.skipped}
    expected = {
        'black.png': 'No face was found in black.png (300 x 300 pixels).',
        'cut.jpg': 'damaged or cut short',
        'dangling.png': 'is a link to nothing',
        'empty.jpg': 'empty (0 bytes)',
        'letter.png': 'not an image but text',
        'one.png': 'too small to hold a face: 1 x 1 pixels',
        'tiny.png': 'pixels a side, at least 64 are needed',
    }
    assert reasons.keys() == expected.keys()
    for name, words in expected.items():
        assert words in reasons[name] and reasons[name].count('\n') == 0


def test_pictures_on_their_side_give_the_same_face(loaded):
    upright, lying = (
        loaded.images_uint8[loaded.names.index(name)].astype(float)
        for name in ('img10', 'Ünïcode_漢字')
    )
    assert np.abs(upright - lying).mean() < 8


def test_all_faces_of_a_group(tmp_path, portrait):
    group = PIL.Image.new('RGB', (900, 420), (90, 110, 100))
    group.paste(portrait, (20, 60))
    group.paste(PIL.Image.fromarray(skimage.data.astronaut()).resize((380, 380)), (300, 20))
    group.paste(portrait.resize((80, 94)), (750, 200))
    group.save(tmp_path / 'group.png')
    all_faces = data.load_images(tmp_path, resolution=64, faces='all')
    assert all_faces.names == ['group_1', 'group_2']
    assert [entry['file'][-8:] for entry in all_faces.skipped] == ['(face 3)']
    assert '64 are needed' in all_faces.skipped[0]['reason']
    largest = data.load_images(tmp_path, resolution=64)
    assert largest.names == ['group'] and largest.sources[0]['face']['index'] == 1
    sides = [t.sources[0]['face']['side'] for t in (largest, all_faces)]
    assert sides[0] == pytest.approx(sides[1], rel=0.1)  # the same face, sought at two scales


def test_files_lists_patterns_and_comma_strings(folder):
    a, b = folder / 'img10.png', folder / 'img2.b.jpg'
    for request in ([a, b], (str(a), str(b)), f'{a}, {b}', [f'{a},{b}']):
        assert [path for _, path in discover.find(request).files] == [a, b]
    assert [path for _, path in discover.find(folder / 'img*').files] == [b, a]
    assert len(discover.find([a, a, folder / 'sub' / '..' / 'img10.png']).files) == 1
    odd = folder / 'sub' / 'a, b.png'
    odd.write_bytes(a.read_bytes())
    assert [path for _, path in discover.find(str(odd)).files] == [odd]
    odd.unlink()


def test_one_missing_file_does_not_stop_the_others(folder):
    targets = data.load_images([folder / 'img10.png', folder / 'nowhere.png'], resolution=32)
    assert targets.names == ['img10']
    assert 'nowhere.png does not exist' in targets.skipped[0]['reason']


@pytest.mark.parametrize('source', ['', ' , ', [], (), None])
def test_an_empty_request_is_one_sentence(source):
    with pytest.raises(data.NoImages, match="give 'demo', a folder, or files"):
        data.load_images(source, resolution=64)


def test_nothing_left_names_what_was_looked_for(folder, tmp_path):
    with pytest.raises(data.NoImages, match='/no/such/place does not exist'):
        data.load_images('/no/such/place', resolution=64)
    (tmp_path / 'notes.txt').write_text('mine')
    with pytest.raises(data.NoImages, match='holds no image files'):
        data.load_images(tmp_path, resolution=64)
    with pytest.raises(data.NoImages, match='is an address; download it'):
        data.load_images('https://example.com/face.jpg', resolution=64)
    bad = [folder / name for name in ('black.png', 'letter.png', 'empty.jpg', 'one.png')]
    with pytest.raises(data.NoImages, match='No usable face.*black.png.*and 1 more') as caught:
        data.load_images(bad, resolution=64)
    assert '\n' not in str(caught.value)


def test_aligned_pictures_are_only_resized(tmp_path, portrait):
    square = portrait.crop((0, 0, 256, 256))
    square.save(tmp_path / 'square.png')
    square.resize((20, 20)).save(tmp_path / 'stamp.png')
    portrait.save(tmp_path / 'tall.png')
    same = data.load_images(tmp_path, resolution=256, aligned=True)
    assert same.names == ['square'] and (same.images_uint8[0] == np.asarray(square)).all()
    assert same.sources[0]['face'] is None
    reasons = sorted(entry['reason'] for entry in same.skipped)
    assert '20 x 20 pixels' in reasons[0] and '256 x 300 and not square' in reasons[1]
    half = data.load_images(tmp_path / 'square.png', resolution=128, aligned=True).images_uint8[0]
    blocks = np.asarray(square, float).reshape(128, 2, 128, 2, 3).mean((1, 3))
    assert np.abs(half - blocks).max() <= 1  # Pillow rounds after each axis
    # A generator smaller than the usual least size takes smaller pictures.
    assert data.load_images(tmp_path / 'stamp.png', resolution=16, aligned=True).names == ['stamp']


def test_unknown_options_say_what_is_known():
    with pytest.raises(data.DataError, match="'every'; it can be 'largest' or 'all'"):
        data.load_images('demo', resolution=64, faces='every')
    with pytest.raises(data.DataError, match='resolution is 0'):
        data.load_images('demo', resolution=0)
    with pytest.raises(data.DataError, match='or give the generator'):
        data.load_images('demo')


def generator_of(domain):
    spec = GeneratorSpec('any', resolution=32, z_dim=1, w_dim=1, num_ws=1, domain=domain)
    return Generator(spec, None, None, None)


def test_the_generator_gives_resolution_and_alignment():
    faces = data.load_images('demo', generator_of('ffhq'))
    assert faces.images_uint8.shape[1:3] == (32, 32) and faces.sources[0]['face'] is not None
    cars = data.load_images('demo', generator_of('cars'))
    assert cars.valid is not None and cars.sources[0]['face'] is None
    lines, unknown = [], generator_of('')
    plain = data.load_images('demo', unknown, log=lines.append)
    assert plain.sources[0]['face'] is None and 'domain of any is unknown' in lines[0]
    with pytest.raises(data.DataError, match='resolution is 64 and any makes 32 pixels'):
        data.load_images('demo', unknown, resolution=64)
    assert len(data.load_images('demo', unknown, resolution=32, align='none')) == 2


def test_targets_are_arrays_with_names(folder):
    targets = data.load_images([folder / 'img10.png', folder / 'letter.png'], resolution=32)
    assert targets.images.dtype == np.float32 and targets.images.shape == (1, 32, 32, 3)
    np.testing.assert_array_equal(pixels.to_uint8(targets.images), targets.images_uint8)
    assert len(targets) == 1 and targets.names == ['img10']
    assert repr(targets) == 'Targets(1 of 32 x 32 pixels: img10, 1 skipped)'
    twice = targets.select([0, 0], ['a', 'b'])
    assert twice.names == ['a', 'b'] and twice.images.shape == (2, 32, 32, 3)


def test_names_are_safe_and_distinct():
    stems = ['a', 'A', 'a_2', 'a', 'c:d/e', '...', 'nul', 'x' * 300, 'müller.portrait']
    names = discover.unique_names(stems)
    assert names[:6] == ['a', 'A_2', 'a_2_2', 'a_3', 'c_d_e', 'image']
    assert names[6] == '_nul' and len(names[7]) == 80 and names[8] == 'müller.portrait'
    assert len({name.casefold() for name in names}) == len(names)
    assert safe_name('e\u0301') == safe_name('\u00e9')  # one name, however composed
    assert safe_name(os.fsdecode(b'caf\xe9'))  # a name that is not UTF-8


def test_order_does_not_depend_on_the_file_system(tmp_path):
    for name in ('b.png', 'a10.png', 'A2.png', 'a1.png'):
        (tmp_path / name).touch()
    assert [p.name for _, p in discover.find(tmp_path).files] == [
        'a1.png',
        'A2.png',
        'a10.png',
        'b.png',
    ]


def test_fit_makes_squares_of_pictures_without_faces(tmp_path):
    wide = np.zeros((90, 160, 3), np.uint8)
    wide[:, :80, 0], wide[:, 80:, 1] = 200, 100
    PIL.Image.fromarray(wide).save(tmp_path / 'wide.png')

    def load(fit):
        targets = data.load_images(tmp_path, resolution=64, align='none', fit=fit)
        assert targets.sources[0]['face'] is None
        return targets.images_uint8[0].astype(int)

    crop, pad, stretch, cars = (load(fit) for fit in ('crop', 'pad', 'stretch', '4:3'))
    for square in (crop, pad, stretch, cars):  # the centre stays the centre
        assert abs(square[32, 28, 0] - 200) < 3 and abs(square[32, 35, 1] - 100) < 3
    assert (crop.max(-1) > 50).all() and (stretch.max(-1) > 50).all()
    # 64 x 36 of picture in the middle, the rest black; 64 x 48 as the largest part of 4:3.
    for square, bar in ((pad, 14), (cars, 8)):
        assert (square[:bar] == 0).all() and (square[64 - bar :] == 0).all()
        assert (square[bar + 1 : 63 - bar].max(-1) > 50).all()
    with pytest.raises(ValueError, match="'4:3'"):
        load('squeeze')
    with pytest.raises(data.DataError, match='data.align'):
        data.load_images(tmp_path, resolution=64, align='faces')


def test_no_usable_picture_without_faces_is_one_sentence(tmp_path):
    PIL.Image.new('RGB', (100, 20)).save(tmp_path / 'strip.png')
    with pytest.raises(data.NoImages, match='No usable picture.*strip.png is too small'):
        data.load_images(tmp_path, resolution=64, align='none')


def test_a_face_list_takes_the_faces_that_it_names(tmp_path):
    hopper = images.read(f'{matplotlib.get_data_path()}/sample_data/grace_hopper.jpg')
    both = PIL.Image.new('RGB', (2 * 240, 284))
    for i in range(2):  # the second one is smaller, and so the second of the list
        both.paste(hopper.resize((240 - 36 * i, 284 - 43 * i)), (240 * i, 0))
    (tmp_path / 'photos').mkdir()
    both.save(tmp_path / 'photos' / 'two.png')
    list_file = tmp_path / 'faces.json'
    config = ml_collections.ConfigDict(
        {
            'images': str(tmp_path / 'photos'),
            'tfds': '',
            'faces': 'all',
            'aligned': False,
            'align': 'face',
            'fit': 'auto',
            'face_list': str(list_file),
        }
    )
    spec = GeneratorSpec('any', 64, 8, 8, 2, domain='ffhq')
    list_file.write_text('{"two.png": [2]}')
    targets = data.load_for(config, spec)
    assert targets.names == ['two_2'] and targets.sources[0]['face']['index'] == 2
    assert targets.sources[0]['face']['box'][0] > 240
    for wrong in ('', '[]', '{}', '{"two.png": 1}', '{"two.png": [0]}', '{"two.png": ["1"]}'):
        list_file.write_text(wrong)
        with pytest.raises(data.DataError, match='data.face_list'):
            data.load_for(config, spec)
