"""Other projects' checkpoint files: converted once, then kept as safetensors in the cache folder.

The key of the cache is the SHA-256 of the file and of a config.json beside it. A moved file is
found again, and a replaced one is converted again.
"""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from jaxinv import edits, generators, latents
from jaxinv.converters import biggan, biggan_config, checkpoint
from jaxinv.errors import JaxinvError
from jaxinv.io import cache_dir, safe_name, sha256
from jaxinv.runtime import places
from jaxinv.types import Generator, Weights
from jaxinv.weights import store, zoo

FORMAT = f'1-{zoo.FORMAT}'  # to be raised when converters change what they read from a file
W_AVG_SAMPLES = 100_000  # as in e4e and pSp
_BATCH = 10_000  # samples


def load(path: pathlib.Path, *, which: str = 'G_ema') -> tuple[Generator, Weights, dict[str, Any]]:
    """(generator, weights, about) of a checkpoint in a layout of converters/checkpoint.py.

    which: see checkpoint.read. about: {'kind', 'file', 'sha256', 'notes'}, and 'fresh' if it was
    converted just now. Raises JaxinvError.
    """
    path = pathlib.Path(path)
    digest = sha256(path)
    key = [FORMAT, which, digest]
    config = path.parent / biggan_config.CONFIG
    if config.is_file():
        key.append(sha256(config))
    version = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    cached = cache_dir() / 'converted' / f'{version[:24]}.safetensors'
    found = _cached(cached)
    if found is None:
        places.check_cache()
        found = _convert(path, which, digest)
        store.write(cached, *found)
        found[2]['fresh'] = True
    generator, weights, about = found
    # The copy may have been made from a file of another name.
    spec = dataclasses.replace(generator.spec, name=_name(path))
    return generator._replace(spec=spec), weights, about | {'file': str(path)}


def _cached(file):
    if not file.is_file():
        return None
    try:
        generator, weights, about = store.read(file)
    except JaxinvError:
        return None  # damaged, e.g. truncated on a full disk: it is converted again
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
    kind = found.kind
    del found
    # One array after the other, so that the file's and the device's copies are not both whole.
    weights = unflatten_dict({name: jnp.asarray(flat.pop(name)) for name in list(flat)}, sep='/')
    if edits.shares_w(generator, weights, 'ffhq'):
        generator = generators.with_domain(generator, 'ffhq')
        notes.append("Its mapping network is FFHQ's: jaxinv's directions and alignment apply.")
    return generator, weights, {'kind': kind, 'sha256': digest, 'notes': notes}


def _name(path):
    """Name of the generator: the file's, or its folder's for pytorch_model.bin."""
    path = path.absolute()
    return safe_name(path.parent.name if path.name == biggan.FILE else path.stem)


def w_average(generator: Generator, weights: Weights) -> np.ndarray:
    """Mean of w [w_dim] over W_AVG_SAMPLES seeded samples, classes in turn."""
    mapping, total = jax.jit(generator.map), 0.0
    z = latents.sample_z(0, W_AVG_SAMPLES, generator.spec.z_dim)
    classes = generator.spec.label_dim
    for start in range(0, len(z), _BATCH):
        given = (jax.nn.one_hot((start + np.arange(_BATCH)) % classes, classes),) if classes else ()
        w = mapping(weights, z[start : start + _BATCH], *given)
        total = total + np.asarray(w, np.float64).sum(0)
    return (total / len(z)).astype(np.float32)
