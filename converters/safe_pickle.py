"""Reads weights out of pickles and torch files without running what they ask for.

A pickle is a little program that may call any function of any module. This reader walks the
program with `pickletools` (which only decodes) and carries out the building of plain data itself:
numbers, strings, lists, dicts, numpy arrays and torch tensors (as numpy arrays). A name in the file
is looked up in the fixed table at the end of this module and never imported; anything else is
refused. Covers plain pickles of protocols 0 to 5, torch's zip format and its older format.
"""

import collections
import io
import math
import os
import pathlib
import pickletools
import struct
import zipfile
import zlib

import numpy as np

MAX_BYTES = 2**31  # of one file, and of all arrays made from it
MAX_DEPTH = 64  # of containers in containers
MAX_ITEMS = 10**7  # counting a shared container once for every place it is used

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # torch's format before 1.6 begins with this number


class UnsafePickle(ValueError):
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
    except _Refused as e:
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


class _Refused(Exception):
    """Says what the file wanted; completed to a sentence by load()."""


class _Name:
    """What the file called `module name`: a key into _CALLS or _STORAGES, not the thing itself."""

    def __init__(self, module, name):
        self.key = f'{module} {name}'
        if self.key not in _CALLS and self.key not in _STORAGES:
            raise _Refused(f'asks for {module}.{name}'[:200] + ', which no weight file needs')


class _Array:
    """An ndarray between its `_reconstruct` and its state; `value` is set by the latter."""

    value = None


class _Dtype:
    """A dtype between its name and the byte order in its state."""

    def __init__(self, value):
        self.value = value


class _Storage:
    """A torch storage: flat values, or None while the older format has not got to them yet."""

    def __init__(self, name, values):
        self.name, self.values = name, values


class _Machine:
    """Carries out one pickle on its own stack. `storage(type, key, count)` finds torch values."""

    def __init__(self, file, budget, storage=None):
        self.budget, self.storage = budget, storage
        self.stack, self.marks, self.memo = [], [], {}
        for opcode, arg, _ in pickletools.genops(file):
            self.step(opcode.name, arg)
        if len(self.stack) != 1 or self.marks:
            raise ValueError('the pickle ends in the middle of something')
        self.result = _finished(self.stack[0])

    def pop(self, count):
        floor = self.marks[-1] if self.marks else 0
        if len(self.stack) - count < floor:
            raise ValueError('the pickle takes more than it put')
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def pop_mark(self):
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def top(self, kinds):
        if not self.stack or not isinstance(self.stack[-1], kinds):
            raise ValueError('the pickle fills something that is not a container')
        return self.stack[-1]

    def step(self, op, arg):
        push = self.stack.append
        if op in _CONSTANTS:
            push(_CONSTANTS[op])
        elif op in _LITERALS:
            push(arg)
        elif op in _EMPTY:
            push(_EMPTY[op]())
        elif op in ('PROTO', 'FRAME', 'STOP'):
            pass
        elif op == 'MARK':
            self.marks.append(len(self.stack))
        elif op == 'POP':
            self.pop(1)
        elif op == 'POP_MARK':
            self.pop_mark()
        elif op == 'DUP':
            push(self.stack[-1])
        elif op in ('PUT', 'BINPUT', 'LONG_BINPUT'):
            self.memo[arg] = self.stack[-1]
        elif op == 'MEMOIZE':
            self.memo[len(self.memo)] = self.stack[-1]
        elif op in ('GET', 'BINGET', 'LONG_BINGET'):
            push(self.memo[arg])
        elif op in ('TUPLE', 'LIST', 'DICT', 'FROZENSET'):
            items = [_finished(x) for x in self.pop_mark()]
            push(_gather(op, items))
        elif op in ('TUPLE1', 'TUPLE2', 'TUPLE3'):
            push(tuple(_finished(x) for x in self.pop(int(op[-1]))))
        elif op in ('APPEND', 'APPENDS'):
            items = self.pop(1) if op == 'APPEND' else self.pop_mark()
            self.top(list).extend(_finished(x) for x in items)
        elif op in ('SETITEM', 'SETITEMS'):
            items = self.pop(2) if op == 'SETITEM' else self.pop_mark()
            self.top(dict).update(_pairs([_finished(x) for x in items]))
        elif op == 'ADDITEMS':
            items = self.pop_mark()
            self.top(set).update(_hashable(x) for x in items)
        elif op == 'GLOBAL':
            push(_Name(*arg.split(' ', 1)))
        elif op == 'STACK_GLOBAL':
            push(_Name(*self.pop(2)))
        elif op == 'REDUCE':
            name, args = self.pop(2)
            push(self.call(name, args))
        elif op == 'BUILD':
            (state,) = self.pop(1)
            self.build(self.stack[-1], _finished(state))
        elif op in ('PERSID', 'BINPERSID'):
            push(self.persistent(self.pop(1)[0] if op == 'BINPERSID' else arg))
        else:  # INST, OBJ, NEWOBJ, NEWOBJ_EX, EXT*, NEXT_BUFFER, READONLY_BUFFER
            raise _Refused(f'makes an object by the pickle instruction {op}')

    def call(self, name, args):
        if not isinstance(name, _Name) or name.key not in _CALLS:
            raise _Refused('calls something that is not a function')
        if not isinstance(args, tuple):
            raise ValueError('the pickle calls a function without a tuple of arguments')
        return _CALLS[name.key](self, *args)

    def build(self, target, state):
        if isinstance(target, _Array):
            _, shape, dtype, _fortran, data = state
            target.value = self.array(data, dtype, shape, 'F' if _fortran else 'C')
        elif isinstance(target, _Dtype):
            # (version, byte order, subdtype, names, fields, itemsize, alignment, flags[, metadata])
            if state[2] is not None or state[3] is not None or state[4] is not None:
                raise _Refused('holds a numpy array of records')
            if state[1] not in ('<', '>', '=', '|'):
                raise ValueError(f'byte order {state[1]!r}')
            target.value = target.value.newbyteorder(state[1])
        elif isinstance(target, collections.OrderedDict) and isinstance(state, dict):
            pass  # torch hangs `_metadata` on a state_dict; nothing here needs it
        else:
            raise _Refused('sets attributes of an object')

    def persistent(self, pid):
        if self.storage is None or not isinstance(pid, tuple) or len(pid) not in (5, 6):
            raise _Refused('refers to something outside the file')
        kind, name, key, _location, count = pid[:5]
        if kind != 'storage' or not isinstance(name, _Name) or name.key not in _STORAGES:
            raise _Refused('refers to something that is not a torch storage')
        if len(pid) == 6 and pid[5] is not None:
            raise _Refused('holds a torch storage that is a view of another')
        if not isinstance(key, str) or _whole(count) < 0:
            raise ValueError('a torch storage without a name or a size')
        return _Storage(name, self.storage(_STORAGES[name.key], key, count))

    def spend(self, count, itemsize):
        """Python integers throughout: a product of int64 sizes could wrap around."""
        self.budget -= count * itemsize
        if self.budget < 0:
            raise _Refused('holds arrays larger than allowed')

    def array(self, data, dtype, shape, order):
        if isinstance(data, str):  # Python 2's byte strings, decoded as latin-1 by pickletools
            data = data.encode('latin-1')
        if not isinstance(data, bytes | bytearray):
            raise _Refused('holds a numpy array of Python objects')
        dtype = dtype.value if isinstance(dtype, _Dtype) else dtype
        if not isinstance(dtype, np.dtype) or dtype.kind not in 'biufcSU' or not dtype.itemsize:
            raise _Refused(f'holds a numpy array of type {str(dtype)[:40]}')
        shape = _sizes(shape)
        self.spend(math.prod(shape), dtype.itemsize)
        if len(data) != math.prod(shape) * dtype.itemsize:
            raise ValueError(f'{len(data)} bytes for an array of shape {shape} and type {dtype}')
        return np.frombuffer(data, dtype).reshape(shape, order=order).copy(order='K')

    def tensor(self, storage, offset, sizes, strides):
        """Follows torch's as_strided, after checking that every element lies in the storage."""
        if not isinstance(storage, _Storage):
            raise ValueError('a torch tensor without a storage')
        sizes, strides, offset = _sizes(sizes), _sizes(strides), _whole(offset)
        if len(sizes) != len(strides) or offset < 0:
            raise ValueError(f'a tensor of sizes {sizes}, strides {strides}, offset {offset}')
        values = storage.values
        if values is None:
            return None
        self.spend(math.prod(sizes), 4 if values.dtype == _BFLOAT16 else values.dtype.itemsize)
        if math.prod(sizes) == 0:
            view = values[:0].reshape(sizes)
        else:
            last = offset + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True))
            if last >= values.size:
                raise ValueError(f'a tensor reaches element {last} of {values.size}')
            steps = [s * values.dtype.itemsize for s in strides]
            view = np.lib.stride_tricks.as_strided(values[offset:], sizes, steps, writeable=False)
        if values.dtype == _BFLOAT16:  # the upper half of a float32
            return (view['bits'].astype(np.uint32) << 16).view(np.float32)
        return view.astype(values.dtype.newbyteorder('='), order='C')


def _load_stream(file, budget):
    first = _Machine(file, budget).result
    if not (type(first) is int and first == _LEGACY_MAGIC):
        return first
    version = _Machine(file, budget).result
    system = _Machine(file, budget).result
    if version != 1001 or not isinstance(system, dict):
        raise ValueError(f'torch file version {version!r}')
    order = '<' if system.get('little_endian', True) else '>'
    # The values come after the pickle that uses them, so it is carried out twice.
    wanted, start = {}, file.tell()

    def note(dtype, key, count):
        if wanted.setdefault(key, (dtype, count)) != (dtype, count):
            raise ValueError(f'storage {key!r} is described twice')

    _Machine(file, budget, note)
    keys = _Machine(file, budget).result
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
    return _Machine(file, budget, lambda dtype, key, count: values[key]).result


def _load_zip(data, budget):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        pickles = [n for n in archive.namelist() if n.split('/')[1:] == ['data.pkl']]
        if len(pickles) != 1:
            raise ValueError('a zip file without a single data.pkl')
        root = pickles[0].removesuffix('data.pkl')
        if sum(member.file_size for member in archive.infolist()) > budget:
            raise _Refused('unpacks to more than allowed')
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

        return _Machine(io.BytesIO(archive.read(pickles[0])), budget, storage).result


def _finished(item):
    """An array once its state is set; a name or an unfinished array must not get into the data."""
    if isinstance(item, _Array):
        if item.value is None:
            raise ValueError('a numpy array without values')
        return item.value
    return item


def _hashable(key):
    # Never hash nested tuples: the hash has no recursion limit, a deep one ends the process.
    flat = key if isinstance(key, tuple) else (key,)
    if not all(isinstance(x, str | bytes | int | float | complex | None) for x in flat):
        raise ValueError(f'a {type(key).__name__} as a key')
    return key


def _pairs(items):
    if len(items) % 2:
        raise ValueError('a key without a value')
    return [(_hashable(k), v) for k, v in zip(items[::2], items[1::2], strict=True)]


def _gather(op, items):
    if op == 'DICT':
        return dict(_pairs(items))
    if op == 'FROZENSET':
        return frozenset(_hashable(x) for x in items)
    return tuple(items) if op == 'TUPLE' else items


def _whole(number):
    if type(number) is not int:
        raise ValueError(f'{type(number).__name__} where a whole number belongs')
    return number


def _sizes(sizes):
    if not isinstance(sizes, tuple | list) or len(sizes) > 32:
        raise ValueError('sizes that are no tuple of at most 32 numbers')
    if any(_whole(n) < 0 or n >= 2**48 for n in sizes):
        raise ValueError(f'sizes {tuple(sizes)}')
    return tuple(sizes)


def _check_containers(root):
    """Refuses cycles, great depth, and small files that unfold into huge trees."""
    depth, items, path = {}, {}, set()
    stack = [(root, False)]
    while stack:
        node, children_done = stack.pop()
        if isinstance(node, _Name | _Dtype | _Storage):
            raise _Refused('holds a function, a class or a bare storage as a value')
        if not isinstance(node, list | tuple | dict) or (not children_done and id(node) in depth):
            continue
        children = list(node.values()) if isinstance(node, dict) else node
        if not children_done:
            if id(node) in path:
                raise _Refused('holds a container inside itself')
            path.add(id(node))
            stack.append((node, True))
            stack.extend((child, False) for child in children)
            continue
        path.discard(id(node))
        depth[id(node)] = 1 + max((depth.get(id(c), 0) for c in children), default=0)
        items[id(node)] = 1 + sum(items.get(id(c), 1) for c in children)
        if depth[id(node)] > MAX_DEPTH or items[id(node)] > MAX_ITEMS:
            raise _Refused('holds containers too deeply or too often inside each other')


# --- What a file may name. Each entry is our own small function of (machine, *arguments). ---


def _reconstruct(machine, subtype, shape, typecode):
    if not (isinstance(subtype, _Name) and subtype.key == 'numpy ndarray'):
        raise _Refused('makes an array of a foreign class')
    return _Array()


def _dtype(machine, code, align=False, copy=True):
    if isinstance(code, bytes):
        code = code.decode('latin-1')
    # A fixed list: np.dtype itself understands whole little languages.
    if not isinstance(code, str) or code.lstrip('<>=|') not in _DTYPE_CODES:
        if isinstance(code, str) and code[:1] in ('S', 'U') and code[1:].isdigit():
            if len(code) < 8:
                return _Dtype(np.dtype(code))
        raise _Refused(f'holds a numpy array of type {str(code)[:40]!r}')
    return _Dtype(np.dtype(code))


def _scalar(machine, dtype, data):
    return machine.array(data, dtype, (), 'C')[()]


def _frombuffer(machine, data, dtype, shape, order):
    if order not in ('C', 'F'):
        raise ValueError(f'array order {order!r}')
    return machine.array(data, dtype, shape, order)


def _encode(machine, text, encoding):
    if not isinstance(text, str) or encoding not in ('latin1', 'latin-1'):
        raise _Refused(f'encodes text as {str(encoding)[:40]!r}')
    return text.encode('latin-1')


def _ordered_dict(machine, pairs=()):
    flat = [x for pair in pairs for x in (lambda k, v: (k, v))(*pair)]
    return collections.OrderedDict(_pairs(flat))


def _tensor(machine, storage, offset, sizes, strides, *requires_grad_hooks_metadata):
    return machine.tensor(storage, offset, sizes, strides)


def _parameter(machine, data, *requires_grad_hooks):
    if data is not None and not isinstance(data, np.ndarray):
        raise ValueError('a torch parameter that is no tensor')
    return data


def _not_callable(machine, *args):
    raise _Refused('calls a class that is only a label')


_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
_EMPTY = {'EMPTY_DICT': dict, 'EMPTY_LIST': list, 'EMPTY_TUPLE': tuple, 'EMPTY_SET': set}
_LITERALS = frozenset(
    'INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING '
    'UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 '
    'BYTEARRAY8'.split()
)
_DTYPE_CODES = frozenset('b1 i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 c8 c16'.split())
_BFLOAT16 = np.dtype([('bits', '<u2')])  # numpy has none; the field keeps it apart from uint16

_CALLS = {
    'numpy ndarray': _not_callable,
    'numpy dtype': _dtype,
    'collections OrderedDict': _ordered_dict,
    '_codecs encode': _encode,
    'torch Size': lambda machine, sizes: _sizes(sizes),
    'torch._utils _rebuild_tensor': _tensor,
    'torch._utils _rebuild_tensor_v2': _tensor,
    'torch._utils _rebuild_parameter': _parameter,
}
for _core in ('numpy.core', 'numpy._core'):
    _CALLS[f'{_core}.multiarray _reconstruct'] = _reconstruct
    _CALLS[f'{_core}.multiarray scalar'] = _scalar
    _CALLS[f'{_core}.numeric _frombuffer'] = _frombuffer
for _set in ('builtins', '__builtin__'):
    _CALLS[f'{_set} set'] = lambda machine, items=(): {_hashable(x) for x in items}
_STORAGES = {
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
_STORAGES['torch BFloat16Storage'] = _BFLOAT16
