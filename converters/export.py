"""StyleGAN2 weights of jaxinv -> state dicts of the PyTorch codes.

'ada': NVIDIA's stylegan2-ada-pytorch and stylegan3 (its StyleGAN2 networks). 'rosinality':
rosinality/stylegan2-pytorch, with latent_avg among the entries.

State dicts are complete, constant filters and noise maps included, so that load_state_dict accepts
them with strict=True. docs/checkpoints.md has the lines that load them in PyTorch.
"""

import re

import numpy as np
from flax.traverse_util import flatten_dict

from jaxinv.converters import stylegan2
from jaxinv.converters.stylegan2 import FILTER
from jaxinv.errors import JaxinvError
from jaxinv.types import GeneratorSpec, Weights


class ExportError(JaxinvError):
    """The generator cannot be written in this format; the message gives reason and remedy."""


def state_dict(spec: GeneratorSpec, weights: Weights, names: str) -> dict[str, np.ndarray]:
    """{name: float32 array}, the state dict of the PyTorch code.

    names: 'ada', or 'rosinality', which adds the average w as 'latent_avg'. Raises ExportError if
    that code has no such generator.
    """
    arguments = _arguments(spec)
    flat = {
        path: np.asarray(array, np.float32)
        for path, array in flatten_dict(weights, sep='/').items()
    }
    if names == 'ada':
        found = {}
        for path, (name, _) in stylegan2.nvidia_table(flat).items():
            found[name] = _plain(_torch_layout(path, flat[path]))
        owners = {name.rpartition('.')[0] for name in found if name.startswith('synthesis.')}
        owners = {name for name in owners if re.fullmatch(r'synthesis\.b\d+\.(conv.|skip)', name)}
        owners |= {f'synthesis.b{size}' for size in _sizes(arguments)}
        return found | {f'{owner}.resample_filter': np.float32(FILTER) for owner in owners}
    _check_rosinality(spec.name, arguments)
    found = {}
    for path, (name, _) in stylegan2.rosinality_table(flat).items():
        found[name] = _plain(_rosinality_layout(path, _torch_layout(path, flat[path])))
    blocks = len(_sizes(arguments)) - 1
    owners = [f'convs.{2 * i}.conv.blur.kernel' for i in range(blocks)]
    owners += [f'to_rgbs.{i}.upsample.kernel' for i in range(blocks)]
    return found | {owner: np.float32(4 * FILTER) for owner in owners}


def notes(spec: GeneratorSpec, names: str) -> tuple[str, ...]:
    """Sentences for the user of a state dict: the constructor's arguments, and differences."""
    arguments = _arguments(spec)
    made = _ada_model(arguments) if names == 'ada' else _rosinality_model(arguments)
    found = [f'Make the model with {made}']
    code, other = "NVIDIA's", "rosinality's"
    if names == 'rosinality':
        code, other = other, code
    if arguments['scaled_epsilon'] != (names == 'rosinality'):
        found.append(
            f'The generator demodulates with the epsilon of {other} code, which is not that of '
            f'{code}: images differ by about 1e-6.'
        )
    if names == 'rosinality' and arguments['conv_clamp'] is not None:
        found.append(
            f'rosinality has no conv_clamp; images differ where a layer exceeds '
            f'{arguments["conv_clamp"]:g}.'
        )
    return tuple(found)


def _arguments(spec):
    if spec.family != 'stylegan2':
        raise ExportError(
            f'{spec.name} is not a StyleGAN2, so the PyTorch codes of StyleGAN2 cannot load it; '
            'use --to=safetensors or --to=orbax.'
        )
    return dict(spec.arguments)


def _check_rosinality(name, arguments):
    reason = None
    if arguments.get('layer_features'):
        reason = 'has one size for all layers of the mapping network'
    elif arguments['c_dim']:
        reason = 'has no classes'
    elif arguments['architecture'] != 'skip':
        reason = f'has the skip architecture only, not {arguments["architecture"]}'
    elif arguments['z_dim'] != arguments['w_dim']:
        reason = f'has one size for z and w, not {arguments["z_dim"]} and {arguments["w_dim"]}'
    if reason:
        raise ExportError(f"rosinality's code {reason}, so {name} cannot be written; use --to=ada.")


def _torch_layout(path, array):
    """From jaxinv's layout to NVIDIA's, the inverse of converters/stylegan2.py."""
    if path.endswith('const'):
        return array.transpose(2, 0, 1)
    if path.startswith('buffers/noise/'):
        return array[..., 0]
    if array.ndim < 2:
        return array
    if '/mapping/' in path or '/modulation/' in path:
        return array.T
    if array.ndim == 2:  # 1x1 kernels of torgb and skip
        return array.T[:, :, None, None]
    return array.transpose(3, 2, 0, 1)


def _rosinality_layout(path, array):
    """Adds the axes of size 1 of rosinality's code."""
    if path.startswith('buffers/noise/'):
        return array[None, None]
    if path.endswith('noise_strength'):
        return array.reshape(1)
    if path.endswith('torgb/bias'):
        return array[None, :, None, None]
    return array[None] if array.ndim > 2 else array


def _plain(array):
    """In C order, as safetensors requires; ascontiguousarray would make 0-d arrays 1-d."""
    return np.array(array, order='C')


def _sizes(arguments):
    return [4 * 2**i for i in range(len(arguments['channels']))]


def _ada_model(arguments):
    sizes, channels = _sizes(arguments), arguments['channels']
    most = max(channels)
    # If all blocks have the same number of channels, any large enough base gives it.
    bases = [c * size for size, c in zip(sizes, channels, strict=True) if c < most]
    base = bases[0] if bases else most * sizes[-1]
    fits = [min(base // size, most) for size in sizes] == list(channels)
    widths = f'channel_base={base}, channel_max={most}'
    if not fits:
        widths = f'channels {_listed(arguments)}, which no channel_base gives'
    options = (
        f'{widths}, architecture={arguments["architecture"]!r}, '
        f'conv_clamp={arguments["conv_clamp"]}'
    )
    mapping = f'num_layers={arguments["mapping_layers"]}'
    for name in ('embed_features', 'layer_features'):
        if arguments.get(name):
            mapping += f', {name}={arguments[name]}'
    made = (
        f'Generator(z_dim={arguments["z_dim"]}, c_dim={arguments["c_dim"]}, '
        f'w_dim={arguments["w_dim"]}, img_resolution={arguments["resolution"]}, img_channels=3, '
        f'mapping_kwargs=dict({mapping}), '
    )
    return (
        f'{made}synthesis_kwargs=dict({options})) in stylegan2-ada-pytorch, or with '
        f"{made}{options}) in stylegan3's repository (training/networks_stylegan2.py)."
    )


def _rosinality_model(arguments):
    sizes, channels = _sizes(arguments), arguments['channels']
    multiplier = max(channels[4] // 256, 1) if len(channels) > 4 else 2
    usual = [512 if size < 64 else 16384 * multiplier // size for size in sizes]
    made = (
        f'Generator({arguments["resolution"]}, {arguments["w_dim"]}, '
        f'{arguments["mapping_layers"]}, channel_multiplier={multiplier})'
    )
    if list(channels) == usual:
        return f'{made}.'
    return f'{made}, after setting self.channels in its code to {_listed(arguments)}.'


def _listed(arguments):
    pairs = zip(_sizes(arguments), arguments['channels'], strict=True)
    return '{' + ', '.join(f'{size}: {c}' for size, c in pairs) + '}'
