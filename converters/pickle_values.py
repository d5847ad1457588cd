"""The plain values that a pickle becomes, and checks of their parts."""

import numpy as np

from jaxinv.converters.file_view import Refused

# In all pickles of a file, about 30 s of interpretation. Training checkpoints have about 10^4.
MAX_INSTRUCTIONS = 10**7


class Budget:
    """The remaining bytes of arrays and pickle instructions that a file may use.

    Python integers, since products of int64 sizes may overflow.
    """

    def __init__(self, left):
        self.left, self.instructions = left, MAX_INSTRUCTIONS

    def spend(self, count):
        self.left -= count
        if self.left < 0:
            raise Refused('holds arrays larger than allowed')

    def step(self):
        self.instructions -= 1
        if self.instructions < 0:
            raise Refused('has too many instructions')


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


class Record:
    """The saved state of an object, without its class.

    kind: 'module' (a torch module in NVIDIA's persistence format) or 'network' (of their TensorFlow
    code); class_name: as in the file; state: its attributes.
    """

    def __init__(self, kind, class_name='', state=None):
        self.kind, self.class_name, self.state = kind, class_name, state

    def set_state(self, state):
        if self.kind != 'network' or self.state is not None:
            raise Refused('sets attributes of an object')
        self.state = state


def brief(value):
    """At most 40 characters for a message. repr() of a container could be unbounded."""
    known = isinstance(value, str | bytes | float | None | np.dtype)
    small = isinstance(value, int) and abs(value) < 2**64
    return repr(value)[:40] if known or small else f'a {type(value).__name__}'


def finished(item):
    """The value of an Array whose state is set; other items unchanged."""
    if isinstance(item, Array):
        if item.value is None:
            raise ValueError('a numpy array without values')
        return item.value
    return item


def hashable(key):
    """The key itself. Raises ValueError unless it is a plain value or a flat tuple of such."""
    # hash() of a deeply nested tuple overflows the C stack and ends the process.
    flat = key if isinstance(key, tuple) else (key,)
    if not all(isinstance(x, str | bytes | int | float | complex | None) for x in flat):
        raise ValueError(f'a {type(key).__name__} as a key')
    return key


def put(target, items):
    """Puts key, value, key, value ... into the dict. Raises Refused for duplicate keys."""
    if len(items) % 2:
        raise ValueError('a key without a value')
    for key, value in zip(items[::2], items[1::2], strict=True):
        if hashable(key) in target:
            raise Refused(f'holds the key {str(key)[:80]!r} twice')
        target[key] = value
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
        raise ValueError(f'sizes {str(tuple(sizes))[:80]}')
    return tuple(sizes)
