"""Carries out a pickle as plain data: no import, no call, no object of a class the file names.

`pickletools` decodes the instructions one by one; `Machine` keeps the stack. What a file may name
is the table at the end, and each entry is a small function of this module. Internal to
safe_pickle.py, which turns the errors here into sentences.
"""

import collections
import math
import pickletools

import numpy as np


class Refused(Exception):
    """Says what the file wanted; completed to a sentence by load()."""


class Name:
    """What the file called `module name`: a key into _CALLS or _STORAGES, not the thing itself."""

    def __init__(self, module, name):
        self.key = f'{module} {name}'
        if self.key not in _CALLS and self.key not in _STORAGES:
            raise Refused(f'asks for {module}.{name}'[:200] + ', which no weight file needs')


class _Array:
    """An ndarray between its `_reconstruct` and its state; `value` is set by the latter."""

    value = None


class Dtype:
    """A dtype between its name and the byte order in its state."""

    def __init__(self, value):
        self.value = value


class Storage:
    """A torch storage: flat values, or None while the older format has not got to them yet."""

    def __init__(self, name, values):
        self.name, self.values = name, values


class Machine:
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
            push(Name(*arg.split(' ', 1)))
        elif op == 'STACK_GLOBAL':
            push(Name(*self.pop(2)))
        elif op == 'REDUCE':
            name, args = self.pop(2)
            push(self.call(name, args))
        elif op == 'BUILD':
            (state,) = self.pop(1)
            self.build(self.stack[-1], _finished(state))
        elif op in ('PERSID', 'BINPERSID'):
            push(self.persistent(self.pop(1)[0] if op == 'BINPERSID' else arg))
        else:  # INST, OBJ, NEWOBJ, NEWOBJ_EX, EXT*, NEXT_BUFFER, READONLY_BUFFER
            raise Refused(f'makes an object by the pickle instruction {op}')

    def call(self, name, args):
        if not isinstance(name, Name) or name.key not in _CALLS:
            raise Refused('calls something that is not a function')
        if not isinstance(args, tuple):
            raise ValueError('the pickle calls a function without a tuple of arguments')
        return _CALLS[name.key](self, *args)

    def build(self, target, state):
        if isinstance(target, _Array):
            _, shape, dtype, _fortran, data = state
            target.value = self.array(data, dtype, shape, 'F' if _fortran else 'C')
        elif isinstance(target, Dtype):
            # (version, byte order, subdtype, names, fields, itemsize, alignment, flags[, metadata])
            if state[2] is not None or state[3] is not None or state[4] is not None:
                raise Refused('holds a numpy array of records')
            if state[1] not in ('<', '>', '=', '|'):
                raise ValueError(f'byte order {state[1]!r}')
            target.value = target.value.newbyteorder(state[1])
        elif isinstance(target, collections.OrderedDict) and isinstance(state, dict):
            pass  # torch hangs `_metadata` on a state_dict; nothing here needs it
        else:
            raise Refused('sets attributes of an object')

    def persistent(self, pid):
        if self.storage is None or not isinstance(pid, tuple) or len(pid) not in (5, 6):
            raise Refused('refers to something outside the file')
        kind, name, key, _location, count = pid[:5]
        if kind != 'storage' or not isinstance(name, Name) or name.key not in _STORAGES:
            raise Refused('refers to something that is not a torch storage')
        if len(pid) == 6 and pid[5] is not None:
            raise Refused('holds a torch storage that is a view of another')
        if not isinstance(key, str) or _whole(count) < 0:
            raise ValueError('a torch storage without a name or a size')
        return Storage(name, self.storage(_STORAGES[name.key], key, count))

    def spend(self, count, itemsize):
        """Python integers throughout: a product of int64 sizes could wrap around."""
        self.budget -= count * itemsize
        if self.budget < 0:
            raise Refused('holds arrays larger than allowed')

    def array(self, data, dtype, shape, order):
        if isinstance(data, str):  # Python 2's byte strings, decoded as latin-1 by pickletools
            data = data.encode('latin-1')
        if not isinstance(data, bytes | bytearray):
            raise Refused('holds a numpy array of Python objects')
        dtype = dtype.value if isinstance(dtype, Dtype) else dtype
        if not isinstance(dtype, np.dtype) or dtype.kind not in 'biufcSU' or not dtype.itemsize:
            raise Refused(f'holds a numpy array of type {str(dtype)[:40]}')
        shape = _sizes(shape)
        self.spend(math.prod(shape), dtype.itemsize)
        if len(data) != math.prod(shape) * dtype.itemsize:
            raise ValueError(f'{len(data)} bytes for an array of shape {shape} and type {dtype}')
        return np.frombuffer(data, dtype).reshape(shape, order=order).copy(order='K')

    def tensor(self, storage, offset, sizes, strides):
        """Follows torch's as_strided, after checking that every element lies in the storage."""
        if not isinstance(storage, Storage):
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


# --- What a file may name. Each entry is our own small function of (machine, *arguments). ---


def _reconstruct(machine, subtype, shape, typecode):
    if not (isinstance(subtype, Name) and subtype.key == 'numpy ndarray'):
        raise Refused('makes an array of a foreign class')
    return _Array()


def _dtype(machine, code, align=False, copy=True):
    if isinstance(code, bytes):
        code = code.decode('latin-1')
    # A fixed list: np.dtype itself understands whole little languages.
    if not isinstance(code, str) or code.lstrip('<>=|') not in _DTYPE_CODES:
        if isinstance(code, str) and code[:1] in ('S', 'U') and code[1:].isdigit():
            if len(code) < 8:
                return Dtype(np.dtype(code))
        raise Refused(f'holds a numpy array of type {str(code)[:40]!r}')
    return Dtype(np.dtype(code))


def _scalar(machine, dtype, data):
    return machine.array(data, dtype, (), 'C')[()]


def _frombuffer(machine, data, dtype, shape, order):
    if order not in ('C', 'F'):
        raise ValueError(f'array order {order!r}')
    return machine.array(data, dtype, shape, order)


def _encode(machine, text, encoding):
    if not isinstance(text, str) or encoding not in ('latin1', 'latin-1'):
        raise Refused(f'encodes text as {str(encoding)[:40]!r}')
    return text.encode('latin-1')


def _bytes(kind):
    """Protocols below 3 write b'' and every bytearray as calls."""

    def make(machine, data=b'', encoding='latin-1'):
        if isinstance(data, str):
            data = _encode(machine, data, encoding)
        if not isinstance(data, bytes):  # a number would be a length to allocate
            raise ValueError(f'{kind.__name__} of {type(data).__name__}')
        return kind(data)

    return make


def _ordered_dict(machine, pairs=()):
    return collections.OrderedDict(_pairs([item for key, value in pairs for item in (key, value)]))


def _tensor(machine, storage, offset, sizes, strides, *requires_grad_hooks_metadata):
    return machine.tensor(storage, offset, sizes, strides)


def _parameter(machine, data, *requires_grad_hooks):
    if data is not None and not isinstance(data, np.ndarray):
        raise ValueError('a torch parameter that is no tensor')
    return data


def _not_callable(machine, *args):
    raise Refused('calls a class that is only a label')


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
for _python in ('builtins', '__builtin__'):
    _CALLS[f'{_python} bytes'] = _bytes(bytes)
    _CALLS[f'{_python} bytearray'] = _bytes(bytearray)
    _CALLS[f'{_python} set'] = lambda machine, items=(): {_hashable(x) for x in items}
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
