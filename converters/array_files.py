"""Named arrays in .npz and .safetensors files, as read-only views of the file.

Stricter than the libraries: duplicate names and bytes outside all arrays are errors.
"""

import json
import math
import struct

import ml_dtypes
import numpy as np

from jaxinv.converters import file_view
from jaxinv.converters.budget import Budget
from jaxinv.converters.file_view import Reader, Refused
from jaxinv.converters.pickle_values import from_bfloat16, sizes_of, whole
from jaxinv.converters.zip_members import Members

_MAX_HEADER = 2**23  # bytes; 10^5 arrays have about 10^7, and JSON takes ten times that in memory
_DTYPES = {
    'F64': '<f8',
    'F32': '<f4',
    'F16': '<f2',
    'BF16': '<u2',  # the upper half of a float32
    'I64': '<i8',
    'I32': '<i4',
    'I16': '<i2',
    'I8': 'i1',
    'U8': 'u1',
    'BOOL': '?',
}


def is_safetensors(data: memoryview) -> bool:
    """True if the file starts with a length and a JSON object."""
    return len(data) > 9 and bytes(data[8:9]) == b'{'


def from_npz(members: Members, budget: Budget) -> dict[str, np.ndarray]:
    """{name: array} of an .npz, bfloat16 as float32. Raises Refused, or any error for damage."""
    return {name.removesuffix('.npy'): from_npy(members[name], budget, name) for name in members}


def read(path, widen: bool = True) -> tuple[dict[str, np.ndarray], dict]:
    """({name: array}, metadata) of an .npz or .safetensors file, by its contents.

    An .npy file has the one name ''. widen: see from_safetensors. Raises file_view.UnreadableFile.
    """
    with file_view.reading(path, 'an .npy, .npz or .safetensors file'):
        data = file_view.view(path)
        budget = Budget(len(data))
        if data[:6] == b'\x93NUMPY':
            return {'': from_npy(data, budget)}, {}
        if data[:4] == b'PK\x03\x04':
            return from_npz(Members(data, budget), budget), {}
        if not is_safetensors(data):
            raise ValueError('its first bytes are those of none of them')
        return from_safetensors(data, budget, widen)


def read_metadata(path) -> dict[str, str]:
    """The metadata of a .safetensors file. Raises file_view.UnreadableFile."""
    with file_view.reading(path, 'a .safetensors file'):
        return _header(file_view.view(path))[1]


def _header(data):
    """({name: entry}, metadata, offset of the arrays)"""
    (length,) = struct.unpack('<Q', data[:8])
    if length > min(_MAX_HEADER, len(data) - 8):
        raise ValueError('the header is longer than the file')
    header = json.loads(bytes(data[8 : 8 + length]), object_pairs_hook=_once)
    if not isinstance(header, dict):
        raise ValueError('the header is not a JSON object')
    metadata = header.pop('__metadata__', {})
    if not isinstance(metadata, dict) or not all(isinstance(x, str) for x in metadata.values()):
        raise ValueError('the metadata are not strings')
    return header, metadata, 8 + length


def from_safetensors(
    data: memoryview, budget: Budget, widen: bool = True
) -> tuple[dict[str, np.ndarray], dict]:
    """({name: array}, metadata {str: str}). Raises like from_npz.

    widen: bfloat16 becomes float32; False = it stays bfloat16 (ml_dtypes).
    """
    header, metadata, start = _header(data)
    content = data[start:]
    budget.view(len(content))
    arrays, spans = {}, []
    for name, entry in header.items():
        start, end = entry['data_offsets']
        shape = sizes_of(entry['shape'])
        if whole(start) < 0 or whole(end) < start:
            raise ValueError(f'{name[:80]!r} has an invalid offset')
        dtype = np.dtype(_DTYPES[entry['dtype']])
        if end - start != math.prod(shape) * dtype.itemsize or end > len(content):
            raise ValueError(f'{name[:80]!r} does not have the size of its shape')
        array = np.frombuffer(content[start:end], dtype).reshape(shape)
        if entry['dtype'] == 'BF16' and widen:
            array = from_bfloat16(array, budget)
        elif entry['dtype'] == 'BF16':
            array = array.view(ml_dtypes.bfloat16)
        arrays[name] = array
        spans.append((start, end))
    ends = [0, *(end for _, end in sorted(spans))]
    if [start for start, _ in sorted(spans)] != ends[:-1] or ends[-1] != len(content):
        raise Refused('has arrays that overlap, or bytes outside all arrays')
    return arrays, metadata


def from_npy(content, budget: Budget, name: str = 'it') -> np.ndarray:
    """The array of an .npy file. Raises Refused, or any error for damage.

    Two bytes without a type ('V2') are bfloat16, as NumPy saves it.
    """
    file = Reader(content)
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f'{name[:80]!r} has the .npy version {version}')
    is_bfloat16 = dtype.kind == 'V' and dtype.itemsize == 2 and not dtype.names
    if is_bfloat16:
        dtype = np.dtype('<u2')
    elif dtype.kind not in 'biufcSU' or not dtype.itemsize:
        raise Refused(f'holds {name[:80]!r}, an array of Python objects or of records')
    rest = content[file.tell() :]
    budget.view(len(rest))
    if any(n < 0 for n in shape) or len(rest) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f'{name[:80]!r} does not have the size of its shape')
    array = np.frombuffer(rest, dtype).reshape(shape, order='F' if fortran else 'C')
    return from_bfloat16(array, budget) if is_bfloat16 else array


def _once(pairs):
    entries = {}
    for key, value in pairs:
        if key in entries:
            raise Refused(f'holds {key[:80]!r} twice')
        entries[key] = value
    return entries
