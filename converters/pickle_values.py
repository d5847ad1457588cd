"""The plain values that a pickle is made into, and the checks of what they are made from."""

import numpy as np
from jaxinv.converters.file_view import Refused

# In all pickles of a file: half a minute. Training checkpoints have some ten thousand.
MAX_INSTRUCTIONS = 10**7


class Budget:
    """What a file may still cost: bytes of arrays, and instructions of its pickles.

    Python integers: products of int64 sizes could wrap around.
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
    """An ndarray between its `_reconstruct` and its state; `value` is set by the latter."""

    value = None


class Dtype:
    """A dtype between its name and the byte order in its state."""

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
    """A torch storage: flat values, or None while the older format has not got to them yet."""

    def __init__(self, values):
        self.values = values


class Attributes(dict):
    """The attributes of an EasyDict or an argparse.Namespace."""


class Record:
    """An object as the state it was saved with, for reading, without any class behind it.

    kind: 'module' (a torch module in NVIDIA's persistence format) or 'network' (of their TensorFlow
    code); class_name: what the file calls its class; state: its attributes.
    """

    def __init__(self, kind, class_name='', state=None):
        self.kind, self.class_name, self.state = kind, class_name, state

    def set_state(self, state):
        if self.kind != 'network' or self.state is not None:
            raise Refused('sets attributes of an object')
        self.state = state


def brief(value):
    """A few characters for a message. Never repr() of a container: it can unfold without end."""
    known = isinstance(value, str | bytes | float | None | np.dtype)
    small = isinstance(value, int) and abs(value) < 2**64
    return repr(value)[:40] if known or small else f'a {type(value).__name__}'


def finished(item):
    """An array once its state is set; an unfinished one must not get into the data."""
    if isinstance(item, Array):
        if item.value is None:
            raise ValueError('a numpy array without values')
        return item.value
    return item


def hashable(key):
    # Never hash nested tuples: the hash has no recursion limit, a deep one ends the process.
    flat = key if isinstance(key, tuple) else (key,)
    if not all(isinstance(x, str | bytes | int | float | complex | None) for x in flat):
        raise ValueError(f'a {type(key).__name__} as a key')
    return key


def put(target, items):
    """Puts key, value, key, value ... into the dict. Whoever writes a key twice hides something."""
    if len(items) % 2:
        raise ValueError('a key without a value')
    for key, value in zip(items[::2], items[1::2], strict=True):
        if hashable(key) in target:
            raise Refused(f'holds the key {str(key)[:80]!r} twice')
        target[key] = value
    return target


def whole(number):
    if type(number) is not int:
        raise ValueError(f'{type(number).__name__} where a whole number belongs')
    return number


def sizes_of(sizes):
    if not isinstance(sizes, tuple | list) or len(sizes) > 32:
        raise ValueError('sizes that are no tuple of at most 32 numbers')
    if any(whole(n) < 0 or n >= 2**48 for n in sizes):
        raise ValueError(f'sizes {str(tuple(sizes))[:80]}')
    return tuple(sizes)
