"""Face mesh, expressions and SFace on portraits: positions, signs, mirror images, gradients."""

import jax
import numpy as np
import pytest

from jaxinv import data, faces
from jaxinv.errors import JaxinvError
from jaxinv.faces import detect, geometry, mesh
from jaxinv.weights import graphs


@pytest.fixture(scope='module')
def pictures():
    """Grace Hopper, Eileen Collins, both mirrored, and a blank picture."""
    images = data.load_images('demo', resolution=256).images_uint8
    blank = np.zeros((1, 256, 256, 3), np.uint8)
    return np.concatenate([images, images[:, :, ::-1], blank])


@pytest.fixture(scope='module')
def points(pictures):
    return faces.landmarks478(pictures)


def test_landmarks_are_where_dlib_sees_them(pictures, points):
    assert points.shape == (5, 478, 3) and np.isnan(points[4]).all()
    for image, own in zip(pictures[:2], points, strict=False):
        other = detect.landmarks_aligned(image)
        pairs = ((61, 48), (291, 54), (1, 30), (152, 8), (33, 36), (263, 45))
        gaps = [np.hypot(*(own[a, :2] - other[b])) for a, b in pairs]
        assert max(gaps) < 9, gaps  # of 256 pixels
        eyes = other[36:42].mean(0), other[42:48].mean(0)
        for iris, eye in zip((468, 473), eyes, strict=True):
            assert np.hypot(*(own[iris, :2] - eye)) < 4


def test_expressions_tell_the_smile(points):
    scores = mesh.blendshapes_of(points)
    assert tuple(scores) == faces.BLENDSHAPES and len(scores) == 52
    grace, eileen, grace_mirrored, eileen_mirrored, blank = scores['mouthSmileLeft']
    assert max(grace, grace_mirrored) < 0.1 and min(eileen, eileen_mirrored) > 0.7
    assert np.isnan(blank)
    assert (scores['eyeBlinkLeft'][:4] < 0.3).all()


def test_geometry_of_both_sets_of_landmarks_agrees_and_mirrors(pictures, points):
    dense = [geometry.measure(one) for one in points[:4]]
    sparse = [geometry.measure(detect.landmarks_aligned(image)) for image in pictures[:4]]
    for name, tolerance in (('mouth_open', 5), ('eye_open', 8), ('brows', 6), ('lips', 6)):
        for a, b in zip(dense, sparse, strict=True):
            assert abs(a[name] - b[name]) < tolerance, name
    for first, second in ((0, 2), (1, 3)):
        assert abs(dense[first]['yaw'] + dense[second]['yaw']) < 4
        assert abs(dense[first]['pitch'] - dense[second]['pitch']) < 3
        assert abs(dense[first]['gaze'] + dense[second]['gaze']) < 4
    assert dense[1]['mouth_open'] > dense[0]['mouth_open'] + 5  # Collins shows her teeth


def turned(points, axis, degrees):
    """Landmarks turned about an axis: 0 = right, 1 = down."""
    a = np.radians(degrees)
    turn = np.eye(3)
    i, j = ((1, 2), (0, 2))[axis]
    turn[i, i] = turn[j, j] = np.cos(a)
    turn[i, j], turn[j, i] = np.sin(a), -np.sin(a)
    return points @ turn.T


def test_angles_follow_a_turned_head(points):
    # z is negative towards the viewer, so the nose goes right as z grows on the right.
    base = geometry.measure(points[0])
    left, right = (geometry.measure(turned(points[0], 1, a)) for a in (-20, 20))
    assert {np.sign(left['yaw'] - base['yaw']), np.sign(right['yaw'] - base['yaw'])} == {-1, 1}
    nose = [turned(points[0], 1, a)[1, 0] - turned(points[0], 1, a)[168, 0] for a in (-20, 20)]
    assert (nose[1] - nose[0]) * (right['yaw'] - left['yaw']) > 0
    assert abs(right['yaw'] - left['yaw']) == pytest.approx(40, abs=3)
    pitches = [geometry.measure(turned(points[0], 0, a))['pitch'] for a in (-15, 15)]
    rises = [turned(points[0], 0, a)[1, 1] - turned(points[0], 0, a)[234, 1] for a in (-15, 15)]
    assert (rises[1] - rises[0]) * (pitches[1] - pitches[0]) < 0  # up: the nose rises, y falls
    assert abs(pitches[1] - pitches[0]) == pytest.approx(30, abs=3)


@pytest.mark.long
def test_identity_tells_people_apart_and_not_mirror_images(pictures):
    vectors = faces.sface(pictures)
    assert np.isnan(vectors[4]).all()
    np.testing.assert_allclose(np.linalg.norm(vectors[:4], axis=1), 1, atol=1e-5)
    cosines = vectors @ vectors.T
    assert min(cosines[0, 2], cosines[1, 3]) > 0.9
    assert cosines[0, 1] < 0.4


@pytest.mark.long
def test_expressions_have_gradients_by_the_picture(pictures):
    networks = tuple(graphs.load(name) for name in ('landmarks478', 'blendshapes'))

    @jax.jit
    @jax.grad
    def gradient(images, networks):
        points, _ = mesh.points_of(networks[0], images)
        return mesh.scores_of(networks[1], points).sum()

    found = gradient(np.float32(pictures[:1]) / 127.5 - 1, networks)
    assert found.shape == (1, 256, 256, 3) and np.isfinite(found).all()
    assert np.abs(found).max() > 1e-5


def test_other_pictures_are_refused():
    for bad in (
        np.zeros((1, 8, 9, 3), np.uint8),
        np.zeros((1, 8, 8, 3)),
        np.zeros((8, 8, 3), 'u1'),
    ):
        with pytest.raises(JaxinvError, match='square uint8 pictures'):
            faces.landmarks478(bad)
    assert faces.landmarks478(np.zeros((0, 256, 256, 3), np.uint8)).shape == (0, 478, 3)


def test_an_unknown_network_says_what_there_is():
    with pytest.raises(JaxinvError, match='there are landmarks478, blendshapes'):
        graphs.find('clip')
