"""Age, smile and yaw: signs, scales and symmetry, on portraits and on synthetic landmarks."""

import numpy as np
import pytest

from jaxinv import data, faces
from jaxinv.faces import attributes


@pytest.fixture(scope='module')
def portraits():
    return data.load_images('demo', resolution=256).images_uint8


@pytest.fixture(scope='module')
def measured(portraits):
    blank = np.zeros((1, 256, 256, 3), np.uint8)
    return attributes.measure(np.concatenate([portraits, portraits[:, :, ::-1], blank]))


def test_neutral_and_smiling_portraits_are_far_apart(measured):
    grace, eileen, grace_mirrored, eileen_mirrored, _ = measured['smile']
    assert abs(grace) < 0.3 and 0.8 < eileen < 1.4
    assert abs(grace - grace_mirrored) < 0.2 and abs(eileen - eileen_mirrored) < 0.2


def test_frontal_portraits_have_little_yaw_and_mirroring_negates_it(measured):
    yaw = measured['yaw'][:4]
    assert (np.abs(yaw) < 6).all()
    assert np.abs(yaw[:2] + yaw[2:]).max() < 3


def test_ages_are_plausible(measured):
    grace, eileen = measured['age'][:2]
    assert 65 < grace <= 80 and 24 < eileen < 45


def test_no_face_is_nan_everywhere(measured):
    for name in ('age', 'smile', 'yaw'):
        assert measured[name].dtype == np.float64 and measured[name].shape == (5,)
        assert np.isnan(measured[name]).tolist() == [False] * 4 + [True]


def test_an_empty_batch_gives_empty_arrays():
    empty = attributes.measure(np.zeros((0, 64, 64, 3), np.uint8))
    assert {name: values.shape for name, values in empty.items()} == dict.fromkeys(empty, (0,))


def landmarks_of(yaw, pitch=0.0, roll=0.0, mouth=1.0, lift=0.0):
    """Landmarks of the rotated model head; mouth and lift move the corners of the mouth."""
    head = {k: np.array(v, float) for k, v in attributes._HEAD.items()}
    centre = (head[48] + head[54]) / 2 + [0, 0, 6]
    for k in (48, 54):
        head[k] = head[k] * [mouth, 1, 1] - [0, lift, 0]
    points = np.zeros((68, 3))
    for k, v in head.items():
        points[k] = v
    for k in (37, 38, 40, 41):  # eyelids: the eye's centre
        points[k] = (head[36] + head[39]) / 2
    for k in (43, 44, 46, 47):
        points[k] = (head[42] + head[45]) / 2
    points[[62, 66]] = centre
    a, b, c = np.radians([yaw, pitch, roll])
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    nod = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    tilt = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return (points @ (tilt @ nod @ turn).T)[:, :2] * 3 + 250


@pytest.mark.parametrize('pitch', [-10, 0, 10])
@pytest.mark.parametrize('roll', [-15, 0, 15])
@pytest.mark.parametrize('yaw', [-40, -28, 0, 15, 40])
def test_yaw_of_a_rotated_head_is_recovered(yaw, pitch, roll):
    # With pitch and roll, yaw about the picture's axis and about the head's axis differ.
    exact = pitch == roll == 0
    assert attributes.yaw(landmarks_of(yaw, pitch, roll)) == pytest.approx(
        yaw, abs=1e-6 if exact else 10
    )


def test_positive_yaw_moves_the_nose_to_the_right():
    ahead, turned = landmarks_of(0), landmarks_of(20)
    assert turned[30, 0] > ahead[30, 0]
    assert attributes.yaw(turned) > 15
    assert attributes.yaw(faces.mirror(turned, 512)) == pytest.approx(-attributes.yaw(turned))


def test_smile_grows_with_width_and_lift_and_not_with_yaw_or_size():
    neutral = attributes.smile(landmarks_of(0))
    assert attributes.smile(landmarks_of(0, mouth=1.2)) > neutral + 0.5
    assert attributes.smile(landmarks_of(0, lift=8)) > neutral + 0.1
    for yaw in (-35, 35):
        assert attributes.smile(landmarks_of(yaw)) == pytest.approx(neutral, abs=0.1)
    assert attributes.smile(landmarks_of(0) * 0.1) == pytest.approx(neutral)
