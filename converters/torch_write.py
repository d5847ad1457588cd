"""Writes tensors as torch.save does, without torch: a zip file of a pickle and of storages.

The pickle names torch._utils._rebuild_tensor_v2, torch.FloatStorage and collections.OrderedDict
only, so torch.load(FILE, weights_only=True) reads it.
"""

import io
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Mapping

import numpy as np

from jaxinv.io import atomic_path

_EPOCH = (1980, 1, 1, 0, 0, 0)  # of all members, so that equal tensors make equal files


def write(path: pathlib.Path, content: np.ndarray | Mapping[str, np.ndarray]) -> None:
    """Writes one tensor, or a state dict {name: tensor}, float32 in C order, to a .pt file."""
    pickled, storages = _pickle(content)
    path = pathlib.Path(path)
    with atomic_path(path) as scratch, zipfile.ZipFile(scratch, 'w') as archive:

        def add(name, data):
            archive.writestr(zipfile.ZipInfo(f'archive/{name}', _EPOCH), data)

        add('data.pkl', pickled)
        add('byteorder', b'little')
        for key, array in enumerate(storages):
            add(f'data/{key}', array.data)
        add('version', b'3\n')


def _pickle(content):
    """(pickle of protocol 2, the flat arrays of its storages)"""
    file, storages = io.BytesIO(), []

    def put(*parts):
        for part in parts:
            if isinstance(part, bytes):
                file.write(part)
            elif isinstance(part, str):
                text = part.encode()
                file.write(pickle.BINUNICODE + struct.pack('<I', len(text)) + text)
            else:
                # The pickle of an integer, without its header and final instruction.
                file.write(pickle.dumps(int(part), 2)[2:-1])

    def numbers(values):
        put(pickle.MARK, *values, pickle.TUPLE)

    def tensor(array):
        array = np.array(array, '<f4', order='C')
        put(_name('torch._utils', '_rebuild_tensor_v2'), pickle.MARK, pickle.MARK)
        put('storage', _name('torch', 'FloatStorage'), str(len(storages)), 'cpu', array.size)
        put(pickle.TUPLE, pickle.BINPERSID, 0)
        numbers(array.shape)
        numbers(stride // array.itemsize for stride in array.strides)
        put(pickle.NEWFALSE, *_EMPTY, pickle.TUPLE, pickle.REDUCE)
        storages.append(array.reshape(-1))

    put(pickle.PROTO + b'\x02')
    if isinstance(content, Mapping):
        put(*_EMPTY, pickle.MARK)
        for name, array in content.items():
            put(str(name))
            tensor(array)
        put(pickle.SETITEMS)
    else:
        tensor(content)
    put(pickle.STOP)
    return file.getvalue(), storages


def _name(module, name):
    return pickle.GLOBAL + f'{module}\n{name}\n'.encode()


_EMPTY = (_name('collections', 'OrderedDict'), pickle.EMPTY_TUPLE, pickle.REDUCE)
