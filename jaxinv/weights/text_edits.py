"""Files of text edits: StyleCLIP's mappers, global directions, and the network of identities."""

import json
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from jaxinv.converters import array_files, encoders, file_view, safe_pickle, tables
from jaxinv.converters import text_mapper as converter
from jaxinv.errors import JaxinvError
from jaxinv.io import atomic_path, expanded
from jaxinv.networks import text_mapper
from jaxinv.weights import download
from jaxinv.weights.addresses import is_address

_MAPPER, _DIRECTIONS = 'jaxinv_text_mapper', 'jaxinv_text_directions'
_PARTS = ('mean', 'deviation', 'matrix')


class Channels(NamedTuple):
    """What is known of a layer's style channels."""

    mean: np.ndarray  # [channels]
    deviation: np.ndarray  # [channels]
    matrix: np.ndarray  # [channels, features]: unit changes of CLIP's feature; 0 = not measured


class Directions(NamedTuple):
    """The table of global directions of a generator and a CLIP."""

    layers: dict[str, Channels]  # by GeneratorSpec.style_layers
    about: dict[str, Any]  # generator, w_probe, clip, clip_probe, settings


def load_mapper(source) -> text_mapper.Mapper:
    """A mapper from a file of StyleCLIP (.pt) or one by `save_mapper`; a path or an address.

    Nothing in a file is executed. Raises JaxinvError naming what is missing, unexpected or
    misshapen.
    """
    path = _file(source, 'a mapper of StyleCLIP')
    with file_view.reading(path, 'a mapper of StyleCLIP', error=tables.ConversionError):
        if array_files.is_safetensors(file_view.view(path)):
            arrays, metadata = array_files.read(path)
            if _MAPPER in metadata:
                found = _our_mapper(arrays, json.loads(metadata[_MAPPER]))
            else:
                found = converter.convert(arrays)
        else:
            found = converter.convert(safe_pickle.load(path))
    return found._replace(weights=jax.tree.map(jnp.asarray, found.weights))


def save_mapper(path, mapper: text_mapper.Mapper) -> None:
    """Writes a .safetensors file that `load_mapper` reads."""
    flat = {name: np.array(x, np.float32, order='C') for name, x in mapper.weights.items()}
    record = json.dumps({**mapper.spec._asdict(), 'about': mapper.about})
    with atomic_path(pathlib.Path(path)) as scratch:
        safetensors.numpy.save_file(flat, scratch, {_MAPPER: record})


def _our_mapper(arrays, record) -> text_mapper.Mapper:
    groups, norm, about = (record.get(name) for name in ('groups', 'norm', 'about'))
    orders = (['all'], *_subsets(['coarse', 'medium', 'fine']))
    known = groups in orders and norm in text_mapper.NORMS
    if not known or not isinstance(about, dict):
        raise tables.ConversionError('Its header is not the record of a mapper.')
    tables.check_floats(arrays)
    first = arrays.get(f'{groups[0]}/0/bias', np.zeros(0))
    like = text_mapper.shapes(groups, first.size)
    like = {name: np.broadcast_to(np.float32(0), shape) for name, shape in like.items()}
    flat = tables.apply({name: (name, np.asarray) for name in like}, arrays, like)
    return text_mapper.Mapper(text_mapper.Spec(tuple(groups), norm), flat, file_view.plain(about))


def _subsets(names):
    """All subsets but the empty one, each in order."""
    return [[n for i, n in enumerate(names) if bits >> i & 1] for bits in range(1, 8)]


def load_directions(source) -> Directions:
    """The table that --config=text_directions wrote; a file or its folder. Raises JaxinvError."""
    path = expanded(source)
    if path.is_dir():
        path = path / 'text_directions.safetensors'
    if not path.is_file():
        raise JaxinvError(
            f'There is no file {path} with global directions; make it for your generator by '
            '--config=text_directions (docs/text_edits.md).'
        )
    with file_view.reading(path, 'a table of --config=text_directions'):
        arrays, metadata = array_files.read(path)
        about = json.loads(metadata[_DIRECTIONS])
        if not isinstance(about, dict):
            raise ValueError('its header is no record')
        tables.check_floats(arrays)
        names = {name.partition('/')[0] for name in arrays}
        layers = {n: Channels(*(arrays[f'{n}/{part}'] for part in _PARTS)) for n in names}
        widths = {own.matrix.shape[-1] for own in layers.values()}
        for own in layers.values():
            count = own.mean.size
            wanted = (count,), (count,), (count, *widths)
            if len(widths) != 1 or tuple(map(np.shape, own)) != wanted:
                raise ValueError('sizes that do not fit together')
    return Directions(layers, about)


def save_directions(path, found: Directions) -> None:
    """Writes the table atomically."""
    flat = {
        f'{layer}/{part}': np.array(array, np.float32, order='C')
        for layer, own in found.layers.items()
        for part, array in own._asdict().items()
    }
    with atomic_path(pathlib.Path(path)) as scratch:
        safetensors.numpy.save_file(flat, scratch, {_DIRECTIONS: json.dumps(found.about)})


def load_identity(source) -> dict[str, jax.Array]:
    """Weights of ArcFace on IR-SE50 (model_ir_se50.pth), for networks.ir_se50.identity."""
    path = _file(source, "ArcFace's network of identities (model_ir_se50.pth)")
    with file_view.reading(path, "ArcFace's IR-SE50", error=tables.ConversionError):
        found = encoders.convert_identity(safe_pickle.load(path))
    return jax.tree.map(jnp.asarray, found)


def _file(source, what: str) -> pathlib.Path:
    if is_address(source):
        return download.get(source)
    path = expanded(source)
    if not path.is_file():
        raise JaxinvError(f'There is no file {path} with {what}; give the path or address of one.')
    return path
