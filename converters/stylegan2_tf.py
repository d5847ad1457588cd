"""StyleGAN2 as pickled by NVIDIA's TensorFlow code (stylegan2 and stylegan2-ada) -> jaxinv weights.

Such a file holds three dnnlib.tflib.network.Network: G, D and Gs, the averaged generator. Their
options, components (mapping, synthesis) and variables are read, not their source text. Layouts are
those of jaxinv (HWIO, [in, out]), except that the constant is CHW, kernels of up-convolutions are
rotated by 180 degrees, and 1 is to be added to the biases of modulations.
"""

import re

import numpy as np

from jaxinv.converters import options, stylegan2, tables
from jaxinv.converters.pickle_values import Record, brief

# Options that change the arithmetic, with the values of jaxinv.generators.stylegan2.
_OPTIONS = {
    'num_channels': 3,
    'nonlinearity': 'lrelu',
    'mapping_nonlinearity': 'lrelu',
    'mapping_lrmul': 0.01,
    'normalize_latents': True,
    'use_noise': True,
    'resample_kernel': [1, 3, 3, 1],
    'mapping_func': 'G_mapping',
    'fmap_const': None,
}
_SYNTHESES = ('G_synthesis_stylegan2', 'G_synthesis', 'G_synthesis_stylegan_revised')
# Determined by the variables, or without effect on images of given latents and noise.
_KNOWN = {*_OPTIONS} | set(
    'synthesis_func conv_clamp resolution label_size latent_size dlatent_size mapping_layers '
    'mapping_fmaps label_fmaps fmap_base fmap_decay fmap_min fmap_max architecture structure '
    'num_fp16_res dtype fused_modconv randomize_noise truncation_psi truncation_cutoff '
    'truncation_psi_val truncation_cutoff_val dlatent_avg_beta w_avg_beta style_mixing_prob'.split()
)
_LAYERS = {'conv0': 'Conv0_up', 'conv1': 'Conv1', 'torgb': 'ToRGB', 'skip': 'Skip'}


MAX_COMPONENTS = 4  # depth of components


def is_network(value) -> bool:
    return isinstance(value, Record) and value.kind == 'network' and value.state is not None


def variables(network: Record) -> tuple[dict[str, np.ndarray], list[str]]:
    """{'synthesis/4x4/Const/const': array, ...} of the network and its components, and notes.

    `lod` must be 0, the end of progressive growing; the color layers of smaller resolutions are
    left out. Raises ConversionError naming the variable.
    """
    found, notes = {}, []
    for name, value in _own_variables(network):
        if name in found:
            raise tables.ConversionError(f'The network holds the variable {name!r} twice.')
        if not isinstance(value, np.ndarray | np.number):
            raise tables.ConversionError(f'The variable {name!r} is not an array.')
        found[name] = np.asarray(value)
    for name in ('lod', 'synthesis/lod'):
        if np.any(found.pop(name, 0) != 0):
            raise tables.ConversionError(f'{name} is not 0: progressive growing was not complete.')
    sizes = _sizes(found)
    if 'synthesis/ToRGB_lod0/weight' in found and sizes:
        growing = [n for n in found if re.match(r'synthesis/ToRGB_lod\d+/', n)]
        for name in growing:
            value = found.pop(name)
            if name.startswith('synthesis/ToRGB_lod0/'):
                last = name.removeprefix('synthesis/ToRGB_lod0/')
                found[f'synthesis/{sizes[-1]}x{sizes[-1]}/ToRGB/{last}'] = value
        notes.append('The color layers of progressive growing were left out.')
    return found, notes


def settings(network: Record) -> tuple[dict, list[str]]:
    """Generator arguments that the variables do not determine, {'conv_clamp': ...}, and notes.

    Raises ConversionError naming an option that jaxinv's StyleGAN2 does not have.
    """
    given = network.state.get('static_kwargs')
    version = network.state.get('version')
    if type(version) is not int or version < 4:
        raise tables.ConversionError(
            f'The TensorFlow network has version {brief(version)}; StyleGAN2 has 4 or 5, so this '
            'is an older model (StyleGAN or progressive GAN).'
        )
    if not isinstance(given, dict):
        raise tables.ConversionError('The TensorFlow network has no static_kwargs.')
    options.check('The network', given, _OPTIONS)
    synthesis = given.get('synthesis_func', 'G_synthesis')
    if not any(options.same(synthesis, name) for name in _SYNTHESES):
        raise tables.ConversionError(
            f'The network has synthesis_func = {brief(synthesis)}, which is not that of StyleGAN2.'
        )
    notes = []
    unknown = [str(name)[:40] for name in given if name not in _KNOWN]
    if unknown:
        notes.append(f'Ignored unknown options of the network: {", ".join(unknown[:5])}.')
    return {'conv_clamp': options.clamp(given.get('conv_clamp'))}, notes


def arguments(source) -> dict:
    """Arguments of generators.stylegan2 from the variables: all but conv_clamp and name.

    Raises ConversionError if it is not a generator of that code.
    """
    if 'mapping/LabelConcat/weight' in source:
        raise tables.ConversionError(
            'The mapping network takes labels through LabelConcat, as only the TensorFlow code of '
            'StyleGAN2 does; such a conditional network is not supported.'
        )
    sizes = _sizes(source)
    if not sizes or 'mapping/Dense0/weight' not in source:
        raise tables.ConversionError(
            'No synthesis/4x4/Conv/bias or mapping/Dense0/weight: this is not a StyleGAN2 '
            "generator with the names of NVIDIA's TensorFlow code."
        )
    layers = len(stylegan2.numbers(source, r'mapping/Dense(\d+)/weight'))
    inputs, features = stylegan2.sizes_of(source, 'mapping/Dense0/weight', 2)
    _, w_dim = stylegan2.sizes_of(source, f'mapping/Dense{layers - 1}/weight', 2)
    classes, embedded = 0, 0
    if 'mapping/LabelEmbed/weight' in source:
        classes, embedded = stylegan2.sizes_of(source, 'mapping/LabelEmbed/weight', 2)
    if any(name.endswith('/Skip/weight') for name in source):
        architecture = 'resnet'
    else:
        architecture = 'skip' if 'synthesis/4x4/ToRGB/weight' in source else 'orig'
    biases = [_name(f'params/synthesis/b{size}/conv1/bias') for size in sizes]
    return {
        'resolution': sizes[-1],
        'channels': tuple(stylegan2.sizes_of(source, name, 1)[0] for name in biases),
        'z_dim': inputs - embedded,
        'w_dim': w_dim,
        'c_dim': classes,
        'mapping_layers': layers,
        **({'embed_features': embedded} if classes and embedded != w_dim else {}),
        **({'layer_features': features} if features != w_dim else {}),
        'architecture': architecture,
        'scaled_epsilon': True,
    }


def convert(source, like) -> dict[str, np.ndarray]:
    """Flat {path: float32 array} with the paths and shapes of the flat tree `like`."""
    return tables.apply({path: (_name(path), _transform(path)) for path in like}, source, like)


def variable_of(path: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """(name, array as the TensorFlow network stores it), the inverse of `convert`.

    1 is subtracted from the biases of modulations, which rounds them.
    """
    if path.endswith('/const'):
        array = array.transpose(2, 0, 1)[None]
    elif path.startswith('buffers/noise/'):
        array = array[None, None, ..., 0]
    elif path.endswith('modulation/bias'):
        array = array - np.float32(1)
    elif '/torgb/kernel' in path or '/skip/kernel' in path:
        array = array[None, None]
    elif path.endswith('conv0/kernel'):
        array = array[::-1, ::-1]
    return _name(path), array


def _own_variables(network, prefix=''):
    """Yields (name, value) of the network's variables, and COMPONENT/name of its components'."""
    if prefix.count('/') > MAX_COMPONENTS:
        raise tables.ConversionError('The components of the TensorFlow network are nested.')
    own, components = network.state.get('variables'), network.state.get('components', {})
    if not isinstance(own, list) or not isinstance(components, dict):
        raise tables.ConversionError('The TensorFlow network has no variables.')
    for pair in own:
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], str):
            raise tables.ConversionError('A variable of the TensorFlow network has no name.')
        yield prefix + pair[0], pair[1]
    for name, component in components.items():
        if not is_network(component):
            raise tables.ConversionError(f'Component {str(name)[:40]!r} is not a network.')
        yield from _own_variables(component, f'{prefix}{name}/')


def _sizes(source):
    """Resolutions of the blocks, 4 first."""
    larger = stylegan2.numbers(source, r'synthesis/(\d{1,6})x\1/Conv1/bias')
    return [4, *larger] if 'synthesis/4x4/Conv/bias' in source else []


def _name(path):
    parts = path.split('/')
    if path == 'buffers/w_avg':
        return 'dlatent_avg'
    if parts[:2] == ['buffers', 'mapping']:
        layer = 'LabelEmbed' if parts[2] == 'embed' else parts[2].replace('dense_', 'Dense')
        return f'mapping/{layer}/{stylegan2.LAST[parts[3]]}'
    if parts[:2] == ['buffers', 'noise']:
        return f'synthesis/noise{stylegan2.order(*parts[2].split("_"))}'
    block, layer, *rest = parts[2:]
    size = block.removeprefix('b')
    if layer == 'const':
        return 'synthesis/4x4/Const/const'
    layer = 'Conv' if (block, layer) == ('b4', 'conv1') else _LAYERS[layer]
    last = stylegan2.LAST[rest[-1]]
    return f'synthesis/{size}x{size}/{layer}/{"mod_" + last if len(rest) > 1 else last}'


def _transform(path):
    if path.endswith('/const'):
        return lambda a: a[0].transpose(1, 2, 0)
    if path.startswith('buffers/noise/'):
        return lambda a: a.reshape(*a.shape[-2:], 1)
    if path.endswith('modulation/bias'):
        return lambda a: a + np.float32(1)
    if '/torgb/kernel' in path or '/skip/kernel' in path:
        return lambda a: a[0, 0]
    if path.endswith('conv0/kernel'):
        return lambda a: a[::-1, ::-1]
    return lambda a: a
