"""Edits from their spelling; see jaxinv/edits/__init__.py for examples."""

import re
from collections.abc import Iterable

import numpy as np

from jaxinv.edits.directions import SUFFIXES, EditError, available, load_direction, split_key
from jaxinv.edits.edit import Direction, Edit, name_of
from jaxinv.text import printable, shortest

_STEP = re.compile(
    r"""\s*(?P<source>[^\s].*?)\s*
    (?:\[\s*(?P<start>\d*)\s*:\s*(?P<stop>\d*)\s*\])?
    \s*(?P<how>:?=)\s*(?P<strengths>[-+\d.eE/\s]+?)\s*(?:,|$)""",
    re.VERBOSE,
)


def parse(specs: str | Iterable[str], space: str = 'ffhq', classes=None, mean=None) -> list[Edit]:
    """Edits from their spelling; one string may hold several, separated by semicolons.

    space: whose packaged directions the names are. classes: the embeddings [n, e] of a
    class-conditional generator, for edits of the class. mean: of W, [w_dim], for edits with `:=`.

    Raises EditError for a spelling, name or file that cannot be used.
    """
    if isinstance(specs, str):
        specs = specs.split(';')
    mean = None if mean is None else np.asarray(mean, np.float32)
    specs = [str(spec) for spec in specs if str(spec).strip()]
    asked = {match['source'] for spec in specs for match in _STEP.finditer(spec)}
    sources = _Sources(space, classes, asked)
    edits: dict[str, Edit] = {}
    for spec in specs:
        for edit in _parse_one(spec, sources, mean):
            edits.setdefault(edit.name, edit)
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


class _Sources:
    """Directions by their spelling; each is read once, and has a name of its own."""

    def __init__(self, space: str, classes, asked: set[str]):
        """asked: all spellings; a file is not named like a packaged direction among them."""
        self.space, self._classes, self._asked = space, classes, asked
        self._found: dict[str, tuple[str, np.ndarray]] = {}  # (name, array) of each identity

    def find(self, source: str) -> tuple[str, np.ndarray]:
        """(name, array [1 or num_ws, w_dim]) of what is left of `=`. Raises EditError."""
        path, key = split_key(source)
        is_file = not source.startswith('class:') and path.suffix.lower() in SUFFIXES
        identity = f'{path.resolve()}:{key}' if is_file else source
        if identity not in self._found:
            if source.startswith('class:'):
                array = _class(source, self._classes)
            else:
                array = load_direction(source, self.space)
            name = self._name(path, key) if is_file else printable(source)
            self._found[identity] = name, array
        return self._found[identity]

    def _name(self, path, key) -> str:
        """The stem of a file; with its folder or suffix where another direction has that name."""
        taken = {name for name, _ in self._found.values()} | self._asked
        end = f':{key}' if key else ''
        for stem in (path.stem, f'{path.absolute().parent.name}/{path.stem}', path.name, str(path)):
            if (name := printable(stem + end)) not in taken:
                return name
        return next(n for i in range(2, len(taken) + 3) if (n := f'{name}_{i}') not in taken)


def _parse_one(spec: str, sources: _Sources, mean) -> list[Edit]:
    steps, end = [], 0
    spec, region = _split_region(spec)
    for match in _STEP.finditer(spec):
        if match.start() != end:
            break
        end = match.end()
        steps.append(match)
    if not steps or end != len(spec):
        known = ', '.join(available(sources.space)) or 'none'
        raise EditError(
            f'{spec!r} is not an edit; write NAME=STRENGTH, for example smile=2, age=-4/4 or '
            f'yaw=3,smile=-2 (a sequence). Directions: {known}.'
        )
    alternatives: list[list[tuple[Direction, float]]] = []
    for match in steps:
        direction = _direction(match, sources, mean)
        strengths = [_number(text, spec) for text in match['strengths'].split('/')]
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
    return f'@{printable(region)}' if region else ''


def _direction(match: re.Match, sources: _Sources, mean) -> Direction:
    source, sets = match['source'], match['how'] == ':='
    is_class = source.startswith('class:')
    if sets and is_class:
        raise EditError(
            f'{source}:= sets a coordinate, which a class does not have; write {source}=1 for the '
            'class itself'
        )
    if sets and mean is None:
        raise EditError(f'{source}:= needs the mean of W, which parse was not given')
    name, array = sources.find(source)
    rows = None
    if match['start'] is not None:
        rows = tuple(int(match[g]) if match[g] else None for g in ('start', 'stop'))
    if sets and not array[0].any():
        raise EditError(f'{source}:= needs a direction whose first row is not 0')
    return Direction(name, array, rows, is_class, mean if sets else None)


def _number(text: str, spec: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise EditError(f'{text.strip()!r} in {spec!r} is not a strength; write a number') from None
    if not np.isfinite(value):
        raise EditError(f'strength {text.strip()} in {spec!r} is not finite')
    return value


def _name(steps: Iterable[tuple[Direction, float]]) -> str:
    texts = (f'{name_of(d)}{":=" if d.mean is not None else "="}{shortest(s)}' for d, s in steps)
    return ','.join(texts)


def _class(source: str, classes) -> np.ndarray:
    """The embedding [1, e] of 'class:NUMBER'."""
    number = source.removeprefix('class:').strip()
    if classes is None:
        raise EditError(f'{source} is a class, and the generator has no embeddings of classes')
    if not number.isdecimal() or int(number) >= len(classes):
        raise EditError(
            f'{source} is none of the classes of this generator, class:0 ... class:'
            f'{len(classes) - 1}'
        )
    return np.asarray(classes[int(number)], np.float32)[None]
