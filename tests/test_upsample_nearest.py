"""Nearest-pixel upsampling before a convolution: the CPU's form against the plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinv.nn import upsample_nearest

KEYS = jax.random.split(jax.random.key(0), 3)
X = jax.random.normal(KEYS[0], [2, 12, 8, 5])
KERNEL = jax.random.normal(KEYS[1], [3, 3, 5, 7])
G = jax.random.normal(KEYS[2], [2, 24, 16, 7])
FEW = np.s_[:1, :4, :6]  # of X, and twice as much of G: so few pixels that they are repeated
MORE = np.s_[:1, :8, :12]


def slow(x, kernel):
    """Every pixel four times, then nine products."""
    x = np.asarray(x, np.float64).repeat(2, 1).repeat(2, 2)
    h, w = x.shape[1:3]
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = np.asarray(kernel, np.float64)
    return sum(x[:, i : i + h, j : j + w] @ kernel[i, j] for i in range(3) for j in range(3))


def test_up_repeats_pixels():
    np.testing.assert_array_equal(upsample_nearest.up(X), X.repeat(2, 1).repeat(2, 2))


@pytest.mark.parametrize('form', [upsample_nearest.up_conv, upsample_nearest._up_conv_stock])
@pytest.mark.parametrize('x', [X, X[FEW]], ids=['many', 'few'])
def test_every_form_is_a_convolution_of_repeated_pixels(form, x):
    np.testing.assert_allclose(form(x, KERNEL), slow(x, KERNEL), atol=1e-4)


@pytest.mark.parametrize('form', [upsample_nearest._grads_cpu, upsample_nearest._grads_stock])
@pytest.mark.parametrize(('x', 'g'), [(X, G), (X[FEW], G[MORE])], ids=['many', 'few'])
def test_gradients_are_the_adjoint(form, x, g):
    g_x, g_kernel = form(x, KERNEL, g)
    product = np.vdot(slow(x, KERNEL), g)  # linear in each of both
    np.testing.assert_allclose(np.vdot(g_x, x), product, rtol=1e-4)
    np.testing.assert_allclose(np.vdot(g_kernel, KERNEL), product, rtol=1e-4)
    for mine, stock in zip(
        (g_x, g_kernel), upsample_nearest._grads_stock(x, KERNEL, g), strict=True
    ):
        np.testing.assert_allclose(mine, stock, atol=1e-3)


@pytest.mark.long
def test_vmap_over_kernels_equals_one_by_one_and_groups_nothing():
    kernels, g = jnp.stack([KERNEL, 2 * KERNEL[::-1]]), G[:1]

    def loss(kernel, x):
        return jnp.vdot(upsample_nearest.up_conv(x[None], kernel), g)

    gradients = jax.jit(jax.vmap(jax.grad(loss, (0, 1)))).lower(kernels, X).compile()
    assert 'feature_group_count=2' not in gradients.as_text()
    for found, i in ((gradients(kernels, X), i) for i in range(2)):
        alone = jax.grad(loss, (0, 1))(kernels[i], X[i])
        for one, other in zip(found, alone, strict=True):
            np.testing.assert_allclose(one[i], other, atol=1e-3)
