"""StyleGAN2 state dicts with NVIDIA's PyTorch names or rosinality's -> jaxinv weights.

Both store the same numbers in PyTorch's layouts (OIHW, [out, in], CHW); gains are applied at run
time, there and here. The constant upsampling filter [1, 3, 3, 1] is checked and dropped. The names
of NVIDIA's TensorFlow code are in stylegan2_tf.py.
"""

import re
from collections.abc import Mapping

import numpy as np

from jaxinv.converters import tables

FILTER = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
NVIDIA_FILTERS = r'.*\.resample_filter'  # sum 1
ROSINALITY_FILTERS = r'.*\.(blur|upsample)\.kernel'  # sum 4
MAX_DOUBLINGS = 12  # from 4 pixels: 16384
MAX_DIGITS = 6  # of a number in a name
LAST = {'kernel': 'weight', 'bias': 'bias', 'noise_strength': 'noise_strength', 'const': 'const'}


def nvidia_arguments(source: Mapping[str, np.ndarray]) -> dict:
    """Arguments of generators.stylegan2 from the tensors: all but conv_clamp and name.

    Raises tables.ConversionError if it is not a generator in this naming.
    """
    check_pictures(source, 'synthesis.b4.const', r'synthesis\.b\d+\.torgb\.weight', 0)
    blocks = numbers(source, r'synthesis\.b(\d+)\.conv1\.bias')
    layers = len([name for name in source if re.fullmatch(r'mapping\.fc\d+\.weight', name)])
    if not blocks or not layers:
        raise tables.ConversionError(
            'No synthesis.b4.conv1.bias or mapping.fc0.weight: this is not a StyleGAN2 generator '
            'with the names of stylegan2-ada-pytorch.'
        )
    if any(name.endswith('.skip.weight') for name in source):
        architecture = 'resnet'
    else:
        architecture = 'skip' if 'synthesis.b4.torgb.weight' in source else 'orig'
    features, inputs = sizes_of(source, 'mapping.fc0.weight', 2)
    w_dim, _ = sizes_of(source, f'mapping.fc{layers - 1}.weight', 2)
    embedded, classes = 0, 0
    if 'mapping.embed.weight' in source:
        embedded, classes = sizes_of(source, 'mapping.embed.weight', 2)
    return {
        'resolution': blocks[-1],
        'channels': tuple(sizes_of(source, f'synthesis.b{n}.conv1.bias', 1)[0] for n in blocks),
        'z_dim': inputs - embedded,
        'w_dim': w_dim,
        'c_dim': classes,
        'mapping_layers': layers,
        **({'embed_features': embedded} if classes and embedded != w_dim else {}),
        **({'layer_features': features} if features != w_dim else {}),
        'architecture': architecture,
    }


def rosinality_arguments(source: Mapping[str, np.ndarray]) -> dict:
    """Arguments of generators.stylegan2 from a state dict with rosinality's names.

    Raises tables.ConversionError if it is not a generator in this naming.
    """
    check_pictures(source, 'input.input', r'to_rgb(1|s\.\d+)\.conv\.weight', -4)
    convs = numbers(source, r'convs\.(\d+)\.activate\.bias')
    layers = len([name for name in source if re.fullmatch(r'style\.\d+\.weight', name)])
    if 'conv1.activate.bias' not in source or not convs or not layers:
        raise tables.ConversionError(
            'No conv1.activate.bias, convs.0.activate.bias or style.1.weight: this is not a '
            'StyleGAN2 generator with the names of rosinality/stylegan2-pytorch.'
        )
    if len(convs) > 2 * MAX_DOUBLINGS:
        raise tables.ConversionError(f'It doubles the resolution more than {MAX_DOUBLINGS} times.')
    names = ['conv1', *(f'convs.{i}' for i in convs if i % 2)]
    w_dim, z_dim = sizes_of(source, 'style.1.weight', 2)
    return {
        'resolution': 2 ** (len(names) + 1),
        'channels': tuple(sizes_of(source, f'{name}.activate.bias', 1)[0] for name in names),
        'z_dim': z_dim,
        'w_dim': w_dim,
        'mapping_layers': layers,
        'scaled_epsilon': True,
    }


def convert_nvidia(source: Mapping[str, np.ndarray], like) -> dict[str, np.ndarray]:
    """Flat {path: float32 array} with the paths and shapes of the flat tree `like`.

    source: the generator's state dict {'synthesis.b4.const': ..., 'mapping.fc0.weight': ...}.
    Raises tables.ConversionError naming a missing, unexpected or misshapen array.
    """
    return tables.apply(nvidia_table(like), _without_filters(source, NVIDIA_FILTERS, 1), like)


def convert_rosinality(source: Mapping[str, np.ndarray], like) -> dict[str, np.ndarray]:
    """The same for a state dict 'g' or 'g_ema', which may contain 'latent_avg'.

    Without it `like` must not contain buffers/w_avg.
    """
    source = _without_filters(source, ROSINALITY_FILTERS, 4)
    return tables.apply(rosinality_table(like), source, like)


def nvidia_table(like) -> tables.Table:
    """The conversion table for the names of stylegan2-ada-pytorch."""
    return {path: (_nvidia_name(path), _transform(path)) for path in like}


def rosinality_table(like) -> tables.Table:
    """The conversion table for the names of rosinality/stylegan2-pytorch."""
    return {path: (_rosinality_name(path), _transform(path)) for path in like}


def _nvidia_name(path):
    parts = path.split('/')
    if parts[:2] == ['buffers', 'mapping']:
        return f'mapping.{parts[2].replace("dense_", "fc")}.{LAST[parts[3]]}'
    if parts[:2] == ['buffers', 'noise']:
        return f'synthesis.{parts[2].replace("_", ".")}.noise_const'
    if path == 'buffers/w_avg':
        return 'mapping.w_avg'
    middle = ['affine' if part == 'modulation' else part for part in parts[2:-1]]
    return '.'.join(['synthesis', *middle, LAST[parts[-1]]])


def _rosinality_name(path):
    parts = path.split('/')
    if path == 'buffers/w_avg':
        return 'latent_avg'
    if parts[:2] == ['buffers', 'mapping']:
        # style.0 is the normalisation of z
        return f'style.{int(parts[2].removeprefix("dense_")) + 1}.{LAST[parts[3]]}'
    if parts[:2] == ['buffers', 'noise']:
        return f'noises.noise_{order(*parts[2].split("_"))}'
    block, layer, *rest = parts[2:]
    if layer == 'const':
        return 'input.input'
    if layer == 'torgb':
        name = 'to_rgb1' if block == 'b4' else f'to_rgbs.{order(block, "conv0") // 2}'
        biases = f'{name}.bias'
    else:
        name = 'conv1' if block == 'b4' else f'convs.{order(block, layer) - 1}'
        biases = f'{name}.activate.bias'
    if rest[0] == 'modulation':
        return f'{name}.conv.modulation.{LAST[rest[1]]}'
    return {
        'kernel': f'{name}.conv.weight',
        'bias': biases,
        'noise_strength': f'{name}.noise.weight',
    }[rest[0]]


def order(block, conv):
    """Index of a 3x3 convolution in network order: b4_conv1 0, b8_conv0 1, b8_conv1 2, ..."""
    octave = int(block[1:]).bit_length() - 3  # b4: 0
    return 2 * octave - (conv == 'conv0')


def _transform(path):
    """From PyTorch's layout to jaxinv's; drops the leading axes of size 1 of rosinality's code."""
    if path.endswith('const'):
        return lambda a: a.reshape(a.shape[-3:]).transpose(1, 2, 0)
    if path.startswith('buffers/noise/'):
        return lambda a: a.reshape(*a.shape[-2:], 1)
    if path.endswith('noise_strength'):
        return lambda a: a.reshape(())
    if path.endswith('bias') or path.endswith('w_avg'):
        return lambda a: a.reshape(-1)
    if '/mapping/' in path or '/modulation/' in path:
        return lambda a: a.T
    if '/torgb/' in path or '/skip/' in path:
        return lambda a: a.reshape(a.shape[-4:])[:, :, 0, 0].T
    return lambda a: a.reshape(a.shape[-4:]).transpose(2, 3, 1, 0)


def _without_filters(source, pattern, total):
    """The source without its constant filters. Raises ConversionError for other filters."""
    rest = {}
    for name, array in source.items():
        if not re.fullmatch(pattern, name):
            rest[name] = array
        elif array.shape != FILTER.shape or not np.allclose(array, total * FILTER, atol=1e-5):
            raise tables.ConversionError(
                f'{name!r} is not the filter [1, 3, 3, 1] of StyleGAN2; no other is supported.'
            )
    return rest


def numbers(source, pattern) -> list[int]:
    """Sorted numbers, group 1 of the pattern, in the names that match it."""
    matches = [match for name in source if (match := re.fullmatch(pattern, name))]
    if any(len(match[1]) > MAX_DIGITS for match in matches):
        raise tables.ConversionError(
            f'An array has a name with a number of more than {MAX_DIGITS} digits.'
        )
    return sorted(int(match[1]) for match in matches)


def check_pictures(source, const: str, to_rgb: str, axis: int) -> None:
    """Raises ConversionError for a generator of pictures that are not square or not RGB.

    const: name of the constant [..., 4, 4]; to_rgb: pattern of the names of kernels that make the
    image, whose axis `axis` is its channels.
    """
    shape = np.shape(source.get(const, np.empty([0, 4, 4])))
    if len(shape) >= 2 and shape[-1] != shape[-2]:
        raise tables.ConversionError(
            f'It makes pictures that are not square ({shape[-1]} wide for {shape[-2]} high); only '
            'generators of square pictures are supported.'
        )
    if len(shape) >= 2 and shape[-1] != 4:
        raise tables.ConversionError(
            f'It begins with {shape[-2]} x {shape[-1]} values instead of 4 x 4, as no StyleGAN2 '
            'generator of square pictures does.'
        )
    for name, array in source.items():
        if re.fullmatch(to_rgb, name) and np.ndim(array) >= 4 and np.shape(array)[axis] != 3:
            raise tables.ConversionError(
                f'It makes pictures of {np.shape(array)[axis]} channels; only generators of RGB '
                'pictures are supported.'
            )


def sizes_of(source, name, ndim) -> tuple[int, ...]:
    """The shape of source[name]. Raises ConversionError if it is missing or has not `ndim` axes."""
    if name not in source:
        raise tables.ConversionError(f'Missing array: {name}.')
    if np.ndim(source[name]) != ndim:
        raise tables.ConversionError(
            f'Array {name!r} has the shape {list(np.shape(source[name]))}; it must have {ndim} '
            'axes.'
        )
    return source[name].shape
