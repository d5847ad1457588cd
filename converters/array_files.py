"""Named arrays in .npz and .safetensors files, as read-only views of the file.

Stricter than the libraries: duplicate names and bytes outside all arrays are errors.
"""

import json
import math
import struct

import numpy as np

from jaxinv.converters.file_view import Reader, Refused
from jaxinv.converters.pickle_values import Budget
from jaxinv.converters.zip_members import Members

_MAX_HEADER = 10**8  # bytes, as in the safetensors library
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


def is_npz(data: memoryview) -> bool:
    """True if the zip file is an .npz: all its members are .npy files."""
    names = list(Members(data, Budget(2**62)))
    return bool(names) and all(name.endswith('.npy') for name in names)


def is_safetensors(data: memoryview) -> bool:
    """True if the file starts with a length and a JSON object."""
    return len(data) > 9 and bytes(data[8:9]) == b'{'


def from_npz(data: memoryview, budget: Budget) -> dict[str, np.ndarray]:
    """{name: array} of an .npz. Raises Refused, or an error of safe_pickle.DAMAGE."""
    members = Members(data, budget)
    return {name.removesuffix('.npy'): _npy(members[name], name) for name in members}


def from_safetensors(data: memoryview, budget: Budget) -> tuple[dict[str, np.ndarray], dict]:
    """({name: array}, metadata {str: str}). bfloat16 becomes float32. Raises like from_npz."""
    (length,) = struct.unpack('<Q', data[:8])
    if length > min(_MAX_HEADER, len(data) - 8):
        raise ValueError('the header is longer than the file')
    header = json.loads(bytes(data[8 : 8 + length]), object_pairs_hook=_once)
    metadata = header.pop('__metadata__', {})
    content = data[8 + length :]
    budget.spend(len(content))
    arrays, spans = {}, []
    for name, entry in header.items():
        start, end = entry['data_offsets']
        shape = tuple(entry['shape'])
        if any(type(n) is not int or n < 0 for n in (start, end, *shape)):
            raise ValueError(f'{name[:80]!r} has an invalid shape or offset')
        dtype = np.dtype(_DTYPES[entry['dtype']])
        if end - start != math.prod(shape) * dtype.itemsize or end > len(content):
            raise ValueError(f'{name[:80]!r} does not have the size of its shape')
        array = np.frombuffer(content[start:end], dtype).reshape(shape)
        if entry['dtype'] == 'BF16':
            array = (array.astype(np.uint32) << 16).view(np.float32)
        arrays[name] = array
        spans.append((start, end))
    ends = [0, *(end for _, end in sorted(spans))]
    if [start for start, _ in sorted(spans)] != ends[:-1] or ends[-1] != len(content):
        raise Refused('has arrays that overlap, or bytes outside all arrays')
    return arrays, metadata


def _npy(content, name):
    file = Reader(content)
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f'{name[:80]!r} has the .npy version {version}')
    if dtype.kind not in 'biufcSU' or not dtype.itemsize:
        raise Refused(f'holds {name[:80]!r}, an array of Python objects or of records')
    rest = content[file.tell() :]
    if len(rest) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f'{name[:80]!r} does not have the size of its shape')
    return np.frombuffer(rest, dtype).reshape(shape, order='F' if fortran else 'C')


def _once(pairs):
    entries = {}
    for key, value in pairs:
        if key in entries:
            raise Refused(f'holds {key[:80]!r} twice')
        entries[key] = value
    return entries
