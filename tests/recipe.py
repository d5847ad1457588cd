"""Weights and inputs of the reference figures, rebuilt from their names.

N(name, shape) is a seeded normal; a weight is N * scale + offset in float32, by the rule that the
list of entries gives for its name.
"""

import re
import zlib

import numpy as np

FIR = np.outer([1, 3, 3, 1], [1, 3, 3, 1])


def normal(name, shape):
    """N(name, shape): the same numbers wherever NumPy is."""
    state = np.random.RandomState(zlib.crc32(name.encode()) % 2**32)
    return np.asarray(state.standard_normal(tuple(shape)), np.float32)


def weight(name, shape, rule):
    """rule: 'N', 'N*0.1', 'N*0.1+1', 'fir' or 'fir*4'."""
    scale, offset = re.fullmatch(r'(?:N|fir)(?:\*([\d.]+))?(?:\+([\d.]+))?', rule).groups()
    if rule.startswith('fir'):
        return np.float32(FIR / 64 * float(scale or 1))
    return normal(name, shape) * np.float32(scale or 1) + np.float32(offset or 0)


def state_dict(entries):
    """entries [[name, shape, rule, CRC-32], ...] -> {name: float32 array}, verified."""
    arrays = {}
    for name, shape, rule, crc in entries:
        arrays[name] = weight(name, shape, rule)
        assert zlib.crc32(np.ascontiguousarray(arrays[name])) == crc, name
    return arrays


def sampled(array, count=2048):
    """The elements that stand for a large array: index (k * 2654435761) mod size."""
    index = (np.arange(count, dtype=np.uint64) * np.uint64(2654435761)) % np.uint64(array.size)
    return np.asarray(array).ravel()[index]
