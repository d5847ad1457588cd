"""The two formats of torch.save: a zip file of a pickle and storages, and a stream of pickles."""

import struct

import numpy as np

from jaxinv.converters.budget import Budget
from jaxinv.converters.file_view import Reader
from jaxinv.converters.pickle_machine import Machine
from jaxinv.converters.pickle_values import Storage, brief, whole
from jaxinv.converters.zip_members import Members

MAGIC = 0x1950A86A20F9469CFC6C  # the older format begins with a pickle of this number


def from_zip(data: memoryview, budget: Budget, in_place: bool = False):
    """The object in torch's zip format, the default since torch 1.6. in_place: see Machine."""
    members = Members(data, budget)
    pickles = [name for name in members if name.split('/')[1:] == ['data.pkl']]
    if len(pickles) != 1:
        raise ValueError('a zip file without a single data.pkl')
    root = pickles[0].removesuffix('data.pkl')
    order = '<'
    if root + 'byteorder' in members:
        order = {b'little': '<', b'big': '>'}[bytes(members[root + 'byteorder'])]
    cache = {}

    def storage(dtype, key, count):
        if key not in cache:
            cache[key] = members[f'{root}data/{key}']
        if len(cache[key]) != count * dtype.itemsize:
            raise ValueError(f'storage {key[:80]!r} does not have the declared size')
        return np.frombuffer(cache[key], dtype.newbyteorder(order))

    return Machine(Reader(members[pickles[0]]), budget, storage, in_place=in_place).result


def from_stream(data: memoryview, budget: Budget, in_place: bool = False):
    """The object in a plain pickle, or in torch's format before 1.6. in_place: see Machine."""
    file = Reader(data)
    first = Machine(file, budget, None, lambda blob: _storage_in(blob, budget), in_place).result
    return _after_magic(file, budget, in_place) if _is_magic(first) else first


def _storage_in(blob, budget):
    """The storage in the argument of torch.storage._load_from_bytes."""
    file = Reader(memoryview(blob))
    if not _is_magic(Machine(file, budget).result):
        raise ValueError('a storage that is not a torch file')
    storage = _after_magic(file, budget)
    if not isinstance(storage, Storage):
        raise ValueError('a torch file that holds no storage')
    return storage


def _is_magic(value):
    return type(value) is int and value == MAGIC


def _after_magic(file, budget, in_place=False):
    version = Machine(file, budget).result
    system = Machine(file, budget).result
    if type(version) is not int or version != 1001 or not isinstance(system, dict):
        raise ValueError(f'torch file version {brief(version)}')
    order = '<' if system.get('little_endian', True) is True else '>'
    # The values come after the pickle that refers to them, so it is interpreted twice.
    wanted, start = {}, file.tell()

    def note(dtype, key, count):
        if wanted.setdefault(key, (dtype, count)) != (dtype, count):
            raise ValueError(f'storage {key[:80]!r} is described twice')

    Machine(file, budget, note)
    keys = Machine(file, budget).result
    # Nested lists may take forever to compare, so their types are checked first.
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError('a list of storages that are not names')
    if len(keys) != len(wanted) or set(keys) != set(wanted):
        raise ValueError('the list of storages is not that of the tensors')
    values = {}
    for key in keys:
        dtype, count = wanted[key]
        (stored,) = struct.unpack(order + 'q', file.read(8))
        size = whole(count) * dtype.itemsize
        content = file.block(size) if stored == count else b''
        if len(content) != size:
            raise ValueError(f'storage {key[:80]!r} is cut short')
        values[key] = np.frombuffer(content, dtype.newbyteorder(order))
    file.seek(start)
    found = Machine(file, budget, lambda dtype, key, count: values[key], in_place=in_place)
    return found.result
