"""Upsampling by two with the filter [1, 3, 3, 1], alone and after a transposed convolution.

As in StyleGAN2 (Karras et al. 2020, arXiv:1912.04958, appendix B). [b, h, w, c] -> [b, 2h, 2w, c].

A transposed convolution of stride 2 uses different filter taps for even and odd rows and columns:
even rows 2i are x[i] k[0] + x[i - 1] k[2], odd rows x[i] k[1]. On CPUs the four parities are four
small convolutions, and one pass filters and interleaves them; the gradient is the adjoint of these
steps. Other platforms run the stock transposed convolution.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxinv.nn import ops
from jaxinv.nn.conv_grads import correlate, gather, one_by_one

FIR = (0.25, 0.75, 0.75, 0.25)  # [1, 3, 3, 1] / 8, times 2 for the zeros between pixels
EVEN, ODD = slice(2, None, -2), slice(1, 2)  # taps of a parity, flipped, as lax correlates


def up(x):
    """Zeros between pixels, then the filter: a pixel is (3 near + 1 far) / 4 on each axis."""
    return _up_axis(_up_axis(x, 1), 2)


def _up_axis(x, axis):
    size = x.shape[axis]
    padded = _pad(x, axis)
    before, after = _window(padded, 0, size, axis), _window(padded, 2, size, axis)
    phases = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
    return phases.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])


@jax.custom_vjp
def up_conv(x, kernel):
    """Transposed convolution of stride 2 (y[2i + a] += x[i] kernel[a]), then the filter.

    x [b, h, w, c], kernel [3, 3, c, d] -> [b, 2h, 2w, d].
    """
    return lax.platform_dependent(
        x, kernel, cpu=one_by_one(_up_conv_cpu, 1), default=_up_conv_stock
    )


def _up_conv_bwd(residuals, g):
    return lax.platform_dependent(*residuals, g, cpu=up_conv_grads_cpu, default=_grads_stock)


up_conv.defvjp(lambda x, kernel: (up_conv(x, kernel), (x, kernel)), _up_conv_bwd)


def _up_conv_stock(x, kernel):
    y = lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],  # lax correlates
        (1, 1),
        [(2, 2), (2, 2)],
        lhs_dilation=(2, 2),
        dimension_numbers=ops.NHWC,
    )
    for axis in (1, 2):
        y = _pad(y, axis)
        size = y.shape[axis] - len(FIR) + 1
        y = sum(f * _window(y, i, size, axis) for i, f in enumerate(FIR))
    return y


def _grads_stock(x, kernel, g):
    return jax.vjp(_up_conv_stock, x, kernel)[1](g)


def _up_conv_cpu(x, kernel):
    def parity(rows, columns):
        pads = [(1, 1) if taps is EVEN else (0, 0) for taps in (rows, columns)]
        return _conv(x, kernel[rows, columns], pads)

    rows = [_filter_parities(parity(r, EVEN), parity(r, ODD), 2) for r in (EVEN, ODD)]
    columns = [_filter_parities(even, odd, 1) for even, odd in zip(*rows, strict=True)]
    y = jnp.stack([jnp.stack(phases, 3) for phases in zip(*columns, strict=True)], 2)
    b, h, _, w, _, d = y.shape
    return y.reshape(b, 2 * h, 2 * w, d)


def _filter_parities(even, odd, axis):
    """Even positions [n + 1] and odd ones [n] -> those after the filter, [n] each."""
    size = odd.shape[axis]
    odd = _pad(odd, axis)
    here, after = (_window(even, i, size, axis) for i in range(2))
    left, middle, right = (_window(odd, i, size, axis) for i in range(3))
    near, far = FIR[1], FIR[0]
    of_even = near * (here + middle) + far * (left + after)
    return of_even, near * (middle + after) + far * (here + right)


def _filter_parities_adjoint(g, axis):
    """The adjoint: [2 n] -> even positions [n + 1] and odd ones [n]. FIR is symmetric."""
    size = g.shape[axis] // 2
    g = g.reshape(*g.shape[:axis], size, 2, *g.shape[axis + 1 :])
    even, odd = (_pad(lax.index_in_dim(g, i, axis + 1, keepdims=False), axis) for i in range(2))

    def at(x, start, length):
        return _window(x, start, length, axis)

    near, far = FIR[1], FIR[0]
    of_even = near * (at(even, 1, size + 1) + at(odd, 0, size + 1))
    of_even += far * (at(even, 0, size + 1) + at(odd, 1, size + 1))
    of_odd = near * (at(even, 1, size) + at(odd, 1, size))
    return of_even, of_odd + far * (at(even, 2, size) + at(odd, 0, size))


def up_conv_grads_cpu(x, kernel, g, scale=None):
    """Gradients of up_conv(scale * x, kernel) by scale * x and by kernel; scale [b, c]."""
    return one_by_one(_grads_cpu)(x, kernel, g, scale)


def _grads_cpu(x, kernel, g, scale):
    parities = [  # [0 even, 1 odd rows][0 even, 1 odd columns]
        _filter_parities_adjoint(rows, 2) for rows in _filter_parities_adjoint(g, 1)
    ]
    # Tap 0 writes the even position of its pixel, tap 1 the odd one, tap 2 the next even one.
    sources = [(parities[a % 2][b % 2], (a // 2, b // 2)) for a in range(3) for b in range(3)]
    g_x = gather(sources, kernel.reshape(9, *kernel.shape[2:]), x.shape)
    return g_x, correlate(x, sources, scale).reshape(kernel.shape)


def _conv(x, kernel, padding):
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=ops.NHWC)


def _pad(x, axis):
    """One zero before and after, along an axis."""
    return jnp.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(x.ndim)])


def _window(x, start, size, axis):
    return lax.slice_in_dim(x, start, start + size, axis=axis)
