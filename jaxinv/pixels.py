"""Pixel values and sizes: uint8 and float images, area averaging."""

import jax
import jax.numpy as jnp
import numpy as np


def to_float(images_uint8, numpy=jnp):
    """uint8 [0, 255] -> float32 [-1, 1], any shape; numpy=np: on the host."""
    return numpy.asarray(images_uint8, numpy.float32) / 127.5 - 1.0


def to_uint8(images) -> np.ndarray:
    """Float about [-1, 1] -> uint8, rounded to nearest and clamped. Exact inverse of to_float.

    Raises ValueError if a value is not finite: a picture of it would hide that.
    """
    values = np.asarray(images, np.float32)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise ValueError(f'{bad} of {values.size} image values are not finite.')
    return np.clip(np.rint((values + 1.0) * 127.5), 0, 255).astype(np.uint8)


def area_resize(x, size: int | tuple[int, int]):
    """Averages areas: [b, h, w, c] -> [b, size, size, c] (or size = (height, width)).

    Output pixel i is the plain mean of input pixels floor(i h / s) ... ceil((i + 1) h / s) - 1, the
    definition of torch's interpolate(mode='area'), so windows overlap by a pixel where s does not
    divide h. Differentiable; jittable with a static size.
    """
    size = (size, size) if isinstance(size, int) else tuple(size)
    if x.ndim != 4 or min(size) < 1:
        raise ValueError(f'area_resize takes [b, h, w, c] and sizes >= 1, not {x.shape}, {size}.')
    b, h, w, c = x.shape
    if (h, w) == size:
        return x
    if h % size[0] == 0 and w % size[1] == 0:
        fy, fx = h // size[0], w // size[1]
        return x.reshape(b, size[0], fy, size[1], fx, c).mean((2, 4))
    rows, columns = (
        jnp.asarray(_area_matrix(n, s), x.dtype) for n, s in zip((h, w), size, strict=True)
    )
    highest = jax.lax.Precision.HIGHEST
    x = jnp.einsum('sh,bhwc->bswc', rows, x, precision=highest)
    return jnp.einsum('tw,bswc->bstc', columns, x, precision=highest)


def _area_matrix(length: int, size: int) -> np.ndarray:
    matrix = np.zeros((size, length))
    for i in range(size):
        start, stop = i * length // size, -(-(i + 1) * length // size)
        matrix[i, start:stop] = 1.0 / (stop - start)
    return matrix
