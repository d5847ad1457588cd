"""LPIPS equals the reference implementation; its gradients are right, finite and fast on CPUs.

Goldens: lpips 0.1.4 with the heads of version 0.1, in float32 and float64 (tests/data/lpips.npz).
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinv.networks import lpips
from jaxinv.nn import strided
from jaxinv.weights.networks import load_lpips

pytestmark = pytest.mark.first

GOLDENS = np.load(pathlib.Path(__file__).parent / 'data' / 'lpips.npz')
PAIRS = [key.removeprefix('in/pair/') for key in GOLDENS.files if key.startswith('in/pair/')]
NETS = ('alex', 'vgg')


@pytest.fixture(scope='module')
def weights():
    return {net: load_lpips(net) for net in NETS}


def pair(name, dtype=np.float32):
    images = [GOLDENS[key].astype(np.float32) / 127.5 - 1 for key in GOLDENS[f'in/pair/{name}']]
    return [image[None].astype(dtype) for image in images]


@pytest.mark.long
@pytest.mark.parametrize('net', ['alex', pytest.param('vgg', marks=pytest.mark.exhaustive)])
def test_bfloat16_maps_give_float32_distances_and_gradients(net, weights):
    images, targets = pair(PAIRS[0])

    def distance(images, dtype):
        maps = [lpips.features(weights[net], x, dtype) for x in (images, jnp.asarray(targets))]
        assert maps[0][0].dtype == (dtype or jnp.float32)
        return lpips.distance(*maps).sum()

    run = jax.jit(jax.value_and_grad(distance), static_argnums=1)
    exact, coarse = (run(jnp.asarray(images), dtype) for dtype in (None, 'bfloat16'))
    assert all(x.dtype == jnp.float32 for x in coarse)
    np.testing.assert_allclose(coarse[0], exact[0], rtol=0.02)
    difference = jnp.linalg.norm(coarse[1] - exact[1]) / jnp.linalg.norm(exact[1])
    assert 1e-4 < difference < 0.3  # 0.16 for alex: of ReLUs and maxima that change sides


def nchw_sample(x, count=2048):
    """The goldens' sample of a large tensor, in PyTorch's order of axes."""
    flat = np.moveaxis(np.asarray(x), -1, 1).ravel()
    index = (np.arange(count, dtype=np.uint64) * np.uint64(2654435761)) % np.uint64(flat.size)
    return flat[index]


def relative(x, golden):
    return np.linalg.norm(x - golden) / np.linalg.norm(golden)


@jax.jit
def compare(weights, a, b):
    target = lpips.features(weights, b)

    def loss(a):
        features = lpips.features(weights, a)
        return lpips.distance(features, target).sum(), features

    (_, features), gradient = jax.value_and_grad(loss, has_aux=True)(a)
    size = a.shape[1:3]
    layers = [lpips.spatial((x,), (y,), size) for x, y in zip(features, target, strict=True)]
    return {
        'distance': lpips.distance(features, target),
        'per_layer': lpips.per_layer(features, target),
        'spatial': lpips.spatial(features, target, size),
        'spatial_mean_per_layer': jnp.stack([m.mean() for m in layers]),
        'gradient': gradient,
        'features': features,
        'trunk': lpips.trunk(weights, a),
    }


@pytest.mark.parametrize(
    'name', [PAIRS[0], *(pytest.param(name, marks=pytest.mark.long) for name in PAIRS[1:])]
)
@pytest.mark.parametrize('net', NETS)
def test_equals_the_reference(net, name, weights):
    result = compare(weights[net], *pair(name))
    prefix = f'{net}/{name}/'
    np.testing.assert_allclose(result['distance'], [GOLDENS[prefix + 'distance']], atol=1e-6)
    np.testing.assert_allclose(result['per_layer'], [GOLDENS[prefix + 'per_layer']], atol=1e-6)
    golden = GOLDENS[prefix + 'spatial_mean_per_layer']
    np.testing.assert_allclose(result['spatial_mean_per_layer'], golden, atol=1e-6)
    if prefix + 'spatial' in GOLDENS.files:
        np.testing.assert_allclose(result['spatial'], GOLDENS[prefix + 'spatial'][0], atol=1e-5)
    if prefix + 'spatial/sample' in GOLDENS.files:
        golden = GOLDENS[prefix + 'spatial/sample']
        np.testing.assert_allclose(nchw_sample(result['spatial'][..., None]), golden, atol=1e-5)
    moments = [(x.mean(), jnp.sqrt((x**2).mean())) for x in result['trunk']]
    np.testing.assert_allclose(moments, GOLDENS[prefix + 'trunk_mean_rms'], rtol=1e-5)
    # A maximum that changes over to its neighbour moves single pixels, hence the norm.
    assert relative(nchw_sample(result['gradient']), GOLDENS[prefix + 'grad_a/sample']) < 5e-3
    if net == 'vgg':  # features as NVIDIA's vgg16.pt: their plain squared difference is LPIPS
        flat = [
            np.moveaxis(np.asarray(x), -1, 1).ravel() / np.sqrt(x.shape[1] * x.shape[2])
            for x in result['features']
        ]
        np.testing.assert_allclose(result['distance'], [GOLDENS[prefix + 'nv_dist']], atol=1e-6)
        if prefix + 'nv_feat_a/sample' in GOLDENS.files:
            sample = nchw_sample(np.concatenate(flat)[:, None])
            np.testing.assert_allclose(sample, GOLDENS[prefix + 'nv_feat_a/sample'], atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize('net', NETS)
def test_equals_the_reference_in_float64(net, weights):
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: np.asarray(x, np.float64), weights[net])
        result = compare(wide, *pair(PAIRS[0], np.float64))
        prefix = f'f64/{net}/{PAIRS[0]}/'
        for key in ('distance', 'per_layer'):
            np.testing.assert_allclose(result[key][0], GOLDENS[prefix + key], rtol=1e-12)
        moments = [(x.mean(), jnp.sqrt((x**2).mean())) for x in result['trunk']]
        np.testing.assert_allclose(moments, GOLDENS[prefix + 'trunk_mean_rms'], rtol=1e-11)


@pytest.mark.parametrize('net', NETS)
def test_equal_and_constant_images_have_finite_gradients(net, weights):
    image, _ = pair(PAIRS[0])
    result = compare(weights[net], image, image)
    np.testing.assert_allclose(result['distance'], 0, atol=1e-12)
    np.testing.assert_allclose(result['gradient'], 0, atol=1e-7)
    for value in (-1.0, 0.0, 1.0):
        result = compare(weights[net], jnp.full_like(image, value), image)
        assert result['distance'] > 0.1 and np.isfinite(result['gradient']).all()


def test_pixels_without_features_have_no_gradient_and_no_nan():
    x = jnp.zeros((1, 2, 2, 3)).at[0, 0, 0].set(jnp.array([3.0, 0.0, 4.0]))
    np.testing.assert_allclose(lpips._normalize(x)[0, 0, 0], [0.6, 0, 0.8], rtol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(lpips._normalize(x) ** 2 * x))(x)
    assert np.isfinite(gradient).all() and not gradient[0, 1].any()


def test_one_target_for_a_batch_and_vmap(weights):
    a, b = pair(PAIRS[0])
    features = jax.jit(lpips.features)
    batch, one = (features(weights['alex'], x) for x in (np.concatenate([a, b]), b))
    expected = [GOLDENS[f'alex/{PAIRS[0]}/distance'], 0]
    np.testing.assert_allclose(lpips.distance(batch, one), expected, atol=1e-6)
    mapped = jax.jit(jax.vmap(lpips.features, (None, 0)))(weights['alex'], np.stack([a, b]))
    for x, y in zip(mapped, batch, strict=True):
        np.testing.assert_allclose(x[:, 0], y, atol=1e-6)


def test_gradient_under_vmap_equals_that_of_a_batch(weights):
    a, b = pair(PAIRS[0])

    def loss(weights, images):
        return sum((x**3).sum() for x in lpips.features(weights, images))

    gradient = jax.grad(loss, argnums=1)
    batch = jax.jit(gradient)(weights['alex'], np.concatenate([a, b]))
    mapped = jax.jit(jax.vmap(gradient, (None, 0)))(weights['alex'], np.stack([a, b]))
    assert relative(mapped[:, 0], batch) < 1e-4


def test_weights_have_the_announced_shapes(weights):
    for net in NETS:
        assert {name: x.shape for name, x in weights[net].items()} == lpips.shapes(net)
        assert all(x.dtype == jnp.float32 for x in weights[net].values())


def test_errors_name_the_value(weights):
    with pytest.raises(ValueError, match="'squeeze' is not one of 'alex', 'vgg'"):
        lpips.shapes('squeeze')
    for shape in ((1, 30, 64, 3), (64, 64, 3), (1, 64, 64, 1)):
        with pytest.raises(ValueError, match='at least 31'):
            lpips.trunk(weights['alex'], jnp.zeros(shape))


def test_small_images_are_compared_with_every_pixel_repeated(weights):
    small = jax.random.uniform(jax.random.key(0), (1, 8, 16, 3), minval=-1)
    large = jnp.repeat(jnp.repeat(small, 4, 1), 4, 2)
    for a, b in zip(*(lpips.features(weights['alex'], x) for x in (small, large)), strict=True):
        np.testing.assert_array_equal(a, b)


# --- The forms of gradients used on CPUs equal XLA's own. ---


@pytest.mark.parametrize(
    'size', [(9, 12), *(pytest.param(size, marks=pytest.mark.long) for size in [(8, 8), (15, 11)])]
)
@pytest.mark.parametrize('window', [2, 3])
@pytest.mark.parametrize('levels', [2, 1000])  # few levels make many ties
def test_pooling_gradient_equals_stock(window, size, levels):
    random = np.random.RandomState(0)
    x = random.randint(levels, size=(2, *size, 5)).astype(np.float32)
    y, pull = jax.vjp(lambda x: strided._stock_pool(x, window), x)
    gradient = random.randn(*y.shape).astype(np.float32)
    fast = strided.pool_image_gradient(window, x, gradient)
    np.testing.assert_allclose(fast, pull(gradient)[0], atol=1e-5)
    chosen = jax.vjp(lambda x: strided.max_pool(x, window), x)
    np.testing.assert_array_equal(chosen[0], y)
    np.testing.assert_allclose(chosen[1](gradient)[0], fast, atol=1e-6)


@pytest.mark.parametrize('size', [(31, 31), (32, 40), (33, 45), (34, 47)])
@pytest.mark.parametrize(('window', 'stride', 'padding'), [(11, 4, 2), (3, 2, 1), (5, 1, 2)])
def test_convolution_gradients_equal_stock(window, stride, padding, size):
    random = np.random.RandomState(0)
    x = random.randn(2, *size, 3).astype(np.float32)
    kernel = random.randn(window, window, 3, 4).astype(np.float32) / window
    y, pull = jax.vjp(lambda x, k: strided._stock_conv(x, k, stride, padding), x, kernel)
    gradient = random.randn(*y.shape).astype(np.float32)
    fast = strided.strided_image_gradient(x.shape, stride, padding, gradient, kernel)
    np.testing.assert_allclose(fast, pull(gradient)[0], atol=1e-4)
    chosen = jax.vjp(lambda x, k: strided.conv(x, k, stride, padding), x, kernel)
    np.testing.assert_array_equal(chosen[0], y)
    for ours, stock in zip(chosen[1](gradient), pull(gradient), strict=True):
        np.testing.assert_allclose(ours, stock, rtol=1e-4, atol=1e-4)


def test_stock_operations_off_the_cpu(weights):
    """Lowered for a TPU, the gradient holds XLA's own pooling gradient; on a CPU it does not."""

    def loss(weights, images):
        return sum(x.sum() for x in lpips.features(weights, images))

    traced = jax.jit(jax.grad(loss, argnums=1)).trace(weights['alex'], jnp.zeros((1, 64, 64, 3)))
    for platform, stock in (('tpu', True), ('cpu', False)):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ('select_and_scatter' in text) == stock
        assert ('lhs_dilate = [4, 4]' in text) == stock
