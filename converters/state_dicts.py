"""Finds the generator among the state dicts of a torch checkpoint."""

import re
from typing import NamedTuple

import numpy as np

from jaxinv.converters import tables

_FIRST = {'nvidia': 'synthesis.b4.const', 'rosinality': 'input.input'}  # identify the naming
_AVERAGE = 'latent_avg'
_SAME = 1e-6  # relative difference of equal rows


class Found(NamedTuple):
    """A generator's arrays under their names in the file."""

    kind: str  # the layout, in words
    naming: str  # 'nvidia', 'rosinality' or 'tensorflow'
    source: dict[str, np.ndarray]
    arguments: dict  # those that the arrays do not determine
    notes: tuple[str, ...]  # sentences for the user


def find(content: dict, which: str) -> Found:
    """The generator of a checkpoint.

    which: 'G_ema' or 'G', if it holds both. Raises tables.ConversionError naming the entries, if
    none or several are generators.
    """
    entries = {name: value for name, value in content.items() if _is_state_dict(value)}
    named = [name for name in entries if name in (which, which.lower())]
    if len(named) > 1:
        raise tables.ConversionError(f'It holds both {named[0]!r} and {named[1]!r}.')
    if named:
        return _entry(content, named[0], which)
    other = {'g', 'G', 'g_ema', 'G_ema'} & set(entries)
    if other:
        raise tables.ConversionError(f'It has no {which}, only {", ".join(sorted(other))}.')
    if 'state_dict' in entries:
        return _entry(content, 'state_dict', which)
    if _is_state_dict(content):
        return _plain(content, which)
    names = ', '.join(str(name)[:40] for name in list(content)[:8])
    raise tables.ConversionError(
        f'It holds {names or "nothing"}, not a generator in a known layout.'
    )


def _entry(content, name, which):
    """The state dict content[name], with the average w of the checkpoint."""
    source = content[name]
    average = content.get(_AVERAGE)
    if average is not None:
        if not isinstance(average, np.ndarray):
            raise tables.ConversionError(f'{_AVERAGE} is not an array.')
        if _AVERAGE in source:
            raise tables.ConversionError(f'It holds {_AVERAGE} twice, once in {name}.')
        source = source | {_AVERAGE: average}
    found = _plain(source, which)
    rest = [str(other)[:40] for other in content if other not in (name, _AVERAGE, 'opts')]
    notes = (f'{name} was taken, not {", ".join(rest)}.',) if rest else ()
    kind = 'rosinality checkpoint' if found.naming == 'rosinality' else found.kind
    if name == 'state_dict' and any(key.startswith('encoder.') for key in source):
        kind = 'e4e/pSp checkpoint'
    return found._replace(kind=kind, notes=notes + found.notes)


def _plain(source, which):
    """The generator in a state dict, without the prefix of its names."""
    places = [
        (naming, name.removesuffix(first))
        for naming, first in _FIRST.items()
        for name in source
        if name == first or name.endswith('.' + first)
    ]
    chosen = [place for place in places if place[1] in (f'{which}.', f'{which.lower()}.')]
    if len(chosen or places) > 1:
        two = ' and '.join(repr(prefix) for _, prefix in (chosen or places)[:2])
        raise tables.ConversionError(f'It holds generators under more than one prefix: {two}.')
    if not places:
        names = ', '.join(sorted(source)[:5])
        raise tables.ConversionError(
            f'It holds {names} ({len(source)} arrays), but neither {" nor ".join(_FIRST.values())}:'
            ' this is not a StyleGAN2 generator in a known naming.'
        )
    naming, prefix = (chosen or places)[0]
    kind = {'nvidia': 'stylegan2-ada-pytorch', 'rosinality': 'rosinality'}[naming] + ' state dict'
    taken = {n.removeprefix(prefix): a for n, a in source.items() if n.startswith(prefix)}
    rest = [name for name in source if not name.startswith(prefix) and name != _AVERAGE]
    notes = []
    if rest:
        others = sorted({name.split('.')[0] for name in rest})
        notes.append(f'{prefix}* was taken, not {", ".join(f"{o}.*" for o in others[:8])}.')
    if prefix and _AVERAGE in source:
        if _AVERAGE in taken:
            raise tables.ConversionError(f'It holds {_AVERAGE} twice, once under {prefix}.')
        taken[_AVERAGE] = source[_AVERAGE]
    if naming == 'nvidia':
        notes.append('A state dict has no conv_clamp; none is assumed.')
        return Found(kind, naming, taken, {}, tuple(notes))
    if _AVERAGE in taken:
        taken[_AVERAGE] = _one_row(taken[_AVERAGE], notes)
    if not any(name.startswith('noises.') for name in taken):
        taken |= _noises(taken)
        notes.append('The file has no noise maps (an early version); seeded random ones are used.')
    return Found(kind, naming, taken, {}, tuple(notes))


def _one_row(average, notes):
    """[w_dim] of an average [num_ws, w_dim], as encoders store it."""
    rows = average.reshape(-1, average.shape[-1]) if average.ndim else average.reshape(1, 1)
    if len(rows) > 1 and np.abs(rows - rows[:1]).max() > _SAME * np.abs(rows).max():
        notes.append(f'{_AVERAGE} differs between its {len(rows)} rows; their mean was taken.')
        return rows.mean(0)
    return rows[0]


def _noises(source):
    convs = [name for name in source if re.fullmatch(r'(conv1|convs\.\d+)\.conv\.weight', name)]
    sizes = [2 ** ((i + 5) // 2) for i in range(min(len(convs), 21))]
    random = np.random.RandomState(0)
    return {
        f'noises.noise_{i}': random.standard_normal((1, 1, size, size)).astype(np.float32)
        for i, size in enumerate(sizes)
    }


def _is_state_dict(value):
    """True for a dict {name: array}; counters may be among the values."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(name, str) for name in value)
        and any(isinstance(array, np.ndarray) for array in value.values())
    )
