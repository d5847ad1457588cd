"""The released invertibility networks of SAM, a .pt of state dicts -> networks.invertibility.

    {'sd_base': DeepLabV3+ with a ResNet-101, 'W+': a head, 'F4': a head, ...}

The prefix 'module.', which SAM's training script writes, is dropped. A head's transposed
convolutions of stride 1 become convolutions with flipped kernels.
"""

import re
from collections.abc import Mapping

import numpy as np
from flax.traverse_util import unflatten_dict

from jaxinv.converters import safe_pickle, tables
from jaxinv.networks import deeplab, invertibility

BASE = 'sd_base'
_LAST = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias'}
_STATISTICS = {'mean': 'running_mean', 'var': 'running_var'}
_PLACES = {  # path in jaxinv below 'base': name in the file
    'aspp/mean/conv': 'aspp.global_avg_pool.1',
    'aspp/mean/bn': 'aspp.global_avg_pool.2',
    'aspp/join/conv': 'aspp.conv1',
    'aspp/join/bn': 'aspp.bn1',
    'shortcut/conv': 'decoder.conv1',
    'shortcut/bn': 'decoder.bn1',
    'decoder0/conv': 'decoder.last_conv.0',
    'decoder0/bn': 'decoder.last_conv.1',
    'decoder1/conv': 'decoder.last_conv.4',
    'decoder1/bn': 'decoder.last_conv.5',
    'out': 'decoder.last_conv.8',
} | {f'aspp/arm{i}/bn': f'aspp.aspp{i + 1}.bn' for i in range(4)}
_PLACES |= {f'aspp/arm{i}/conv': f'aspp.aspp{i + 1}.atrous_conv' for i in range(4)}
_HEAD = {'conv0': 'm.0', 'bn0': 'm.1', 'conv1': 'm.3'}


def load(path):
    """(network, variables {'params', 'batch_stats'}) of a released file. Raises JaxinvError."""
    return convert(safe_pickle.load(path))


def convert(content: Mapping):
    """(network, variables) of {'sd_base': {name: array}, 'W+': {name: array}, ...}.

    Raises tables.ConversionError naming the part or array that does not fit.
    """
    source = _flatten(content)
    spaces = tuple(sorted((s for s in content if s != BASE), key=_editability))
    network = invertibility.Network(spaces, sizes(source))
    like = invertibility.shapes(network)
    table = {name: (_name(name, spaces), _transform(name)) for name in like}
    flat = tables.apply(table, source, like)
    return network, unflatten_dict(flat, sep='/')


def sizes(source: Mapping[str, np.ndarray]) -> deeplab.Sizes:
    """The architecture, from the names and shapes of the arrays."""
    try:
        blocks = tuple(
            len(
                [
                    n
                    for n in source
                    if re.fullmatch(rf'{BASE}\.backbone\.layer{i}\.\d+\.bn1\.bias', n)
                ]
            )
            for i in (1, 2, 3, 4)
        )
        width = len(source[f'{BASE}.backbone.bn1.bias'])
        pyramid = len(source[f'{BASE}.aspp.bn1.bias'])
        shortcut = len(source[f'{BASE}.decoder.bn1.bias'])
    except KeyError as error:
        raise tables.ConversionError(
            f'No {error.args[0]}: this is not a DeepLabV3+ with a ResNet, the released base.'
        ) from None
    return deeplab.Sizes('resnet', blocks, width, pyramid, shortcut, head_layers=2)


def _flatten(content) -> dict[str, np.ndarray]:
    """{'sd_base.backbone.conv1.weight': array, 'W+.m.0.weight': ...} without counters."""
    if not isinstance(content, Mapping) or not isinstance(content.get(BASE), Mapping):
        raise tables.ConversionError(
            f'There is no {BASE!r}; the released files hold it and a head for every latent space.'
        )
    source = {}
    for part, arrays in content.items():
        if not isinstance(arrays, Mapping) or (part != BASE and not _is_space(part)):
            raise tables.ConversionError(
                f'{str(part)[:40]!r} is neither {BASE!r} nor the head of a latent space.'
            )
        for name, array in arrays.items():
            name = str(name).removeprefix('module.')
            if not name.endswith('num_batches_tracked'):
                source[f'{part}.{name}'] = np.asarray(array)
    return source


def _is_space(name) -> bool:
    return isinstance(name, str) and re.fullmatch(r'W\+|F\d+', name) is not None


def _editability(space: str) -> int:
    return 0 if space == 'W+' else int(space[1:])


def _name(path: str, spaces) -> str:
    kind, part, *middle, last = path.split('/')
    last = (_STATISTICS if kind == 'batch_stats' else _LAST)[last]
    if part != 'base':
        space = next(s for s in spaces if invertibility.head_name(s) == part)
        return f'{space}.{_HEAD[middle[0]]}.{last}'
    if middle[0] != 'backbone':
        return f'{BASE}.{_PLACES["/".join(middle)]}.{last}'
    places = {'downsample': 'downsample.0', 'downsample_bn': 'downsample.1'}
    middle = [places.get(m, re.sub(r'^(layer\d)_', r'\1.', m)) for m in middle]
    return '.'.join([BASE, *middle, last])


def _transform(path: str):
    if not path.endswith('kernel'):
        return lambda a: a
    if path.startswith('params/base/'):
        return lambda a: a.transpose(2, 3, 1, 0)  # OIHW
    return lambda a: a[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)  # IOHW, transposed convolution
