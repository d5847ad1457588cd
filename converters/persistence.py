"""Torch modules in the persistence format of NVIDIA's PyTorch code.

Such a file contains the source text of the network's classes, which NVIDIA's loader executes. The
pickle reader drops the text and keeps the attributes of each module: parameters, buffers,
submodules and options. Options that change the arithmetic are checked here.
"""

import re

import numpy as np

from jaxinv.converters import options, tables
from jaxinv.converters.pickle_values import Record, brief

# The options of jaxinv.generators.stylegan2 by module. NVIDIA: training/networks.py.
_OPTIONS = {
    r'mapping\.fc\d+': {'activation': 'lrelu', 'bias_gain': 0.01},
    r'mapping\.embed': {'activation': 'linear', 'bias_gain': 1},
    r'synthesis\.b\d+\.conv[01]\.affine': {'activation': 'linear', 'bias_gain': 1},
    r'synthesis\.b\d+\.torgb\.affine': {'activation': 'linear', 'bias_gain': 1},
    r'synthesis\.b\d+\.conv0': {'use_noise': True, 'activation': 'lrelu', 'up': 2, 'padding': 1},
    r'synthesis\.b\d+\.conv1': {'use_noise': True, 'activation': 'lrelu', 'up': 1, 'padding': 1},
    r'synthesis\.b\d+\.skip': {'activation': 'linear', 'up': 2, 'conv_clamp': None},
}
_CLAMPED = r'synthesis\.b\d+\.(conv0|conv1|torgb)'


def is_module(value) -> bool:
    return isinstance(value, Record) and value.kind == 'module'


def is_generator(value) -> bool:
    """True for a module with a synthesis network."""
    if not is_module(value) or not isinstance(value.state, dict):
        return False
    parts = value.state.get('_modules')
    return isinstance(parts, dict) and 'synthesis' in parts


def state_dict(module: Record) -> dict[str, np.ndarray]:
    """{'synthesis.b4.const': array, ...}, as torch's state_dict()."""
    arrays = {}
    for path, state in _modules(module):
        for group in ('_parameters', '_buffers'):
            for name, array in _dict(state, group).items():
                full = f'{path}.{name}'.lstrip('.')
                if full in arrays:
                    raise tables.ConversionError(f'The module holds {full!r} twice.')
                if array is not None:
                    arrays[full] = array
    return arrays


def settings(module: Record) -> tuple[dict, list[str]]:
    """Generator arguments that the tensors do not determine, {'conv_clamp': ...}, and notes.

    Raises tables.ConversionError naming an option that jaxinv's StyleGAN2 does not have.
    """
    modules = dict(_modules(module))
    if any(re.fullmatch(r'synthesis\.(input|L\d+_.*)', path) for path in modules):
        raise tables.ConversionError(
            'This is a StyleGAN3 generator (synthesis.input, synthesis.L0_...), which is not '
            'supported; StyleGAN2 generators are.'
        )
    channels = modules.get('synthesis', {}).get('img_channels', 3)
    if not options.same(channels, 3):
        raise tables.ConversionError(
            f'It makes images of {brief(channels)} channels; only generators of RGB images are '
            'supported.'
        )
    for path, state in modules.items():
        for pattern, wanted in _OPTIONS.items():
            if re.fullmatch(pattern, path):
                options.check(path, state, wanted)
    clamps = {
        path: state.get('conv_clamp')
        for path, state in modules.items()
        if re.fullmatch(_CLAMPED, path)
    }
    clamp = options.clamp(next(iter(clamps.values()), None))
    for path, value in clamps.items():
        if options.clamp(value) != clamp:
            raise tables.ConversionError(
                f'{path} has conv_clamp = {brief(value)}, other layers {clamp}; one limit for all '
                'layers is supported.'
            )
    halves = [p for p, state in modules.items() if state.get('use_fp16') is True]
    notes = []
    if halves:
        notes.append(f'{", ".join(halves)} used float16 on GPUs; jaxinv uses float32.')
    return {'conv_clamp': clamp}, notes


def architectures(module: Record) -> set:
    """The values of the blocks' option `architecture`: 'skip', 'resnet' or 'orig'."""
    found = [
        state.get('architecture')
        for path, state in _modules(module)
        if re.fullmatch(r'synthesis\.b\d+', path)
    ]
    return {value if isinstance(value, str) else brief(value) for value in found}


def _modules(module, path=''):
    """Yields (dotted path, attributes) of the module and its submodules, recursively."""
    yield path, module.state
    for name, child in _dict(module.state, '_modules').items():
        if child is None:
            continue
        if not is_module(child):
            raise tables.ConversionError(f'{path or "The network"} holds {name!r}, not a module.')
        yield from _modules(child, f'{path}.{name}'.lstrip('.'))


def _dict(state, group):
    value = state.get(group)
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise tables.ConversionError(f'The file holds a torch module without its {group}.')
    return value


def is_flat(module: Record) -> bool:
    """True if the generator's options are flat, as in stylegan3's repository.

    In stylegan2-ada-pytorch those of the synthesis network are in `synthesis_kwargs`.
    """
    given = module.state.get('_init_kwargs')
    return isinstance(given, dict) and bool(
        {'channel_base', 'conv_clamp', 'num_fp16_res'} & set(given)
    )
