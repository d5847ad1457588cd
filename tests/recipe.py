"""Figures of the official implementations: the weights and inputs behind them, and comparison.

N(name, shape) is a seeded normal; a weight is N * scale + offset in float32, by the rule that the
list of entries gives for its name. A large array is stored as a sample of its values and as
statistics of all of them; everything is in PyTorch's layout.
"""

import json
import re
import zlib

import numpy as np

FIR = np.outer([1, 3, 3, 1], [1, 3, 3, 1])


def normal(name, shape):
    """N(name, shape): the same numbers wherever NumPy is."""
    state = np.random.RandomState(zlib.crc32(name.encode()) % 2**32)
    return np.asarray(state.standard_normal(tuple(shape)), np.float32)


def weight(name, shape, rule):
    """rule: 'N', 'N*0.1+1', '|N|*2+2', 'N*sqrt(2/fan_in)', 'fir*4', '0' or 'sn_u', of length 1."""
    if rule == 'sn_u':
        return unit(normal(name, shape))
    if rule == '0':  # a counter of batches
        return np.zeros(shape, np.int64)
    if match := re.fullmatch(r'N\*sqrt\((\d)/fan_in\)', rule):
        fan_in = int(np.prod(shape[1:]))
        return normal(name, shape) * np.float32(np.sqrt(float(match[1]) / fan_in))
    kind, scale, offset = re.fullmatch(
        r'(N|\|N\||fir)(?:\*([\d.]+))?(?:\+([\d.]+))?', rule
    ).groups()
    if kind == 'fir':
        return np.float32(FIR / 64 * float(scale or 1))
    values = np.abs(normal(name, shape)) if kind == '|N|' else normal(name, shape)
    return values * np.float32(scale or 1) + np.float32(offset or 0)


def unit(vector):
    """Divided by its length in float64."""
    vector = np.asarray(vector, np.float64)
    return np.float32(vector / np.linalg.norm(vector))


def state_dict(entries):
    """entries [[name, shape, rule, CRC-32], ...] -> {name: float32 array}, verified."""
    arrays = {}
    for name, shape, rule, crc in entries:
        if rule == 'sn_v':  # comes after the matrix M and u: M^T u, of unit length
            layer = name.removesuffix('_v')
            u = np.asarray(arrays[f'{layer}_u'], np.float64)
            arrays[name] = unit(u @ arrays[f'{layer}_orig'].reshape(len(u), -1).astype(np.float64))
        else:
            arrays[name] = weight(name, shape, rule)
        assert zlib.crc32(np.ascontiguousarray(arrays[name])) == crc, name
    return arrays


def sampled(array, count=2048):
    """The elements that stand for a large array: index (k * 2654435761) mod size."""
    index = (np.arange(count, dtype=np.uint64) * np.uint64(2654435761)) % np.uint64(array.size)
    return np.asarray(array).ravel()[index]


def statistics(array):
    """Mean, deviation, minimum, maximum and RMS of a large array."""
    rms = np.sqrt(np.mean(array**2))
    return np.array([array.mean(), array.std(), array.min(), array.max(), rms])


def to_torch(array, path):
    """One of our generator's parameters in PyTorch's layout, without axes of one."""
    array = np.asarray(array)
    if path.endswith('const'):
        return array.transpose(2, 0, 1)
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def nchw(images):
    return np.asarray(images).transpose(0, 3, 1, 2)


def distance(array, figure):
    """Relative L2 distance; the plain one from a figure of zeros. Axes of one count for nothing."""
    array, figure = (np.squeeze(np.asarray(a, np.float64)) for a in (array, figure))
    assert array.shape == figure.shape, f'{array.shape}, not {figure.shape}'
    return np.linalg.norm(array - figure) / (np.linalg.norm(figure) or 1.0)


def distances(arrays, figures, prefix=''):
    """{figure's name: its distance} for all that `figures` holds of the arrays {name: array}.

    prefix: 'f64/' compares with the figures of the float64 runs.
    """
    found = {}
    for name, array in arrays.items():
        array, name = np.asarray(array, np.float64), prefix + name
        if name in figures:
            found[name] = distance(array, figures[name])
        if f'{name}/sample' in figures:
            sample = figures[f'{name}/sample']
            found[f'{name}/sample'] = distance(sampled(array, len(sample)), sample)
        if f'{name}/stats' in figures:
            found[f'{name}/stats'] = distance(statistics(array), figures[f'{name}/stats'])
        if f'{name}/shape' in figures:
            shape = [n for n in figures[f'{name}/shape'] if n > 1]
            assert [n for n in array.shape if n > 1] == shape, name
    return found


def shortened(figures, count):
    """The same figures with at most `count` values of each; no shapes, no float32 statistics."""
    short = {}
    for name, array in figures.items():
        if name.endswith('/shape') or (name.endswith('/stats') and not name.startswith('f64/')):
            continue
        if name.endswith('/sample'):
            short[name] = array[:count]
        elif array.dtype.kind == 'f' and array.size > count:
            short[f'{name}/sample'] = sampled(array, count)
        else:
            short[name] = array
    return short


def entries(specs, model):
    """What state_dict takes, of a model in specs.json, as an array that np.savez keeps."""
    rows = [[e[0], e[1], e[2], e[5]] for e in specs['models'][model]['entries']]
    return np.array(json.dumps(rows))
