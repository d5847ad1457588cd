"""Segments: parts of a portrait, merged superpixels, and label maps of users."""

import numpy as np
import PIL.Image
import pytest
import skimage.data

from jaxinv import data, settings
from jaxinv.errors import JaxinvError
from jaxinv.segmentation import label_maps, regions, segment, superpixels
from jaxinv.settings import declare


def assert_numbered(segments, shape):
    assert segments.labels.shape == shape and segments.labels.dtype == np.int32
    assert np.unique(segments.labels).tolist() == list(range(len(segments.names)))
    assert len(set(segments.names)) == len(segments.names)


@pytest.fixture(scope='module')
def portraits():
    images = data.load_images('demo', resolution=256).images_uint8
    return images, [segment.segment(image) for image in images]


def test_parts_of_portraits_are_at_annotated_points(portraits):
    # (y, x) at 256 pixels, annotated by hand.
    annotations = [
        {
            'hair or hat': [(20, 70), (15, 125), (60, 60), (60, 190)],  # white, badge, black
            'background right': [(40, 235), (160, 235)],
            'background left': [(100, 8), (200, 10)],  # the flag
            'face': [(90, 128), (165, 80), (210, 120)],
            'neck and clothes': [(250, 40), (240, 195)],
            'eyes': [(118, 95), (118, 160)],
            'nose': [(150, 130)],
            'mouth': [(187, 128)],
        },
        {
            'hair or hat': [(40, 120), (80, 40), (80, 215), (20, 170)],
            'background right': [(30, 245), (160, 240)],
            'background left': [(30, 15), (160, 20)],
            'face': [(95, 120), (160, 90), (225, 115)],
            'neck and clothes': [(245, 20), (215, 15)],  # the suit and its ring
            'mouth': [(185, 130)],
        },
    ]
    for image, portrait, annotated in zip(*portraits, annotations, strict=True):
        assert_numbered(portrait, image.shape[:2])
        for name, points in annotated.items():
            for point in points:
                assert portrait.names[portrait.labels[point]].startswith(name), (name, point)


def test_the_badge_on_the_hat_is_a_part_of_its_own(portraits):
    hopper = portraits[1][0]
    assert hopper.labels[15, 125] != hopper.labels[60, 60]


def test_borders_follow_the_picture():
    image = np.zeros((96, 120, 3), np.uint8)
    image[:, :50] = (200, 40, 40)
    image[:, 50:] = (40, 60, 200)
    image[60:, 30:90] = (240, 240, 60)
    segments = segment.segment(image, parts=3)  # 'auto': there is no face
    assert_numbered(segments, (96, 120))
    assert segments.names == ('part 1', 'part 2', 'part 3')
    for value in range(3):
        colors = image[segments.labels == value].reshape(-1, 3)
        _, counts = np.unique(colors, axis=0, return_counts=True)
        assert counts.max() > 0.98 * counts.sum()


@pytest.fixture(scope='module')
def cat():
    """About 40 superpixels of a picture."""
    return superpixels.slic(skimage.data.chelsea()[::3, ::3], 40)


def test_merging_takes_the_cheapest_pair_first(cat):
    members = np.arange(len(cat.areas))
    parts = superpixels.merge(cat, members, 6)
    expected = slow_merge(cat, 6)
    assert sorted(set(parts)) == list(range(6)) and parts[0] == 0
    pairs = [(a, b) for a in members for b in members]
    assert all((parts[a] == parts[b]) == (expected[a] == expected[b]) for a, b in pairs)


def test_regions_that_do_not_touch_are_merged_last(cat):
    i = int(np.bincount(cat.pairs.ravel()).argmax())
    neighbours = {int(x) for pair in cat.pairs if i in pair for x in pair}
    apart = next(k for k in range(len(cat.areas)) if k not in neighbours)
    j = next(iter(neighbours - {i}))
    assert superpixels.merge(cat, [apart, i, j], 2).tolist() == [0, 1, 1]
    assert superpixels.merge(cat, [apart, i, j], 1).tolist() == [0, 0, 0]
    assert superpixels.merge(cat, [apart], 3).tolist() == [0]


def test_merging_continues_while_it_costs_less_than_the_limit(cat):
    members = np.arange(len(cat.areas))
    assert superpixels.merge(cat, members, 6, least=np.inf).max() == 0
    counts = [superpixels.merge(cat, members, 6, least).max() + 1 for least in (0, 20, 200)]
    assert counts == sorted(counts, reverse=True) and counts[0] == 6 > counts[2]


def slow_merge(pixels, parts):
    """The same from the definition, on sets."""
    groups = [{i} for i in range(len(pixels.areas))]

    def spread(group):
        group = sorted(group)
        areas, colors = pixels.areas[group], pixels.colors[group]
        mean = areas @ colors / areas.sum()
        return areas @ ((colors - mean) ** 2).sum(1)

    while len(groups) > parts:
        costs = {}
        for i, a in enumerate(groups):
            for j, b in enumerate(groups[:i]):
                if any((p in a and q in b) or (p in b and q in a) for p, q in pixels.pairs):
                    costs[i, j] = spread(a | b) - spread(a) - spread(b)
        i, j = min(costs, key=costs.get)
        groups[j] |= groups.pop(i)
    return [next(k for k, g in enumerate(groups) if i in g) for i in range(len(pixels.areas))]


def test_label_maps_of_every_kind(tmp_path):
    image = np.zeros((40, 60, 3), np.uint8)
    labels = np.zeros((20, 30), np.uint8)
    labels[5:, 10:] = 7
    labels[12:, 20:] = 9
    palette = PIL.Image.fromarray(labels).convert('P')
    colors = np.array([[0, 0, 0]] * 7 + [[255, 0, 0]] * 2 + [[0, 255, 0]], np.uint8)[labels]
    np.save(tmp_path / 'a.npy', labels.astype(np.int64))
    PIL.Image.fromarray(labels).save(tmp_path / 'grey.png')
    PIL.Image.fromarray(labels.astype(np.uint16) * 256).save(tmp_path / 'deep.png')
    PIL.Image.fromarray(colors).save(tmp_path / 'colors.png')
    palette.save(tmp_path / 'palette.png')
    expected = np.kron(np.searchsorted([0, 7, 9], labels), np.ones((2, 2), int))
    for file in ('a.npy', 'grey.png', 'deep.png', 'palette.png'):
        segments = segment.segment(image, tmp_path / file)
        assert_numbered(segments, (40, 60))
        np.testing.assert_array_equal(segments.labels, expected)
    assert segment.segment(image, tmp_path / 'a.npy').names[2] == 'segment 9'
    segments = segment.segment(image, tmp_path / 'colors.png')
    np.testing.assert_array_equal(segments.labels, np.array([0, 2, 1])[expected])  # red after green
    segments = segment.segment(image, tmp_path, name='grey')
    np.testing.assert_array_equal(segments.labels, expected)


def test_label_maps_that_cannot_be_used(tmp_path):
    image = np.zeros((40, 60, 3), np.uint8)
    np.save(tmp_path / 'floats.npy', np.zeros((40, 60)))
    np.save(tmp_path / 'objects.npy', np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / 'upright.npy', np.zeros((60, 40), int))
    np.save(tmp_path / 'many.npy', np.arange(2400).reshape(40, 60))
    (tmp_path / 'text.png').write_text('no picture')
    wrong = {
        'floats.npy': 'whole numbers',
        'objects.npy': 'Python objects',
        'upright.npy': '40 x 60 labels for a picture of 60 x 40',
        'many.npy': '2400 labels',
        'text.png': 'not a readable PNG',
        'missing.png': 'neither one of auto, face, slic',
    }
    for file, message in wrong.items():
        with pytest.raises(JaxinvError, match=message):
            segment.segment(image, tmp_path / file)
    with pytest.raises(JaxinvError, match=r'neither someone.png nor someone.npy'):
        segment.segment(image, tmp_path, name='someone')
    with pytest.raises(JaxinvError, match='no FFHQ-aligned face'):
        segment.segment(image, 'face')


def test_resized_segments_are_renumbered():
    labels = np.zeros((40, 40), int)
    labels[20:] = 2
    labels[7, 7] = 1  # too small to survive
    segments = label_maps.resize(label_maps.number(labels, {0: 'a', 1: 'b', 2: 'c'}), 10)
    assert_numbered(segments, (10, 10))
    assert segments.names == ('a', 'c')
    assert segment.overlay(np.zeros((10, 10, 3), np.uint8), segments).shape == (10, 10, 3)


# --- Named regions ---


@pytest.fixture
def cat_and_person(monkeypatch):
    """A picture of 64 pixels whose classes are given: a person on the left, a cat on the right."""
    classes = np.zeros((64, 64), int)
    classes[8:, :32] = regions.OBJECTS.index('person') + 1
    classes[40:, 32:] = regions.OBJECTS.index('cat') + 1
    classes[:2, :64] = regions.OBJECTS.index('dog') + 1  # 3 %
    calls = []
    monkeypatch.setattr(regions, '_objects', lambda image: (calls.append(1), classes)[1])
    return np.zeros((64, 64, 3), np.uint8), classes, calls


def test_regions_are_segments_of_which_earlier_ones_cover_later_ones(cat_and_person, tmp_path):
    image, classes, calls = cat_and_person
    mask = np.zeros((32, 32), np.uint8)
    mask[16:, 8:24] = 255
    PIL.Image.fromarray(mask).save(tmp_path / 'mine.png')
    lines = []
    how = f'regions:{tmp_path}/mine.png, person,dog,cat'
    segment.check(how)
    segments = segment.segment(image, how, name='ann', log=lines.append)
    assert_numbered(segments, (64, 64))
    assert segments.names == ('mine.png', 'person', 'cat', 'rest') and len(calls) == 1
    mine = np.kron(mask > 0, np.ones((2, 2), bool))
    np.testing.assert_array_equal(segments.labels == 0, mine)
    np.testing.assert_array_equal(segments.labels == 1, (classes == 15) & ~mine)
    np.testing.assert_array_equal(segments.labels == 2, (classes == 8) & ~mine)
    (line,) = lines
    assert line.startswith("ann: no segment 'dog': 'dog' covers 3.1 % of ann, less than 5 %")


def test_a_region_that_is_not_there_or_covered_is_left_out(cat_and_person, monkeypatch):
    image, classes, _ = cat_and_person
    everything = np.full(classes.shape, regions.OBJECTS.index('person') + 1)
    monkeypatch.setattr(regions.faces, 'landmarks_aligned', lambda image: None)
    monkeypatch.setattr(regions, '_salient', lambda image: classes == 15)
    lines = []
    how = 'regions:mouth,person,foreground,cat'
    segments = segment.segment(image, how, name='ann', log=lines.append)
    assert segments.names == ('person', 'cat', 'rest') and len(lines) == 2
    assert 'no FFHQ-aligned face in ann' in lines[0]
    assert lines[1].startswith("ann: no segment 'foreground': less than 0.1 %")
    assert segment.segment(image, 'regions:mouth', log=lines.append).names == ('rest',)
    monkeypatch.setattr(regions, '_objects', lambda image: everything)
    assert segment.segment(image, 'regions:person').names == ('person',)  # nothing is left


def test_regions_that_cannot_be_used_are_named(cat_and_person, tmp_path):
    grey = tmp_path / 'grey.png'
    PIL.Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(grey)
    for how, words in {
        'regions:mouht': "no region 'mouht'. Did you mean 'mouth'",
        'regions:cat,none.png': 'there is no file none.png',
        'regions:cat,cat': "has 'cat' twice",
        'regions:': 'Regions: background, clothes',
        'region:cat': "Did you mean 'regions'",
        'face,hair': "Did you mean 'regions:face,hair'",
    }.items():
        with pytest.raises(JaxinvError, match=words):
            segment.check(how)
    with pytest.raises(JaxinvError, match='64 different values'):  # an error, not left out
        segment.segment(cat_and_person[0], f'regions:cat,{grey}')


def test_the_help_of_segments_lists_the_regions():
    (rule,) = [k.rule for k in declare.keys(settings.Segments) if k.name == 'how']
    words = rule.sentence.replace(',', ' ').split()
    assert all(name in words for name in regions.NAMES if name not in regions.OBJECTS)
