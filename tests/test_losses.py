"""Losses and schedules against slow, obvious NumPy versions and the official code's figures."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinv import errors
from jaxinv.inversion import losses
from jaxinv.optimize import schedules

GOLDEN = np.load(pathlib.Path(__file__).parent / 'data' / 'pti.npz')
SIZES = (4, 8, 16, 32, 64, 128)


def golden_maps():
    return {str(r): jnp.asarray(GOLDEN[f'noise_reg/in/{r}'])[None, ..., None] for r in SIZES}


def slow_noise_regularization(noise):
    total = 0.0
    for row in noise:
        row = row.astype(np.float64)
        while True:
            h, w = row.shape
            down = sum(row[y, x] * row[(y - 1) % h, x] for y in range(h) for x in range(w))
            right = sum(row[y, x] * row[y, (x - 1) % w] for y in range(h) for x in range(w))
            total += (down / (h * w)) ** 2 + (right / (h * w)) ** 2
            if h <= 8:
                break
            row = np.array(
                [[row[y : y + 2, x : x + 2].mean() for x in range(0, w, 2)] for y in range(0, h, 2)]
            )
    return total


def test_l2_is_the_mean_over_pixels_and_channels():
    a, b = np.random.RandomState(0).randn(2, 3, 4, 5, 3)
    slow = [
        np.mean([(p - q) ** 2 for p, q in zip(x.flat, y.flat, strict=True)])
        for x, y in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(losses.l2(a, b), slow, rtol=1e-5)


def test_noise_regularization_matches_slow_version():
    maps = np.random.RandomState(1).randn(2, 32, 32).astype(np.float32)
    other = np.random.RandomState(2).randn(2, 4, 4).astype(np.float32)
    result = losses.noise_regularization({'a': maps[..., None], 'b': other[..., None]})
    slow = [slow_noise_regularization([maps[i], other[i]]) for i in range(2)]
    np.testing.assert_allclose(result, slow, rtol=1e-5)


@pytest.mark.long
def test_noise_regularization_matches_official_figures():
    total, gradients = jax.value_and_grad(lambda n: losses.noise_regularization(n)[0])(
        golden_maps()
    )
    np.testing.assert_allclose(total, GOLDEN['noise_reg/total'], rtol=1e-5)
    for i, r in enumerate(SIZES):
        alone = losses.noise_regularization({'n': golden_maps()[str(r)]})
        np.testing.assert_allclose(alone, GOLDEN['noise_reg/per_map'][i], rtol=1e-5)
        if r <= 32:
            expected = GOLDEN[f'noise_reg/grad/{r}']
            scale = np.abs(expected).max()
            np.testing.assert_allclose(
                gradients[str(r)][0, ..., 0] / scale, expected / scale, atol=1e-5
            )


def test_normalize_noise_matches_official_figures():
    result = losses.normalize_noise(golden_maps())
    for r in (4, 8, 16, 32):
        np.testing.assert_allclose(
            result[str(r)][0, ..., 0], GOLDEN[f'noise_reg/normalised/{r}'], atol=2e-6
        )


@pytest.mark.parametrize('name,steps', [('pti_projector_450', 450), ('pti_projector_10', 10)])
def test_schedules_match_official_tables(name, steps):
    t = np.arange(steps) / steps
    lr = 0.01 * schedules.learning_rate_ramp(t)
    np.testing.assert_allclose(lr, GOLDEN[f'schedule/{name}/lr'], atol=1e-8)
    noise = 0.05 * schedules.latent_noise_ramp(t)
    np.testing.assert_allclose(noise, GOLDEN[f'schedule/{name}/w_noise_over_w_std'], atol=1e-8)


def test_learning_rate_starts_at_zero_and_returns_to_it():
    ramp = schedules.learning_rate_ramp(np.array([0.0, 0.05, 0.5, 0.75, 1.0]))
    np.testing.assert_allclose(ramp, [0, 1, 1, 1, 0], atol=1e-6)


def slow_locality_codes(pivot, w, alpha, norm, num_ws):
    rows = np.tile(pivot, (num_ws // len(pivot), 1))
    direction = w[None] - rows
    if norm == 'all_layers':
        direction = direction / np.sqrt((direction**2).sum())
    else:
        direction = np.stack([d / np.sqrt((d**2).sum()) for d in direction])
    return (rows + alpha * direction)[: len(pivot)]


@pytest.mark.parametrize('norm', ['w', 'all_layers'])
@pytest.mark.parametrize('rows', [1, 4])
def test_locality_codes_match_slow_version(norm, rows):
    rng = np.random.RandomState(3)
    pivots, w = rng.randn(2, rows, 5), rng.randn(2, 3, 5)
    result = losses.locality_codes(jnp.array(pivots), jnp.array(w), 30.0, norm, 4)
    slow = [
        slow_locality_codes(pivots[i], w[i, j], 30.0, norm, 4) for i in range(2) for j in range(3)
    ]
    np.testing.assert_allclose(result, slow, rtol=2e-5, atol=2e-5)


def test_locality_codes_match_official_figures():
    # The official tensors carry one equal row a layer; ours is the single W row.
    pivot = GOLDEN['in/pivots'][0].reshape(-1, GOLDEN['in/pivots'].shape[-1])[:1]
    sample = GOLDEN['reg/w_sample'].reshape(-1, pivot.shape[-1])[:1]
    morphed = GOLDEN['reg/morphed_w'].reshape(-1, pivot.shape[-1])
    result = losses.locality_codes(
        jnp.array(pivot)[None], jnp.array(sample)[None], 30.0, 'all_layers', len(morphed)
    )
    np.testing.assert_allclose(result[0, 0], morphed[0], rtol=1e-5, atol=1e-5)


def test_unknown_locality_norm_is_named():
    with pytest.raises(errors.JaxinvError, match="'l1'"):
        losses.locality_codes(jnp.zeros([1, 1, 2]), jnp.ones([1, 1, 2]), 1.0, 'l1', 4)
