"""SAM's terms on w_plus (equation 6): a Gaussian prior on the mapped code, and the codes' spread.

    L_W = sum_n (v_n - mu)^T Sigma^-1 (v_n - mu)  +  sum_n ||w_n - w_0||^2,   v = LeakyReLU(w, 5)

The mapping network ends in a leaky ReLU of slope 1/5, which slope 5 inverts; v is close to Gaussian
(Wulff and Torralba 2020, arXiv:2009.06529). Without a mapping network (BigGAN-deep) v = z
(equation 9).

Equation 6 prints Sigma. A Gaussian's exponent, the cited source and the released code have the
inverse, which is the default, matrix='inverse'; matrix='covariance' is the equation as printed.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import latents
from jaxinv import settings as settings_lib
from jaxinv.nn import ops
from jaxinv.rendering import full_precision
from jaxinv.types import Generator, GeneratorSpec, Weights

SLOPE = 5.0
SMALLEST = 1e-8  # eigenvalue of a covariance; rounding can make them negative


class Prior(NamedTuple):
    """The prior as ||(v - mean) @ factor||^2, in which no covariance is inverted in float32."""

    mean: jax.Array  # [d], of the dimensions that are optimised (GeneratorSpec.moving_dims)
    factor: jax.Array  # [d, d]: whitens v - mean if matrix is 'inverse'


def statistics(generator: Generator, weights: Weights, settings: settings_lib.Prior) -> Prior:
    """The prior from seeded samples of the mapping network, without truncation.

    At full precision: it is saved with a run (policy: jaxinv/rendering.py).
    """
    settings.check()
    spec = generator.spec
    z = latents.sample_z(settings.seed, settings.num_samples, spec.z_dim, spec.z_truncation)
    with full_precision():
        w = _mapping(generator)(weights, z)[:, : spec.moving_dims]
    return from_samples(w, settings, slope_of(spec))


def slope_of(spec: GeneratorSpec) -> float:
    """Slope of the leaky ReLU that inverts the mapping network's last one; 1 if there is none."""
    return SLOPE if spec.latent == 'W' else 1.0


@functools.cache
def _mapping(generator):
    return jax.jit(generator.map)


def from_samples(w, settings: settings_lib.Prior, slope: float = SLOPE) -> Prior:
    """The prior from samples w [n, d].

    Covariance and eigenvalues are computed in float64: they span seven orders of magnitude.
    """
    w = np.asarray(w, np.float64)
    v = np.where(w >= 0, w, slope * w)
    covariance = np.cov(v, rowvar=False) + settings.epsilon * np.eye(v.shape[1])
    mean = v.mean(axis=0)
    if settings.order == 'map_of_mean':
        mean = w.mean(axis=0)
        mean = np.where(mean >= 0, mean, slope * mean)
    return from_covariance(mean, covariance, settings.matrix)


def from_covariance(mean, covariance, matrix: str = 'inverse') -> Prior:
    """The prior of a mean [d] and a covariance [d, d], of any floats."""
    values, vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
    values = np.maximum(values, SMALLEST)
    factor = vectors * values ** (-0.5 if matrix == 'inverse' else 0.5)
    return Prior(jnp.asarray(mean), jnp.asarray(factor))


def distance(w_plus, prior: Prior, slope: float = SLOPE):
    """First term of L_W: w_plus [b, k, d] -> [b], summed over rows."""
    v = ops.leaky_relu(w_plus, slope)
    factor = prior.factor.astype(v.dtype)
    mean = prior.mean.astype(v.dtype)[None, None]
    white = jnp.matmul(v - mean, factor, precision='highest')
    return jnp.sum(white**2, axis=(1, 2))


def spread(w_plus, norm: str = 'squared'):
    """Second term of L_W: how far rows 1, 2, ... are from row 0, [b].

    norm: 'squared' as in equation 6, 'norm' for lengths as in SAM's code.
    """
    squares = jnp.sum((w_plus[:, 1:] - w_plus[:, :1]) ** 2, axis=2)
    if norm == 'squared':
        return squares.sum(axis=1)
    # A length has no gradient at 0, where every search starts that starts in W; take 0 there.
    zero = squares == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, squares))).sum(axis=1)
