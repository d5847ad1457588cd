"""The styled convolution and its parts against plain definitions, values and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinv import generators
from jaxinv.errors import JaxinvError
from jaxinv.generators.stylegan2 import stylegan2
from jaxinv.nn import ops, upsample_fir
from jaxinv.nn.conv_grads import correlate
from jaxinv.nn.styled_conv import image_kernels, styled_conv

GAIN = 1.3


def normal(i, *shape):
    return np.random.default_rng(i).standard_normal(shape)


def plain_up_conv(x, kernel):
    """Its definition, sum by sum: zeros between, transposed convolution, filter."""
    b, h, w, _ = x.shape
    y = jnp.zeros((b, 2 * h + 1, 2 * w + 1, kernel.shape[-1]), x.dtype)
    for i in range(3):
        for j in range(3):
            y = y.at[:, i : i + 2 * h : 2, j : j + 2 * w : 2].add(x @ kernel[i, j])
    y = jnp.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)))
    fir = np.outer(upsample_fir.FIR, upsample_fir.FIR)
    return sum(fir[i, j] * y[:, i : i + 2 * h, j : j + 2 * w] for i in range(4) for j in range(4))


def plain_conv(x, kernel):
    h, w = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(x[:, i : i + h, j : j + w] @ kernel[i, j] for i in range(3) for j in range(3))


def plain(x, style, kernel, demodulation, noise, bias, up, gain, limit):
    x = x * style[:, None, None]
    x = plain_up_conv(x, kernel) if up else plain_conv(x, kernel)
    noise = jnp.reshape(noise, (-1, *noise.shape[-3:]))
    x = x * demodulation[:, None, None] + noise + bias[None, None, None]
    x = jnp.where(x >= 0, x, 0.2 * x) * gain
    return x if limit is None else jnp.clip(x, -limit, limit)


def value_and_grads(f, *args):
    @jax.jit
    def both(*args):
        y, pull = jax.vjp(f, *args)
        return (y, *pull(jnp.asarray(normal(99, *y.shape), y.dtype)))

    return both(*args)


def assert_equal(f, g, *args):
    with jax.enable_x64(True):
        for a, b in zip(value_and_grads(f, *args), value_and_grads(g, *args), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11)


def arguments(up, noise_shape):
    size = 4 if up else 8
    return (
        normal(0, 2, size, size, 5),
        normal(1, 2, 5),
        normal(2, 3, 3, 5, 6),
        np.abs(normal(3, 2, 6)) + 0.1,
        normal(4, *noise_shape),
        normal(5, 6),
    )


@pytest.mark.parametrize(
    ('up', 'noise_shape', 'limit'),
    [
        (False, (1, 8, 8, 1), None),
        (True, (2, 8, 8, 1), 1.0),
        *(
            pytest.param(up, noise_shape, limit, marks=pytest.mark.exhaustive)
            for up, noise_shape, limit in (
                (True, (1, 8, 8, 1), None),
                (False, (2, 8, 8, 1), 1.0),
                (True, (1, 1, 1, 1), None),
                (False, (1, 1, 1, 1), None),
            )
        ),
    ],
)
def test_styled_conv_equals_its_definition_with_gradients(up, noise_shape, limit):
    definition = partial(plain, up=up, gain=GAIN, limit=limit)

    def ours(*args):  # custom_vjp takes its constants by position
        return styled_conv(*args, up, GAIN, limit)

    assert_equal(ours, definition, *arguments(up, noise_shape))


@pytest.mark.long
def test_styled_conv_vmapped_over_kernels_equals_one_by_one():
    x, style, kernel, demodulation, noise, bias = arguments(True, (1, 8, 8, 1))
    kernels = normal(6, 3, *kernel.shape)

    def loss(kernel):
        return jnp.sum(
            styled_conv(x, style, kernel, demodulation, noise, bias, True, 1.0, None) ** 2
        )

    with jax.enable_x64(True):
        together = jax.jit(jax.vmap(jax.grad(loss)))(kernels)
        gradient = jax.jit(jax.grad(loss))
        alone = jnp.stack([gradient(kernel) for kernel in kernels])
        np.testing.assert_allclose(together, alone, rtol=1e-9)


@pytest.mark.parametrize(
    'size',
    [(3, 5), *(pytest.param(size, marks=pytest.mark.exhaustive) for size in ((4, 4), (1, 2)))],
)
def test_up_conv_equals_its_definition_and_its_stock_form_with_gradients(size):
    args = normal(0, 2, *size, 3), normal(1, 3, 3, 3, 4)
    assert_equal(upsample_fir.up_conv, plain_up_conv, *args)
    assert_equal(upsample_fir._up_conv_stock, plain_up_conv, *args)


def test_image_kernels_equals_its_definition_with_gradients():
    args = normal(0, 2, 4, 4, 3), normal(1, 2, 3, 2)
    assert_equal(image_kernels, lambda x, k: jnp.einsum('bhwc,bcd->bhwd', x, k), *args)


@pytest.mark.parametrize(
    'rows', [6, *(pytest.param(rows, marks=pytest.mark.exhaustive) for rows in (8, 7))]
)
def test_correlate_is_the_sum_over_pixels_whatever_the_bands(rows, monkeypatch):
    x, scale = normal(0, 2, rows, 4, 3), normal(1, 2, 3)
    padded = normal(2, 2, rows + 2, 6, 5)
    offsets = [(i, j) for i in range(3) for j in range(3)]
    slow = [
        np.einsum('nhwc,nhwd->cd', x * scale[:, None, None], padded[:, i : i + rows, j : j + 4])
        for i, j in offsets
    ]
    for band in (1, 2 * 4 * 5 * 9, 10**6):
        monkeypatch.setattr('jaxinv.nn.conv_grads.BAND', band)
        with jax.enable_x64(True):
            ours = jax.jit(lambda x, s, p: correlate(x, [(p, o) for o in offsets], s))(
                x, scale, padded
            )
        np.testing.assert_allclose(ours, slow, rtol=1e-10)


@pytest.mark.long
def test_conv_gradients_of_a_scaled_input():
    x, scale, kernel = normal(0, 2, 5, 6, 3), normal(1, 2, 3), normal(2, 3, 3, 3, 4)
    g = normal(3, 2, 5, 6, 4)
    with jax.enable_x64(True):
        ours = ops.conv_grads_cpu(x, kernel, g, scale)
        wanted = jax.vjp(plain_conv, jnp.asarray(x * scale[:, None, None]), kernel)[1](g)
    for a, b in zip(ours, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


MAKES = {
    'stylegan2': partial(stylegan2, 16, z_dim=8, w_dim=8, mapping_layers=1, channels=(8, 8, 4)),
    'mobile_stylegan': partial(generators.make, 'tiny'),
}


@pytest.mark.long
@pytest.mark.parametrize('name', MAKES)
def test_bfloat16_features_keep_float32_parameters_pixels_and_gradients(name):
    exact, coarse = MAKES[name](), generators.with_computing(MAKES[name](), 'bfloat16')
    assert coarse.spec.compute_dtype == 'bfloat16'
    tap, size = ('F2', 16) if name == 'stylegan2' else ('F4', 32)
    weights = jax.jit(exact.init)(jax.random.key(0, impl='unsafe_rbg'))  # compiles sooner
    shapes = [jax.eval_shape(generator.init, jax.random.key(0)) for generator in (exact, coarse)]
    assert shapes[0] == shapes[1]
    w = jax.jit(exact.map)(weights, normal(0, 2, exact.spec.z_dim).astype(np.float32))[:, None]
    target = normal(1, 2, size, size, 3).astype(np.float32)

    def loss(params, generator):
        images, features = generator.synthesize(weights | {'params': params}, w)
        return jnp.mean((images - target) ** 2), (images, features[tap])

    run = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    gradients, (images, feature) = run(weights['params'], exact)
    coarse_gradients, (coarse_images, coarse_feature) = run(weights['params'], coarse)
    assert feature.dtype == np.float32 and coarse_feature.dtype == jnp.bfloat16
    assert coarse_images.dtype == np.float32

    def difference(a, b):
        a, b = (jnp.concatenate([x.ravel() for x in jax.tree.leaves(tree)]) for tree in (a, b))
        assert a.dtype == b.dtype == np.float32
        return jnp.linalg.norm(a - b) / jnp.linalg.norm(a)

    assert 1e-5 < difference(images, coarse_images) < 0.02
    assert 1e-5 < difference(gradients, coarse_gradients) < 0.05


def test_compute_dtype_is_checked():
    with pytest.raises(JaxinvError, match="compute_dtype is 'float16'"):
        generators.with_computing(stylegan2(32), 'float16')
