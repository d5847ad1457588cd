"""Gradients of convolutions on CPUs as matrix products, and vmap over filters.

XLA:CPU computes the gradient of a convolution by its filter as a convolution whose window is the
image, ten times slower than its FLOPs need. One matrix product for each filter tap is faster, but
sums over all pixels for few results, from transposed memory. Here the taps of a band of rows are
one product of ordinary shape, which stays in the cache. Rate of that product per tap -> of this
module in GFLOP/s, two cores, 3x3 filters:

    pixels   channels
      1024         32    41 ->  74
       512         64    35 -> 109
       256        128   101 -> 170
       128        256   159 -> 227
        64        512   228 -> 255

vmap over filters makes one grouped convolution, which XLA:CPU runs three times slower than the
separate convolutions (measured at 256 pixels). `one_by_one` calls a function per example instead.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

BAND = 1_200_000  # numbers in a band, about 5 MB; the fastest of those measured


def correlate(x, sources, scale=None):
    """Sums over pixels p of the outer products x[p] source[p + offset], for several sources.

    x [b, h, w, c]; scale [b, c] multiplies it, None = 1. sources: (array [b, >= h, >= w, d],
    (row, column) offset), every window inside its array. Returns [number of sources, c, d].
    """
    b, h, w, c = x.shape
    columns = len(sources) * sources[0][0].shape[-1]

    def add(image, row, rows, total):
        left = lax.dynamic_slice(x, (image, row, 0, 0), (1, rows, w, c)).reshape(-1, c)
        if scale is not None:
            left = left * lax.dynamic_slice_in_dim(scale, image, 1)
        # A product that reads its left side by columns is slower than transposing first.
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
    """The sources' windows of a band, concatenated: [rows * w, number of sources * d]."""
    d = sources[0][0].shape[-1]
    windows = [
        lax.dynamic_slice(array, (image, row + down, across, 0), (1, rows, w, d))
        for array, (down, across) in sources
    ]
    return jnp.concatenate(windows, -1).reshape(rows * w, -1)


def _over_bands(b, h, numbers_a_row, step, start):
    """Folds value = step(image, first row, rows, value) over all bands, from `start`."""
    fits = [n for n in range(1, h + 1) if h % n == 0 and n * numbers_a_row <= BAND]
    rows = max(fits, default=1)
    bands = h // rows

    def body(i, value):
        # // would handle negative numbers, by a dozen operations.
        return step(lax.div(i, bands), lax.rem(i, bands) * rows, rows, value)

    return lax.fori_loop(0, b * bands, body, start)


def one_by_one(function: Callable, filters: int | None = None) -> Callable:
    """`function` of arrays, with a vmap that calls it once per example.

    filters: index of an argument; if vmap does not map that one, `function` is vmapped as usual.
    Not differentiable; for use in the rules of a custom_vjp.
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
