"""The benchmark set: its register, pictures out of packages, and generated faces with known truth.

Packages are made here: a wheel that pip finds in a folder, and a .deb in the cache folder.
"""

import bz2
import hashlib
import importlib.util
import io
import itertools
import json
import os
import pathlib
import re
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import PIL.Image
import pytest

from jaxinv import data, pixels, rendering
from jaxinv.converters import qt_resources
from jaxinv.data import (
    benchmark,
    benchmark_faces,
    benchmark_folder,
    discover,
    drawing,
    images,
    occluders,
    out_of_domain,
)
from jaxinv.inversion import code_files
from jaxinv.io import read_json, safe_name, sha256
from jaxinv.weights import assets, registries, zoo

ROOT = pathlib.Path(__file__).parent.parent
LICENCES = {'public domain', 'CC0-1.0', 'CC-BY-2.0', 'CC-BY-3.0', 'CC-BY-SA-4.0', 'MIT'}


def digest(content):
    return hashlib.sha256(content).hexdigest()


# --- The register ---------------------------------------------------------------------------------


def test_the_register_says_all_of_every_picture():
    packages, pictures = benchmark.register()
    names = [picture.name for picture in pictures]
    assert names == discover.unique_names(names) and names == list(map(safe_name, names))
    assert len({picture.sha256 for picture in pictures}) == len(pictures)
    assert {picture.kind for picture in pictures} == {'portrait', 'animal'}
    assert {picture.package for picture in pictures} == {*packages}
    for picture in pictures:
        assert picture.licence in LICENCES and re.fullmatch('[0-9a-f]{64}', picture.sha256)
        assert picture.subject and picture.author and picture.statement and min(picture.size) >= 200
        assert re.match('https?://', picture.source) and picture.member in _members(picture)
    for package in packages.values():
        assert package['index'] in ('pypi', 'debian') and package['version'] and package['file']
        assert re.fullmatch('[0-9a-f]{64}', package['sha256'])


def _members(picture):
    return benchmark.package(picture.package).members


def test_the_page_shows_the_register():
    path = ROOT / 'benchmarks' / 'benchmark_set.py'
    spec = importlib.util.spec_from_file_location('benchmark_set', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / 'docs' / 'benchmark_set.md').read_text(encoding='utf-8')
    assert module.with_tables(page) == page, 'run python benchmarks/benchmark_set.py'
    for picture in benchmark.register()[1]:
        assert f'| `{picture.name}` |' in page
    assert module.with_tables(page.replace('`raccoon`', '`racoon`')) == page


def test_a_kind_that_is_not_there_is_named():
    with pytest.raises(data.DataError, match="'benchmark:cats'; it can be 'benchmark' or, for a"):
        data.find('benchmark:cats')
    assert not benchmark.is_request('benchmarks') and not benchmark.is_request(['benchmark'])


# --- Pictures out of packages ---------------------------------------------------------------------


def rcc(files):
    """A .rcc of format 3 as Qt's compiler makes it: {(folder, name): (bytes, compressed)}."""
    names, blobs, tree = b'', b'', []
    folders = {}
    for (folder, name), given in files.items():
        folders.setdefault(folder, {})[name] = given

    def place_of(name):
        nonlocal names
        place = len(names)
        names += struct.pack('>HI', len(name), 0) + name.encode('utf-16-be')
        return place

    first_file = 1 + len(folders)
    tree.append(struct.pack('>IHIIQ', 0, 2, len(folders), 1, 0))
    entries = []
    for folder, members in folders.items():
        tree.append(
            struct.pack('>IHIIQ', place_of(folder), 2, len(members), first_file + len(entries), 0)
        )
        for name, (content, compressed) in members.items():
            stored = struct.pack('>I', len(content)) + zlib.compress(content)
            stored = stored if compressed else content
            row = struct.pack('>IHHHIQ', place_of(name), int(compressed), 0, 0, len(blobs), 0)
            entries.append(row)
            blobs += struct.pack('>I', len(stored)) + stored
    header = 24
    places = (header, header + len(blobs), header + len(blobs) + len(names))
    start = struct.pack('>4s4II', b'qres', 3, places[2], places[0], places[1], 1)
    return start + blobs + names + b''.join(tree + entries)


def deb(files):
    """A .deb: an ar archive with a tar.xz of the files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode='w:xz') as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f'./{name}')
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    out = b'!<arch>\n'
    for name, content in (('debian-binary', b'2.0\n'), ('x', b'odd'), ('data.tar.xz', packed)):
        content = content if isinstance(content, bytes) else content.getvalue()
        out += f'{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n'.encode()
        out += content + b'\n' * (len(content) % 2)
    return out


def encoded(seed, kind='PNG'):
    file = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (90, 120, 3), np.uint8)
    PIL.Image.fromarray(noise).save(file, kind)
    return file.getvalue()


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A register of four pictures in a wheel and a .deb; yields {name: bytes} and the archives."""
    raw = encoded(1, 'PPM')
    pictures = {'dog': encoded(0), 'cat': raw, 'horse': encoded(2, 'WEBP'), 'hen': encoded(3)}
    header = b'P6\n120 90\n255\n'
    assert raw.startswith(header)
    packed = bz2.compress(raw.removeprefix(header))
    resources = rcc(
        {
            ('animals', 'README'): (b'by us', True),
            ('animals', 'horse.webp'): (pictures['horse'], False),
            ('birds', 'hen.png'): (pictures['hen'], True),
        }
    )
    wheel = tmp_path / 'index' / 'jaxinv_photos-1.0-py3-none-any.whl'
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, 'w') as archive:
        archive.writestr('photos/dog.png', pictures['dog'])
        archive.writestr('photos/cat.dat', packed)
        information = 'jaxinv_photos-1.0.dist-info/'
        metadata = 'Metadata-Version: 2.1\nName: jaxinv-photos\nVersion: 1.0\n'
        archive.writestr(information + 'METADATA', metadata)
        archive.writestr(information + 'WHEEL', 'Wheel-Version: 1.0\nTag: py3-none-any\n')
        archive.writestr(information + 'RECORD', '')
    brought = tmp_path / 'cache' / 'packages' / 'animals_1_all.deb'
    brought.parent.mkdir(parents=True)
    brought.write_bytes(deb({'usr/share/animals.rcc': resources, 'usr/share/other': b'1'}))
    wheel_facts = {'index': 'pypi', 'version': '1.0', 'file': wheel.name, 'sha256': sha256(wheel)}
    wheel_facts |= {'licence': 'none', 'containers': {'photos/cat.dat': digest(packed)}}
    deb_facts = {'index': 'debian', 'version': '1:1', 'file': brought.name, 'licence': 'none'}
    deb_facts |= {
        'sha256': sha256(brought),
        'containers': {'usr/share/animals.rcc': digest(resources)},
    }
    rows = (
        ('horse', 'jaxinv-animals', 'usr/share/animals.rcc', 'rcc:animals/horse.webp'),
        ('dog', 'jaxinv-photos', 'photos/dog.png', ''),
        ('cat', 'jaxinv-photos', 'photos/cat.dat', 'bz2:120x90'),
        ('hen', 'jaxinv-animals', 'usr/share/animals.rcc', 'rcc:birds/hen.png'),
    )
    common = {'subject': 'an animal', 'size': [120, 90], 'licence': 'CC0-1.0', 'author': 'us'}
    common |= {'kind': 'animal', 'source': 'https://example.org', 'statement': 'README'}
    entries = [
        {'name': n, 'package': p, 'member': m, 'unpack': u, 'sha256': digest(pictures[n])} | common
        for n, p, m, u in rows
    ]
    packages = {'jaxinv-photos': wheel_facts, 'jaxinv-animals': deb_facts}
    register = tmp_path / 'register.json'
    register.write_text(json.dumps({'packages': packages, 'pictures': entries}))
    monkeypatch.setattr(benchmark, 'REGISTER', register)
    monkeypatch.setenv('JAXINV_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.setenv('PIP_FIND_LINKS', str(wheel.parent))
    monkeypatch.setattr(benchmark_faces, 'find', lambda: [])
    benchmark.register.cache_clear()
    benchmark.package.cache_clear()
    yield pictures, wheel, brought
    benchmark.register.cache_clear()
    benchmark.package.cache_clear()


def test_pictures_are_fetched_unpacked_and_checked(made):
    pictures, _, _ = made
    listing = data.find('benchmark:animals')
    assert [name for name, _ in listing.files] == ['horse', 'dog', 'cat', 'hen']
    assert not listing.skipped and not data.find('benchmark:portraits').files
    for name, path in listing.files:
        assert path.read_bytes() == pictures[name]
    assert data.find('benchmark') == listing
    targets = data.load_images('benchmark', resolution=64, align='none')
    assert targets.names == ['horse', 'dog', 'cat', 'hen'] and not targets.skipped
    assert targets.sources[0]['sha256'] == digest(pictures['horse'])


def test_a_damaged_picture_is_made_again_and_a_complete_cache_needs_no_package(made):
    pictures, wheel, brought = made
    files = dict(data.find('benchmark').files)
    for damaged in (b'', pictures['cat'][:-1], pictures['hen']):
        files['cat'].write_bytes(damaged)
        assert dict(data.find('benchmark').files)['cat'].read_bytes() == pictures['cat']
    wheel.unlink()
    brought.unlink()
    assert dict(data.find('benchmark').files) == files


def test_a_package_that_cannot_be_had_is_one_line(made, monkeypatch):
    _, wheel, brought = made
    brought.unlink()
    monkeypatch.setenv('PATH', str(wheel.parent))  # without apt-get
    listing = data.find('benchmark')
    assert [name for name, _ in listing.files] == ['dog', 'cat']
    (entry,) = listing.skipped
    assert entry['file'] == 'benchmark:jaxinv-animals' and '\n' not in entry['reason']
    assert entry['reason'] == (
        'The 2 pictures of the package jaxinv-animals cannot be had: there is no apt-get to fetch '
        'the Debian package jaxinv-animals; take animals_1_all.deb from a mirror or an archive of '
        f'Debian and put it into {brought.parent}.'
    )
    brought.write_bytes(b'another package')
    (entry,) = data.find('benchmark').skipped
    assert 'animals_1_all.deb has another SHA-256' in entry['reason']


@pytest.mark.skipif(os.name != 'posix', reason='the program is a shell script')
def test_apt_get_fetches_the_listed_version(made, monkeypatch, tmp_path):
    pictures, _, brought = made
    elsewhere = brought.rename(tmp_path / brought.name)
    program = tmp_path / 'bin' / 'apt-get'
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\n[ "$*" = "download --quiet jaxinv-animals=1:1" ] || exit 1\n'
        f'[ -e {elsewhere} ] || {{ echo "E: Version was not found" >&2; exit 100; }}\n'
        f'cp {elsewhere} .\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv('PATH', f'{program.parent}:/usr/bin:/bin')
    assert dict(data.find('benchmark').files)['hen'].read_bytes() == pictures['hen']
    for path in (tmp_path / 'cache').rglob('*.*'):
        if path.suffix in ('.rcc', '.webp'):
            path.unlink()
    elsewhere.unlink()
    (entry,) = data.find('benchmark').skipped
    assert 'could not download jaxinv-animals 1:1 (E: Version was not found)' in entry['reason']


def test_another_picture_in_the_package_is_refused(made):
    register = json.loads(benchmark.REGISTER.read_text())
    register['pictures'][0]['sha256'] = '0' * 64
    benchmark.REGISTER.write_text(json.dumps(register))
    benchmark.register.cache_clear()
    (entry,) = data.find('benchmark').skipped
    assert 'horse in usr/share/animals.rcc has another SHA-256' in entry['reason']


def test_the_set_as_a_folder(made, tmp_path, capsys):
    pictures, wheel, brought = made
    place = tmp_path / 'set'
    assert benchmark_folder.main([str(place)]) == 0
    assert (place / 'animals' / 'cat.ppm').read_bytes() == pictures['cat']
    assert len(list((place / 'animals').iterdir())) == 4
    assert read_json(place / 'register.json')['pictures'][0]['name'] == 'horse'
    assert f'4 pictures are in {place}.' in capsys.readouterr().out


def test_resources_of_qt_are_read():
    files = {('a', 'plain.txt'): (b'one', False), ('b', 'packed.txt'): (b'two' * 99, True)}
    expected = {'a/plain.txt': b'one', 'b/packed.txt': b'two' * 99}
    assert qt_resources.read(rcc(files)) == expected
    with pytest.raises(ValueError, match='qres'):
        qt_resources.read(b'PK' + bytes(40))
    with pytest.raises(ValueError, match='format 9'):
        qt_resources.read(b'qres' + struct.pack('>4I', 9, 20, 20, 20) + bytes(40))


def test_a_wheel_for_one_platform_is_asked_for_by_its_tags():
    name = 'a_b-1.0-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl'
    assert registries._tags(name) == [
        '--only-binary=:all:',
        '--implementation=cp',
        '--abi=cp311',
        '--python-version=3.11',
        '--platform=manylinux_2_27_x86_64',
        '--platform=manylinux_2_28_x86_64',
    ]
    assert registries._tags('a_b-1.0-py3-none-any.whl') == registries._tags('') == []


@pytest.mark.long
def test_the_photographs_of_pypi_are_in_its_packages(monkeypatch, tmp_path):
    monkeypatch.setenv('JAXINV_CACHE', str(tmp_path))
    packages, pictures = benchmark.register()
    for package in packages:
        own = [picture for picture in pictures if picture.package == package]
        if packages[package]['index'] == 'pypi':
            for picture, path in zip(own, benchmark.files(own), strict=True):
                assert sha256(path) == picture.sha256
                assert images.read(path).size == picture.size


# --- Changes --------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def face():
    """A smooth square picture, uint8 [96, 96, 3]."""
    y, x = np.mgrid[:96, :96] / 95
    return np.rint(np.stack([200 * x + 40, 180 * y + 50, 120 + 80 * x * y], -1)).astype(np.uint8)


@pytest.mark.parametrize('index', range(len(out_of_domain.CHANGES)))
def test_a_change_is_seeded_and_stays_in_its_mask(face, index):
    styles = set()
    for turn in range(4):
        number = index + turn * len(out_of_domain.CHANGES)
        change = out_of_domain.change(number, face, np.random.default_rng([0, index]))
        again = out_of_domain.change(number, face, np.random.default_rng([0, index]))
        assert np.array_equal(change.image_uint8, again.image_uint8)
        assert np.array_equal(change.mask, again.mask) and change.facts == again.facts
        assert change.image_uint8.dtype == np.uint8 and change.image_uint8.shape == face.shape
        assert np.array_equal(change.image_uint8[~change.mask], face[~change.mask])
        differs = (change.image_uint8 != face).any(-1)
        assert 0.02 < change.mask.mean() and differs[change.mask].mean() > 0.5
        json.dumps(change.facts, allow_nan=False)
        styles.add(change.facts.get('style'))
    assert len(styles) == {'hat': 2, 'make_up': 4, 'glasses': 2}.get(change.kind, 1)
    other = out_of_domain.change(number, face, np.random.default_rng([99, index]))
    assert not np.array_equal(other.image_uint8, change.image_uint8)


@pytest.mark.parametrize('kind', ['hat', 'make_up', 'glasses', 'face_mask'])
def test_what_is_drawn_is_where_it_belongs(face, kind):
    """The rows that each changes: the hat above the eyes, the face mask below them."""
    rows = {
        'hat': (0, 0.47),
        'glasses': (0.36, 0.6),
        'face_mask': (0.48, 0.97),
        'make_up': (0.2, 0.95),
    }
    for turn in range(8):
        changed = out_of_domain.CHANGES[kind](face, np.random.default_rng(turn), turn)[0]
        plain = np.abs(changed.astype(int) - face).max(-1) > 25  # not the end of a shadow
        inside = np.flatnonzero(plain.any(1)) / len(face)
        assert rows[kind][0] <= inside.min() and inside.max() <= rows[kind][1]


def test_an_occluder_covers_the_face(face):
    oval = drawing.ellipse(len(face), *out_of_domain.FACE) > 0.5
    for seed in range(5):
        changed, mask, facts = out_of_domain.occluder(face, np.random.default_rng(seed), 0)
        assert facts['covers'] >= out_of_domain.MIN_COVERED and mask[oval].mean() >= facts['covers']
        # The same piece as in the training pictures: cover() gives what occlude() does.
        one, two = (np.random.default_rng(seed) for _ in range(2))
        assert np.array_equal(occluders.cover(face, one)[0], occluders.occlude(face, two))


def test_a_crop_is_where_its_numbers_say(face):
    """A slow bilinear reference of a few pixels of a nearer crop."""
    changed, _, facts = out_of_domain.crop(face, np.random.default_rng(0), 0)
    matrix, offset = np.array(facts['matrix']), np.array(facts['offset'])
    assert facts['scale'] > 1 and abs(np.linalg.det(matrix)) == pytest.approx(
        facts['scale'] ** -2, rel=1e-3
    )
    compared = 0
    for row, column in itertools.product(range(0, 96, 5), repeat=2):
        y, x = matrix @ (row, column) + offset
        if 0 <= y < 95 and 0 <= x < 95:
            i, j = int(y), int(x)
            corners = face[i : i + 2, j : j + 2].astype(float)
            top = corners[0, 0] * (1 - (x - j)) + corners[0, 1] * (x - j)
            bottom = corners[1, 0] * (1 - (x - j)) + corners[1, 1] * (x - j)
            expected = top * (1 - (y - i)) + bottom * (y - i)
            assert np.abs(changed[row, column] - expected).max() <= 0.6
            compared += 1
    assert compared > 200
    farther, _, facts = out_of_domain.crop(face, np.random.default_rng(0), 1)
    ground = (farther == farther[0, 0]).all(-1).mean()  # one grey around the turned square
    assert facts['scale'] < 1 and ground > 0.3 and len(set(farther[0, 0].tolist())) == 1


def test_light_follows_its_formula(face):
    """The gain along the direction, of a few pixels one by one, in linear light."""
    rng = np.random.default_rng(3)
    changed, _, _ = out_of_domain.light(face, rng, 0)
    again = np.random.default_rng(3)
    angle, strength = again.uniform(0, 2 * np.pi), again.uniform(2.2, 2.8)
    tint = 1 + 0.8 * again.uniform(-1, 1, 3)
    for row, column in ((0, 0), (95, 95), (30, 60), (47, 50), (55, 40)):
        x, y = (column + 0.5) / 96 - 0.5, (row + 0.5) / 96 - 0.5
        along = min(max(6 * (x * np.cos(angle) + y * np.sin(angle)), -1), 1)
        for channel in range(3):
            linear = (face[row, column, channel] / 255) ** 2.2 * np.exp(strength * along)
            linear *= tint[channel] ** max(along, 0)
            expected = 255 * min(linear, 1) ** (1 / 2.2)
            assert abs(changed[row, column, channel] - expected) <= 0.5 + 1e-6


def test_shapes_have_their_area_and_turn_clockwise():
    side = 200
    whole = drawing.ellipse(side, 0.5, 0.4, 0.3, 0.2)
    assert whole.mean() == pytest.approx(np.pi * 0.3 * 0.2, rel=0.01)
    square = drawing.polygon(side, drawing.box(0.25, 0.1, 0.75, 0.4))
    assert square.mean() == pytest.approx(0.5 * 0.3, rel=0.03)
    for shape in (
        drawing.ellipse(side, 0.9, 0.5, 0.05, 0.05, degrees=90),
        drawing.polygon(side, drawing.box(0.85, 0.45, 0.95, 0.55), degrees=90),
    ):
        rows, columns = np.nonzero(shape > 0.5)  # from the right to the bottom
        assert (rows.mean() + 0.5) / side == pytest.approx(0.9, abs=0.01)
        assert (columns.mean() + 0.5) / side == pytest.approx(0.5, abs=0.01)


# --- Generated faces ------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def faces(tiny, tmp_path_factory):
    """A folder of nine faces of the tiny generator."""
    place = tmp_path_factory.mktemp('faces')
    benchmark_faces.make(place, *tiny, 9, seed=5)
    return place


def test_the_code_and_the_clean_picture_are_the_truth(faces, tiny):
    generator, weights = tiny
    record = read_json(faces / 'record.json')
    names, w = code_files.load_pivots(faces / 'pivots.npz')
    assert names == [face['name'] for face in record['faces']] == benchmark_faces.names(9)
    assert names[0] == 'generated_00_occluder' and names[8] == 'generated_08_occluder'
    assert w.shape == (9, 1, generator.spec.w_dim)
    expected = pixels.to_uint8(rendering.render(generator, weights, w))
    for i, face in enumerate(record['faces']):
        changed, clean, mask = (
            np.asarray(PIL.Image.open(faces / kind / f'{face["name"]}.png'))
            for kind in benchmark_faces.FOLDERS
        )
        assert np.abs(clean.astype(int) - expected[i]).max() <= 1
        assert np.array_equal(changed[mask == 0], clean[mask == 0])
        assert not np.array_equal(changed, clean) and face['changed'] == round((mask > 0).mean(), 4)


def test_a_face_does_not_depend_on_the_number_of_faces(faces, tiny, tmp_path):
    benchmark_faces.make(tmp_path, *tiny, 3, seed=5)
    for name in benchmark_faces.names(3):
        for kind in benchmark_faces.FOLDERS:
            file = f'{kind}/{name}.png'
            assert (tmp_path / file).read_bytes() == (faces / file).read_bytes()
    few = code_files.load_pivots(tmp_path / 'pivots.npz')[1]
    assert np.array_equal(few, code_files.load_pivots(faces / 'pivots.npz')[1][:3])
    other = tmp_path / 'other'
    benchmark_faces.make(other, *tiny, 1, seed=6)
    assert (
        read_json(other / 'record.json')['faces'] != read_json(faces / 'record.json')['faces'][:1]
    )


def test_the_set_is_made_once_and_again_if_it_is_damaged(tiny, tmp_path, monkeypatch):
    made = []
    monkeypatch.setenv('JAXINV_CACHE', str(tmp_path))
    monkeypatch.setattr(benchmark_faces, 'PER_CHANGE', 1)
    monkeypatch.setattr(zoo, 'load_named', lambda name: made.append(name) or tiny)
    found = data.find('benchmark:generated')
    assert len(found.files) == len(out_of_domain.CHANGES) and not found.skipped
    assert data.find('benchmark:generated') == found and len(made) == 1
    damaged = found.files[3][1].parents[1] / 'masks' / found.files[3][1].name
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1])
    assert data.find('benchmark:generated') == found and len(made) == 2
    assert damaged.read_bytes() == content
    # Aligned already: a random generator's pictures have no face that could be found.
    targets = data.load_images('benchmark:generated', resolution=32)
    assert targets.names == [name for name, _ in found.files] and not targets.skipped
    expected = np.asarray(PIL.Image.open(found.files[0][1]))
    assert np.array_equal(targets.images_uint8[0], expected) and targets.sources[0]['face'] is None


def test_weights_that_cannot_be_had_are_one_line(monkeypatch, tmp_path):
    def refuse(name):
        raise assets.AssetError('pip could not download random-face; check the network.')

    monkeypatch.setenv('JAXINV_CACHE', str(tmp_path))
    monkeypatch.setattr(zoo, 'load_named', refuse)
    listing = data.find('benchmark:generated')
    reason = 'The generated faces cannot be made: pip could not download random-face; check the '
    assert listing.skipped == [{'file': 'benchmark:generated', 'reason': reason + 'network.'}]
    assert not listing.files
