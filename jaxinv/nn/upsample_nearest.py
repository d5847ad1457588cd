"""Nearest-neighbour upsampling by two, alone and before a 3x3 convolution.

Upsampling and convolution are a transposed convolution of stride 2 with the kernel
    y[2i + a - 1] += x[i] k4[a],    k4 = (k[2], k[1] + k[2], k[0] + k[1], k[0])  on each axis,
16 products per input pixel instead of 36. On CPUs the parities of rows and columns are four 2x2
convolutions, whose results are interleaved, and the gradient by x is one convolution of stride 2:
half the time from 16 pixels on. For few pixels the sums of the kernel cost more than they save, so
those are upsampled and convolved, as on other platforms.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxinv.nn import ops
from jaxinv.nn.conv_grads import correlate, one_by_one

FEW = 128  # pixels of a batch
PADDING = ((1, 0), (0, 1))  # of the input of even and of odd positions


def up(x):
    """Repeats every pixel on both axes: [b, h, w, c] -> [b, 2h, 2w, c]."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


@jax.custom_vjp
def up_conv(x, kernel):
    """Convolution of up(x): x [b, h, w, c], kernel [3, 3, c, d] -> [b, 2h, 2w, d]."""
    return lax.platform_dependent(
        x, kernel, cpu=one_by_one(_up_conv_cpu, 1), default=_up_conv_stock
    )


def _up_conv_bwd(residuals, g):
    return lax.platform_dependent(*residuals, g, cpu=one_by_one(_grads_cpu), default=_grads_stock)


up_conv.defvjp(lambda x, kernel: (up_conv(x, kernel), (x, kernel)), _up_conv_bwd)


def _up_conv_stock(x, kernel):
    return lax.conv_general_dilated(up(x), kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=ops.NHWC)


def _grads_stock(x, kernel, g):
    return jax.vjp(_up_conv_stock, x, kernel)[1](g)


def _up_conv_cpu(x, kernel):
    if math.prod(x.shape[:3]) < FEW:
        return _up_conv_stock(x, kernel)
    taps = _summed(kernel)

    def parity(i, j):
        # lax correlates: even positions have taps 3 and 1, odd ones 2 and 0.
        part = jnp.stack([jnp.stack([taps[a][b] for b in (3 - j, 1 - j)]) for a in (3 - i, 1 - i)])
        return lax.conv_general_dilated(
            x, part, (1, 1), (PADDING[i], PADDING[j]), dimension_numbers=ops.NHWC
        )

    y = [jnp.stack([parity(i, j) for j in range(2)], 3) for i in range(2)]
    b, h, w, _, d = y[0].shape
    return jnp.stack(y, 2).reshape(b, 2 * h, 2 * w, d)


def _grads_cpu(x, kernel, g):
    if math.prod(x.shape[:3]) < FEW:
        g_up, g_kernel = ops.conv_grads_cpu(up(x), kernel, g)
        return jax.linear_transpose(up, x)(g_up)[0], g_kernel
    taps = jnp.stack([jnp.stack(row) for row in _summed(kernel)])
    g_x = lax.conv_general_dilated(
        g, taps.swapaxes(2, 3), (2, 2), [(1, 1)] * 2, dimension_numbers=ops.NHWC
    )
    b, h, w, c = x.shape
    parts = g.reshape(b, h, 2, w, 2, -1)
    # Tap a writes row 2i + a - 1: (parity, offset in the array padded by a row on each side).
    positions = [(1, 0), (0, 1), (1, 1), (0, 2)]
    padded = {
        (i, j): jnp.pad(parts[:, :, i, :, j], ((0, 0), (1, 1), (1, 1), (0, 0)))
        for i in range(2)
        for j in range(2)
    }
    sources = [(padded[i, j], (row, column)) for i, row in positions for j, column in positions]
    g_taps = correlate(x, sources)
    g_taps = [list(g_taps[4 * a : 4 * a + 4]) for a in range(4)]
    return g_x, jax.linear_transpose(_summed, kernel)(g_taps)[0]


def _summed(kernel):
    """k4 as a list of 4 lists of 4 arrays [c, d]."""

    def sums(k):
        return [k[2], k[1] + k[2], k[0] + k[1], k[0]]

    return [sums(row) for row in sums(kernel)]
