"""Interprets a pickle as plain data: no import, no call, no object of a class in the file.

`pickletools` decodes the instructions; `Machine` has the stack. The names that are allowed, and
the values made for them, are in the tables of pickle_names.py. Used by safe_pickle.py, which turns
the errors raised here into sentences.
"""

import collections
import pickletools
import struct
import sys

from jaxinv.converters import pickle_names as names
from jaxinv.converters import pickle_values as values
from jaxinv.converters.file_view import Reader, Refused

LARGE = 2**16  # bytes; longer blocks stay views of the file
IN_PLACE = 0  # the same where arrays are to be written to (patch.py), also those of one number

_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
_EMPTY = {'EMPTY_DICT': dict, 'EMPTY_LIST': list, 'EMPTY_TUPLE': tuple, 'EMPTY_SET': set}
_BLOCKS = {'SHORT_BINBYTES': '<B', 'BINBYTES': '<I', 'BINBYTES8': '<Q'}
_LITERALS = frozenset(
    'INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING '
    'UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 '
    'BYTEARRAY8'.split()
)


def instructions(file: Reader, large: int = LARGE):
    """Yields (name, argument) up to the end of one pickle. large: bytes, see LARGE."""
    while True:
        opcode = pickletools.code2op.get(file.read(1).decode('latin-1'))
        if opcode is None:
            raise ValueError(f'no pickle instruction at byte {file.tell()}')
        if opcode.name in _BLOCKS:
            head = _BLOCKS[opcode.name]
            (size,) = struct.unpack(head, file.read(struct.calcsize(head)))
            arg = file.block(size)
            if len(arg) < size:
                raise ValueError('the file is cut short')
            arg = arg if size > large else bytes(arg)
        else:
            arg = opcode.arg.reader(file) if opcode.arg else None
        yield opcode.name, arg
        if opcode.name == 'STOP':
            return


class Machine:
    """Interprets one pickle; `result` is the object.

    budget: of all pickles of a file (budget.py).
    storage: (dtype, key, count) -> values of a torch storage outside the pickle.
    blob: (bytes) -> the torch storage in a torch file inside the pickle.
    in_place: arrays stay views of the file, in its strides and types, where it holds their bytes.
    Raises Refused, or an error of safe_pickle.DAMAGE.
    """

    def __init__(self, file: Reader, budget, storage=None, blob=None, in_place=False):
        self.budget, self.storage, self.blob, self.in_place = budget, storage, blob, in_place
        self.stack, self.marks, self.memo = [], [], {}
        for name, arg in instructions(file, IN_PLACE if in_place else LARGE):
            budget.step()
            self.step(name, arg)
        if len(self.stack) != 1 or self.marks:
            raise ValueError('the pickle ends before its object is complete')
        self.result = values.finished(self.stack[0])

    def pop(self, count):
        floor = self.marks[-1] if self.marks else 0
        if len(self.stack) - count < floor:
            raise ValueError('the pickle pops from an empty stack')
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
            raise ValueError('the pickle adds items to a value that is not a container')
        return self.stack[-1]

    def charge(self, item):
        """The item, after the memory of a new object is charged."""
        self.budget.allocate(sys.getsizeof(item))
        return item

    def step(self, op, arg):
        push = self.stack.append
        if op in _CONSTANTS:
            push(_CONSTANTS[op])
        elif op in _LITERALS:
            push(self.charge(arg))
        elif op in _EMPTY:
            push(self.charge(_EMPTY[op]()))
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
            self.memo[values.hashable(arg)] = self.stack[-1]
        elif op == 'MEMOIZE':
            self.memo[len(self.memo)] = self.stack[-1]
        elif op in ('GET', 'BINGET', 'LONG_BINGET'):
            push(self.memo[values.hashable(arg)])
        elif op in ('TUPLE', 'LIST', 'DICT', 'FROZENSET'):
            items = [values.finished(x) for x in self.pop_mark()]
            push(self.charge(self.gather(op, items)))
        elif op in ('TUPLE1', 'TUPLE2', 'TUPLE3'):
            push(self.charge(tuple(values.finished(x) for x in self.pop(int(op[-1])))))
        elif op in ('APPEND', 'APPENDS'):
            items = self.pop(1) if op == 'APPEND' else self.pop_mark()
            target = self.top((list, values.Opaque))
            if isinstance(target, list):
                self.budget.allocate(16 * len(items))
                target.extend(values.finished(x) for x in items)
        elif op in ('SETITEM', 'SETITEMS'):
            items = self.pop(2) if op == 'SETITEM' else self.pop_mark()
            target = self.top((dict, values.Opaque))
            if isinstance(target, dict):
                values.put(self.budget, target, [values.finished(x) for x in items])
        elif op == 'ADDITEMS':
            items = self.pop_mark()
            target = self.top((set, values.Opaque))
            if isinstance(target, set):
                values.add(self.budget, target, items)
        elif op == 'GLOBAL':
            push(names.find(*arg.split(' ', 1)))
        elif op == 'STACK_GLOBAL':
            push(names.find(*self.pop(2)))
        elif op == 'REDUCE':
            push(self.call(*self.pop(2)))
        elif op == 'NEWOBJ':
            push(self.new(*self.pop(2)))
        elif op == 'NEWOBJ_EX':
            push(self.new(*self.pop(3)))
        elif op == 'INST':
            push(self.new(names.find(*arg.split(' ', 1)), tuple(self.pop_mark())))
        elif op == 'OBJ':
            items = self.pop_mark()
            push(self.new(items[0], tuple(items[1:])))
        elif op in ('EXT1', 'EXT2', 'EXT4'):
            push(values.Opaque('a class by its number in the extension registry'))
        elif op == 'BUILD':
            (state,) = self.pop(1)
            self.build(self.top(object), values.finished(state))
        elif op in ('PERSID', 'BINPERSID'):
            push(self.persistent(self.pop(1)[0] if op == 'BINPERSID' else arg))
        else:  # NEXT_BUFFER, READONLY_BUFFER
            raise Refused(f'holds the pickle instruction {op}, for data outside the file')

    def gather(self, op, items):
        self.budget.step(len(items))
        if op == 'DICT':
            return values.put(self.budget, {}, items)
        if op == 'FROZENSET':
            return frozenset(values.add(self.budget, set(), items))
        return tuple(items) if op == 'TUPLE' else items

    def call(self, name, args):
        if not isinstance(args, tuple):
            raise ValueError('the pickle calls a function without a tuple of arguments')
        if isinstance(name, values.Opaque):
            return name
        if not isinstance(name, names.Name) or name.key not in names.CALLS:
            raise Refused('calls a value that is not an allowed function')
        if len(args) > names.MAX_ARGUMENTS:
            raise ValueError(f'the pickle calls a function with {len(args)} arguments')
        unknown = [item for item in args if isinstance(item, values.Opaque)]
        if unknown and name.key not in names.WITH_CLASSES:
            return unknown[0]
        return names.CALLS[name.key](self, *map(values.finished, args))

    def new(self, name, args, keywords=None):
        if isinstance(name, values.Opaque):
            return name
        if not isinstance(name, names.Name) or name.key not in names.CLASSES:
            what = name.key if isinstance(name, names.Name) else type(name).__name__
            raise Refused(f'creates an object of {what} as of a class')
        if args != () or keywords:
            raise Refused(f'creates an object of {name.key} from arguments')
        return names.CLASSES[name.key]()

    def build(self, target, state):
        if isinstance(target, values.Opaque):
            pass
        elif isinstance(target, values.Array):
            _, shape, dtype, fortran, data = state
            target.value = names.array(self, data, dtype, shape, 'F' if fortran else 'C')
        elif isinstance(target, values.Dtype):
            target.set_state(state)
        elif isinstance(target, values.Attributes) and isinstance(state, dict):
            values.put(self.budget, target, [item for pair in state.items() for item in pair])
        elif isinstance(target, values.Record) and isinstance(state, dict):
            target.set_state(state)
        elif isinstance(target, collections.OrderedDict) and isinstance(state, dict):
            pass  # torch's state_dict has an attribute _metadata, which is not used
        else:
            raise Refused('sets attributes of an object')

    def persistent(self, pid):
        if self.storage is None or not isinstance(pid, tuple) or len(pid) not in (5, 6):
            raise Refused('refers to data outside the file')
        kind, name, key, _location, count = pid[:5]
        if kind == 'storage' and isinstance(name, values.Opaque):
            return name
        known = isinstance(name, names.Name) and name.key in names.STORAGES
        if kind != 'storage' or not known:
            raise Refused('refers to data that is not a torch storage')
        if len(pid) == 6 and pid[5] is not None:
            raise Refused('holds a torch storage that is a view of another')
        if not isinstance(key, str) or values.whole(count) < 0:
            raise ValueError('a torch storage without a name or a size')
        return values.Storage(self.storage(names.STORAGES[name.key], key, count))
