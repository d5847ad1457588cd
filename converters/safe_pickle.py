"""Reads weights out of pickles and torch files without running what they ask for.

A pickle is a little program that may call any function of any module. This reader walks the
program with `pickletools` (which only decodes) and carries out the building of plain data itself:
numbers, strings, lists, dicts, numpy arrays and torch tensors (as numpy arrays). A name in the file
is looked up in a fixed table (pickle_machine.py) and never imported; anything else is refused.
Covers plain pickles of protocols 0 to 5, torch's zip format and its older format.
"""

import io
import os
import pathlib
import struct
import zipfile
import zlib

import numpy as np

from converters.pickle_machine import Dtype, Machine, Name, Refused, Storage
from jaxinv.errors import JaxinvError

MAX_BYTES = 2**31  # of one file, and of all arrays made from it
MAX_DEPTH = 64  # of containers in containers
MAX_ITEMS = 10**7  # counting a shared container once for every place it is used

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # torch's format before 1.6 begins with this number


class UnsafePickle(JaxinvError):
    """The file is not plain data, or not whole; the message names the file and the reason."""


def load(path_or_file, max_bytes: int = MAX_BYTES):
    """The object in a pickle or torch file, from a path or an open binary file.

    Returns None, bool, int, float, complex, str, bytes, list, tuple, dict, OrderedDict, set and
    numpy arrays and scalars. Torch tensors and parameters come back as numpy arrays in C order
    (bfloat16 as float32). Raises UnsafePickle with one sentence for everything else: calls, foreign
    classes, object arrays, cycles, damaged or truncated files, files or arrays above `max_bytes`.
    """
    if hasattr(path_or_file, 'read'):
        name = str(getattr(path_or_file, 'name', 'the file'))
        data = path_or_file.read(max_bytes + 1)
    else:
        name = str(path_or_file)
        if os.path.getsize(path_or_file) > max_bytes:
            raise UnsafePickle(f'{name} has more than the {max_bytes} bytes allowed.')
        data = pathlib.Path(path_or_file).read_bytes()
    if len(data) > max_bytes:
        raise UnsafePickle(f'{name} has more than the {max_bytes} bytes allowed.')
    try:
        if data[:4] == b'PK\x03\x04':
            result = _load_zip(data, max_bytes)
        else:
            result = _load_stream(io.BytesIO(data), max_bytes)
        _check_containers(result)
    except Refused as e:
        raise UnsafePickle(
            f'{name} {e}; nothing in it was run. Convert it to .npz or .safetensors where you '
            'trust it.'
        ) from None
    except (
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        NotImplementedError,  # zipfile: unknown compression
        RuntimeError,  # zipfile: encrypted
        TypeError,
        ValueError,
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
    ) as e:
        raise UnsafePickle(
            f'{name} is not a pickle or torch file, or is damaged ({type(e).__name__}: '
            f'{" ".join(str(e).split())[:120]}).'
        ) from None
    return result


def _load_stream(file, budget):
    first = Machine(file, budget).result
    if not (type(first) is int and first == _LEGACY_MAGIC):
        return first
    version = Machine(file, budget).result
    system = Machine(file, budget).result
    if version != 1001 or not isinstance(system, dict):
        raise ValueError(f'torch file version {version!r}')
    order = '<' if system.get('little_endian', True) else '>'
    # The values come after the pickle that uses them, so it is carried out twice.
    wanted, start = {}, file.tell()

    def note(dtype, key, count):
        if wanted.setdefault(key, (dtype, count)) != (dtype, count):
            raise ValueError(f'storage {key!r} is described twice')

    Machine(file, budget, note)
    keys = Machine(file, budget).result
    if not isinstance(keys, list) or sorted(keys) != sorted(wanted):
        raise ValueError('the list of storages is not the one the tensors use')
    values = {}
    for key in keys:
        dtype, count = wanted[key]
        (stored,) = struct.unpack(order + 'q', file.read(8))
        data = file.read(count * dtype.itemsize) if stored == count else b''
        if len(data) != count * dtype.itemsize:
            raise ValueError(f'storage {key!r} is cut short')
        values[key] = np.frombuffer(data, dtype.newbyteorder(order))
    file.seek(start)
    return Machine(file, budget, lambda dtype, key, count: values[key]).result


def _load_zip(data, budget):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        pickles = [n for n in archive.namelist() if n.split('/')[1:] == ['data.pkl']]
        if len(pickles) != 1:
            raise ValueError('a zip file without a single data.pkl')
        root = pickles[0].removesuffix('data.pkl')
        if sum(member.file_size for member in archive.infolist()) > budget:
            raise Refused('unpacks to more than allowed')
        order = '<'
        if root + 'byteorder' in archive.namelist():
            order = {b'little': '<', b'big': '>'}[archive.read(root + 'byteorder')]
        cache = {}

        def storage(dtype, key, count):
            if key not in cache:
                cache[key] = archive.read(f'{root}data/{key}')
            if len(cache[key]) != count * dtype.itemsize:
                raise ValueError(f'storage {key!r} is not of the size announced')
            return np.frombuffer(cache[key], dtype.newbyteorder(order))

        return Machine(io.BytesIO(archive.read(pickles[0])), budget, storage).result


def _check_containers(root):
    """Refuses cycles, great depth, and small files that unfold into huge trees."""
    depth, items, path = {}, {}, set()
    stack = [(root, False)]
    while stack:
        node, children_done = stack.pop()
        if isinstance(node, Name | Dtype | Storage):
            raise Refused('holds a function, a class or a bare storage as a value')
        if not isinstance(node, list | tuple | dict) or (not children_done and id(node) in depth):
            continue
        children = list(node.values()) if isinstance(node, dict) else node
        if not children_done:
            if id(node) in path:
                raise Refused('holds a container inside itself')
            path.add(id(node))
            stack.append((node, True))
            stack.extend((child, False) for child in children)
            continue
        path.discard(id(node))
        depth[id(node)] = 1 + max((depth.get(id(c), 0) for c in children), default=0)
        items[id(node)] = 1 + sum(items.get(id(c), 1) for c in children)
        if depth[id(node)] > MAX_DEPTH or items[id(node)] > MAX_ITEMS:
            raise Refused('holds containers too deeply or too often inside each other')
