"""Trained weights: read from their packages once, then kept converted in the cache folder."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from converters import mobile_stylegan, openvino_ir, tables
from jaxinv import assets
from jaxinv.types import Generator, Weights

FORMAT = '2'  # raise it when the paths, shapes or meaning of converted weights change


def mobile_stylegan_ffhq(generator: Generator) -> Weights:
    """MobileStyleGAN FFHQ from the package random-face; w_avg over seeded samples."""
    like = tables.flatten(jax.eval_shape(generator.init, jax.random.key(0)))
    sources = assets.PACKAGES['random-face'].members
    return _cached('mobile_stylegan_ffhq', sources, like, lambda: _convert_ffhq(generator, like))


def _convert_ffhq(generator, like):
    networks = [
        openvino_ir.read(*(_member(f'{name}Network.{kind}') for kind in ('xml', 'bin')))
        for name in ('Mapping', 'Synthesis')
    ]
    wanted = {path: shape for path, shape in like.items() if path != 'buffers/w_avg'}
    flat = mobile_stylegan.convert(*networks, wanted)
    z = np.random.RandomState(0).randn(10_000, generator.spec.z_dim).astype(np.float32)
    w = jax.jit(generator.map)(tables.unflatten(flat), z)
    return flat | {'buffers/w_avg': np.asarray(w, np.float64).mean(0).astype(np.float32)}


def _member(name):
    return assets.get('random-face', f'random_face/data/{name}')


def _cached(name, sources, like, convert):
    """convert() -> flat weights, called only if the cache has no intact copy made of `sources`.

    The copy carries a hash of its arrays: a damaged file is made anew, never trusted.
    """
    version = hashlib.sha256(json.dumps([FORMAT, sources], sort_keys=True).encode()).hexdigest()
    path = assets.cache_dir() / 'converted' / f'{name}-{version[:12]}.safetensors'
    flat = _read(path, like)
    if flat is None:
        flat = convert()
        metadata = {'sha256': digest(flat), 'format': FORMAT}
        assets.write_atomically(path, safetensors.numpy.save(flat, metadata))
    return jax.tree.map(jnp.asarray, tables.unflatten(flat))


def _read(path, like):
    """Flat weights, or None if there are none, or not these."""
    try:
        with safetensors.safe_open(path, 'numpy') as file:
            flat = {key: file.get_tensor(key) for key in file.keys()}
            promised = (file.metadata() or {}).get('sha256')
    except (OSError, safetensors.SafetensorError):
        return None
    if {k: v.shape for k, v in flat.items()} != {k: v.shape for k, v in like.items()}:
        return None
    return flat if promised == digest(flat) else None


def digest(flat: dict[str, np.ndarray]) -> str:
    """SHA-256 over the names and values of flat weights."""
    total = hashlib.sha256()
    for key in sorted(flat):
        total.update(key.encode())
        total.update(np.ascontiguousarray(flat[key]).data)
    return total.hexdigest()
