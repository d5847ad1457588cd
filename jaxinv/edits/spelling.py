"""Edits from their spelling; see jaxinv/edits/__init__.py for examples."""

import dataclasses
import pathlib
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jaxinv.edits import record
from jaxinv.edits.directions import EditError, EditWarning, packaged
from jaxinv.edits.edit import Direction, Edit, Wanted, name_of
from jaxinv.edits.sources import Source, Sources
from jaxinv.text import printable, shortest

UNITS = {'deg': 'degrees', 'y': 'years', 'u': "units of the attribute's own measure"}
_MEASURED = {'yaw': 'deg', 'pitch': 'deg', 'roll': 'deg', 'age': 'y'}  # attribute -> its unit
_STRENGTH = r'\s*(?:[A-Za-z_]\w*:)?[-+\d.eE ]{1,60}?[A-Za-z%]{0,8}\s*'
_STEP = re.compile(
    rf"""\s*(?P<source>[^\s].*?)\s*
    (?:\[\s*(?P<start>\d*)\s*:\s*(?P<stop>\d*)\s*\])?
    \s*(?P<how>:?=)(?P<strengths>{_STRENGTH}(?:/{_STRENGTH})*?)(?:,|$)""",
    re.VERBOSE,
)
_VALUE = re.compile(r'(?:(?P<attribute>[A-Za-z_]\w*):)?(?P<number>.*?)(?P<unit>[A-Za-z%]*)')


def parse(
    specs: str | Iterable[str],
    space: str = 'ffhq',
    classes=None,
    mean=None,
    *,
    generator: Any = None,
    weights: Any = None,
    sources: Mapping[str, Source] | None = None,
) -> list[Edit]:
    """Edits from their spelling; one string may hold several, separated by semicolons.

    space: whose packaged directions the names are. classes: the embeddings [n, e] of a
    class-conditional generator, for edits of the class. mean: of W, [w_dim], for edits with `:=`.
    generator, weights: for directions of its layers (sefa3, style:LAYER/CHANNEL), and to recognise
    directions of another W. sources: {PREFIX: function of TEXT that gives a Direction}, for further
    spellings PREFIX:TEXT=STRENGTH.

    A strength outside the calibrated range is an EditWarning, once for each direction. Raises
    EditError for a spelling, name or file that cannot be used.
    """
    if isinstance(specs, str):
        specs = specs.split(';')
    mean = None if mean is None else np.asarray(mean, np.float32)
    specs = [str(spec).strip() for spec in specs if str(spec).strip()]
    asked = {match['source'] for spec in specs for match in _STEP.finditer(spec)}
    found = Sources(space, asked, classes, generator, weights, sources)
    edits: dict[str, Edit] = {}
    for spec in specs:
        file, region = _split_region(spec)
        if file.lower().endswith('.json'):
            read = record.load(file, generator, weights)
            if region:
                named = read.name.removesuffix(_at(read.region)) + _at(region)
                read = dataclasses.replace(read, name=named, region=region)
            # Two files may hold edits of one name.
            parsed = [dataclasses.replace(read, name=spec) if read.name in edits else read]
        else:
            parsed = _parse_one(spec, found, mean)
        for edit in parsed:
            same = edits.get(edit.name, edit)
            if same.region != edit.region:  # masks of one name in two folders
                name = edit.name.removesuffix(_at(edit.region)) + f'@{printable(edit.region)}'
                edit = dataclasses.replace(edit, name=name)
            edits.setdefault(edit.name, edit)
    _warn_of_ranges(edits.values())
    return list(edits.values())


def with_steps(edits: Iterable[Edit]) -> list[Edit]:
    """The edits, and before each sequence the shorter ones that lead to it (requested=False)."""
    edits = list(edits)
    known = {edit.name for edit in edits}
    result = []
    for edit in edits:
        for n in range(1, len(edit.steps)):
            name = _name(edit.steps[:n]) + _at(edit.region)
            part = Edit(name, edit.steps[:n], requested=False, region=edit.region)
            if part.name not in known:
                known.add(part.name)
                result.append(part)
        result.append(edit)
    return result


def _parse_one(spec: str, sources: Sources, mean) -> list[Edit]:
    steps, end = [], 0
    spec, region = _split_region(spec)
    for match in _STEP.finditer(spec):
        if match.start() != end:
            break
        end = match.end()
        steps.append(match)
    if not steps or end != len(spec):
        known = ', '.join(packaged(sources.space)) or 'none'
        raise EditError(
            f'{spec!r} is not an edit; write NAME=STRENGTH, for example smile=2, age=-4/4, '
            f'yaw=10deg or yaw=3,smile=-2 (a sequence). Directions: {known}.'
        )
    alternatives: list[list[tuple[Direction, float | Wanted]]] = []
    for match in steps:
        direction = _direction(match, sources, mean)
        strengths = [_strength(text, direction, spec) for text in match['strengths'].split('/')]
        alternatives.append([(direction, strength) for strength in strengths])
    if len(alternatives) == 1:
        sequences = [(step,) for step in alternatives[0]]
    elif all(len(steps) == 1 for steps in alternatives):
        sequences = [tuple(steps[0] for steps in alternatives)]
    else:
        raise EditError(f'{spec!r}: several strengths (a/b) are for one direction, not a sequence')
    return [Edit(_name(steps) + _at(region), steps, region=region) for steps in sequences]


def _split_region(spec: str) -> tuple[str, str]:
    """('smile=2', 'mouth') of 'smile=2@mouth'; an @ before the last strength is of a name."""
    head, at, region = spec.rpartition('@')
    return (spec, '') if not at or '=' in region else (head.strip(), region.strip())


def _at(region: str) -> str:
    return f'@{printable(pathlib.PurePath(region).name)}' if region else ''


def _direction(match: re.Match, sources: Sources, mean) -> Direction:
    source, sets = match['source'], match['how'] == ':='
    rows = None
    if match['start'] is not None:
        rows = tuple(int(match[g]) if match[g] else None for g in ('start', 'stop'))
    if sets and source.startswith('class:'):
        raise EditError(
            f'{source}:= sets a coordinate, which a class does not have; write {source}=1 for the '
            'class itself'
        )
    if sets and mean is None and not source.startswith('ganspace:'):
        raise EditError(f'{source}:= needs the mean of W, which parse was not given')
    direction = sources.find(source, rows)
    if not sets:
        return direction._replace(mean=None)
    if direction.towards or direction.styles is not None or direction.change is not None:
        raise EditError(f'{source}:= sets a coordinate along a direction of W, which it is not')
    if not direction.array[0].any():
        raise EditError(f'{source}:= needs a direction whose first row is not 0')
    mean = mean if direction.mean is None else direction.mean
    if mean is None:
        raise EditError(f'{source}:= needs the mean of W, which neither the file nor parse has')
    return direction._replace(mean=mean)


def _strength(text: str, direction: Direction, spec: str) -> float | Wanted:
    match = _VALUE.fullmatch(text.strip())
    unit, attribute = match['unit'], match['attribute']
    if unit in ('e', 'E'):  # a number without its exponent
        unit = ''
    if not unit and attribute is None:
        return _number(text, spec)
    if unit not in UNITS:
        known = ', '.join(f'{u} ({meaning})' for u, meaning in UNITS.items())
        raise EditError(
            f'{text.strip()!r} in {spec!r} has the unit {unit!r}; units are {known}, or none'
        )
    if direction.mean is not None:
        raise EditError(f'{spec!r}: a change in {unit} is written with =, not with :=')
    attribute = attribute or direction.name.partition('|')[0]
    if _MEASURED.get(attribute, unit) != unit:
        raise EditError(f'{spec!r}: {attribute} is measured in {_MEASURED[attribute]}, not {unit}')
    return Wanted(_number(match['number'], spec), unit, attribute)


def _number(text: str, spec: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise EditError(f'{text.strip()!r} in {spec!r} is not a strength; write a number') from None
    if not np.isfinite(value):
        raise EditError(f'strength {text.strip()} in {spec!r} is not finite')
    return value


def _name(steps: Iterable[tuple[Direction, float | Wanted]]) -> str:
    return ','.join(
        f'{name_of(d)}{":=" if d.mean is not None else "="}{_shown(d, s)}' for d, s in steps
    )


def _shown(direction: Direction, strength: float | Wanted) -> str:
    solved = not isinstance(strength, Wanted)
    return shortest(strength) if solved else strength.spelled(direction.name)


def _warn_of_ranges(edits: Iterable[Edit]) -> None:
    """Warns of strengths outside the calibrated range, once for each direction."""
    beyond: dict[str, tuple[Direction, float]] = {}
    for direction, strength in (step for edit in edits for step in edit.steps):
        if direction.limits is None or isinstance(strength, Wanted) or direction.mean is not None:
            continue
        low, high = direction.limits
        name = printable(direction.name)
        if not low <= strength <= high and abs(strength) > abs(beyond.get(name, (0, 0))[1]):
            beyond[name] = direction, strength
    for name, (direction, strength) in beyond.items():
        low, high = (shortest(limit) for limit in direction.limits)
        warnings.warn(
            f'{name}={shortest(strength)} is outside the range {low} to {high} in which the edit '
            'was validated.',
            EditWarning,
            stacklevel=3,
        )
