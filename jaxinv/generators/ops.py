"""Layers of convolutional generators as pure functions. Images and features are [b, h, w, c]."""

import jax.numpy as jnp
from jax import lax


def leaky_relu(x, slope=0.2):
    return jnp.where(x >= 0, x, slope * x)


def pointwise(x, kernel):
    """1x1 convolution: x [b, h, w, c], kernel [c, d]."""
    return lax.dot_general(x, kernel, (((3,), (0,)), ((), ())))


def depthwise(x, kernel):
    """3x3 convolution of each channel by itself, zero padding 1: x [b, h, w, c], kernel [3, 3, c]."""
    h, w = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(x[:, i : i + h, j : j + w] * kernel[i, j] for i in range(3) for j in range(3))


def conv(x, kernel, stride=1):
    """Convolution with zero padding (k - 1) / 2: x [b, h, w, c], kernel [k, k, c, d]."""
    pad = (kernel.shape[0] - 1) // 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )


def haar_up(x):
    """One inverse Haar wavelet step, [b, h, w, 4 c] -> [b, 2 h, 2 w, c].

    Channels [0, c) are LL; the rest, viewed as [c, 3], are (LH, HL, HH) of each output channel.
    """
    b, h, w, channels = x.shape
    c = channels // 4
    ll = x[..., :c]
    lh, hl, hh = jnp.moveaxis(x[..., c:].reshape(b, h, w, c, 3), -1, 0)
    rows = ((ll + lh, hl + hh), (ll - lh, hl - hh))
    # [2 (row), 2 (column), b, h, w, c]
    quads = jnp.stack([jnp.stack([p + q, p - q]) for p, q in rows]) * 0.5
    return quads.transpose(2, 3, 0, 4, 1, 5).reshape(b, 2 * h, 2 * w, c)
