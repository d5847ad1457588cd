"""BigGAN-deep weights with the names of pytorch-pretrained-biggan -> jaxinv weights.

A folder holds pytorch_model.bin, a state dict, and config.json. Sizes come from the arrays; only
config.json has the blocks that double the resolution, and epsilon. Where both give a value, they
must agree. Without config.json the blocks must be those of an official network.

Convolutions, linear layers and attention kernels are stored with spectral normalisation: the
network divides weight_orig by u^T M v, M = weight_orig as a matrix [outputs, the rest], with the
stored u and v (no power iteration in evaluation). jaxinv stores the quotient. The last convolution
makes channel_width channels, of which the first three are the image; jaxinv stores those three.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from jaxinv.converters import tables
from jaxinv.converters.biggan_config import CONFIG
from jaxinv.generators import biggan_deep as generators

KIND = 'pytorch-pretrained-biggan state dict'
FILE = 'pytorch_model.bin'
MAX_DOUBLINGS = 11  # resolution 8192
NORMED = ('orig', 'u', 'v')  # weight_orig, ...
TINY = 1e-30
_EPSILON = 1e-4  # without config.json; of all official ones


def is_state_dict(content) -> bool:
    """True for a dict with the names of pytorch-pretrained-biggan."""
    marks = ('generator.gen_z.weight_orig', 'generator.gen_z.bias', 'generator.bn.running_means')
    return isinstance(content, dict) and any(mark in content for mark in marks)


def arguments(source: Mapping[str, np.ndarray], config: dict | None = None) -> dict:
    """Arguments of generators.biggan_deep, without name and truncation.

    config: from biggan_config.read_config. Raises ConversionError if arrays that determine an
    argument are missing, or contradict the config.
    """
    config = config or {}
    width = _size(source, 'generator.bn.weight', 0, 1)
    classes, embedded = (_size(source, 'embeddings.weight', axis, 2) for axis in (1, 0))
    numbers = {int(m[1]) for n in source if (m := re.match(r'generator\.layers\.(\d{1,3})\.', n))}
    attention = [i for i in sorted(numbers) if f'generator.layers.{i}.gamma' in source]
    if len(attention) > 1:
        raise tables.ConversionError(f'It has {len(attention)} attention layers; 1 is allowed.')
    channels = [
        tuple(
            _size(source, f'generator.layers.{i}.{name}', 0, 1)
            for name in ('bn_0.scale.weight_u', 'conv_3.bias')
        )
        for i in sorted(numbers - set(attention))
    ]
    layers = config.get('layers') or _official_layers(channels, width)
    _check_layers(layers, channels, width)
    position = attention[0] if attention else len(layers)
    from_arrays = {
        'channel_width': width,
        'num_classes': classes,
        'class_embed_dim': embedded,
        'z_dim': max(_size(source, 'generator.gen_z.weight_orig', 1, 2) - embedded, 0),
        'n_stats': _size(source, 'generator.bn.running_means', 0, 2),
        'attention_layer_position': position,
        'output_dim': 4 * 2 ** sum(up for up, _, _ in layers),
    }
    given = dict(config)
    if not attention:  # without attention any position behind the last block is allowed
        key = 'attention_layer_position'
        given[key] = min(given.get(key, position), position)
    for name, value in from_arrays.items():
        if given.get(name, value) != value:
            raise tables.ConversionError(
                f'{CONFIG} has {name} = {given[name]}, but its '
                f'{"layers" if name == "output_dim" else "arrays"} give {value}.'
            )
    return {
        'resolution': from_arrays['output_dim'],
        'layers': layers,
        'channel_width': width,
        'num_classes': classes,
        'z_dim': from_arrays['z_dim'],
        'class_embed_dim': embedded,
        'attention_position': position,
        'num_statistics': from_arrays['n_stats'],
        'epsilon': config.get('eps', _EPSILON),
    }


def _check_layers(layers, channels, width):
    """Raises ConversionError if the layers in the config contradict the arrays."""
    wanted = [(before * width, after * width) for _, before, after in layers]
    if len(wanted) != len(channels):
        raise tables.ConversionError(
            f'{CONFIG} has {len(wanted)} layers, but the arrays belong to {len(channels)}.'
        )
    for i, (declared, found) in enumerate(zip(wanted, channels, strict=True)):
        if declared != found:
            raise tables.ConversionError(
                f'{CONFIG} has layers[{i}] from {declared[0]} to {declared[1]} channels, but its '
                f'arrays go from {found[0]} to {found[1]}.'
            )
    if sum(up for up, _, _ in layers) > MAX_DOUBLINGS:
        raise tables.ConversionError(
            f'{CONFIG} doubles the resolution more than {MAX_DOUBLINGS} times.'
        )


def _official_layers(channels, width):
    for layers in generators.LAYERS.values():
        if [(before * width, after * width) for _, before, after in layers] == channels:
            return layers
    raise tables.ConversionError(
        'Its blocks are not those of an official network, and the arrays do not determine which '
        f'blocks double the resolution; put its {CONFIG} beside it.'
    )


def _size(source, name, axis, ndim):
    if name not in source:
        raise tables.ConversionError(f'Missing array: {name}.')
    if np.ndim(source[name]) != ndim:
        raise tables.ConversionError(
            f'Array {name!r} has the shape {list(np.shape(source[name]))}; it must have {ndim} '
            'axes.'
        )
    return source[name].shape[axis]


def convert(source: Mapping[str, np.ndarray], arguments: dict) -> dict[str, np.ndarray]:
    """Flat {path: float32 array} for biggan_deep(**arguments).

    Raises ConversionError naming every array that is missing, unexpected or misshapen.
    """
    layout = list(entries(arguments))
    _check_arrays(source, layout)
    folded, _ = fold(source)
    flat = {e.path: np.array(e.transform(folded[e.name]), np.float32, order='C') for e in layout}
    average = generators.w_average(arguments['z_dim'], flat['buffers/mapping/embeddings'])
    return flat | {'buffers/w_avg': np.asarray(average)}


def fold(source: Mapping[str, np.ndarray]) -> tuple[dict, dict]:
    """Divides by the spectral norms, in float64.

    Returns ({name: array} with X.weight in place of X.weight_orig, _u and _v, {X: norm}).
    Raises ConversionError for a norm of 0.
    """
    folded, divisors = {}, {}
    for name, array in source.items():
        layer, _, last = name.rpartition('.')
        if last == 'weight_orig':
            u, v = (np.asarray(source[f'{layer}.weight_{x}'], np.float64) for x in 'uv')
            array = np.asarray(array, np.float64)
            divisors[layer] = float(u @ array.reshape(len(u), len(v)) @ v)
            if not abs(divisors[layer]) > TINY:
                raise tables.ConversionError(f'The spectral norm of {layer} is 0.')
            folded[f'{layer}.weight'] = array / divisors[layer]
        elif last not in ('weight_u', 'weight_v'):
            folded[name] = array
    return folded, divisors


class Entry(NamedTuple):
    """One array: its place in jaxinv's weights and in the state dict."""

    path: str  # in jaxinv's flat weights
    name: str  # in the state dict; X.weight, if normed, is stored as X.weight_orig, _u and _v
    shape: tuple[int, ...]  # in the state dict
    transform: Callable  # from the state dict's layout to jaxinv's
    normed: bool = False  # stored with spectral normalisation


def entries(arguments: dict) -> Iterator[Entry]:
    """All arrays of the network with these arguments of generators.biggan_deep."""
    a = arguments
    width, w_dim = a['channel_width'], a['z_dim'] + a['class_embed_dim']
    ours, theirs = 'params/synthesis', 'generator'
    embeddings = (a['class_embed_dim'], a['num_classes'])
    yield Entry('buffers/mapping/embeddings', 'embeddings.weight', embeddings, np.transpose)
    first = 16 * generators.FIRST * width
    yield from _layer(f'{ours}/gen_z', f'{theirs}.gen_z', (first, w_dim))
    for i, (_, before, after) in enumerate(a['layers']):
        number = i + (i >= a['attention_position'])
        block, layer = f'{ours}/block_{i}', f'{theirs}.layers.{number}'
        before, after = before * width, after * width
        inner = before // generators.REDUCTION
        for j, channels in enumerate((before, inner, inner, inner)):
            for part in ('scale', 'offset'):
                yield Entry(
                    f'{block}/bn_{j}/{part}',
                    f'{layer}.bn_{j}.{part}.weight',
                    (channels, w_dim),
                    np.transpose,
                    normed=True,
                )
            yield from _statistics(f'block_{i}/bn_{j}', f'{layer}.bn_{j}', a, channels)
        kernels = (inner, before, 1), (inner, inner, 3), (inner, inner, 3), (after, inner, 1)
        for j, (outputs, inputs, size) in enumerate(kernels):
            shape = (outputs, inputs, size, size)
            yield from _layer(f'{block}/conv_{j}', f'{layer}.conv_{j}', shape)
    if a['attention_position'] < len(a['layers']):
        yield from _attention(a)
    for part, name in (('scale', 'weight'), ('bias', 'bias')):
        yield Entry(f'{ours}/bn/{part}', f'{theirs}.bn.{name}', (width,), np.asarray)
    yield from _statistics('bn', f'{theirs}.bn', a, width)
    shape = (width, width, 3, 3)
    for entry in _layer(f'{ours}/to_rgb', f'{theirs}.conv_to_rgb', shape):
        yield entry._replace(transform=lambda x: _ours(x)[..., :3])


def _layer(path, name, shape):
    """Kernel and bias of a convolution or linear layer."""
    yield Entry(f'{path}/kernel', f'{name}.weight', shape, _ours, normed=True)
    yield Entry(f'{path}/bias', f'{name}.bias', shape[:1], _ours)


def _statistics(path, name, arguments, channels):
    shape = (arguments['num_statistics'], channels)
    for part, their in (('mean', 'running_means'), ('var', 'running_vars')):
        yield Entry(f'buffers/statistics/{path}/{part}', f'{name}.{their}', shape, np.asarray)


def _attention(a):
    position = a['attention_position']
    c = a['layers'][position][1] * a['channel_width']
    path, name = 'params/synthesis/attention', f'generator.layers.{position}'
    shapes = {'theta': (c // 8, c), 'phi': (c // 8, c), 'g': (c // 2, c), 'o': (c, c // 2)}
    for part, shape in shapes.items():
        their = f'{name}.snconv1x1_{"o_conv" if part == "o" else part}.weight'
        yield Entry(f'{path}/{part}', their, (*shape, 1, 1), _ours, normed=True)
    yield Entry(f'{path}/gamma', f'{name}.gamma', (1,), np.squeeze)


def _ours(array):
    """From PyTorch's layout: [out, in], OIHW or a bias; 1x1 kernels become matrices."""
    if array.ndim < 4:
        return array.T
    return array[:, :, 0, 0].T if array.shape[2] == 1 else array.transpose(2, 3, 1, 0)


def shapes(layout: Iterable[Entry]) -> dict[str, tuple[int, ...]]:
    """{name: shape} of the state dict with these entries."""
    found = {}
    for entry in layout:
        if entry.normed:
            vectors = entry.shape[:1], (math.prod(entry.shape[1:]),)
            for part, shape in zip(NORMED, (entry.shape, *vectors), strict=True):
                found[f'{entry.name}_{part}'] = shape
        else:
            found[entry.name] = entry.shape
    return found


def _check_arrays(source, layout):
    wanted = shapes(layout)
    problems = [f'missing {name}' for name in wanted if name not in source]
    problems += [f'unexpected {name}' for name in source if name not in wanted]
    problems += [
        f'{name} is {list(np.shape(source[name]))} instead of {list(shape)}'
        for name, shape in wanted.items()
        if name in source and np.shape(source[name]) != shape
    ]
    if problems:
        raise tables.ConversionError(f'The arrays do not fit: {"; ".join(problems)}.')
