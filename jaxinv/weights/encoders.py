"""Encoders from files: those of other projects, and copies by `save_encoder`."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from jaxinv.converters import array_files, encoders, file_view, safe_pickle, tables
from jaxinv.errors import JaxinvError
from jaxinv.io import atomic_path, expanded
from jaxinv.networks.encoders import COMPACT_W_PLUS, KINDS, OURS, WIDTH, Encoder, Spec, shapes
from jaxinv.weights import download
from jaxinv.weights.addresses import is_address

_HEADER = 'jaxinv_encoder'
_PACKAGED = pathlib.Path(__file__).parents[1] / 'data' / 'encoders'  # GENERATOR.safetensors


def load_encoder(source, kind: str | None = None) -> Encoder:
    """An encoder from a file of pSp, e4e, ReStyle or HyperStyle, or one by `save_encoder`.

    source: a path, an address (https://, hf://), or a name of packaged_encoders(). kind: of
    networks.encoders.KINDS, for files that do not say it; None = as the file says. Nothing in a
    file is executed. Raises JaxinvError naming what is missing, unexpected or misshapen.
    """
    path = download.get(source) if is_address(source) else local_file(source)
    with file_view.reading(path, 'an encoder', error=tables.ConversionError):
        if array_files.is_safetensors(file_view.view(path)):
            arrays, metadata = array_files.read(path)
            if _HEADER in metadata:
                found = _ours(arrays, json.loads(metadata[_HEADER]))
            else:
                found = encoders.convert(arrays, kind)
        else:
            found = encoders.convert(safe_pickle.load(path), kind)
    return jax.tree.map(jnp.asarray, found._replace(spec=None))._replace(spec=found.spec)


def packaged_encoders() -> list[str]:
    """Names of the encoders that come with jaxinv, each that of its generator."""
    return sorted(path.stem for path in _PACKAGED.glob('*.safetensors'))


def local_file(source) -> pathlib.Path:
    """The file of a path, or of a name of packaged_encoders(). Raises JaxinvError if there is none.

    A file or folder of the same name goes before a packaged encoder.
    """
    path = expanded(source)
    if not path.exists() and str(source) in packaged_encoders():
        return _PACKAGED / f'{source}.safetensors'
    if not path.is_file():
        raise JaxinvError(
            f'There is no file {path} with an encoder; give the path or the address of one, or a '
            f'name: {", ".join(packaged_encoders())} (docs/encoders.md).'
        )
    return path


def save_encoder(path, encoder: Encoder, dtype='float32') -> None:
    """Writes a .safetensors file that `load_encoder` reads; dtype 'float16' halves it."""
    flat = {name: np.asarray(x, dtype, order='C') for name, x in encoder.weights.items()}
    flat['average'] = np.asarray(encoder.average, np.float32)
    with atomic_path(pathlib.Path(path)) as scratch:
        safetensors.numpy.save_file(flat, scratch, {_HEADER: json.dumps(encoder.spec._asdict())})


def _ours(arrays, record):
    record = {'w_dim': WIDTH} | record if isinstance(record, dict) else record
    valid = (
        isinstance(record, dict)
        and set(record) == set(Spec._fields)
        and record['kind'] in (*KINDS, *OURS)
        and all(type(record[name]) is int for name in ('num_ws', 'w_dim'))
        and 1 <= record['num_ws'] <= encoders.MAX_ROWS
        and (record['num_ws'] > 1 or record['kind'] != COMPACT_W_PLUS)
        and (record['w_dim'] == WIDTH or record['kind'] in OURS and 1 <= record['w_dim'] <= 4096)
        and isinstance(record['from_average'], bool)
    )
    if not valid:
        raise tables.ConversionError('Its header is not the record of an encoder.')
    spec = Spec(**record)
    like = {name: jax.ShapeDtypeStruct(shape, np.float32) for name, shape in shapes(spec).items()}
    like['average'] = jax.ShapeDtypeStruct((spec.num_ws, spec.w_dim), np.float32)
    flat = tables.apply({name: (name, np.asarray) for name in like}, arrays, like)
    return Encoder(spec, {k: v for k, v in flat.items() if k != 'average'}, flat['average'])
