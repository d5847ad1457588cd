"""Upsampling by two, alone and after a transposed convolution, against slow definitions."""

import re

import jax
import numpy as np
import pytest
import recipe

from jaxinv.nn import ops, upsample_fir


def normal(i, *shape):
    return np.random.default_rng(i).standard_normal(shape, dtype=np.float32)


def test_up_conv_is_its_definition_pixel_by_pixel():
    x, kernel = normal(0, 1, 3, 4, 2), normal(1, 3, 3, 2, 5)
    y = np.zeros([7 + 2, 9 + 2, 5])  # with the filter's padding of 1
    for i in range(3):
        for j in range(4):
            for a in range(3):
                for b in range(3):
                    y[1 + 2 * i + a, 1 + 2 * j + b] += x[0, i, j] @ kernel[a, b]
    fir = recipe.FIR / 16
    slow = np.array(
        [
            [np.tensordot(fir, y[i : i + 4, j : j + 4], 2) for j in range(2 * 4)]
            for i in range(2 * 3)
        ]
    )
    np.testing.assert_allclose(upsample_fir.up_conv(x, kernel)[0], slow, rtol=1e-4, atol=1e-4)


def test_up_is_zeros_between_pixels_and_the_filter():
    x = normal(0, 1, 3, 4, 2)
    y = np.zeros([2 * 3 + 3, 2 * 4 + 3, 2])
    y[2 : 2 + 6 : 2, 2 : 2 + 8 : 2] = x[0]
    slow = [
        [np.tensordot(recipe.FIR / 16, y[i : i + 4, j : j + 4], 2) for j in range(8)]
        for i in range(6)
    ]
    np.testing.assert_allclose(upsample_fir.up(x)[0], slow, rtol=1e-4, atol=1e-5)


def test_up_conv_on_cpus_equals_its_stock_form_with_gradients_also_vmapped():
    x, kernel, g = normal(0, 2, 1, 3, 4, 2), normal(1, 2, 3, 3, 2, 5), normal(2, 2, 1, 6, 8, 5)

    def value_and_gradients(f):
        def both(x, kernel, g):
            y, pull = jax.vjp(f, x, kernel)
            return y, *pull(g)

        return jax.jit(jax.vmap(both))(x, kernel, g)

    ours = value_and_gradients(upsample_fir.up_conv)
    stock = value_and_gradients(upsample_fir._up_conv_stock)
    for a, b in zip(ours, stock, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('operator', [upsample_fir.up_conv, ops.conv])
def test_on_cpus_no_convolution_is_dilated_or_grouped_even_if_vmapped_over_kernels(operator):
    x, kernels = normal(0, 1, 8, 8, 4), normal(1, 3, 3, 3, 4, 4)
    gradient = jax.jit(
        jax.vmap(jax.value_and_grad(lambda *args: operator(*args).sum(), (0, 1)), (None, 0))
    )
    text = gradient.lower(x, kernels).as_text()
    assert 'convolution' in text and 'lhs_dilate = [2, 2]' not in text
    groups = re.findall(r'(?:feature|batch)_group_count = (\d+)', text)
    assert groups and set(groups) == {'1'}
    other = gradient.trace(x, kernels).lower(lowering_platforms=('cuda',))
    assert 'convolution' in other.as_text()
