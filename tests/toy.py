"""A generator of a few operations: anything with this shape of value works with the methods."""

import jax
import jax.numpy as jnp

from jaxinv.types import Generator, GeneratorSpec

SPEC = GeneratorSpec(
    name='toy',
    resolution=32,
    z_dim=6,
    w_dim=6,
    num_ws=3,
    noise_shapes=(('n8', (8, 8, 1)), ('n16', (16, 16, 1))),
)


def _init(key):
    keys = iter(jax.random.split(key, 8))
    normal = jax.random.normal
    return {
        'params': {
            'const': normal(next(keys), (8, 8, 5)),
            'styles': 0.2 * normal(next(keys), (3, 6, 5)),
            'conv': 0.4 * normal(next(keys), (5, 5)),
            'to_rgb': 0.2 * normal(next(keys), (5, 3)),
            'noise_strength': jnp.array([0.1, 0.1]),
        },
        'buffers': {
            'mapping': normal(next(keys), (6, 6)),
            'noise': {name: normal(next(keys), shape) for name, shape in SPEC.noise_shapes},
        },
    }


def _map(weights, z):
    return jnp.tanh(z @ weights['buffers']['mapping'])


def _synthesize(weights, w, noise='const', taps=None):
    del taps
    p = weights['params']
    w = jnp.broadcast_to(w, (w.shape[0], 3, 6))
    styles = jnp.tanh(jnp.einsum('bkd,kdc->bkc', w, p['styles']))
    if noise == 'const':
        noise = {k: v[None] for k, v in weights['buffers']['noise'].items()}
    elif noise == 'none':
        noise = dict.fromkeys(('n8', 'n16'), 0.0)
    x = p['const'][None] * (1 + styles[:, 0, None, None]) + p['noise_strength'][0] * noise['n8']
    x = jnp.repeat(jnp.repeat(jnp.tanh(x), 2, 1), 2, 2)
    x = jnp.tanh((x * (1 + styles[:, 1, None, None])) @ p['conv'])
    x = x + p['noise_strength'][1] * noise['n16']
    x = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2) * (1 + styles[:, 2, None, None])
    return x @ p['to_rgb'], {}


GENERATOR = Generator(SPEC, _init, _map, _synthesize)
