"""The figures of the official encoders and of ArcFace's identity network, computed by jaxinv.

Keys are the figures' own names. Works in float32 and, under jax.enable_x64, in float64, from the
same float32 weights and images.
"""

import jax
import jax.numpy as jnp
import numpy as np
import recipe

from jaxinv.converters import encoders as converter
from jaxinv.networks import encoders, ir_se50
from jaxinv.pixels import area_resize

MODELS = {'e4e_64': 'e4e', 'psp_64': 'psp', 'w_64': 'w'}
IDENTITY = 'arcface_irse50_112'
IMAGES = ('hopper256', 'synth192x256')
STAGES = (0, 4, 8)
TAPS = {'in': -1, '0': 0, '3': 3, '6': 6, '20': 20, '23': 23}
ROWS, COLUMNS = slice(35, 223), slice(32, 220)  # of a 256 x 256 picture: the identity loss's crop


def checkpoint(model, entries, average):
    """The plain data of a whole file in the official layout, with the encoder's arrays."""
    arrays = recipe.state_dict(entries)
    return {
        'state_dict': {f'encoder.{name}': array for name, array in arrays.items()},
        'latent_avg': average,
        'opts': {'encoder_type': {v: k for k, v in converter._KINDS.items()}[MODELS[model]]},
    }


def image(figures, name, dtype=jnp.float32):
    return jnp.asarray(figures[f'in/{name}'][None].astype(np.float32) / 127.5 - 1, dtype)


def compute(model, entries, figures, dtype=jnp.float32, images=IMAGES):
    """{figure: array in PyTorch's layout} of one of MODELS, or of IDENTITY."""
    if model == IDENTITY:
        return _identity(recipe.state_dict(entries), image(figures, IMAGES[0], dtype), dtype)
    encoder = converter.convert(checkpoint(model, entries, figures['in/latent_avg']))
    weights = jax.tree.map(lambda x: jnp.asarray(x, dtype), encoder.weights)
    of = jax.jit(
        lambda weights, x, stage=None: encoders.differences(encoder.spec, weights, x, stage),
        static_argnums=2,
    )
    arrays = {}
    for name in images:
        x = image(figures, name, dtype)
        arrays[f'{name}/out'] = codes = of(weights, x)
        if encoder.spec.kind != 'e4e' or name != IMAGES[0]:
            continue
        arrays[f'{name}/plus_latent_avg'] = codes + encoder.average[None]
        arrays |= {f'{name}/stage{stage}': of(weights, x, stage) for stage in STAGES}
        maps = jax.jit(ir_se50.body)(weights, x)
        arrays |= {f'{name}/tap_{tap}': recipe.nchw(maps[i]) for tap, i in TAPS.items()}
    return {name: np.asarray(array) for name, array in arrays.items()}


def _identity(arrays, x, dtype):
    weights = converter.convert_identity(arrays)
    weights = jax.tree.map(lambda a: jnp.asarray(a, dtype), weights)
    face = area_resize(x[:, ROWS, COLUMNS], ir_se50.IDENTITY_SIZE)
    embed = jax.jit(ir_se50.identity)
    own, mirrored = embed(weights, face), embed(weights, face[:, :, ::-1])
    return {
        f'{IMAGES[0]}/crop': recipe.nchw(face),
        f'{IMAGES[0]}/embedding': np.asarray(own),
        f'{IMAGES[0]}/cosine_with_flip': np.asarray((own * mirrored).sum()),
    }
