"""StyleCLIP's mappers: {state_dict: {mapper.*, decoder.*}, opts} -> networks/text_mapper.py.

The mapper alone, with or without the prefix, is read, too; the generator beside it is not. Which
groups of rows a mapper moves follows from its arrays.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxinv.converters import tables
from jaxinv.converters.pickle_values import brief_name
from jaxinv.networks import text_mapper

_GROUPS = {  # ours: the name in the file
    'coarse': 'course_mapping',  # as it is spelled there
    'medium': 'medium_mapping',
    'fine': 'fine_mapping',
    'all': 'mapping',
}


def convert(content) -> text_mapper.Mapper:
    """The mapper of a checkpoint's plain data (safe_pickle.load), with NumPy arrays.

    Raises tables.ConversionError naming what is missing, unexpected or misshapen.
    """
    arrays = _arrays(content)
    groups = [ours for ours, theirs in _GROUPS.items() if _name(theirs, 0, 'weight') in arrays]
    if not groups or ('all' in groups and len(groups) > 1):
        shown = ', '.join(map(brief_name, list(arrays)[:5])) or 'nothing'
        raise tables.ConversionError(f'It holds {shown}, not a mapper of StyleCLIP on W+.')
    tables.check_floats(arrays)
    first = arrays[_name(_GROUPS[groups[0]], 0, 'weight')]
    if first.ndim != 2:
        raise tables.ConversionError(f'Its first layer has the shape {list(first.shape)}.')
    like = {
        name: np.broadcast_to(np.float32(0), shape)
        for name, shape in text_mapper.shapes(groups, first.shape[1]).items()
    }
    table = {}
    for name in like:
        group, i, part = name.split('/')
        theirs = _name(_GROUPS[group], int(i), 'weight' if part == 'kernel' else 'bias')
        table[name] = theirs, (np.transpose if part == 'kernel' else np.asarray)
    spec = text_mapper.Spec(tuple(groups), 'rows')
    return text_mapper.Mapper(spec, tables.apply(table, arrays, like))


def _name(group: str, layer: int, part: str) -> str:
    """Layer 0 of the sequence in the file is the normalisation."""
    return f'{group}.mapping.{layer + 1}.{part}'


def _arrays(content) -> dict[str, Any]:
    """The mapper's arrays, without the prefix."""
    if isinstance(content, Mapping) and isinstance(content.get('state_dict'), Mapping):
        content = content['state_dict']
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise tables.ConversionError('It holds no state dict.')
    own = {n.removeprefix('mapper.'): a for n, a in content.items() if n.startswith('mapper.')}
    return own or dict(content)
