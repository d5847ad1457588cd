"""Tuned generators on disk as differences from the generator that was tuned.

delta.safetensors   differences, in bfloat16, of the arrays that tuning changed; header: the
                    encoding, the base generator and the SHA-256 of its arrays, the errors
delta.json          the header as JSON

  bfloat16   each difference under its array's name; relative error at most 2^-8
  low_rank   the difference of a kernel [..., outputs] as a matrix [inputs, outputs], truncated to
             its largest singular values, which is the closest matrix of that rank (Eckart and
             Young 1936): NAME:left [inputs, rank] and NAME:right [rank, outputs]; as bfloat16
             where that is smaller

Scales per array would not lower the error: bfloat16 has float32's range, and its error is relative.
The errors in the header are measured on the decoded arrays.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxinv.converters import array_files, file_view
from jaxinv.errors import JaxinvError
from jaxinv.generators import OPTIONS
from jaxinv.io import write_atomically
from jaxinv.settings import Saving
from jaxinv.types import Weights
from jaxinv.weights import zoo

DELTA_FILE = 'delta.safetensors'
SIDECAR = 'delta.json'
HEADER = 'jaxinv_delta'
LEFT, RIGHT = ':left', ':right'
_COMPUTED = 'buffers/w_avg'  # computed from samples: its last bits may differ between machines
_BFLOAT16 = jnp.bfloat16.dtype

Flat = Mapping[str, np.ndarray]


class Base(NamedTuple):
    """The generator that deltas are differences from."""

    source: str  # an argument of load_generator
    resolution: int | None
    flat: Flat
    sha256: str  # of the arrays
    options: Mapping[str, Any]  # the generator's values of generators.OPTIONS

    @classmethod
    def of(cls, source, resolution: int | None, weights: Weights, options=None) -> 'Base':
        flat = {name: np.asarray(x) for name, x in flatten_dict(weights, sep='/').items()}
        return cls(str(source), resolution, flat, _digest(flat), dict(options or {}))


class Delta(NamedTuple):
    """The contents of a delta file."""

    file: pathlib.Path
    header: dict[str, Any]
    arrays: Flat

    @property
    def source(self) -> str:
        return self.header['base']['generator']

    @property
    def resolution(self) -> int | None:
        return self.header['base']['resolution']

    @property
    def options(self) -> dict[str, Any]:
        return self.header['base'].get('options', {})


# --- Arrays ---------------------------------------------------------------------------------------


def encode(base: Flat, tuned: Flat, settings: Saving) -> dict[str, np.ndarray]:
    """The bfloat16 arrays of a delta file; arrays without a difference are left out."""
    arrays = {}
    for name, before in base.items():
        difference = np.asarray(tuned[name], np.float32) - before
        if not np.any(difference):
            continue
        factors = _factors(difference, settings.rank) if settings.save == 'low_rank' else None
        if factors is None:
            arrays[name] = difference
        else:
            arrays[name + LEFT], arrays[name + RIGHT] = factors
    return {name: np.array(x, _BFLOAT16, order='C') for name, x in arrays.items()}


def decode(base: Flat, arrays: Flat) -> dict[str, np.ndarray]:
    """The tuned arrays, float32. Raises ValueError naming an array that does not fit `base`."""
    restored, used = {}, set()
    for name, before in base.items():
        restored[name] = before
        if name in arrays:
            difference = arrays[name].astype(np.float32)
            used.add(name)
        elif name + LEFT in arrays and name + RIGHT in arrays:
            left, right = (arrays[name + end].astype(np.float32) for end in (LEFT, RIGHT))
            matrix = before.reshape(-1, before.shape[-1]).shape if before.ndim else ()
            if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0]:
                raise ValueError(f'the factors of {name} do not fit each other')
            if (left.shape[0], right.shape[1]) != matrix:
                raise ValueError(f'the factors of {name} do not fit {list(before.shape)}')
            difference = _product(left, right).reshape(before.shape)
            used |= {name + LEFT, name + RIGHT}
        else:
            continue
        if difference.shape != before.shape:
            raise ValueError(f'{name} is {list(difference.shape)} instead of {list(before.shape)}')
        restored[name] = before + difference
    if unknown := sorted(set(arrays) - used):
        raise ValueError(f'the base has no array for {unknown[0]}')
    return restored


def _factors(difference, rank):
    """left [m, rank] and right [rank, n], the truncated SVD; None if they would not be smaller."""
    if difference.ndim < 2:
        return None
    matrix = difference.reshape(-1, difference.shape[-1]).astype(np.float64)
    if rank * sum(matrix.shape) >= matrix.size:
        return None
    # Eigenvectors of the smaller Gram matrix: much faster than an SVD.
    if matrix.shape[0] < matrix.shape[1]:
        vectors = np.linalg.eigh(matrix @ matrix.T)[1][:, -rank:]
        return vectors, vectors.T @ matrix
    vectors = np.linalg.eigh(matrix.T @ matrix)[1][:, -rank:]
    return matrix @ vectors, vectors.T


def _product(left, right):
    """left @ right, summed in float64 so that float32 results are equal on all machines."""
    return (left.astype(np.float64) @ right.astype(np.float64)).astype(np.float32)


def _errors(base: Flat, tuned: Flat, restored: Flat) -> dict[str, float]:
    """Errors over the arrays that tuning changed, and the RMS of the changes."""
    largest, squares, moved, count = 0.0, 0.0, 0.0, 0
    for name, before in base.items():
        step = np.asarray(tuned[name], np.float64) - before
        if not np.any(step):
            continue
        error = np.asarray(tuned[name], np.float64) - restored[name]
        largest = max(largest, float(np.abs(error).max()))
        squares, moved = squares + float((error**2).sum()), moved + float((step**2).sum())
        count += error.size
    count = max(count, 1)
    return {
        'largest_error': largest,
        'rms_error': (squares / count) ** 0.5,
        'rms_moved': (moved / count) ** 0.5,
    }


# --- Files ----------------------------------------------------------------------------------------


def write(
    folder: pathlib.Path, base: Base, tuned: Weights, settings: Saving
) -> tuple[dict[str, Any], Weights]:
    """Writes the two files into `folder`.

    Returns ({'bytes', 'share': bytes / bytes of all arrays, 'largest_error', 'rms_error',
    'rms_moved': RMS of the differences}, the decoded weights).
    """
    flat = {name: np.asarray(x) for name, x in flatten_dict(tuned, sep='/').items()}
    arrays = encode(base.flat, flat, settings)
    restored = decode(base.flat, arrays)
    errors = _errors(base.flat, flat, restored)
    header = {
        'save': settings.save,
        **({'rank': settings.rank} if settings.save == 'low_rank' else {}),
        'base': {
            'generator': base.source,
            'resolution': base.resolution,
            'sha256': base.sha256,
            **({'options': base.options} if base.options else {}),
        },
        **errors,
    }
    metadata = {HEADER: json.dumps(header), 'sha256': _digest(arrays)}
    content = safetensors.numpy.save(arrays, metadata)
    write_atomically(folder / DELTA_FILE, content)
    write_atomically(folder / SIDECAR, (json.dumps(header, indent=1) + '\n').encode())
    share = len(content) / sum(x.nbytes for x in flat.values())
    return {'bytes': len(content), 'share': share, **errors}, _as_weights(restored)


def is_ours(file: pathlib.Path) -> bool:
    """True if a .safetensors file holds a delta. Raises JaxinvError if it cannot be read."""
    return HEADER in array_files.read_metadata(file)


def read(file: pathlib.Path) -> Delta:
    """Reads a delta file. Raises JaxinvError if it is another file, or damaged."""
    arrays, metadata = array_files.read(file, widen=False)
    with file_view.reading(file, 'a delta of jaxinv with a sound header'):
        header = file_view.plain(json.loads(metadata.get(HEADER, 'null')))
        source, resolution = header['base']['generator'], header['base']['resolution']
        if not isinstance(source, str) or not isinstance(header['base']['sha256'], str):
            raise TypeError('the name or hash of the base is not a string')
        if resolution is not None and (type(resolution) is not int or resolution < 1):
            raise TypeError('the resolution is not in pixels')
        for name, value in header['base'].get('options', {}).items():
            if type(value) not in OPTIONS[name]:
                raise TypeError(f'{name} is no {OPTIONS[name][-1].__name__}')
    for name, array in arrays.items():
        if array.dtype != _BFLOAT16:
            raise JaxinvError(f'{file} holds {name} as {array.dtype}; deltas are bfloat16.')
    if metadata.get('sha256') != _digest(arrays):
        raise JaxinvError(f'{file} is damaged: its arrays do not have the SHA-256 in its header.')
    return Delta(file, header, arrays)


def restore(delta: Delta, base: Weights) -> Weights:
    """The tuned weights. Raises JaxinvError if `base` is not the generator that was tuned."""
    flat = {name: np.asarray(x) for name, x in flatten_dict(base, sep='/').items()}
    if _digest(flat) != delta.header['base']['sha256']:
        raise JaxinvError(
            f'{delta.file} holds differences from another generator than {delta.source!r}; name '
            'the one it was tuned from by load_generator(..., base=FILE).'
        )
    try:
        return _as_weights(decode(flat, delta.arrays))
    except ValueError as error:
        raise JaxinvError(f'{delta.file} does not fit its base: {error}.') from None


def _digest(flat: Flat) -> str:
    bits = {
        name: x.view(np.uint16) if x.dtype == _BFLOAT16 else x
        for name, x in flat.items()
        if name != _COMPUTED
    }
    return zoo.digest(bits)


def _as_weights(flat):
    return unflatten_dict({name: jnp.array(x, copy=True) for name, x in flat.items()}, sep='/')
