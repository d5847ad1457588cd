"""The plain values that a pickle becomes, and checks of their parts."""

import numpy as np

from jaxinv.converters.file_view import Refused
from jaxinv.text import printable

MAX_KEY = 2**61 - 1  # of integer keys: Python's hashes of smaller ones are distinct
MAX_TUPLE = 8  # items of a key
ITEM = 128  # bytes of an entry of a dict or set; a list's entries have 16


class Array:
    """An ndarray after `_reconstruct`; `value` is set by the instruction with its state."""

    value = None


class Dtype:
    """A dtype; the byte order is in its state, a later instruction."""

    def __init__(self, value):
        self.value = value

    def set_state(self, state):
        # (version, byte order, subdtype, names, fields, itemsize, alignment, flags[, metadata])
        if state[2] is not None or state[3] is not None or state[4] is not None:
            raise Refused('holds a numpy array of records')
        if state[1] not in ('<', '>', '=', '|'):
            raise ValueError(f'byte order {brief(state[1])}')
        self.value = self.value.newbyteorder(state[1])


class Storage:
    """A torch storage: flat values, or None until the older format has read them."""

    def __init__(self, values):
        self.values = values


class Attributes(dict):
    """The attributes of an EasyDict or an argparse.Namespace."""


class Opaque:
    """An object of a class that no weight file needs, which was neither imported nor made.

    name: of the class, printable.
    """

    def __init__(self, name):
        self.name = printable(name, 100)


class Record:
    """The saved state of an object, without its class.

    kind: 'module' (a torch module in NVIDIA's persistence format), 'network' (of their TensorFlow
    code) or 'script' (a module of a TorchScript archive, whose code is not read); class_name: as in
    the file; state: its attributes.
    """

    def __init__(self, kind, class_name='', state=None):
        self.kind, self.class_name, self.state = kind, class_name, state

    def set_state(self, state):
        if self.kind not in ('network', 'script') or self.state is not None:
            raise Refused('sets attributes of an object')
        self.state = state


def brief(value):
    """At most 40 characters for a message. repr() of a container could be unbounded."""
    if isinstance(value, str | bytes):
        return repr(value[:40])[:40]
    known = isinstance(value, float | None | np.dtype)
    small = isinstance(value, int) and abs(value) < 2**64
    return repr(value)[:40] if known or small else kind_of(value)


def kind_of(value):
    """'a list', 'an object of easydict.EasyDict', for a message."""
    if isinstance(value, Opaque):
        return f'an object of {value.name}, a class that is not read'
    if isinstance(value, Record) and value.kind == 'script':
        return 'a TorchScript module'
    return f'a {type(value).__name__}'


def finished(item):
    """The value of an Array whose state is set; other items unchanged."""
    if isinstance(item, Array):
        if item.value is None:
            raise ValueError('a numpy array without values')
        return item.value
    return item


def hashable(key):
    """The key itself. Raises ValueError unless its hash and comparisons are cheap.

    Strings and bytes keep their hash. Integers beyond 2^61 and numbers of other types may all have
    one hash, and hash() of a nested tuple may overflow the C stack.
    """
    flat = key if isinstance(key, tuple) else (key,)
    if len(flat) > MAX_TUPLE:
        raise ValueError(f'a tuple of {len(flat)} items as a key')
    for item in flat:
        small = isinstance(item, int) and -MAX_KEY < item < MAX_KEY
        if isinstance(item, int) and not small:
            raise ValueError('a whole number beyond 2^61 as a key')
        if not (small or isinstance(item, str | bytes | None)):
            raise ValueError(f'a {type(item).__name__} as a key')
    return key


def put(budget, target, items):
    """Puts key, value, key, value ... into the dict; without those whose key is Opaque.

    Raises Refused for duplicate keys.
    """
    if len(items) % 2:
        raise ValueError('a key without a value')
    for key, value in zip(items[::2], items[1::2], strict=True):
        if isinstance(key, Opaque):
            continue
        budget.step()
        if hashable(key) in target:
            raise Refused(f'holds the key {brief(key)} twice')
        budget.allocate(ITEM)
        target[key] = value
    return target


def add(budget, target, items):
    """Adds the items to the set; without those that are Opaque."""
    for item in items:
        if not isinstance(item, Opaque):
            budget.step()
            budget.allocate(ITEM)
            target.add(hashable(item))
    return target


def whole(number):
    """The integer itself. Raises ValueError for other types, also bool."""
    if type(number) is not int:
        raise ValueError(f'a {type(number).__name__} instead of an integer')
    return number


def sizes_of(sizes):
    """A shape as a tuple. Raises ValueError for more than 32 axes, or sizes outside 0 ... 2^48."""
    if not isinstance(sizes, tuple | list) or len(sizes) > 32:
        raise ValueError('sizes that are not a tuple of at most 32 integers')
    if any(whole(n) < 0 or n >= 2**48 for n in sizes):
        raise ValueError('sizes that are not between 0 and 2^48')
    return tuple(sizes)


def from_bfloat16(bits, budget):
    """float32 values of which these uint16 are the upper halves."""
    budget.allocate(4 * bits.size)
    return (bits.astype(np.uint32) << 16).view(np.float32)


def brief_name(name):
    """A key of a checkpoint for a message."""
    return name[:40] if isinstance(name, str) else brief(name)


def opaque_names(root):
    """Sorted names of the classes of the Opaque values in containers without cycles."""
    found, seen, stack = set(), set(), [root]
    while stack:
        node = stack.pop()
        if isinstance(node, Opaque):
            found.add(node.name)
        elif isinstance(node, list | tuple | dict | Record) and id(node) not in seen:
            seen.add(id(node))
            if isinstance(node, Record):
                stack.append(node.state)
            else:
                stack.extend(node.values() if isinstance(node, dict) else node)
    return sorted(found)
