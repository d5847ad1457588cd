"""SAM's terms on w_plus (equation 6): a Gaussian prior on the mapped code, and the codes' spread.

    L_W = sum_n (v_n - mu)^T Sigma^-1 (v_n - mu)  +  sum_n ||w_n - w_0||^2,   v = LeakyReLU(w, 5)

The mapping network ends in a leaky ReLU of slope 1/5; slope 5 undoes it, and what it undoes is
close to Gaussian (Wulff and Torralba 2020, arXiv:2009.06529). Where z is in w without a mapping
network, the same of z, v = z (equation 9).

Equation 6 prints Sigma where a Gaussian's exponent, its source and the released code have the
inverse. matrix='inverse' is therefore the default and matrix='covariance' the printed letter.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import latents
from jaxinv.errors import JaxinvError
from jaxinv.nn import ops
from jaxinv.types import Generator, GeneratorSpec, Weights

SLOPE = 5.0
SMALLEST = 1e-8  # eigenvalue of a covariance; rounding can make them negative


class Settings(NamedTuple):
    """How the statistics are taken; SAM's code has 5000 samples and order 'map_of_mean'."""

    num_samples: int = 10_000
    seed: int = 123
    order: str = 'mean_of_map'  # mu; 'map_of_mean' = LeakyReLU of w's mean, which is far off
    matrix: str = 'inverse'  # or 'covariance', see above
    # On the covariance's diagonal; SAM's code 1e-8. FFHQ's smallest eigenvalues are 1e-7: without
    # a floor the prior is all about directions that no sample has, and a search cannot move.
    epsilon: float = 1e-2


def check(settings: Settings) -> None:
    """Raises JaxinvError for a setting that cannot be used."""
    choices = {'order': ('mean_of_map', 'map_of_mean'), 'matrix': ('inverse', 'covariance')}
    for name, allowed in choices.items():
        value = getattr(settings, name)
        if value not in allowed:
            raise JaxinvError(
                f'prior.{name} is {value!r}; it can be {allowed[0]!r} or {allowed[1]!r}.'
            )
    if not settings.epsilon >= 0:
        raise JaxinvError(f'prior.epsilon is {settings.epsilon}; it must be at least 0.')
    if settings.num_samples < 2:
        raise JaxinvError(f'prior.num_samples is {settings.num_samples}; it must be at least 2.')


class Prior(NamedTuple):
    """The prior as ||(v - mean) @ factor||^2, in which no covariance is inverted in float32."""

    mean: jax.Array  # [d], of as many numbers as an inversion moves
    factor: jax.Array  # [d, d]: whitens v - mean if matrix is 'inverse'


def statistics(generator: Generator, weights: Weights, settings: Settings) -> Prior:
    """The prior from seeded samples of the mapping network, without truncation."""
    check(settings)
    spec = generator.spec
    z = latents.sample_z(settings.seed, settings.num_samples, spec.z_dim, spec.z_truncation)
    w = _mapping(generator)(weights, z)[:, : spec.moving_dims]
    return from_samples(w, settings, slope_of(spec))


def slope_of(spec: GeneratorSpec) -> float:
    """Of the leaky ReLU that undoes the mapping network's; 1 where there is none."""
    return SLOPE if spec.latent == 'W' else 1.0


@functools.cache
def _mapping(generator):
    return jax.jit(generator.map)


def from_samples(w, settings: Settings, slope: float = SLOPE) -> Prior:
    """The prior from samples w [n, d].

    Covariance and eigenvalues are of float64: at 512 dimensions they span seven orders.
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
    white = jnp.matmul(v - prior.mean.astype(v.dtype), factor, precision='highest')
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
