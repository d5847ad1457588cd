"""Other projects' checkpoint files: converted once, then kept as safetensors in the cache folder.

The cache is keyed by the SHA-256 of the file, and of a config.json beside it, so that one that is
moved or renamed is found again and one that is replaced is not mistaken for the old one.
"""

import dataclasses
import hashlib
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from jaxinv import edits, generators, latents
from jaxinv.converters import biggan, checkpoint
from jaxinv.errors import JaxinvError
from jaxinv.io import cache_dir, safe_name, sha256
from jaxinv.types import Generator, Weights
from jaxinv.weights import store, zoo

FORMAT = f'1-{zoo.FORMAT}'  # raise it when readers find other numbers in the same file
W_AVG_SAMPLES = 100_000  # as e4e and pSp take where a file has no latent_avg
_BATCH = 10_000


def load(path: pathlib.Path, *, which: str = 'G_ema'):
    """(generator, weights, about) of a checkpoint file that converters/checkpoint.py knows.

    which: 'G_ema' or 'G'. about: {'kind', 'file', 'sha256', 'notes'}, and 'fresh' the first time.
    Raises JaxinvError.
    """
    path = pathlib.Path(path)
    digest = sha256(path)
    key = [FORMAT, which, digest]
    config = path.parent / biggan.CONFIG
    if config.is_file():
        key.append(sha256(config))
    version = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    cached = cache_dir() / 'converted' / f'{version[:24]}.safetensors'
    found = _cached(cached)
    if found is None:
        found = _convert(path, which, digest)
        store.write(cached, *found)
        found[2]['fresh'] = True
    generator, weights, about = found
    # The name is this file's, also where the cache knows a copy by another.
    spec = dataclasses.replace(generator.spec, name=_name(path))
    return generator._replace(spec=spec), weights, about | {'file': str(path)}


def _cached(file):
    if not file.is_file():
        return None
    try:
        generator, weights, about = store.read(file)
    except JaxinvError:
        return None  # cut short by a full disk, say: it can be made again
    return (generator, weights, about) if {'kind', 'sha256', 'notes'} <= set(about) else None


def _convert(path, which, digest):
    found = checkpoint.read(path, which=which)
    make = generators.FAMILIES[found.family].make
    generator = make(**found.arguments, name=_name(path))
    flat, notes = dict(found.flat), list(found.notes)
    if 'buffers/w_avg' not in flat:
        flat['buffers/w_avg'] = w_average(generator, unflatten_dict(flat, sep='/'))
        classes = ', all classes equally' if generator.spec.label_dim else ''
        notes.append(f'The average w was computed from {W_AVG_SAMPLES} seeded samples{classes}.')
    weights = jax.tree.map(jnp.asarray, unflatten_dict(flat, sep='/'))
    if edits.shares_w(generator, weights, 'ffhq'):
        generator = generators.with_domain(generator, 'ffhq')
        notes.append("Its mapping network is FFHQ's: jaxinv's directions and alignment apply.")
    return generator, weights, {'kind': found.kind, 'sha256': digest, 'notes': notes}


def _name(path):
    """The file's, or its folder's if all files of that kind have the same name."""
    path = path.absolute()
    return safe_name(path.parent.name if path.name == biggan.FILE else path.stem)


def w_average(generator: Generator, weights: Weights) -> np.ndarray:
    """Mean of w [w_dim] over seeded samples; over the classes in turn where there are some."""
    mapping, total = jax.jit(generator.map), 0.0
    z = latents.sample_z(0, W_AVG_SAMPLES, generator.spec.z_dim)
    classes = generator.spec.label_dim
    for start in range(0, len(z), _BATCH):
        given = (jax.nn.one_hot((start + np.arange(_BATCH)) % classes, classes),) if classes else ()
        w = mapping(weights, z[start : start + _BATCH], *given)
        total = total + np.asarray(w, np.float64).sum(0)
    return (total / len(z)).astype(np.float32)
