"""Layers of convolutional networks as pure functions that are fast on CPUs, too.

Images and features are [b, h, w, c]; zero padding keeps their size. Each operator is defined by its
stock lax form, which GPUs run. XLA:CPU runs some of these ten times slower than the hardware
allows, above all gradients by filters, and programs for TPUs copy the feature maps of depthwise
convolutions (docs/tpu.md); there the same products are summed in other forms.
jax.lax.platform_dependent chooses at compile time, and tests hold all forms equal. All operators
work under jit, vmap (also over kernels) and grad.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxinv.nn.conv_grads import correlate, one_by_one

NHWC = ('NHWC', 'HWIO', 'NHWC')
FEW = 256  # pixels of a batch, see _few_pixels
TILE_ROWS = 8  # rows summed in registers; XLA unrolls and vectorises 8, but not 16 (measured)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def leaky_relu(x, slope=0.2):
    """x if positive, else slope * x (slope > 0). The gradient needs the result only: same sign."""
    return jnp.where(x >= 0, x, slope * x)


def _leaky_relu_fwd(x, slope):
    y = leaky_relu(x, slope)
    return y, y


def _leaky_relu_bwd(slope, y, g):
    return (jnp.where(y >= 0, g, slope * g),)


leaky_relu.defvjp(_leaky_relu_fwd, _leaky_relu_bwd)


@jax.custom_vjp
def pointwise(x, kernel):
    """1x1 convolution: x [b, h, w, c], kernel [c, d] -> [b, h, w, d]."""
    return lax.dot_general(x, kernel, (((3,), (0,)), ((), ())))


def _pointwise_fwd(x, kernel):
    return pointwise(x, kernel), (x, kernel)


def _pointwise_bwd(residuals, g):
    x, kernel = residuals
    return lax.dot_general(g, kernel, (((3,), (1,)), ((), ()))), _over_pixels(x, g)


pointwise.defvjp(_pointwise_fwd, _pointwise_bwd)


@jax.custom_vjp
def depthwise(x, kernel, scale):
    """Depthwise convolution of scale * x: kernel [k, k, c], scale [b, 1, 1, c]."""
    return lax.platform_dependent(
        x, kernel, scale, cpu=_depthwise_taps, tpu=_depthwise_taps, default=_depthwise_stock
    )


def _depthwise_fwd(x, kernel, scale):
    # The scale is part of the operator, so that the gradient does not keep x * scale.
    return depthwise(x, kernel, scale), (x, kernel, scale)


def _depthwise_bwd(residuals, g):
    return lax.platform_dependent(
        *residuals,
        g,
        cpu=partial(_depthwise_grads_taps, taps_grad=_taps_grad),
        tpu=partial(_depthwise_grads_taps, taps_grad=_taps_grad_tpu),
        default=_depthwise_grads_stock,
    )


depthwise.defvjp(_depthwise_fwd, _depthwise_bwd)


def _depthwise_stock(x, kernel, scale):
    return lax.conv_general_dilated(
        x * scale,
        kernel[:, :, None],
        (1, 1),
        'SAME',
        dimension_numbers=NHWC,
        feature_group_count=x.shape[-1],
    )


def _depthwise_grads_stock(x, kernel, scale, g):
    return jax.vjp(_depthwise_stock, x, kernel, scale)[1](g)


def _depthwise_taps(x, kernel, scale):
    return _taps(x * scale, kernel)


def _depthwise_grads_taps(x, kernel, scale, g, taps_grad):
    """taps_grad(x, g, k): the gradient of `_taps` by its kernel."""
    g_scaled = _taps(g, kernel[::-1, ::-1])
    g_scale = jnp.sum(g_scaled * x, (1, 2), keepdims=True)
    return g_scaled * scale, taps_grad(x * scale, g, kernel.shape[0]), g_scale


def _taps(x, kernel):
    """Depthwise convolution as k^2 shifted multiply-adds, which XLA fuses into one pass."""
    k = kernel.shape[0]
    h, w = x.shape[1:3]
    dtype, exact = x.dtype, jnp.promote_types(x.dtype, jnp.float32)
    x = jnp.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    kernel = kernel[:, :, None, None, None].astype(exact)
    places = [(i, j) for i in range(k) for j in range(k)]
    taps = (x[:, i : i + h, j : j + w].astype(exact) * kernel[i, j] for i, j in places)
    return sum(taps).astype(dtype)


def _taps_grad(x, g, k):
    """Gradient of _taps by its kernel: [k, k, c].

    All k^2 sums over a tile of rows are one variadic reduction: it reads each element of x and g
    once, and its results are vectors over (w, c). A plain sum does the rest.
    """
    b, h, w, c = x.shape
    tiles = -(-h // TILE_ROWS)
    fill = tiles * TILE_ROWS - h
    pad = k // 2
    x = jnp.pad(x, ((0, 0), (pad, pad + fill), (pad, pad), (0, 0)))
    x = lax.optimization_barrier(x.reshape(b, -1, (w + 2 * pad) * c))
    g = jnp.pad(g, ((0, 0), (0, fill), (0, 0), (0, 0))).reshape(b, tiles, TILE_ROWS, w * c)
    dtype, exact = x.dtype, jnp.promote_types(x.dtype, jnp.float32)

    def products(i, j):
        rows = x[:, i : i + tiles * TILE_ROWS, j * c : (j + w) * c]
        return rows.reshape(b, tiles, TILE_ROWS, w * c).astype(exact) * g

    taps = [products(i, j) for i in range(k) for j in range(k)]
    zeros = [jnp.zeros((), taps[0].dtype)] * len(taps)
    sums = lax.reduce(taps, zeros, lambda a, b: [p + q for p, q in zip(a, b, strict=True)], (2,))
    sums = [part.reshape(b, tiles, w, c).sum((0, 1, 2)) for part in sums]
    return jnp.stack(sums).reshape(k, k, c).astype(dtype)


def _taps_grad_tpu(x, g, k):
    """The same as k^2 plain sums, which XLA fuses for a TPU.

    The stock form becomes copies there: 6 times the bytes and 4 times the compile time of a
    gradient in float32, [2, 512, 512, 64], compiled for a v5e (docs/tpu.md).
    """
    h, w = x.shape[1:3]
    dtype, exact = x.dtype, jnp.promote_types(x.dtype, jnp.float32)
    x = jnp.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    places = [(i, j) for i in range(k) for j in range(k)]
    sums = [jnp.sum((x[:, i : i + h, j : j + w] * g).astype(exact), (0, 1, 2)) for i, j in places]
    return jnp.stack(sums).reshape(k, k, -1).astype(dtype)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x, kernel, stride=1):
    """Convolution, kernel [k, k, c, d], k odd -> [b, ceil(h / stride), ceil(w / stride), d]."""
    stock = partial(_conv_stock, stride=stride)
    return lax.platform_dependent(x, kernel, cpu=one_by_one(stock, 1), default=stock)


def _conv_stock(x, kernel, stride):
    pad = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=NHWC
    )


def _conv_fwd(x, kernel, stride):
    return conv(x, kernel, stride), (x, kernel)


def _conv_bwd(stride, residuals, g):
    return lax.platform_dependent(
        *residuals,
        g,
        cpu=lambda x, kernel, g: conv_grads_cpu(x, kernel, g, stride=stride),
        default=partial(_conv_grads_stock, stride=stride),
    )


conv.defvjp(_conv_fwd, _conv_bwd)


def _conv_grads_stock(x, kernel, g, stride):
    return jax.vjp(partial(_conv_stock, stride=stride), x, kernel)[1](g)


def conv_grads_cpu(x, kernel, g, scale=None, stride=1):
    """Gradients of conv(scale * x, kernel, stride) by scale * x and by kernel; scale [b, c].

    By the input: a plain convolution. By the filter: nn/conv_grads.py.
    """

    def grads(x, kernel, g, scale):
        k, pad = kernel.shape[0], kernel.shape[0] // 2
        few = stride == 1 and math.prod(x.shape[:3]) <= FEW
        sizes = zip(x.shape[1:3], g.shape[1:3], strict=True)
        # Zeros around g, and for a stride between its pixels; both gradients read this array.
        more = [(pad, pad + n - (m - 1) * stride - 1, stride - 1) for n, m in sizes]
        g = lax.pad(g, jnp.zeros((), g.dtype), ((0, 0, 0), *more, (0, 0, 0)))
        taps = [(g, (k - 1 - i, k - 1 - j)) for i in range(k) for j in range(k)]
        if few:
            g_x = _few_pixels(g, kernel, taps)
        else:
            turned = kernel[::-1, ::-1].swapaxes(2, 3)
            g_x = lax.conv_general_dilated(g, turned, (1, 1), 'VALID', dimension_numbers=NHWC)
        return g_x, correlate(x, taps, scale).reshape(kernel.shape)

    return one_by_one(grads)(x, kernel, g, scale)


def _few_pixels(g, kernel, taps):
    """The gradient by x, of padded g: a product of each tap with all pixels, shifted and added.

    It reads the kernel in place. For a large kernel and few pixels, flipping and transposing it
    would take most of the time.
    """
    c, d = kernel.shape[2:]
    products = jnp.einsum('bhwd,tcd->tbhwc', g, kernel.reshape(-1, c, d))
    h, w = (n - kernel.shape[0] + 1 for n in g.shape[1:3])
    parts = zip(products, (place for _, place in taps), strict=True)
    return sum(part[:, row : row + h, left : left + w] for part, (row, left) in parts)


def _over_pixels(x, g):
    """Sum over pixels of outer products: x [b, h, w, c], g [b, h, w, d] -> [c, d]."""
    return x.reshape(-1, x.shape[-1]).T @ g.reshape(-1, g.shape[-1])


@jax.custom_vjp
def haar_up(x):
    """An inverse Haar wavelet step, [b, h, w, 4 c] -> [b, 2 h, 2 w, c]; bands LL, LH, HL, HH."""
    b, h, w, channels = x.shape
    c = channels // 4
    ll, lh, hl, hh = (x[..., i * c : (i + 1) * c] for i in range(4))
    rows = ((ll + lh, hl + hh), (ll - lh, hl - hh))
    rows = [jnp.stack([left + right, left - right], 3) for left, right in rows]
    return (jnp.stack(rows, 2) / 2).reshape(b, 2 * h, 2 * w, c)


def haar_down(y):
    """The Haar wavelet step, inverse and adjoint of haar_up: [b, 2h, 2w, c] -> [b, h, w, 4c]."""
    b, h, w, c = y.shape
    y = y.reshape(b, h // 2, 2, w // 2, 2, c)
    top, bottom = y[:, :, 0], y[:, :, 1]
    low, high = top + bottom, top - bottom  # rows of each column
    bands = [low[..., 0, :] + low[..., 1, :], high[..., 0, :] + high[..., 1, :]]
    bands += [low[..., 0, :] - low[..., 1, :], high[..., 0, :] - high[..., 1, :]]
    return jnp.concatenate(bands, -1) / 2


haar_up.defvjp(lambda x: (haar_up(x), None), lambda _, g: (haar_down(g),))
