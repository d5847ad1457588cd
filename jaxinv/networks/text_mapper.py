"""StyleCLIP's latent mapper (Patashnik et al. 2021, arXiv:2103.17249, section 5): w -> a move of w.

Up to three networks of four dense layers, for the coarse, medium and fine rows of W+; an edited
code is w + STEP * apply(w). Parameters have the raw scale of the official files: the factor of the
learning rate, 0.01, is applied at run time.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv.errors import JaxinvError
from jaxinv.nn import ops

STEP = 0.1  # of the official code: w_hat = w + 0.1 M(w)
LAYERS = 4
LR = 0.01  # factor of the learning rate of all layers
EPSILON = 1e-8
ROWS = {  # group -> its rows of W+; a group that is left out does not move its rows
    'coarse': (0, 4),
    'medium': (4, 8),
    'fine': (8, None),
    'all': (0, None),  # one network for all rows
}
NORMS = ('features', 'rows')


class Spec(NamedTuple):
    """What the arrays do not say."""

    groups: tuple[str, ...]  # of ROWS
    # The axis of the first normalisation: 'features' as in StyleGAN's mapping network, which the
    # paper names; 'rows' as the official code does it, over the rows of a group.
    norm: str


class Mapper(NamedTuple):
    spec: Spec
    weights: dict[str, Any]  # {'coarse/0/kernel': [w_dim, w_dim], 'coarse/0/bias': [w_dim], ...}
    about: dict[str, Any] = {}  # what a file by jaxinv says: prompt, generator, clip, random_clip


def shapes(groups, w_dim: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights."""
    found = {}
    for group in groups:
        for i in range(LAYERS):
            found |= {f'{group}/{i}/kernel': (w_dim, w_dim), f'{group}/{i}/bias': (w_dim,)}
    return found


def init(groups, w_dim: int, seed: int) -> dict[str, jax.Array]:
    """Weights before training: unit normals over LR, and biases of 0."""
    rng = np.random.default_rng(seed)
    return {
        name: jnp.asarray(rng.standard_normal(shape, np.float32) / LR)
        if len(shape) == 2
        else jnp.zeros(shape)
        for name, shape in shapes(groups, w_dim).items()
    }


def apply(spec: Spec, weights: dict, w: jax.Array) -> jax.Array:
    """The move [b, num_ws, w_dim] of codes w of that shape, before STEP."""
    if w.ndim != 3 or w.shape[2] != next(iter(weights.values())).shape[0]:
        width = next(iter(weights.values())).shape[0]
        raise JaxinvError(f'w has shape {list(w.shape)}; this mapper takes [b, num_ws, {width}].')
    parts, reached = [], 0
    for group in spec.groups:
        start, stop = ROWS[group]
        rows = w[:, start:stop]
        parts += [jnp.zeros_like(w[:, reached:start]), _network(spec, weights, group, rows)]
        reached = start + rows.shape[1]
    parts.append(jnp.zeros_like(w[:, reached:]))
    return jnp.concatenate(parts, 1)


def _network(spec, weights, group, x):
    axis = 1 if spec.norm == 'rows' else 2
    x = x * jax.lax.rsqrt(jnp.mean(x**2, axis, keepdims=True) + EPSILON)
    for i in range(LAYERS):
        kernel, bias = (weights[f'{group}/{i}/{part}'] for part in ('kernel', 'bias'))
        x = x @ (kernel * (LR / math.sqrt(kernel.shape[0]))) + (bias * LR)[None, None]
        x = ops.leaky_relu(x) * math.sqrt(2)
    return x
