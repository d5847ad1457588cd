"""Measured maps, and from maps to masks: selection and soft masks against the official figures."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from jaxinv.errors import JaxinvError
from jaxinv.inversion import invertibility, masks, sam_prior
from jaxinv.networks import lpips
from jaxinv.settings import Prior, Search
from jaxinv.types import GeneratorSpec
from jaxinv.weights.networks import load_lpips

SPACES = ('W+', 'F4', 'F6', 'F8', 'F10')
SIZES = (16, 32, 64, 128)
SPEC = GeneratorSpec(
    'shapes only', 256, 8, 8, 14,
    feature_shapes=tuple((f, (n, n, 4)) for f, n in zip(SPACES[1:], SIZES, strict=True)),
)  # fmt: skip
TAUS = (0.15, 0.225, 0.3)


@functools.cache
def figures():
    with np.load(pathlib.Path(__file__).parent / 'data' / 'sam_masks.npz') as file:
        return dict(file)


def official():
    maps = {space: figures()[f'in/inv_{space}'][None] for space in SPACES}
    return maps, figures()['in/seg'][None].astype(np.int32)


def random_maps(b=2, size=24, segments=5, seed=0):
    rng = np.random.default_rng(seed)
    maps = {space: rng.random((b, size, size), np.float32) ** 2 for space in SPACES}
    return maps, rng.integers(0, segments, (b, size, size)).astype(np.int32)


@pytest.mark.parametrize('tau', TAUS)
def test_chosen_spaces_equal_the_official_ones(tau):
    chosen = invertibility.select(*official(), tau).chosen
    np.testing.assert_array_equal(chosen[0], figures()[f'tau{tau}/selected'])
    areas = invertibility.areas(chosen, len(SPACES))[0]
    np.testing.assert_allclose(areas, figures()[f'tau{tau}/area'], atol=1e-6)


def test_soft_masks_equal_the_official_ones():
    chosen = invertibility.select(*official(), 0.225).chosen
    soft = masks.soft_masks(chosen, SPEC, resample='lanczos')
    assert list(soft) == list(SPACES[1:])
    for space, mask in soft.items():
        np.testing.assert_allclose(mask[0, ..., 0], figures()[f'soft/{space}'], atol=1e-5)


@pytest.mark.parametrize('resample', masks.RESAMPLERS)
@pytest.mark.parametrize('size', [(7, 10), (24, 13), (30, 24)])
def test_masks_are_resized_as_pillow_does(resample, size):
    mask = (np.random.default_rng(0).random((1, 24, 24)) > 0.5).astype(np.float32)
    expected = PIL.Image.fromarray(mask[0]).resize(
        size[::-1], PIL.Image.Resampling[resample.upper()]
    )
    np.testing.assert_allclose(
        masks.resize_mask(jnp.asarray(mask), size, resample)[0], np.asarray(expected), atol=5e-6
    )


def test_the_most_editable_space_that_passes_is_chosen_for_every_segment():
    maps, labels = random_maps()
    valid = np.ones((*labels.shape, 1), np.float32)
    valid[:, :6] = 0
    valid[0, labels[0] == 3] = 0  # a segment that lies in the padding
    selection = invertibility.select(maps, labels, 0.33, valid)
    for i in range(len(labels)):
        for segment in range(5):
            inside = (labels[i] == segment) & (valid[i, ..., 0] > 0)
            means = [m[i][inside].mean() if inside.any() else 0 for m in maps.values()]
            passing = [k for k, mean in enumerate(means) if mean <= 0.33]
            chosen = np.unique(np.asarray(selection.chosen)[i][labels[i] == segment])
            assert chosen.tolist() == [passing[0] if passing else len(SPACES) - 1]
    refined = invertibility.refine(maps['F6'], labels, valid)
    place = SPACES.index('F6')
    np.testing.assert_allclose(refined[1], selection.means[1, place][labels[1]], rtol=1e-6)


def test_a_sweep_is_every_threshold_by_itself():
    maps, labels = random_maps(size=32)
    swept = invertibility.sweep(maps, labels, TAUS, SPEC)
    rows = invertibility.rows_of(swept.masks)
    for i, tau in enumerate(TAUS):
        chosen = invertibility.select(maps, labels, tau).chosen
        np.testing.assert_array_equal(swept.chosen[i], chosen)
        np.testing.assert_allclose(swept.areas[i], invertibility.areas(chosen, 5), atol=1e-6)
        for space, mask in masks.soft_masks(chosen, SPEC).items():
            np.testing.assert_allclose(rows[space][2 * i : 2 * i + 2], mask, atol=1e-6)


def test_without_refinement_and_by_class():
    maps, labels = random_maps(b=1)
    chosen = np.asarray(invertibility.select_pixels(maps, 0.3))[0]
    y, x = 3, 17
    passing = [k for k, m in enumerate(maps.values()) if m[0, y, x] <= 0.3]
    assert chosen[y, x] == (passing[0] if passing else 4)

    names = ('face', 'hair or hat 1', 'hair or hat 2', 'nose', 'background left')
    rule = {'face': 'W+', 'hair': 'F8', 'hair or hat 2': 'F4'}
    chosen = invertibility.assign(labels[0], names, rule, 'F6', SPACES)
    np.testing.assert_array_equal(chosen, np.array([0, 3, 1, 2, 2])[labels[0]])
    with pytest.raises(JaxinvError, match="'F5' is not one of"):
        invertibility.assign(labels[0], names, {'face': 'F5'}, 'F6', SPACES)


@pytest.mark.exhaustive
def test_measuring_moves_only_the_candidate_space(tiny):
    generator, weights = tiny
    targets = jax.random.uniform(jax.random.key(1), (2, 32, 32, 3), minval=-1)
    valid = jnp.ones((2, 32, 32, 1)).at[1, :16].set(0)
    prior = sam_prior.statistics(generator, weights, Prior(num_samples=100))
    nets = {net: load_lpips(net) for net in ('alex', 'vgg')}
    measured = invertibility.measure(
        generator,
        weights,
        nets,
        targets,
        weights['buffers']['w_avg'][None, None],
        np.arange(2, dtype=np.uint32),
        prior,
        Search(num_steps=12, lpips_net='alex', offsets='sum', offsets_weight=1e-6, chunk_steps=12),
        valid=valid,
    )
    assert list(measured.maps) == ['W+', 'F4', 'F6']
    for space, offset in measured.codes.offsets.items():
        moved = np.abs(np.asarray(offset)).max((1, 2, 3)).reshape(3, 2) > 0
        assert moved.all(1).tolist() == [s == space for s in measured.maps]
        assert not moved.any(1)[0]
    means = {space: np.asarray(m).mean((1, 2)) for space, m in measured.maps.items()}
    assert (means['F6'] < means['W+']).all()
    for space, values in measured.maps.items():
        assert values.shape == (2, 32, 32)
        images = jnp.where(valid > 0, jnp.clip(measured.images[space], -1, 1), targets)
        features = [lpips.features(nets['vgg'], x) for x in (images, targets)]
        np.testing.assert_allclose(values, lpips.spatial(*features, 32), atol=1e-5)


def test_spaces_and_sizes_that_do_not_fit_are_named():
    with pytest.raises(JaxinvError, match="'F12'"):
        invertibility.check_spaces(('W+', 'F12'), SPEC)
    assert invertibility.check_spaces(('F10', 'W+'), SPEC) == ('W+', 'F10')
    maps, labels = random_maps()
    with pytest.raises(JaxinvError, match='label_maps.resize'):
        invertibility.select(maps, labels[:, ::2], 0.2)
    with pytest.raises(JaxinvError, match='bilinear, lanczos'):
        masks.soft_masks(labels, SPEC, resample='cubic')
