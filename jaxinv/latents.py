"""Latent codes: statistics of W, truncation, and the keys of their randomness.

w is [b, k, w_dim]: k = 1 in W, k = num_ws in W+.
"""

import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from jaxinv.types import Generator, GeneratorSpec, Weights

CUT = 2.0  # BigGAN truncates its normals there


class WStatistics(NamedTuple):
    """mean: of W, [w_dim]; std: sqrt(E ||w - mean||^2), a scalar over all dimensions."""

    mean: jax.Array
    std: jax.Array


def sample_z(
    seed: int, num_samples: int, z_dim: int, truncation: float | None = None
) -> np.ndarray:
    """Unit normals [num_samples, z_dim], the same on every machine and device count.

    truncation: of BigGAN's codes (GeneratorSpec.z_truncation): normals within [-2, 2], times it.
    """
    random = np.random.RandomState(seed)
    if truncation is None:
        return random.standard_normal((num_samples, z_dim)).astype(np.float32)
    low, high = scipy.special.ndtr([-CUT, CUT])
    z = scipy.special.ndtri(low + (high - low) * random.uniform(size=(num_samples, z_dim)))
    return truncation * z.astype(np.float32)


def w_statistics(
    generator: Generator, weights: Weights, num_samples: int = 10_000, seed: int = 123
) -> WStatistics:
    """Statistics of the mapping network's output over seeded samples, without truncation.

    The defaults are those of StyleGAN2's projector; PTI's code takes 600 samples of the same seed.
    """
    spec = generator.spec
    z = sample_z(seed, num_samples, spec.z_dim, spec.z_truncation)
    w = jax.jit(generator.map)(weights, z)
    mean = w.mean(axis=0)
    std = jnp.sqrt(jnp.sum((w - mean[None]) ** 2) / num_samples)
    return WStatistics(mean, std)


def freeze_class(w, spec: GeneratorSpec):
    """w [..., w_dim] with zero gradients for the constant dimensions (spec.moving_dims).

    Adam then does not change them.
    """
    if spec.moving_dims is None:
        return w
    moving, rest = w[..., : spec.moving_dims], w[..., spec.moving_dims :]
    return jnp.concatenate([moving, jax.lax.stop_gradient(rest)], -1)


def with_class(w, rest):
    """w [..., w_dim] with rest [..., d] as the last d dimensions; the other axes broadcast.

    rest: None = w itself.
    """
    if rest is None:
        return w
    moving = w[..., : w.shape[-1] - rest.shape[-1]]
    axes = jnp.broadcast_shapes(moving.shape[:-1], rest.shape[:-1])
    parts = [jnp.broadcast_to(x, (*axes, x.shape[-1])) for x in (moving, rest)]
    return jnp.concatenate(parts, -1)


def truncated_normal(z, truncation: float | None):
    """BigGAN's codes from unit normals z of any shape, elementwise and monotonic.

    truncation: as in `sample_z`; None = z itself.
    """
    if truncation is None:
        return z
    low, high = scipy.special.ndtr([-CUT, CUT]).tolist()
    shares = low + (high - low) * jax.scipy.special.ndtr(z)
    return truncation * jax.scipy.special.ndtri(shares)


def mapping_fingerprint(generator: Generator, weights: Weights) -> np.ndarray:
    """w of seeded samples, [4, 8]: equal for generators with the same mapping network."""
    z = sample_z(0, 4, generator.spec.z_dim)
    return np.asarray(jax.jit(generator.map)(weights, z))[:, :8]


def truncate(w, w_avg, truncation_psi: float, cutoff: int | None = None):
    """w_avg + truncation_psi (w - w_avg); truncation_psi 1 = off, 0 = w_avg.

    cutoff: number of leading rows of w [b, num_ws, w_dim] to truncate; None = all, w of any shape.
    """
    center = jnp.broadcast_to(w_avg, w.shape)
    moved = center + truncation_psi * (w - center)
    if cutoff is None:
        return moved
    return jnp.concatenate([moved[:, :cutoff], w[:, cutoff:]], axis=1)


def stream(seed: int, name: str) -> jax.Array:
    """The key of a named stream of random numbers, e.g. stream(0, 'project').

    Streams of different names or seeds are independent; seed + 1 would be another seed's stream.
    """
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def identity_ids(images_uint8: np.ndarray) -> np.ndarray:
    """CRC-32 of each image's pixels, uint32 [b].

    Random numbers are keyed by it and by the step, not by the index in a batch or the device: an
    image gets the same numbers alone, in a batch, and on any machine.
    """
    return np.array([zlib.crc32(np.ascontiguousarray(i)) for i in images_uint8], np.uint32)


def identity_normals(key, ids, step, shape):
    """Unit normals [b, *shape], a draw for each identity (ids [b]) and step."""

    def draw(identity):
        return jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, identity), step), shape)

    return jax.vmap(draw)(ids)
