"""Operators against plain definitions; the CPU's forms against the stock ones."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinv.nn import ops

close = partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-5)


def normal(i, *shape):
    return np.random.default_rng(i).standard_normal(shape, dtype=np.float32)


def value_and_grads(f, *args):
    """f's value and its gradients for a fixed random cotangent."""

    @jax.jit
    def both(*args):
        y, pull = jax.vjp(f, *args)
        return (y, *pull(normal(99, *y.shape)))

    return both(*args)


@pytest.mark.parametrize(('size', 'k'), [((8, 8), 3), ((5, 7), 3), ((4, 4), 5), ((17, 16), 1)])
def test_depthwise_equals_its_stock_form_with_gradients(size, k):
    args = normal(0, 2, *size, 3), normal(1, k, k, 3), normal(2, 2, 1, 1, 3)
    ours = value_and_grads(ops.depthwise, *args)
    for a, b in zip(ours, value_and_grads(ops._depthwise_stock, *args), strict=True):
        close(a, b)


def test_the_gradients_of_depthwise_for_tpus_equal_those_of_the_stock_form():
    args = normal(0, 2, 5, 6, 3), normal(1, 3, 3, 3), normal(2, 2, 1, 1, 3), normal(3, 2, 5, 6, 3)
    ours, stock = (
        ops._depthwise_grads_taps(*args, ops._taps_grad_tpu),
        ops._depthwise_grads_stock(*args),
    )
    for a, b in zip(ours, stock, strict=True):
        close(a, b)
    lowered = jax.jit(jax.grad(lambda *args: ops.depthwise(*args).sum(), (0, 1, 2)))
    text = lowered.trace(*args[:3]).lower(lowering_platforms=('tpu',)).as_text()
    assert 'convolution' not in text  # XLA's programs for TPUs copy its operands


def test_bfloat16_depthwise_sums_in_float32():
    x, kernel = jnp.ones([1, 64, 64, 1], 'bfloat16'), jnp.ones([3, 3, 1], 'bfloat16')
    scale, g = jnp.ones([1, 1, 1, 1], 'bfloat16'), jnp.ones([1, 64, 64, 1], 'bfloat16')
    _, by_kernel, _ = ops._depthwise_grads_taps(x, kernel, scale, g, ops._taps_grad_tpu)
    assert by_kernel.dtype == jnp.bfloat16
    assert by_kernel[1, 1, 0] == 4096  # in bfloat16 a sum of ones stops at 256


def test_depthwise_is_the_sum_over_taps():
    x, kernel, scale = normal(0, 1, 4, 5, 2), normal(1, 3, 3, 2), normal(2, 1, 1, 1, 2)
    padded = np.pad(x * scale, ((0, 0), (1, 1), (1, 1), (0, 0)))
    slow = np.zeros(x.shape)
    for row in range(4):
        for column in range(5):
            window = padded[:, row : row + 3, column : column + 3]
            slow[:, row, column] = np.sum(window * kernel, (1, 2))
    close(ops.depthwise(x, kernel, scale), slow)


@pytest.mark.parametrize(
    ('size', 'k', 'stride'),
    [((8, 8), 3, 1), ((8, 8), 3, 2), ((5, 6), 3, 2), ((1, 1), 3, 1), ((4, 5), 1, 2)],
)
def test_conv_equals_its_stock_form_with_gradients(size, stride, k):
    args = normal(0, 2, *size, 3), normal(1, k, k, 3, 4)
    ours = value_and_grads(partial(ops.conv, stride=stride), *args)
    stock = value_and_grads(partial(ops._conv_stock, stride=stride), *args)
    for a, b in zip(ours, stock, strict=True):
        close(a, b)


def test_pointwise_is_a_matrix_product_per_pixel():
    x, kernel = normal(0, 2, 3, 4, 5), normal(1, 5, 6)
    plain = value_and_grads(lambda x, kernel: x @ kernel, x, kernel)
    for a, b in zip(value_and_grads(ops.pointwise, x, kernel), plain, strict=True):
        close(a, b)


def test_leaky_relu_has_the_gradient_of_its_definition():
    x = normal(0, 50)
    plain = value_and_grads(lambda x: jnp.where(x >= 0, x, 0.2 * x), x)
    for a, b in zip(value_and_grads(ops.leaky_relu, x), plain, strict=True):
        close(a, b)


def test_haar_step_places_bands_as_its_definition():
    ll, lh, hl, hh = bands = normal(0, 4)
    s = 0.5**0.5
    top, bottom = ((ll + lh) * s, (hl + hh) * s), ((ll - lh) * s, (hl - hh) * s)
    slow = [[(a + b) * s, (a - b) * s] for a, b in (top, bottom)]
    close(ops.haar_up(bands.reshape(1, 1, 1, 4))[0, :, :, 0], slow)


def test_haar_step_is_orthogonal():
    x, y = normal(0, 2, 3, 4, 8), normal(1, 2, 6, 8, 2)
    close(ops.haar_down(ops.haar_up(x)), x)
    close(jnp.vdot(ops.haar_up(x), y), jnp.vdot(x, ops.haar_down(y)), rtol=1e-3)
    close(jax.vjp(ops.haar_up, x)[1](y)[0], ops.haar_down(y))


def test_low_band_over_two_is_the_mean_of_2x2():
    x = normal(0, 1, 3, 3, 8)
    up = ops.haar_up(x)
    close(x[..., :2] / 2, up.reshape(1, 3, 2, 3, 2, 2).mean((2, 4)))


@pytest.mark.parametrize(
    ('f', 'shapes'),
    [
        (ops.depthwise, ((1, 9, 8, 3), (3, 3, 3), (1, 1, 1, 3))),
        (ops.conv, ((1, 6, 6, 3), (3, 3, 3, 2))),
        (ops.pointwise, ((1, 4, 4, 3), (3, 2))),
        (ops.haar_up, ((1, 4, 4, 8),)),
    ],
)
def test_vmapped_over_every_argument_equals_one_by_one(f, shapes):
    args = [normal(i, 3, *shape) for i, shape in enumerate(shapes)]
    together = jax.jit(jax.vmap(partial(value_and_grads, f)))(*args)
    for i in range(3):
        alone = value_and_grads(f, *(a[i] for a in args))
        for a, b in zip(together, alone, strict=True):
            close(a[i], b)


@pytest.mark.parametrize('stride', [1, 2])
def test_no_filter_gradient_on_cpus_is_a_convolution(stride):
    """One would show as a convolution whose window is as large as the output."""
    x, kernel, dense = normal(0, 1, 32, 32, 4), normal(1, 3, 3, 4), normal(2, 3, 3, 4, 4)

    def program(depthwise, conv):
        def f(kernel, dense, x):
            y = depthwise(x, kernel, jnp.ones([1, 1, 1, 4]))
            return jnp.sum(conv(y, dense, stride) ** 2)

        return jax.jit(jax.grad(f, (0, 1, 2))).lower(kernel, dense, x).compile().as_text()

    window = f'size={32 // stride}x{32 // stride}'
    assert window in program(ops._depthwise_stock, ops._conv_stock)  # sanity check of the test
    ours = program(ops.depthwise, ops.conv)
    assert 'size=32x32' not in ours and 'size=16x16' not in ours and 'group_count' not in ours


def test_other_platforms_get_the_stock_forms():
    x, kernel, scale = normal(0, 1, 8, 8, 4), normal(1, 3, 3, 4), jnp.ones([1, 1, 1, 4])
    grads = jax.jit(jax.grad(lambda *args: ops.depthwise(*args).sum(), (0, 1, 2)))
    lowered = grads.trace(x, kernel, scale).lower(lowering_platforms=('cuda',))
    assert 'convolution' in lowered.as_text()
    assert 'convolution' not in grads.lower(x, kernel, scale).as_text()
