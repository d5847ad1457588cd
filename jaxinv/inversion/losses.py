"""Terms of the objectives. Each returns one number per example, [b]; the caller weights them.

Images are [b, h, w, c] in [-1, 1], not clamped. LPIPS terms are in networks/lpips.py.
"""

import jax
import jax.numpy as jnp

from jaxinv.errors import JaxinvError


def l2(images, targets):
    """Mean squared difference over pixels and channels (L_L2 of PTI, equation 2)."""
    return jnp.mean((images - targets) ** 2, axis=(1, 2, 3))


def noise_regularization(noise: dict) -> jax.Array:
    """Neighbour correlation of the noise maps at all scales (L_n of PTI, equation 1).

    Each map [b, h, w, 1] is halved by 2x2 means down to 8 pixels; at each size, the squared mean
    product with its neighbour to the right and below is added (StyleGAN2, appendix D).
    """
    total = 0.0
    for maps in noise.values():
        while True:
            for axis in (1, 2):
                product = jnp.mean(maps * jnp.roll(maps, 1, axis), axis=(1, 2, 3))
                total = total + product**2
            b, h, w, c = maps.shape
            if h <= 8:
                break
            maps = maps.reshape(b, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))
    return total


def normalize_noise(noise: dict) -> dict:
    """Zero mean and unit RMS for each map of each example, as after every projection step."""

    def normalize(maps):
        maps = maps - jnp.mean(maps, axis=(1, 2, 3), keepdims=True)
        return maps * jax.lax.rsqrt(jnp.mean(maps**2, axis=(1, 2, 3), keepdims=True))

    return {name: normalize(maps) for name, maps in noise.items()}


def locality_codes(pivots, w, alpha: float, norm: str, num_ws: int):
    """Codes at distance alpha from the pivots, towards random ones (PTI, equation 4).

    pivots [b, k, w_dim], k = 1 or num_ws; w [b, num_samples, w_dim], random codes. Returns
    [b * num_samples, k, w_dim].

    norm: 'all_layers' as in the official code: alpha is the length over all num_ws rows together,
    so each row moves by about alpha / sqrt(num_ws). 'w': each row moves by alpha, the equation in
    W. docs/pti.md says why the first is the default. Raises JaxinvError for another norm.
    """
    b, k, w_dim = pivots.shape
    num_samples = w.shape[1]
    towards = w[:, :, None, :] - pivots[:, None]
    squares = jnp.sum(towards**2, axis=-1, keepdims=True)
    if norm == 'w':
        length = jnp.sqrt(squares)
    elif norm == 'all_layers':
        # A W code is num_ws equal rows.
        length = jnp.sqrt(jnp.sum(squares, axis=-2, keepdims=True) * (num_ws / k))
    else:
        raise JaxinvError(f"locality.norm is {norm!r}; it can be 'all_layers' or 'w'.")
    codes = pivots[:, None] + alpha * towards / length
    return codes.reshape(b * num_samples, k, w_dim)
