"""Segments: parts of a portrait, joined superpixels, and label maps of users."""

import numpy as np
import PIL.Image
import pytest
import skimage.data

from jaxinv import data
from jaxinv.errors import JaxinvError
from jaxinv.segmentation import label_maps, segment, superpixels


def assert_counted(found, shape):
    assert found.labels.shape == shape and found.labels.dtype == np.int32
    assert np.unique(found.labels).tolist() == list(range(len(found.names)))
    assert len(set(found.names)) == len(found.names)


@pytest.fixture(scope='module')
def portraits():
    images = data.load_targets('demo', 256).images_uint8
    return images, [segment.segment(image) for image in images]


def test_parts_of_portraits_are_where_people_see_them(portraits):
    # (y, x) at 256 pixels, looked up in the pictures by eye.
    seen = [
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
    images, found = portraits
    for image, portrait, places in zip(images, found, seen, strict=True):
        assert_counted(portrait, image.shape[:2])
        for name, points in places.items():
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
    found = segment.segment(image, parts=3)  # 'auto': there is no face
    assert_counted(found, (96, 120))
    assert found.names == ('part 1', 'part 2', 'part 3')
    for value in range(3):
        colors = image[found.labels == value].reshape(-1, 3)
        _, counts = np.unique(colors, axis=0, return_counts=True)
        assert counts.max() > 0.98 * counts.sum()


def test_joining_takes_the_cheapest_pair_first():
    found = superpixels.superpixels(skimage.data.chelsea()[::3, ::3], 40)
    members = np.arange(len(found.areas))
    parts = superpixels.join(found, members, 6)
    expected = np.array(slow_join(found, 6))
    assert len(set(parts)) == 6
    pairs = [(a, b) for a in members for b in members]
    assert all((parts[a] == parts[b]) == (expected[a] == expected[b]) for a, b in pairs)


def slow_join(found, parts):
    """The same from the definition, on sets."""
    groups = [{i} for i in range(len(found.areas))]

    def spread(group):
        group = sorted(group)
        areas, colors = found.areas[group], found.colors[group]
        mean = areas @ colors / areas.sum()
        return areas @ ((colors - mean) ** 2).sum(1)

    while len(groups) > parts:
        costs = {}
        for i, a in enumerate(groups):
            for j, b in enumerate(groups[:i]):
                if any((p in a and q in b) or (p in b and q in a) for p, q in found.pairs):
                    costs[i, j] = spread(a | b) - spread(a) - spread(b)
        i, j = min(costs, key=costs.get)
        groups[j] |= groups.pop(i)
    return [next(k for k, g in enumerate(groups) if i in g) for i in range(len(found.areas))]


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
        found = segment.segment(image, tmp_path / file)
        assert_counted(found, (40, 60))
        np.testing.assert_array_equal(found.labels, expected)
    assert segment.segment(image, tmp_path / 'a.npy').names[2] == 'segment 9'
    found = segment.segment(image, tmp_path / 'colors.png')
    np.testing.assert_array_equal(found.labels, np.array([0, 2, 1])[expected])  # red after green
    found = segment.segment(image, tmp_path, name='grey')
    np.testing.assert_array_equal(found.labels, expected)


def test_label_maps_that_cannot_be_used(tmp_path):
    image = np.zeros((40, 60, 3), np.uint8)
    np.save(tmp_path / 'floats.npy', np.zeros((40, 60)))
    np.save(tmp_path / 'objects.npy', np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / 'upright.npy', np.zeros((60, 40), int))
    np.save(tmp_path / 'many.npy', np.arange(2400).reshape(40, 60))
    (tmp_path / 'text.png').write_text('no picture')
    wrong = {
        'floats.npy': 'whole numbers',
        'objects.npy': 'not a readable .npy',
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
    with pytest.raises(JaxinvError, match='no face stands'):
        segment.segment(image, 'face')


def test_resized_segments_are_counted_anew():
    labels = np.zeros((40, 40), int)
    labels[20:] = 2
    labels[7, 7] = 1  # too small to survive
    found = label_maps.resize(label_maps.number(labels, {0: 'a', 1: 'b', 2: 'c'}), 10)
    assert_counted(found, (10, 10))
    assert found.names == ('a', 'c')
    assert segment.overlay(np.zeros((10, 10, 3), np.uint8), found).shape == (10, 10, 3)
