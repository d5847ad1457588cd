"""Convolutions' gradients on CPUs, a band of rows at a time, at the rate of matrix products.

XLA's CPU backend computes the gradient of a convolution with respect to its filter as a convolution
whose window is the image, ten times slower than its FLOPs need. One matrix product for each filter
tap is better, but has the wrong shape: very long sums with few results, read through transposed
memory. Here a band of rows at a time is laid out so that all taps are one product of ordinary shape
which stays in the cache: rate on two cores, 3x3, 1024 pixels and 32 channels 41 -> 74 GFLOP/s, 512
and 64 35 -> 109, 256 and 128 101 -> 170, 128 and 256 159 -> 227, 64 and 512 228 -> 255.

vmap over filters on CPUs: one call after another instead of a grouped convolution.

vmap turns convolutions with a filter for each example into one grouped convolution, which XLA's CPU
backend runs three times slower than the convolutions by themselves (measured, 256 pixels).

"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

BAND = 1_200_000  # numbers in a band; about 5 MB, best of those measured


def correlate(x, sources, scale=None):
    """Sums over pixels of x[p] (outer) source[p + offset], for several sources.

    x [b, h, w, c]; scale [b, c] multiplies it, None = 1. sources: (array [b, >= h, >= w, d],
    (row, column) offset), every window inside its array. Returns [number of sources, c, d].
    """
    b, h, w, c = x.shape
    columns = len(sources) * sources[0][0].shape[-1]

    def add(image, row, rows, total):
        left = lax.dynamic_slice(x, (image, row, 0, 0), (1, rows, w, c)).reshape(-1, c)
        if scale is not None:
            left = left * lax.dynamic_slice_in_dim(scale, image, 1)
        # Transposed apart: a product that reads its left side by columns is slower than both.
        left = lax.optimization_barrier(left.T)
        right = _windows(sources, image, row, rows, w)
        return total + jnp.dot(left, right, preferred_element_type=total.dtype)

    zeros = jnp.zeros((c, columns), jnp.promote_types(x.dtype, jnp.float32))
    total = _over_bands(b, h, w * columns, add, zeros).astype(x.dtype)
    return total.reshape(c, len(sources), -1).swapaxes(0, 1)


def gather(sources, kernels, shape):
    """Sum over sources of source[p + offset] times its kernel transposed, [b, h, w, c] = shape.

    kernels [number of sources, c, d]. The adjoint of `correlate` in x.
    """
    b, h, w, c = shape
    count, _, d = kernels.shape
    kernels = kernels.swapaxes(1, 2).reshape(count * d, c)

    def fill(image, row, rows, out):
        band = _windows(sources, image, row, rows, w) @ kernels
        return lax.dynamic_update_slice(out, band.reshape(1, rows, w, c), (image, row, 0, 0))

    return _over_bands(b, h, w * count * d, fill, jnp.zeros(shape, kernels.dtype))


def _windows(sources, image, row, rows, w):
    """The sources' windows at a band, side by side: [rows * w, number of sources * d]."""
    d = sources[0][0].shape[-1]
    windows = [
        lax.dynamic_slice(array, (image, row + down, across, 0), (1, rows, w, d))
        for array, (down, across) in sources
    ]
    return jnp.concatenate(windows, -1).reshape(rows * w, -1)


def _over_bands(b, h, numbers_a_row, step, start):
    """start, after step(image, first row, rows, value) for all bands of all images."""
    fits = [n for n in range(1, h + 1) if h % n == 0 and n * numbers_a_row <= BAND]
    rows = max(fits, default=1)
    bands = h // rows

    def body(i, value):
        # Not //, which rounds down for negative numbers and is a dozen operations.
        return step(lax.div(i, bands), lax.rem(i, bands) * rows, rows, value)

    return lax.fori_loop(0, b * bands, body, start)


def one_by_one(function: Callable, filters: int | None = None) -> Callable:
    """`function` of arrays, whose vmap calls it for each example.

    filters: number of an argument; where vmap leaves that one alone, the examples stay together.
    Not to be differentiated: for use within the rules of a custom_vjp.
    """
    each = custom_vmap(function)

    @each.def_vmap
    def rule(axis_size, in_batched, *args):
        if filters is not None and not in_batched[filters]:
            axes = jax.tree.map(lambda batched: 0 if batched else None, in_batched)
            out = jax.vmap(function, tuple(axes))(*args)
        else:
            calls = [
                each(*jax.tree.map(lambda b, x, i=i: x[i] if b else x, tuple(in_batched), args))
                for i in range(axis_size)
            ]
            out = jax.tree.map(lambda *results: jnp.stack(results), *calls)
        return out, jax.tree.map(lambda _: True, out)

    return each
