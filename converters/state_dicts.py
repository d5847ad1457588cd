"""Finds the generator among the state dicts of a torch checkpoint."""

import re
from typing import NamedTuple

import numpy as np

from jaxinv.converters import tables
from jaxinv.converters.pickle_values import Opaque, brief_name, kind_of

_FIRST = {'nvidia': 'synthesis.b4.const', 'rosinality': 'input.input'}  # identify the naming
_AVERAGE = 'latent_avg'
_USUAL = ('g_ema', 'state_dict.decoder')  # taken without a word where nothing else is there
_SAME = 1e-6  # relative difference of equal rows
# The last name before a generator's arrays, where training keeps the average of its weights.
_AVERAGED = re.compile(r'.*(^|[._-])(ema|average[d]?|avg)([._-].*)?$|gs', re.IGNORECASE)
_OTHERS = (  # generators that are recognised, and not supported
    (r'(.*\.)?synthesis\.(input\.affine\.weight|L0_\d+_\d+\.weight)', 'a StyleGAN3 generator'),
    (r'.*\.(iwt|dwt)\.(ll|lh|hl|hh)', 'a SWAGAN generator (StyleGAN2 of wavelet bands)'),
    (
        r'(.*\.)?(g_synthesis|synthesis)\.blocks\.\d+x\d+\..*|(.*\.)?progression\.\d+\..*',
        'a StyleGAN1 generator',
    ),
)


class Found(NamedTuple):
    """A generator's arrays under their names in the file."""

    kind: str  # the layout, in words
    naming: str  # 'nvidia', 'rosinality' or 'tensorflow'
    source: dict[str, np.ndarray]
    arguments: dict  # those that the arrays do not determine
    notes: tuple[str, ...]  # sentences for the user


class Place(NamedTuple):
    """Where a generator is: in content[key], or in content itself if key is None."""

    key: str | None
    prefix: str  # of its arrays, with the final dot
    naming: str

    @property
    def name(self) -> str:
        """What `which` calls it: 'g_ema', 'state_dict.decoder', ..."""
        return f'{"" if self.key is None else self.key + "."}{self.prefix}'.rstrip('.')


def find(content: dict, which: str) -> Found:
    """The generator of a checkpoint, at its top or one level down, under any key.

    which: 'G_ema', the averaged one if there is a choice; 'G', the other; or a name in the file.
    Raises tables.ConversionError naming what can be chosen, if none or several are generators.
    """
    places = list(_places(content, None)) if _is_state_dict(content) else []
    for key, value in content.items():
        if isinstance(key, str) and _is_state_dict(value):
            places += _places(value, key)
    if not places:
        raise tables.ConversionError(_nothing(content))
    place = places[choose([place.name for place in places], which)]
    found = _taken(content, place)
    return found._replace(notes=(*not_averaged(place.name, which), *found.notes))


def not_averaged(name: str, which: str) -> tuple[str, ...]:
    """A note for the user who gets G instead of G_ema."""
    if which != 'G_ema' or name.lower() != 'g':
        return ()
    return (f'It has no averaged generator; {name} was taken.',)


def choose(names: list[str], which: str) -> int:
    """Index of the generator that `which` means among those with these names in the file.

    Raises tables.ConversionError with the names, if it is none or several of them.
    """
    wanted = which.rstrip('.')
    if wanted in names:
        matches = [i for i, name in enumerate(names) if name == wanted]
    elif which in ('G_ema', 'G'):
        averaged = [i for i, name in enumerate(names) if _AVERAGED.fullmatch(_own_name(name))]
        other = [i for i, name in enumerate(names) if i not in averaged]
        matches = (averaged or other) if which == 'G_ema' else other
        exact = [i for i in matches if _own_name(names[i]).lower() == which.lower()]
        matches = exact if len(exact) == 1 else matches
    else:
        matches = [i for i, name in enumerate(names) if f'.{wanted}.' in f'.{name}.']
    if len(matches) == 1:
        return matches[0]
    shown = ', '.join(name[:60] or '(the whole file)' for name in names[:8])
    if not matches:
        raise tables.ConversionError(f'It has no {which[:60]}, only {shown}; {HOW_TO_CHOOSE}.')
    raise tables.ConversionError(f'It holds several generators: {shown}; {HOW_TO_CHOOSE}.')


HOW_TO_CHOOSE = 'choose one by --config.generator_key=NAME, or by --which=NAME of jaxinv-convert'


def _own_name(name):
    """The part of a place's name that says what it is: 'g_ema', 'generator_ema', 'decoder'."""
    parts = name.split('.')
    return next((part for part in parts if _AVERAGED.fullmatch(part)), parts[-1] if parts else '')


def _places(source, key):
    """The generators in a state dict."""
    for name in source:
        for naming, first in _FIRST.items():
            if name == first or name.endswith(f'.{first}'):
                yield Place(key, name.removesuffix(first), naming)


def _nothing(content):
    """Why no generator was found, as a sentence."""
    names = [name for name in content if isinstance(name, str)]
    for value in content.values():
        if isinstance(value, dict):
            names += [name for name in value if isinstance(name, str)]
    for pattern, what in _OTHERS:
        if any(re.fullmatch(pattern, name) for name in names if len(name) < 200):
            return f'It holds {what}, which is not supported; StyleGAN2 generators are.'
    shown = ', '.join(map(brief_name, list(content)[:8])) or 'nothing'
    opaque = sorted({value.name for value in content.values() if isinstance(value, Opaque)})
    more = f' Objects of {", ".join(opaque[:3])} are not read.' if opaque else ''
    arrays = sum(isinstance(value, np.ndarray) for value in content.values())
    counted = f' ({arrays} array{"s" if arrays > 1 else ""})' if arrays else ''
    return (
        f'It holds {shown}{counted}, but neither {" nor ".join(_FIRST.values())} in them or one '
        f'level down: this is not a StyleGAN2 generator in a known naming.{more}'
    )


def _taken(content, place):
    """The generator of a place, without the prefix of its names."""
    source = content if place.key is None else content[place.key]
    notes = []
    if place.key is not None:
        rest = [brief_name(k) for k in content if k not in (place.key, _AVERAGE, 'opts')]
        if rest or place.name.lower() not in _USUAL:
            others = f', not {listed(rest)}' if rest else ''
            notes.append(f'{brief_name(place.key)} was taken{others}.')
    prefix, naming = place.prefix, place.naming
    taken = {n.removeprefix(prefix): a for n, a in source.items() if n.startswith(prefix)}
    others = {name.split('.')[0][:40] for name in source if not name.startswith(prefix)}
    if others - {_AVERAGE}:
        groups = [f'{other}.*' for other in sorted(others - {_AVERAGE})]
        notes.append(f'{prefix[:60]}* was taken, not {listed(groups)}.')
    if prefix:
        _move_average(source, taken, f'under {prefix[:60]}')
    if place.key is not None:
        _move_average(content, taken, f'in {brief_name(place.key)}')
    kind = {'nvidia': 'stylegan2-ada-pytorch', 'rosinality': 'rosinality'}[naming] + ' state dict'
    if naming == 'rosinality' and place.key is not None:
        kind = 'rosinality checkpoint'
    if place.key == 'state_dict' and any(name.startswith('encoder.') for name in source):
        kind = 'e4e/pSp checkpoint'
    if naming == 'nvidia':
        notes.append('A state dict has no conv_clamp; none is assumed.')
        return Found(kind, naming, taken, {}, tuple(notes))
    if isinstance(taken.get(_AVERAGE), np.ndarray):
        taken[_AVERAGE] = _one_row(taken[_AVERAGE], notes)
    if not any(name.startswith('noises.') for name in taken):
        taken |= _noises(taken)
        notes.append('The file has no noise maps (an early version); seeded random ones are used.')
    return Found(kind, naming, taken, {}, tuple(notes))


def _move_average(owner, taken, where):
    """Takes latent_avg of a dict around the generator's. Raises if it is there twice."""
    average = owner.get(_AVERAGE)
    if average is None:
        return
    if not isinstance(average, np.ndarray):
        raise tables.ConversionError(f'{_AVERAGE} is {kind_of(average)}, not an array.')
    if _AVERAGE in taken:
        raise tables.ConversionError(f'It holds {_AVERAGE} twice, once {where}.')
    taken[_AVERAGE] = average


def listed(names) -> str:
    """At most 8 names for a message."""
    names = list(names)
    return ', '.join(names[:8]) + (', ...' if len(names) > 8 else '') or 'nothing'


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
