"""Pictures of codes outside the loops: a few at a time, as one program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

BATCH = 4  # pictures a forward pass; bounds memory


@functools.cache
def _renderer(generator):
    return jax.jit(lambda weights, w: generator.synthesize(weights, w)[0])


def render(generator, weights, w) -> np.ndarray:
    """Images [m, h, w, 3] of codes w [m, 1 or num_ws, w_dim]."""
    spec = generator.spec
    w = np.asarray(jnp.broadcast_to(jnp.asarray(w), (len(w), spec.num_ws, spec.w_dim)))
    padded = np.concatenate([w, np.repeat(w[-1:], -len(w) % BATCH, axis=0)])
    batches = np.split(padded, len(padded) // BATCH)
    return np.concatenate([np.asarray(_renderer(generator)(weights, b)) for b in batches])[: len(w)]
