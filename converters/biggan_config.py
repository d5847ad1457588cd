"""config.json of pytorch-pretrained-biggan, with types and sizes checked."""

import json
import pathlib

from jaxinv.converters import tables

CONFIG = 'config.json'
MAX_CONFIG = 1 << 20  # bytes


def read_config(path: pathlib.Path) -> dict | None:
    """config.json in the folder of a state dict, checked by `checked`; None if there is none.

    Raises tables.ConversionError naming the file and the key.
    """
    path = path.parent / CONFIG
    if not path.is_file():
        return None
    with path.open('rb') as file:
        data = file.read(MAX_CONFIG + 1)
    if len(data) > MAX_CONFIG:
        raise tables.ConversionError(f'{path} has more than the {MAX_CONFIG} bytes allowed.')
    try:
        config = json.loads(data)
        return checked(config)
    except tables.ConversionError as error:
        raise tables.ConversionError(f'{path}: {error}') from None
    except (ValueError, RecursionError) as error:
        reason = ' '.join(str(error).split())[:80]
        raise tables.ConversionError(f'{path} is not JSON ({reason}).') from None


def checked(config) -> dict:
    """The keys of a config that jaxinv reads, layers as tuples.

    Raises ConversionError naming a key with a value of another type or range.
    """
    if not isinstance(config, dict):
        raise tables.ConversionError(
            f'It holds a {type(config).__name__}, not an object of settings.'
        )
    names = (
        'output_dim', 'z_dim', 'class_embed_dim', 'channel_width', 'num_classes',
        'attention_layer_position', 'n_stats',
    )  # fmt: skip
    found = {}
    for name in names:
        if name in config:
            if type(config[name]) is not int or not 0 <= config[name] <= 1 << 20:
                raise _invalid(name, config[name], 'an integer of at least 0')
            found[name] = config[name]
    if 'eps' in config:
        eps = config['eps']
        if type(eps) not in (int, float) or not 0 < eps < 1:
            raise _invalid('eps', eps, 'a number between 0 and 1')
        found['eps'] = float(eps)
    if 'layers' in config:
        layers = config['layers']
        if (
            not isinstance(layers, list)
            or not 0 < len(layers) <= 64
            or not all(map(_is_layer, layers))
        ):
            raise _invalid(
                'layers', layers, 'a list of [upsampling, channels before, channels after]'
            )
        found['layers'] = tuple((bool(up), before, after) for up, before, after in layers)
    return found


def _is_layer(layer):
    """True for [upsampling, channels before, channels after]."""
    return (
        isinstance(layer, list)
        and len(layer) == 3
        and (type(layer[0]) is bool or layer[0] in (0, 1))
        and all(type(n) is int and 0 < n <= 1024 for n in layer[1:])
    )


def _invalid(name, value, wanted):
    return tables.ConversionError(f'{name} is {str(value)[:60]}; it must be {wanted}.')
