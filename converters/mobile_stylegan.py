"""MobileStyleGAN (Belousov 2021, arXiv:2104.04767): OpenVINO IR of `random-face` -> jaxinv weights.

The exporter kept the names of most parameters, but folded three kinds of constants:
  - demodulation into the 1x1 kernels (it does not depend on the style in this model): constants
    named Mul_<n>_copy, in network order: the first conv, then conv1 and conv2 of every block;
  - noise times its strength: constants [1, 1, r, r] with numbers for names, in the same order;
  - the mapping network's matrices, already times their learning-rate multiplier, numbers as names.
They are given names by their order among constants of that shape, and then all go by one table.
"""

import re

import numpy as np

from converters import tables
from converters.openvino_ir import Network

HAAR = 2**-0.5


def convert(mapping: Network, synthesis: Network, like) -> dict[str, np.ndarray]:
    """Flat {path: float32 array}: params/synthesis/*, buffers/mapping/*, buffers/noise/*.

    like: {path: anything with .shape}, the paths wanted. noise_strength is each map's RMS and the
    map is divided by it, so their product is the file's constant.
    Raises tables.ConversionError naming what is missing, unexpected or misshapen.
    """
    source = _named_mapping(mapping) | _named_synthesis(synthesis)
    return tables.apply(_table(like), source, like)


def _named_mapping(network):
    arrays = _floats(network)
    kernels = [value for value in arrays.values() if value.ndim == 2]
    biases = [value for value in arrays.values() if value.ndim == 1]
    named = {f'mapping.{i}.weight': value for i, value in enumerate(kernels)}
    return named | {f'mapping.{i}.bias': value for i, value in enumerate(biases)}


def _named_synthesis(network):
    """Names for the folded constants, by network order; Haar filters are checked and left out."""
    named, kernels, noises = {}, [], []
    for name, value in _floats(network).items():
        if value.shape[1:] in ((1, 1, 2, 1), (1, 1, 1, 2)):
            if not np.allclose(np.abs(value), HAAR, atol=1e-6):
                raise tables.ConversionError(f'{name!r} is not a Haar filter of ±{HAAR:.4f}.')
        elif re.fullmatch(r'Mul_\d+_copy', name):
            kernels.append(value)
        elif value.ndim == 4 and value.shape[:2] == (1, 1) and value.shape[2] == value.shape[3]:
            noises.append(value)
        else:
            named[name] = value
    named |= {f'folded.{i}': value for i, value in enumerate(kernels)}
    for i, value in enumerate(noises):
        strength = np.sqrt(np.mean(np.square(value, dtype=np.float64)))
        named[f'noise_strength.{i}'] = np.float32(strength)
        named[f'noise.{i}'] = np.float32(value / (strength or 1.0))
    return named


def _floats(network):
    """Constants that can be weights: not the integers of shape arithmetic, not single numbers."""
    return {
        name: value
        for name, value in network.constants.items()
        if value.dtype.kind == 'f' and value.size > 1
    }


def _table(like):
    """Where each of our weights comes from. Paths as in jaxinv/generators/mobile_stylegan.py."""
    resolutions = sorted(
        {int(n) for path in like for n in re.findall(r'^params/synthesis/b(\d+)/', path)}
    )
    table = {}
    layers = len([path for path in like if re.fullmatch(r'buffers/mapping/dense_\d+/bias', path)])
    for i in range(layers):
        table[f'buffers/mapping/dense_{i}/kernel'] = (f'mapping.{i}.weight', np.transpose)
        table[f'buffers/mapping/dense_{i}/bias'] = (f'mapping.{i}.bias', _same)
    table['params/synthesis/b4/const'] = ('m.input.input', lambda a: a[0].transpose(1, 2, 0))
    order = 0
    for block, resolution in enumerate(resolutions):
        here = f'params/synthesis/b{resolution}'
        there = f'm.layers.{block - 1}.'
        if block:
            table |= _dense(f'{here}/up/modulation', f'{there}up.modulation')
        for conv in ('conv1', 'conv2') if block else ('conv1',):
            layer = f'{there}{conv}' if block else 'm.conv1'
            table |= _dense(f'{here}/{conv}/modulation', f'{layer}.conv.modulation')
            if block:
                table[f'{here}/{conv}/depthwise'] = (f'{layer}.conv.weight_dw', _depthwise)
                table[f'{here}/{conv}/pointwise'] = (f'folded.{order}', _pointwise)
            else:
                table[f'{here}/{conv}/kernel'] = (
                    f'folded.{order}',
                    lambda a: a.transpose(2, 3, 1, 0),
                )
            table[f'{here}/{conv}/bias'] = (f'{layer}.bias', np.ravel)
            table[f'{here}/{conv}/noise_strength'] = (f'noise_strength.{order}', _same)
            table[f'buffers/noise/b{resolution}_{conv}'] = (
                f'noise.{order}',
                lambda a: a[0].transpose(1, 2, 0),
            )
            order += 1
    here, there = f'params/synthesis/b{resolutions[-1]}/to_img', f'm.layers.{block - 1}.to_img'
    table |= _dense(f'{here}/modulation', f'{there}.conv.modulation')
    table[f'{here}/pointwise'] = (f'{there}.conv.weight', _pointwise)
    table[f'{here}/bias'] = (f'{there}.bias', np.ravel)
    return table


def _dense(path, name):
    return {
        f'{path}/kernel': (f'{name}.weight', np.transpose),
        f'{path}/bias': (f'{name}.bias', np.ravel),
    }


def _same(array):
    return array


def _pointwise(array):  # [c_out, c_in, 1, 1] -> [c_in, c_out]
    return array.reshape(array.shape[:2]).T


def _depthwise(array):  # [c, 1, 1, 3, 3] -> [3, 3, c]
    return array.reshape(-1, 3, 3).transpose(1, 2, 0)
