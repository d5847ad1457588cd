"""FFHQ alignment against figures of the published code (data/align.npz)."""

import pathlib

import numpy as np
import PIL.Image
import pytest
import skimage.data

from jaxinv.faces import align

GOLDENS = np.load(pathlib.Path(__file__).parent / 'data' / 'align.npz')
CASES = ('inside', 'border_rotated', 'shrink')


def golden(case):
    return {key.split('/')[1]: GOLDENS[key] for key in GOLDENS.files if key.startswith(case + '/')}


def photograph(case):
    if case == 'border_rotated':
        return PIL.Image.fromarray(GOLDENS['hopper'])
    image = PIL.Image.fromarray(skimage.data.astronaut())
    size = tuple(golden(case)['image_size'].tolist())
    return image if image.size == size else image.resize(size, PIL.Image.Resampling.BICUBIC)


@pytest.mark.parametrize('case', CASES)
def test_quads_are_ffhqs(case):
    g = golden(case)
    np.testing.assert_allclose(align.quad(g['landmarks']), g['quad'], rtol=1e-9)


@pytest.mark.parametrize('case', CASES)
def test_shrink_crop_and_pad_are_ffhqs(case):
    g = golden(case)
    canvas, corners = align.prepare(photograph(case), g['landmarks'], int(g['output_size']))
    assert canvas.size == tuple(g['canvas_size'])
    np.testing.assert_allclose(corners + 0.5, g['final_quad_plus_half'], rtol=1e-9)


@pytest.mark.parametrize('case', CASES)
def test_pixels_are_those_of_ptis_code_without_supersampling(case):
    g = golden(case)
    size = int(g['output_size'])
    aligned = np.asarray(align.align(photograph(case), g['landmarks'], size, supersample=1))
    index = np.arange(4096, dtype=np.uint64) * np.uint64(2654435761) % np.uint64(aligned.size)
    difference = aligned.reshape(-1)[index].astype(int) - g['aligned_sample']
    assert np.abs(difference).max() <= 2
    np.testing.assert_allclose(aligned.mean((0, 1)), g['aligned_mean_rgb'], atol=0.1)


def test_supersampling_keeps_the_picture_and_removes_aliasing():
    g = golden('inside')
    x, y = np.meshgrid(np.arange(1024), np.arange(1024))
    stripes = ((x + y) % 2 * 255).astype(np.uint8)
    checks = PIL.Image.fromarray(np.dstack([stripes] * 3))
    landmarks = g['landmarks'] * 2
    plain, smooth = (
        np.asarray(align.align(checks, landmarks, 128, supersample=s), float) for s in (1, 4)
    )
    # Pixel-wide checks must become grey at a third of the resolution; any contrast is aliasing.
    assert smooth.std() < 0.5 * plain.std()
    photo = photograph('inside')
    a, b = (
        np.asarray(align.align(photo, g['landmarks'], 64, supersample=s), float) for s in (1, 4)
    )
    assert np.abs(a - b).mean() < 4


@pytest.mark.parametrize('size', [1, 32, 100, 513])
def test_any_output_size(size):
    assert align.align(photograph('inside'), golden('inside')['landmarks'], size).size == (
        size,
        size,
    )


def test_quad_turns_and_scales_with_the_face():
    landmarks = golden('inside')['landmarks']
    turn = 3.0 * np.array([[0.6, -0.8], [0.8, 0.6]])
    moved = align.quad(landmarks @ turn.T + [5, -7])
    np.testing.assert_allclose(moved, align.quad(landmarks) @ turn.T + [5, -7], rtol=1e-9)
    assert align.side(moved) == pytest.approx(3 * align.side(align.quad(landmarks)))


def test_points_are_mapped_into_the_crop():
    landmarks = golden('inside')['landmarks']
    corners = align.quad(landmarks)
    np.testing.assert_allclose(
        align.into_crop(corners, corners, 100) + 0.5,
        [[0, 0], [0, 100], [100, 100], [100, 0]],
        atol=1e-9,
    )
    points = align.into_crop(landmarks, corners, 100)
    ideal = align.quad(points) + 0.5
    np.testing.assert_allclose(ideal, [[0, 0], [0, 100], [100, 100], [100, 0]], atol=1e-9)


def test_a_square_beyond_every_edge_is_filled_in():
    face = photograph('inside').crop((180, 80, 280, 180))
    aligned = align.align(face, golden('inside')['landmarks'] - [180, 80], 128)
    assert aligned.size == (128, 128) and np.asarray(aligned).std() > 20


def test_refusals_name_the_value():
    landmarks = golden('inside')['landmarks']
    photo = photograph('inside')
    with pytest.raises(ValueError, match=r'\(5, 2\)'):
        align.quad(landmarks[:5])
    with pytest.raises(ValueError, match='finite'):
        align.quad(np.full((68, 2), np.nan))
    with pytest.raises(ValueError, match='coincide'):
        align.quad(np.ones((68, 2)))
    with pytest.raises(ValueError, match='outside the picture'):
        align.align(photo, landmarks + 5000, 64)
    with pytest.raises(ValueError, match='size 0'):
        align.align(photo, landmarks, 0)
