"""MobileStyleGAN (Belousov 2021, arXiv:2104.04767): OpenVINO IR of `random-face` -> jaxinv weights.

The exporter kept the names of most parameters, but folded three kinds of constants:
  - demodulation into the 1x1 kernels (it does not depend on the style in this model): constants
    Mul_<n>_copy, in network order: the first conv, then conv1 and conv2 of every block;
  - noise times its strength: constants [1, 1, r, r] named by numbers, in the same order;
  - the mapping network's matrices times their learning-rate multiplier, named by numbers.
These are named by their order among the constants of that shape; one table converts all arrays.

The wavelet steps of the network read channels as LL, then (LH, HL, HH) of each output channel.
Here the output channels of every layer before such a step are reordered to all LL, all LH, all HL,
all HH. The function is the same, and no step reads channels with a stride of three.
"""

import re

import numpy as np

from jaxinv.converters import tables
from jaxinv.converters.openvino_ir import Network

HAAR = 2**-0.5


def convert(mapping: Network, synthesis: Network, like) -> dict[str, np.ndarray]:
    """Flat {path: float32 array}: params/synthesis/*, buffers/mapping/*, buffers/noise/*.

    like: {path: anything with .shape}, the paths to return. A noise map is divided by its RMS,
    which is the noise_strength, so that their product is the file's constant.
    Raises tables.ConversionError naming a missing, unexpected or misshapen array.
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
    """{name: array}, folded constants named in network order; Haar filters are checked, dropped."""
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
    """Constants that can be weights: neither the integers of shape arithmetic nor scalars."""
    return {
        name: value
        for name, value in network.constants.items()
        if value.dtype.kind == 'f' and value.size > 1
    }


def _table(like):
    """The conversion table, for the paths of jaxinv/generators/mobile_stylegan.py."""
    resolutions = sorted(
        {int(n) for path in like for n in re.findall(r'^params/synthesis/b(\d+)/', path)}
    )
    layers = len([path for path in like if re.fullmatch(r'buffers/mapping/dense_\d+/bias', path)])
    table = {}
    for i in range(layers):
        table |= _dense(f'buffers/mapping/dense_{i}', f'mapping.{i}')
    table['params/synthesis/b4/const'] = ('m.input.input', lambda a: a[0].transpose(1, 2, 0))
    order = 0
    for block, resolution in enumerate(resolutions):
        here, there = f'params/synthesis/b{resolution}', f'm.layers.{block - 1}.'
        if block:
            table |= _dense(f'{here}/up/modulation', f'{there}up.modulation', _bands)
        for conv in ('conv1', 'conv2') if block else ('conv1',):
            layer = f'{there}{conv}' if block else 'm.conv1'
            last = resolution == resolutions[-1]
            feeds_wavelet = conv == ('conv2' if block else 'conv1') and not last
            outputs = _bands if feeds_wavelet else _same
            table |= _styled_conv(f'{here}/{conv}', layer, order, outputs, dense=not block)
            table[f'buffers/noise/b{resolution}_{conv}'] = (
                f'noise.{order}',
                lambda a: a[0].transpose(1, 2, 0),
            )
            order += 1
    return table | _to_image(f'{here}/to_img', f'm.layers.{block - 1}.to_img')


def _styled_conv(path, name, order, outputs, dense):
    table = _dense(f'{path}/modulation', f'{name}.conv.modulation')
    if dense:
        table[f'{path}/kernel'] = (f'folded.{order}', lambda a: outputs(a.transpose(2, 3, 1, 0)))
    else:
        table[f'{path}/depthwise'] = (
            f'{name}.conv.weight_dw',  # [c, 1, 1, 3, 3]
            lambda a: a.reshape(-1, 3, 3).transpose(1, 2, 0),
        )
        table[f'{path}/pointwise'] = (f'folded.{order}', lambda a: outputs(_pointwise(a)))
    table[f'{path}/bias'] = (f'{name}.bias', lambda a: outputs(a.ravel()))
    table[f'{path}/noise_strength'] = (f'noise_strength.{order}', _same)
    return table


def _to_image(path, name):
    return _dense(f'{path}/modulation', f'{name}.conv.modulation') | {
        f'{path}/pointwise': (f'{name}.conv.weight', lambda a: _bands(_pointwise(a))),
        f'{path}/bias': (f'{name}.bias', lambda a: _bands(a.ravel())),
    }


def _same(array):
    return array


def _dense(path, name, outputs=_same):
    return {
        f'{path}/kernel': (f'{name}.weight', lambda a: outputs(a.T)),
        f'{path}/bias': (f'{name}.bias', lambda a: outputs(a.ravel())),
    }


def _pointwise(array):  # [c_out, c_in, 1, 1] -> [c_in, c_out]
    return array.reshape(array.shape[:2]).T


def _bands(array):
    """Last axis: LL, then triples (LH, HL, HH) -> all LL, all LH, all HL, all HH."""
    c = array.shape[-1] // 4
    triples = np.arange(c, 4 * c).reshape(c, 3)
    return array[..., np.concatenate([np.arange(c), *triples.T])]
