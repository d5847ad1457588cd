"""Face detection on the two demo portraits, and on pictures without a face."""

import matplotlib
import numpy as np
import PIL.Image
import pytest
import skimage.data

from jaxinv import faces
from jaxinv.data import images
from jaxinv.faces import align


@pytest.fixture(scope='module')
def grace():
    return images.read(f'{matplotlib.get_data_path()}/sample_data/grace_hopper.jpg')


@pytest.fixture(scope='module')
def eileen():
    return PIL.Image.fromarray(skimage.data.astronaut())


@pytest.fixture(scope='module')
def aligned(grace, eileen):
    crops = [align.align(p, faces.find_faces(p)[0].landmarks, 256) for p in (grace, eileen)]
    return np.stack(crops)


def test_finds_the_one_face_and_not_the_false_alarm_in_the_suit(grace, eileen):
    (face,) = faces.find_faces(grace)
    left, top, right, bottom = face.box
    assert 150 < left < 200 and 340 < right < 400 and face.score > 1
    assert face.landmarks.shape == (68, 2)
    # dlib alone sees a second face on the space suit, at (175, 380).
    for angle in (0, -20, 10, 20):
        matches = faces.find_faces(eileen.rotate(angle), thorough=True)
        assert len(matches) == 1, angle
    assert faces.find_faces(eileen)[0].landmarks[30] == pytest.approx([222, 125], abs=8)


@pytest.mark.parametrize('turns', [1, 2, 3])
def test_rotated_pictures_give_the_same_aligned_face(eileen, aligned, turns):
    rotated = PIL.Image.fromarray(np.ascontiguousarray(np.rot90(np.asarray(eileen), turns)))
    crop = align.align(rotated, faces.find_faces(rotated)[0].landmarks, 256)
    assert np.abs(np.asarray(crop, float) - aligned[1]).mean() < 12


def test_several_faces_come_largest_first(grace, eileen):
    group = PIL.Image.new('RGB', (1000, 620), (90, 110, 100))
    group.paste(eileen.resize((360, 360)), (20, 20))
    group.paste(grace, (450, 10))
    matches = faces.find_faces(group, thorough=True)
    assert len(matches) == 2
    assert matches[0].box[0] > 450 > matches[1].box[2]


def test_a_face_cut_by_the_edge_is_found(grace):
    assert len(faces.find_faces(grace.crop((170, 140, 380, 340)))) == 1


@pytest.mark.parametrize('size', [(1, 1), (5000, 1), (1, 5000), (31, 500), (33, 700)])
def test_narrow_pictures_hold_no_face(size):
    assert faces.find_faces(PIL.Image.new('RGB', size)) == []


def test_things_are_not_faces():
    for name in ('coffee', 'rocket'):
        assert faces.find_faces(PIL.Image.fromarray(getattr(skimage.data, name)())) == []


def test_landmarks_of_an_aligned_face_are_at_their_aligned_positions(aligned):
    for crop in aligned:
        landmarks = faces.landmarks_aligned(crop)
        assert faces.misalignment(landmarks, (256, 256)) < 0.05


def test_mirrored_faces_have_mirrored_landmarks(aligned):
    for crop in aligned:
        there = faces.landmarks_aligned(crop)
        back = faces.mirror(faces.landmarks_aligned(crop[:, ::-1]), 256)
        assert np.abs(there - back).mean() < 2
        np.testing.assert_allclose(faces.mirror(faces.mirror(there, 256), 256), there)


def test_landmarks_are_none_without_an_aligned_face(aligned):
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    assert faces.landmarks_aligned(noise) is None
    assert faces.landmarks_aligned(np.zeros_like(noise)) is None
    small = np.full((512, 512, 3), 127, np.uint8)
    small[:256, :256] = aligned[0]  # a face, but in a corner at half the size
    assert faces.landmarks_aligned(small) is None
    with pytest.raises(ValueError, match='float64'):
        faces.landmarks_aligned(noise / 255)
    with pytest.raises(ValueError, match=r'\(256, 256\)'):
        faces.landmarks_aligned(noise[..., 0])


def test_identity_distance_tells_people_apart(aligned):
    mirrored = aligned[:, :, ::-1]
    blank = np.zeros((1, 256, 256, 3), np.uint8)
    grace, eileen, grace_2, eileen_2, blank_vector = faces.embed(
        np.concatenate([aligned, mirrored, blank])
    )
    same = faces.identity_distance(np.stack([grace, eileen]), np.stack([grace_2, eileen_2]))
    assert (same < 0.4).all()
    assert faces.identity_distance(grace, eileen) > faces.SAME_PERSON
    assert np.isnan(blank_vector).all() and np.isnan(faces.identity_distance(grace, blank_vector))
    assert faces.embed(np.zeros((0, 64, 64, 3), np.uint8)).shape == (0, 128)
