"""The names that a pickle may contain, and the functions that make plain values for them.

The entries of the tables at the end are functions of this module: no module that a file names is
imported. A name that is in no table becomes pickle_values.Opaque, and so does what it would make.
"""

import collections
import math

import numpy as np

from jaxinv.converters.file_view import Refused
from jaxinv.converters.pickle_values import (
    Array,
    Attributes,
    Dtype,
    Opaque,
    Record,
    Storage,
    add,
    brief,
    from_bfloat16,
    put,
    sizes_of,
    whole,
)

MAX_EXPANSION = 2**20  # bytes by which a tensor may exceed its storage
MAX_ARGUMENTS = 1000  # of a call


class Name:
    """A global of the file that is in the tables below, as a key of them."""

    def __init__(self, key):
        self.key = key


def find(module, name):
    """The Name of a global, or Opaque if the tables do not have it."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError('a name that is not a string')
    if len(module) + len(name) > 200:
        return Opaque(f'{module[:100]}.{name[:100]}')
    if module.partition('.')[0] == '__torch__':  # the classes of a TorchScript archive
        return Name(SCRIPT)
    key = f'{module} {name}'
    known = any(key in table for table in (CALLS, CLASSES, STORAGES))
    return Name(key) if known else Opaque(f'{module}.{name}')


def array(machine, data, dtype, shape, order):
    """A read-only numpy array over these bytes, without a copy."""
    if isinstance(data, str):  # Python 2's byte strings, decoded as latin-1 by pickletools
        machine.budget.allocate(len(data))
        data = data.encode('latin-1')
    if not isinstance(data, bytes | bytearray | memoryview):
        raise Refused('holds a numpy array of Python objects')
    dtype = dtype.value if isinstance(dtype, Dtype) else dtype
    if not isinstance(dtype, np.dtype) or dtype.kind not in 'biufcSU' or not dtype.itemsize:
        raise Refused(f'holds a numpy array of type {brief(dtype)}')
    shape = sizes_of(shape)
    machine.budget.view(math.prod(shape) * dtype.itemsize)
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f'{len(data)} bytes for an array of shape {shape} and type {dtype}')
    if isinstance(data, bytearray):
        machine.budget.allocate(len(data))
        data = bytes(data)
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def tensor(machine, storage, offset, sizes, strides, *requires_grad_hooks_metadata):
    """torch's as_strided; raises unless all elements are in the storage."""
    if not isinstance(storage, Storage):
        raise ValueError('a torch tensor without a storage')
    sizes, strides, offset = sizes_of(sizes), sizes_of(strides), whole(offset)
    if len(sizes) != len(strides) or offset < 0:
        raise ValueError(f'a tensor of sizes {sizes}, strides {strides}, offset {offset}')
    values = storage.values
    if values is None:
        return None
    size = math.prod(sizes) * (4 if values.dtype == _BFLOAT16 else values.dtype.itemsize)
    machine.budget.view(size)
    if size > 2 * values.nbytes + MAX_EXPANSION:  # twice: bfloat16 becomes float32
        raise Refused(f'holds a tensor of {size} bytes with a storage of {values.nbytes}')
    if math.prod(sizes) == 0:
        view = values[:0].reshape(sizes)
    else:
        last = offset + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True))
        if last >= values.size:
            raise ValueError(f'a tensor reaches element {last} of {values.size}')
        steps = [s * values.dtype.itemsize for s in strides]
        view = np.lib.stride_tricks.as_strided(values[offset:], sizes, steps, writeable=False)
    if machine.in_place:
        return view
    if values.dtype == _BFLOAT16:  # the upper half of a float32
        return from_bfloat16(view['bits'], machine.budget)
    result = view.astype(values.dtype.newbyteorder('='), order='C', copy=False)
    if result is not view:
        machine.budget.allocate(size)
    return result


# --- Functions (machine, *arguments) -> value, the entries of the tables --------------------------


def _reconstruct(machine, subtype, shape, typecode):
    if not (isinstance(subtype, Name) and subtype.key == 'numpy ndarray'):
        raise Refused('creates an array of another class than ndarray')
    return Array()


def _dtype(machine, code, align=False, copy=True):
    if isinstance(code, bytes | memoryview):
        code = bytes(code).decode('latin-1')
    # A fixed list: np.dtype also parses records and other complex descriptions.
    if not isinstance(code, str) or code.lstrip('<>=|') not in _DTYPE_CODES:
        if isinstance(code, str) and code[:1] in ('S', 'U') and code[1:].isdigit():
            if len(code) < 8:
                return Dtype(np.dtype(code))
        raise Refused(f'holds a numpy array of type {brief(code)}')
    return Dtype(np.dtype(code))


def _scalar(machine, dtype, data):
    number = array(machine, data, dtype, (), 'C')
    return number if machine.in_place else number[()]


def _frombuffer(machine, data, dtype, shape, order):
    if order not in ('C', 'F'):
        raise ValueError(f'array order {brief(order)}')
    return array(machine, data, dtype, shape, order)


def _encode(machine, text, encoding):
    if not isinstance(text, str) or encoding not in ('latin1', 'latin-1'):
        raise Refused(f'encodes text as {brief(encoding)}')
    machine.budget.allocate(len(text))
    return text.encode('latin-1')


def _bytes(kind):
    """Protocols below 3 write bytes and bytearrays as calls."""

    def make(machine, data=b'', encoding='latin-1'):
        if isinstance(data, str):
            data = _encode(machine, data, encoding)
        if not isinstance(data, bytes):  # an integer would allocate that many bytes
            raise ValueError(f'{kind.__name__} of {type(data).__name__}')
        machine.budget.allocate(len(data))
        return kind(data)

    return make


def _ordered_dict(machine, pairs=()):
    if not isinstance(pairs, tuple | list):
        raise ValueError('an OrderedDict of something else than pairs')
    result = collections.OrderedDict()
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError('an OrderedDict of something else than pairs')
        put(machine.budget, result, list(pair))
    return result


def _default_dict(machine, factory=None):
    return {}


def _set(machine, items=()):
    if not isinstance(items, tuple | list | set | frozenset):
        raise ValueError('a set of something else than items')
    return add(machine.budget, set(), items)


def _of_type(machine, function, kind, args, state):
    """A tensor of a subclass, or with attributes of its own, which are left out."""
    if not isinstance(function, Name) or function.key not in _TENSORS:
        raise Refused('creates a tensor by a function that is not known')
    return machine.call(function, args)


def _parameter(machine, data, *requires_grad_hooks_state):
    if data is not None and not isinstance(data, np.ndarray):
        raise ValueError('a torch parameter that is not a tensor')
    return data


def _blob(machine, data):
    """A storage in a plain pickle: a torch file inside it, one level deep as in torch."""
    if machine.blob is None:
        raise Refused('holds torch files inside each other')
    if isinstance(data, str) or not isinstance(data, bytes | memoryview):
        raise ValueError(f'a torch file in a {type(data).__name__}')
    return machine.blob(data)


def _persistent(machine, meta):
    """NVIDIA's torch_utils.persistence. The source text of the class is dropped."""
    if not isinstance(meta, dict) or not isinstance(meta.get('state'), dict):
        raise ValueError('a persistent object without a state')
    if meta.get('type') != 'class' or not isinstance(meta.get('class_name'), str):
        raise ValueError('a persistent object without a class')
    return Record('module', meta['class_name'], meta['state'])


def _path(machine, *parts):
    machine.budget.step(len(parts))
    if not all(isinstance(part, str) for part in parts):
        raise ValueError('a path with parts that are not strings')
    machine.budget.allocate(sum(map(len, parts)) + len(parts))
    return '/'.join(parts)


def _device(machine, kind, index=None):
    if not isinstance(kind, str):
        raise ValueError('a device that is not a string')
    return kind if index is None else f'{kind}:{whole(index)}'


def _not_callable(machine, *args):
    raise Refused('calls a class that may only be named')


_DTYPE_CODES = frozenset('b1 i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 c8 c16'.split())
_BFLOAT16 = np.dtype([('bits', '<u2')])  # NumPy has no bfloat16; a field marks it

CALLS = {
    'numpy ndarray': _not_callable,
    'numpy dtype': _dtype,
    'collections OrderedDict': _ordered_dict,
    'collections defaultdict': _default_dict,
    '_codecs encode': _encode,
    'torch Size': lambda machine, sizes: sizes_of(sizes),
    'torch device': _device,
    'torch._utils _rebuild_tensor': tensor,
    'torch._utils _rebuild_tensor_v2': tensor,
    'torch._utils _rebuild_parameter': _parameter,
    'torch._utils _rebuild_parameter_with_state': _parameter,
    'torch._tensor _rebuild_from_type_v2': _of_type,
    'torch.storage _load_from_bytes': _blob,
    'torch_utils.persistence _reconstruct_persistent_obj': _persistent,
}
for _core in ('numpy.core', 'numpy._core'):
    CALLS[f'{_core}.multiarray _reconstruct'] = _reconstruct
    CALLS[f'{_core}.multiarray scalar'] = _scalar
    CALLS[f'{_core}.numeric _frombuffer'] = _frombuffer
for _python in ('builtins', '__builtin__'):
    CALLS[f'{_python} bytes'] = _bytes(bytes)
    CALLS[f'{_python} bytearray'] = _bytes(bytearray)
    CALLS[f'{_python} set'] = _set
for _kind in ('PosixPath', 'WindowsPath'):  # in the options of an encoder's training
    CALLS[f'pathlib {_kind}'] = CALLS[f'pathlib._local {_kind}'] = _path
_TENSORS = ('torch._utils _rebuild_tensor', 'torch._utils _rebuild_tensor_v2')
# Functions with a class among their arguments, which may be one that is not known.
WITH_CLASSES = ('collections defaultdict', 'torch._tensor _rebuild_from_type_v2')
SCRIPT = 'a TorchScript module'  # no name in a file: it has no dot before its last space
CLASSES = {
    SCRIPT: lambda: Record('script'),
    'dnnlib.util EasyDict': Attributes,
    'argparse Namespace': Attributes,
    'dnnlib.tflib.network Network': lambda: Record('network'),
}
STORAGES = {
    f'torch {name}Storage': np.dtype(code)
    for name, code in dict(
        Double='<f8',
        Float='<f4',
        Half='<f2',
        Long='<i8',
        Int='<i4',
        Short='<i2',
        Char='i1',
        Byte='u1',
        Bool='?',
        ComplexFloat='<c8',
        ComplexDouble='<c16',
    ).items()
}
STORAGES['torch BFloat16Storage'] = _BFLOAT16
