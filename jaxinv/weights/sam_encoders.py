"""SAM's encoders in files, written and read here only."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from jaxinv.converters import array_files, file_view, tables
from jaxinv.converters.encoders import MAX_ROWS
from jaxinv.errors import JaxinvError
from jaxinv.io import atomic_path, expanded
from jaxinv.networks.sam_encoders import Encoders, Spec, shapes
from jaxinv.weights import download
from jaxinv.weights.addresses import is_address

_HEADER = 'jaxinv_sam_encoders'
_MOST = 4096  # pixels, channels and numbers of w
_FEATURES = 8


def save_sam_encoders(path, encoders: Encoders, dtype='float32') -> None:
    """Writes a .safetensors file that `load_sam_encoders` reads; dtype 'float16' halves it."""
    flat = {name: np.asarray(x, dtype, order='C') for name, x in encoders.weights.items()}
    flat['average'] = np.asarray(encoders.average, np.float32)
    with atomic_path(pathlib.Path(path)) as scratch:
        record = json.dumps(encoders.spec._asdict())
        safetensors.numpy.save_file(flat, scratch, {_HEADER: record})


def load_sam_encoders(source) -> Encoders:
    """Encoders by `save_sam_encoders`. source: a path, or an address (https://, hf://).

    Raises JaxinvError for another file, and for an array that is missing, unexpected, misshapen or
    not finite.
    """
    path = download.get(source) if is_address(source) else local_file(source)
    with file_view.reading(path, "SAM's encoders", error=tables.ConversionError):
        arrays, metadata = array_files.read(path)
        spec = _spec(json.loads(metadata.get(_HEADER, 'null')))
        like = {k: np.broadcast_to(np.float32(0), shape) for k, shape in shapes(spec).items()}
        like['average'] = np.broadcast_to(np.float32(0), (spec.w_dim,))
        tables.check_floats(arrays)
        flat = tables.apply({name: (name, np.asarray) for name in like}, arrays, like)
    flat = {name: jnp.asarray(x) for name, x in flat.items()}
    return Encoders(spec, {k: x for k, x in flat.items() if k != 'average'}, flat['average'])


def local_file(source) -> pathlib.Path:
    """The file of a path. Raises JaxinvError if there is none."""
    path = expanded(source)
    if not path.is_file():
        raise JaxinvError(
            f"There is no file {path} with SAM's encoders; give sam_encoders.safetensors of "
            '--config=train_sam_encoders (docs/sam.md).'
        )
    return path


def _spec(record) -> Spec:
    """The Spec of a header, which is not trusted. Raises ConversionError, or JaxinvError."""
    valid = (
        isinstance(record, dict)
        and set(record) == set(Spec._fields)
        and all(_is_count(record[name]) for name in ('num_ws', 'w_dim'))
        and 2 <= record['num_ws'] <= MAX_ROWS
        and isinstance(record['sees_feature'], bool)
        and isinstance(record['features'], list)
        and 1 <= len(record['features']) <= _FEATURES
        and all(map(_is_feature, record['features']))
        and len({name for name, _, _ in record['features']}) == len(record['features'])
    )
    if not valid:
        raise tables.ConversionError("Its header is not the record of SAM's encoders.")
    return Spec(**record | {'features': tuple(map(tuple, record['features']))})


def _is_feature(feature) -> bool:
    return (
        isinstance(feature, list)
        and len(feature) == 3
        and isinstance(feature[0], str)
        and feature[0].isalnum()
        and all(map(_is_count, feature[1:]))
    )


def _is_count(value) -> bool:
    return type(value) is int and 1 <= value <= _MOST
