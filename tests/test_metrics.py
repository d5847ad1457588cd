"""Metrics equal scikit-image and slow NumPy versions, in the ranges their docstrings promise."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import skimage.metrics

from jaxinv import metrics, pixels
from jaxinv.errors import JaxinvError
from jaxinv.weights.networks import load_lpips


def smooth(seed, size=48, batch=3):
    """Blurred noise of about [-1.2, 1.2], so that clipping matters."""
    noise = np.random.RandomState(seed).randn(batch, size, size, 3)
    noise = scipy.ndimage.gaussian_filter(noise, (0, 2, 2, 0))
    return (noise / np.abs(noise).max() * 1.2).astype(np.float32)


def unit(x):
    return np.clip((x.astype(np.float64) + 1) / 2, 0, 1)


@pytest.fixture(scope='module')
def pair():
    x = smooth(0)
    return x, (0.8 * x + 0.1 * smooth(1)).astype(np.float32)


def slow_ms_ssim(x, y, weights):
    """Wang et al. 2003 for one channel in float64, every window by hand."""
    window = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    window = np.outer(window, window) / window.sum() ** 2
    product = 1.0
    for scale, weight in enumerate(weights):
        full, contrast = [], []
        for i in range(x.shape[0] - 10):
            for j in range(x.shape[1] - 10):
                a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                spread = (window * ((a - mean_a) ** 2 + (b - mean_b) ** 2)).sum()
                shared = (window * (a - mean_a) * (b - mean_b)).sum()
                contrast.append((2 * shared + 0.03**2) / (spread + 0.03**2))
                light = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
                full.append(light * contrast[-1])
        last = scale == len(weights) - 1
        product *= max(np.mean(full if last else contrast), 0) ** weight
        x, y = (
            v[: len(v) // 2 * 2, : len(v) // 2 * 2].reshape(len(v) // 2, 2, -1, 2).mean((1, 3))
            for v in (x, y)
        )
    return product


@pytest.mark.parametrize('size', [25, pytest.param(48, marks=pytest.mark.exhaustive)])
def test_ms_ssim_equals_the_slow_version(size):
    x = smooth(2, size, 1)
    y = (0.7 * x + 0.2 * smooth(3, size, 1)).astype(np.float32)
    weights = np.array([0.0448, 0.2856, 0.3001][: 2 if size == 25 else 3])
    expected = [
        slow_ms_ssim(unit(x)[0, ..., c], unit(y)[0, ..., c], weights / weights.sum())
        for c in range(3)
    ]
    np.testing.assert_allclose(metrics.ms_ssim(x, y), [np.mean(expected)], atol=1e-5)


def test_ssim_equals_scikit_image(pair):
    full, _ = metrics.ssim_terms(*(jnp.asarray(unit(v), jnp.float32) for v in pair))
    for i in range(3):
        expected = skimage.metrics.structural_similarity(
            unit(pair[0])[i],
            unit(pair[1])[i],
            data_range=1.0,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        np.testing.assert_allclose(full[i].mean(), expected, atol=2e-5)


def test_ms_ssim_of_five_scales_is_monotone_and_bounded():
    x = smooth(4, 176, 1)
    ms_ssim = jax.jit(metrics.ms_ssim)
    values = [ms_ssim(x, x + s * smooth(5, 176, 1))[0] for s in (0, 0.1, 0.5, 2)]
    assert abs(values[0] - 1) < 1e-6 and all(np.diff(values) < 0) and values[-1] >= 0
    assert ms_ssim(x, -x)[0] == 0  # negative correlation counts as 0
    with pytest.raises(ValueError, match='at least 11 px, not 10x10'):
        metrics.ms_ssim(x[:, :10, :10], x[:, :10, :10])


def test_mse_and_psnr(pair):
    x, y = pair
    np.testing.assert_allclose(
        metrics.mse(x, y), ((x.astype(np.float64) - y) ** 2).mean((1, 2, 3)), rtol=1e-5
    )
    expected = [
        skimage.metrics.peak_signal_noise_ratio(unit(a), unit(b), data_range=1.0)
        for a, b in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(metrics.psnr(x, y), expected, rtol=1e-5)
    black, white = np.full((1, 16, 16, 3), -1.0), np.full((1, 16, 16, 3), 1.0)
    assert metrics.mse(black, white)[0] == 4 and metrics.psnr(black, white)[0] == 0
    assert np.isinf(metrics.psnr(black, black)[0])


@pytest.fixture(scope='module')
def weights():
    return {net: load_lpips(net) for net in ('alex', 'vgg')}


@pytest.mark.long
def test_evaluate_does_not_depend_on_the_microbatch(pair, weights):
    results = [metrics.evaluate(*pair, weights, microbatch=n) for n in (2, 3)]
    for name in ('lpips_alex', 'lpips_vgg', 'mse', 'psnr', 'ms_ssim'):
        values = [result[name] for result in results]
        assert values[0].shape == (3,) and isinstance(values[0], np.ndarray)
        np.testing.assert_allclose(*values, rtol=1e-4)
    expected = jax.jit(metrics.lpips_alex)(weights['alex'], *pair)
    np.testing.assert_allclose(results[0]['lpips_alex'], expected, rtol=1e-4)


def test_evaluate_without_networks_and_without_images(pair, weights):
    assert set(metrics.evaluate(*pair, {})) == {'mse', 'psnr', 'ms_ssim'}
    empty = metrics.evaluate(pair[0][:0], pair[1][:0], weights)
    assert tuple(empty) == metrics.METRICS
    assert all(x.shape == (0,) for x in empty.values())


def test_evaluate_takes_uint8_and_names_in_their_order(pair, weights):
    x, y = (pixels.to_uint8(v) for v in pair)
    names = metrics.SAM_METRICS
    found = metrics.evaluate(x, y, weights, names=names, microbatch=2)
    assert tuple(found) == names
    floats = [pixels.to_float(v, np) for v in (x, y)]
    expected = metrics.evaluate(*floats, weights, names=names, microbatch=2)
    for name in names:
        np.testing.assert_array_equal(found[name], expected[name])
    # 48 pixels are below 256: both sizes are the same.
    np.testing.assert_allclose(found['psnr_256'], found['psnr'], rtol=1e-6)
    np.testing.assert_allclose(found['lpips_vgg_full'], found['lpips_vgg'], rtol=1e-4)


@pytest.mark.long
def test_padding_does_not_count(pair, weights):
    x, y = pair
    valid = np.ones((3, 48, 48, 1), np.float32)
    valid[:, :12] = valid[:, 36:] = 0
    other = np.where(valid, y, 0.7)
    found, again = (
        metrics.evaluate(x, images, weights, valid, names=metrics.SAM_METRICS)
        for images in (y, other)
    )
    for name in metrics.SAM_METRICS:
        np.testing.assert_array_equal(found[name], again[name])
    inside = metrics.evaluate(x[:, 12:36], y[:, 12:36], {})
    for name in ('mse', 'psnr'):
        np.testing.assert_allclose(found[name], inside[name], rtol=1e-5)
    expected = metrics.evaluate(x, valid * y + (1 - valid) * x, weights)['lpips_alex'] * 2
    np.testing.assert_allclose(found['lpips_alex'], expected, rtol=1e-4)


def test_evaluate_holds_float_copies_of_a_microbatch_only(pair):
    images = np.zeros((64, 64, 64, 3), np.uint8)
    metrics.evaluate(images[:4], images[:4], {})  # compiles
    tracemalloc.start()
    metrics.evaluate(images, images, {})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 4 * images[0].size * 4  # ten float32 microbatches; all would be 32


def test_vgg_sees_at_most_256_pixels(weights, monkeypatch):
    monkeypatch.setattr(metrics.images, 'SMALL', 24)  # the rule, at a size that costs nothing
    x, y = smooth(6, 48, 1), smooth(7, 48, 1)
    small = [pixels.area_resize(jnp.asarray(v), 24) for v in (x, y)]
    expected = jax.jit(metrics.lpips_vgg)(weights['vgg'], *small)
    large = jax.jit(metrics.lpips_vgg)(weights['vgg'], x, y)
    np.testing.assert_allclose(large, expected, rtol=1e-5)


def test_errors(pair, weights):
    x, y = pair
    shapes = r'targets are \[3, 48, 48, 3\] and images \[2, 48, 48, 3\]'
    with pytest.raises(JaxinvError, match=shapes):
        metrics.evaluate(x, y[:2], weights)
    with pytest.raises(JaxinvError, match='squeeze'):
        metrics.evaluate(x, y, {'squeeze': {}})
    with pytest.raises(JaxinvError, match='fid'):
        metrics.evaluate(x, y, {}, names=('fid',))
    with pytest.raises(JaxinvError, match='microbatch 0'):
        metrics.evaluate(x, y, {}, microbatch=0)
    with pytest.raises(JaxinvError, match=r'valid is \[3, 48, 48\]'):
        metrics.evaluate(x, y, {}, np.ones((3, 48, 48)))
