"""Upsampling by two with the filter [1, 3, 3, 1], alone and after a transposed convolution.

As StyleGAN2 does it (Karras et al. 2020, arXiv:1912.04958, appendix B). Features are
[b, h, w, c] -> [b, 2h, 2w, c]. The sums are ordered so that CPUs are fast: a transposed convolution
is one matrix product per input pixel whose 3x3 results are then added where they overlap, so that
neither it nor its gradients are convolutions; filters are a few shifted sums. Other platforms run
the stock transposed convolution.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxinv.generators import ops

FIR = (0.25, 0.75, 0.75, 0.25)  # [1, 3, 3, 1] / 8, twice as large: zeros were put between pixels


def up(x):
    """Zeros between the pixels, then the filter: each new pixel is (3 near + 1 far) / 4."""
    return _up_axis(_up_axis(x, 1), 2)


def _up_axis(x, axis):
    size = x.shape[axis]
    padded = jnp.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(x.ndim)])
    before = lax.slice_in_dim(padded, 0, size, axis=axis)
    after = lax.slice_in_dim(padded, 2, size + 2, axis=axis)
    phases = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
    return phases.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])


def up_conv(x, kernel):
    """Transposed convolution of stride 2 (y[2i + a] += x[i] kernel[a]), then the filter.

    x [b, h, w, c], kernel [3, 3, c, d] -> [b, 2h, 2w, d].
    """
    return _filter(_transposed(x, kernel), (1, 0))


@jax.custom_vjp
def _transposed(x, kernel):
    """[b, 2h + 2, 2w + 2, d]; the last row and column are zeros, which keep the phases even."""
    return lax.platform_dependent(x, kernel, cpu=_transposed_cpu, default=_transposed_stock)


def _transposed_bwd(residuals, g):
    def pull(f):
        return lambda x, kernel, g: jax.vjp(f, x, kernel)[1](g)

    return lax.platform_dependent(
        *residuals, g, cpu=pull(_transposed_cpu), default=pull(_transposed_stock)
    )


_transposed.defvjp(lambda x, kernel: (_transposed(x, kernel), (x, kernel)), _transposed_bwd)


def _transposed_stock(x, kernel):
    return lax.conv_general_dilated(
        x,
        kernel[::-1, ::-1],  # lax correlates
        (1, 1),
        [(2, 3), (2, 3)],
        lhs_dilation=(2, 2),
        dimension_numbers=ops.NHWC,
    )


def _transposed_cpu(x, kernel):
    b, h, w, c = x.shape
    taps = ops.pointwise(x, kernel.transpose(2, 0, 1, 3).reshape(c, -1))
    taps = taps.reshape(b, h, w, 3, 3, kernel.shape[-1])
    rows = _overlap(*(taps[:, :, :, i] for i in range(3)), axis=1)  # [b, 2h + 2, w, 3, d]
    return _overlap(*(rows[:, :, :, i] for i in range(3)), axis=2)


def _overlap(first, middle, last, axis):
    """y[2i] += first[i], y[2i + 1] += middle[i], y[2i + 2] += last[i], along an axis."""

    def pad(x, before, after):
        return jnp.pad(x, [(before, after) if i == axis else (0, 0) for i in range(x.ndim)])

    even = pad(first, 0, 1) + pad(last, 1, 0)
    y = jnp.stack([even, pad(middle, 0, 1)], axis + 1)
    return y.reshape(*even.shape[:axis], 2 * even.shape[axis], *even.shape[axis + 1 :])


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _filter(y, padding):
    """The filter along rows and columns; padding (before, after) counts zeros, both axes alike."""
    for axis in (1, 2):
        y = jnp.pad(y, [padding if i == axis else (0, 0) for i in range(y.ndim)])
        size = y.shape[axis] - len(FIR) + 1
        y = sum(f * lax.slice_in_dim(y, i, size + i, axis=axis) for i, f in enumerate(FIR))
    return y


def _filter_bwd(padding, _, g):
    # Symmetric, so its adjoint is the filter again, where the first one's windows lay.
    return (_filter(g, tuple(len(FIR) - 1 - p for p in padding)),)


_filter.defvjp(lambda y, padding: (_filter(y, padding), None), _filter_bwd)
