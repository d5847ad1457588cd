"""Motion supervision and point tracking of one picture's feature map (DragGAN, section 3.2).

Symbols: f [n, n, c] a feature map; it stands for its bilinear enlargement to `resolution` pixels,
of which only patches are computed. Points [k, 2] are (x, y) in pixels of the enlargement.
"""

import jax
import jax.numpy as jnp
import numpy as np


def sample(f, xs, ys, resolution: int):
    """The enlargement at the grid of xs [k, u] and ys [k, v], [k, v, u, c].

    Values between pixels are bilinear in the enlargement; outside, those of the edge.
    """
    across, down = (_weights(at, resolution, f.shape[0]) for at in (xs, ys))
    rows = jnp.einsum('kvi,ijc->kvjc', down, f)
    return jnp.einsum('kuj,kvjc->kvuc', across, rows)


def _weights(at, resolution: int, size: int):
    """Weights [..., size] of the feature's pixels at positions [...] of the enlargement."""
    low = jnp.floor(at)
    part = (at - low)[..., None]
    return (1 - part) * _at_pixels(low, resolution, size) + part * _at_pixels(
        low + 1, resolution, size
    )


def _at_pixels(pixels, resolution: int, size: int):
    # Half-pixel centres, as torch.nn.functional.interpolate(align_corners=False).
    inside = jnp.clip(pixels, 0, resolution - 1)
    at = jnp.clip((inside + 0.5) * (size / resolution) - 0.5, 0, size - 1)
    places = jnp.arange(size, dtype=at.dtype).reshape((1,) * at.ndim + (size,))
    return jnp.maximum(1 - jnp.abs(at[..., None] - places), 0)


def at_points(f, points, resolution: int):
    """The enlargement at points, [k, c]."""
    points = points.astype(f.dtype)
    return sample(f, points[:, :1], points[:, 1:], resolution)[:, 0, 0]


def motion_loss(f, points, targets, valid, resolution: int, radius: int, rules: str):
    """The first term of equation 1: patches around points are moved a pixel towards targets.

    valid [k]: 0 = no point. radius: r_1 in pixels. rules: settings.Drag.rules. Norms are means over
    the pixels nearer than the radius, and over channels.
    """
    points = points.astype(f.dtype)
    way = targets - points
    distance = jnp.sqrt(jnp.sum(way**2, -1))
    pulled = valid * (distance > 1)
    unit = way / jnp.maximum(distance, 1e-6)[:, None]
    moved, still = (unit, 0 * unit) if rules == 'paper' else (0 * unit, -unit)
    reach = np.arange(1 - radius, radius, dtype=f.dtype)
    disc = (reach**2 + reach[:, None] ** 2 < radius**2).astype(f.dtype)

    def patches(f, shift):
        xs, ys = ((points + shift)[:, i : i + 1] + reach[None] for i in (0, 1))
        return sample(f, xs, ys, resolution)

    change = jnp.abs(patches(f, moved) - jax.lax.stop_gradient(patches(f, still)))
    share = disc / disc.sum() / f.shape[-1]
    return jnp.sum(pulled * jnp.sum(change * share[None, :, :, None], (1, 2, 3)))


def mask_loss(f, reference, mask):
    """The second term of equation 1, without lambda; mask [n, n, 1], 1 = may move."""
    return jnp.mean(jnp.abs(f - reference) * (1 - mask))


def track(f, handles, points, resolution: int, radius: int, rules: str):
    """Equation 2: of the pixels around points, those most like handles [k, c]; int32 [k, 2].

    radius: r_2 in pixels, |dx| < r_2 and |dy| < r_2; by rules 'official' also equal. Of equals the
    first in reading order.
    """
    extent = radius - (rules == 'paper')
    reach = np.arange(-extent, extent + 1)
    xs, ys = (points[:, i : i + 1] + reach[None] for i in (0, 1))
    found = sample(f, xs.astype(f.dtype), ys.astype(f.dtype), resolution)
    difference = found - handles[:, None, None]
    if rules == 'paper':
        cost = jnp.sum(jnp.abs(difference), -1)
    else:
        cost = jnp.sum(difference**2, -1)
    inside = ((ys >= 0) & (ys < resolution))[:, :, None] & ((xs >= 0) & (xs < resolution))[:, None]
    cost = jnp.where(inside, cost, jnp.inf)
    best = jnp.argmin(cost.reshape(len(points), -1), -1)
    row, column = best // len(reach), best % len(reach)
    return points + jnp.stack([column, row], -1).astype(points.dtype) - extent
