"""Writes pickles, torch files and array files as the official programs do, without their code.

Names of modules, classes and functions are written as they are, without being looked up.
"""

import collections
import io
import json
import pickle
import struct
import zipfile

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C


class Name:
    """A global of some module, written by name only."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """What pickles as function(*args)."""

    def __init__(self, function, *args):
        self.function, self.args = Name(*function), args


class New:
    """What pickles as an object made without arguments, with dict items or a state or both."""

    def __init__(self, cls, items=None, state=None):
        self.cls, self.items, self.state = Name(*cls), items, state


class Storage:
    """A torch storage over a flat array."""

    def __init__(self, array):
        self.array = np.ascontiguousarray(array).ravel()

    def kind(self):
        kinds = {'float32': 'Float', 'float64': 'Double', 'float16': 'Half', 'int64': 'Long'}
        return kinds[self.array.dtype.name]


class Pickler(pickle._Pickler):
    """Writes the classes above. store: {key: Storage} takes storages, None writes them as blobs."""

    dispatch = pickle._Pickler.dispatch.copy()

    def __init__(self, file, protocol, store=None, legacy=False):
        super().__init__(file, protocol)
        self.store, self.legacy = store, legacy

    def persistent_id(self, obj):
        if self.store is None or not isinstance(obj, Storage):
            return None
        key = next((k for k, s in self.store.items() if s is obj), str(len(self.store)))
        self.store[key] = obj
        cls = Name('torch', f'{obj.kind()}Storage')
        pid = ('storage', cls, key, 'cpu', obj.array.size)
        return (*pid, None) if self.legacy else pid

    def save_name(self, obj):
        if self.proto >= 4:
            self.save(obj.module)
            self.save(obj.name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(f'c{obj.module}\n{obj.name}\n'.encode())

    def save_call(self, obj):
        self.save(obj.function)
        self.save(obj.args)
        self.write(pickle.REDUCE)
        self.memoize(obj)

    def save_new(self, obj):
        self.save(obj.cls)
        self.save(())
        self.write(pickle.NEWOBJ)
        self.memoize(obj)
        if obj.items:
            self.write(pickle.MARK)
            for pair in obj.items.items():
                for item in pair:
                    self.save(item)
            self.write(pickle.SETITEMS)
        if obj.state is not None:
            self.save(obj.state)
            self.write(pickle.BUILD)

    def save_storage(self, obj):
        blob = torch_legacy(obj)
        self.save(Call(('torch.storage', '_load_from_bytes'), blob))
        self.memoize(obj)

    dispatch[Name] = save_name
    dispatch[Call] = save_call
    dispatch[New] = save_new
    dispatch[Storage] = save_storage


def plain_pickle(obj, protocol=4):
    file = io.BytesIO()
    Pickler(file, protocol).dump(obj)
    return file.getvalue()


def torch_zip(obj, root='archive'):
    """torch.save since 1.6."""
    file, store = io.BytesIO(), {}
    Pickler(file, 2, store).dump(obj)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, 'w') as members:
        members.writestr(f'{root}/data.pkl', file.getvalue())
        for key, storage in store.items():
            members.writestr(f'{root}/data/{key}', storage.array.tobytes())
        members.writestr(f'{root}/version', '3\n')
    return archive.getvalue()


def torch_legacy(obj):
    """torch.save before 1.6, and of every storage within a plain pickle."""
    file, store = io.BytesIO(), {}
    for part in (MAGIC, 1001, dict(protocol_version=1001, little_endian=True, type_sizes={})):
        pickle.dump(part, file, 2)
    Pickler(file, 2, store, legacy=True).dump(obj)
    pickle.dump(sorted(store), file, 2)
    for _, storage in sorted(store.items()):
        file.write(struct.pack('<q', storage.array.size) + storage.array.tobytes())
    return file.getvalue()


def safetensors(arrays):
    header, data = {}, b''
    for name, array in arrays.items():
        raw = np.ascontiguousarray(array, np.float32).tobytes()
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {'dtype': 'F32', 'shape': list(array.shape), 'data_offsets': offsets}
        data += raw
    head = json.dumps(header).encode()
    return struct.pack('<Q', len(head)) + head + data


def npz(arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def tensor(array, storage=None, offset=0):
    array = np.asarray(array)
    strides = tuple(s // array.itemsize for s in np.ascontiguousarray(array).strides)
    if array.ndim == 0:
        strides = ()
    storage = storage or Storage(array)
    hooks = collections.OrderedDict()
    name = ('torch._utils', '_rebuild_tensor_v2')
    return Call(name, storage, offset, array.shape, strides, False, hooks)


def parameter(array):
    name = ('torch._utils', '_rebuild_parameter')
    return Call(name, tensor(array), True, collections.OrderedDict())


def easy_dict(**items):
    return New(('dnnlib.util', 'EasyDict'), items)


def tensors(arrays):
    """A state dict: an OrderedDict of tensors."""
    return collections.OrderedDict((name, tensor(array)) for name, array in arrays.items())
