"""Edits of videos, whose strengths change in time.

    smile=1.2                        the same strength in every frame
    smile=0@0s,1.2@2s                at 0 s 0, at 2 s 1.2, linear in between, constant outside
    yaw=2,smile=0@0s,1.2@2s,0@4s     a sequence, as in jaxinv/edits/__init__.py

Times are seconds from the first frame. Without times the spelling is that of other edits.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from jaxinv.edits.directions import EditError
from jaxinv.edits.edit import Direction, Edit, name_of
from jaxinv.edits.spelling import parse
from jaxinv.text import shortest

_NUMBER = r'[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?'
_KEYED = re.compile(rf'=\s*{_NUMBER}\s*@')
_PIECE = re.compile(
    rf'\s*(?P<head>.*=)?\s*(?P<value>{_NUMBER})\s*(?:@\s*(?P<time>{_NUMBER})\s*s)?\s*'
)


@dataclasses.dataclass(frozen=True)
class Curve:
    """A strength in time: linear between the times, constant before and after them."""

    times: tuple[float, ...]  # seconds, increasing
    values: tuple[float, ...]

    def at(self, seconds: float) -> float:
        return float(np.interp(seconds, self.times, self.values))

    def __str__(self) -> str:
        if len(self.times) == 1:
            return shortest(self.values[0])
        keys = zip(self.values, self.times, strict=True)
        return ','.join(f'{shortest(value)}@{shortest(time)}s' for value, time in keys)


@dataclasses.dataclass(frozen=True)
class TimedEdit:
    """An edit of a video."""

    name: str  # its spelling in short; unique within one `parse_timed`
    steps: tuple[tuple[Direction, Curve], ...]

    def at(self, seconds: float) -> Edit:
        """The edit of the frame at this time."""
        return Edit(self.name, tuple((d, curve.at(seconds)) for d, curve in self.steps))


def parse_timed(
    specs: Iterable[str], space: str = 'ffhq', mean=None, **options: Any
) -> list[TimedEdit]:
    """Edits from their spelling; space, mean and options as in `parse`.

    Raises EditError, also for strengths in units and regions, which belong to one picture.
    """
    found: dict[str, TimedEdit] = {}
    parse_one = functools.partial(_parse_still, space=space, mean=mean, **options)
    for spec in map(str, specs):
        if _KEYED.search(spec):
            edits = [_parse_keyed(spec, parse_one)]
        else:
            edits = [
                TimedEdit(edit.name, tuple((d, Curve((0.0,), (s,))) for d, s in edit.steps))
                for edit in parse_one(spec)
            ]
        for edit in edits:
            found.setdefault(edit.name, edit)
    return list(found.values())


def _parse_still(spec: str, space: str, mean, **options: Any) -> list[Edit]:
    edits = parse([spec], space, mean=mean, **options)
    for edit in edits:
        if not edit.is_solved:
            raise EditError(
                f'{edit.name}: the strength of a change is found for one picture; of a video give '
                'the strength itself'
            )
        if edit.region:
            raise EditError(
                f'{edit.name}: regions are for pictures; edits of videos act everywhere'
            )
    return edits


def _parse_keyed(spec: str, parse_one: Callable[[str], list[Edit]]) -> TimedEdit:
    tracks: list[tuple[str, list[tuple[float | None, float]]]] = []
    for piece in spec.split(','):
        match = _PIECE.fullmatch(piece)
        if match is None or (match['head'] is None and not tracks):
            raise EditError(
                f'{piece.strip()!r} in {spec!r} is not a strength at a time; write '
                'NAME=STRENGTH@TIMEs,STRENGTH@TIMEs, for example smile=0@0s,1.2@2s.'
            )
        if match['head'] is not None:
            tracks.append((match['head'], []))
        time = None if match['time'] is None else float(match['time'])
        tracks[-1][1].append((time, float(match['value'])))
    steps = []
    for head, keys in tracks:
        ((direction, _),) = parse_one(f'{head}1')[0].steps
        times = [time for time, _ in keys]
        if len(keys) == 1:
            times = [times[0] or 0.0]
        if None in times or any(b <= a for a, b in zip(times, times[1:], strict=False)):
            raise EditError(
                f'{spec!r}: {head.rstrip(":= ")} needs a time for each of its strengths, each '
                'later than the one before, as in smile=0@0s,1.2@2s.'
            )
        steps.append((direction, Curve(tuple(times), tuple(value for _, value in keys))))
    texts = (f'{name_of(d)}{":=" if d.mean is not None else "="}{curve}' for d, curve in steps)
    return TimedEdit(','.join(texts), tuple(steps))
