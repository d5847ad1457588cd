"""Strengths from the change that they make: yaw=10deg, age=+15y, smile=1u.

    found = solve(edit, images_of, measure, w, spec)     # of one identity
    codes, offsets = moved(w, [found.edit], spec)

A strength is sought between 0 and each end of a range, in which the change is measured at a few
points at a time, and the part that holds the wanted change is divided again: bisection with
`points` cuts, whose pictures are one batch. Of several strengths with the change the one nearest to
0 is found. The range is the direction's calibrated one, or a length in W.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxinv.edits.directions import EditError
from jaxinv.edits.edit import Direction, Edit, Wanted, check_measured, moved, name_of
from jaxinv.pixels import to_uint8
from jaxinv.rendering import BATCH
from jaxinv.types import GeneratorSpec

# Of directions that are not calibrated: a length in W, a change of one channel of a style, and a
# multiple of one that depends on the code.
MAX_LENGTH, MAX_STYLE, MAX_MULTIPLE = 6.0, 50.0, 3.0
TOLERANCE = 0.05  # of the wanted change
ROUNDS = 6

Images = Callable[[Any, Mapping[str, Any]], Any]  # (codes [n, ...], style_offsets) -> [n, h, w, 3]
Measure = Callable[[Any], Mapping[str, Any]]  # uint8 [n, h, w, 3] -> {attribute: [n]}


class Strength(NamedTuple):
    """A strength, the change measured at it, and whether that is the wanted one."""

    strength: float
    change: float
    reached: bool


class Unmeasurable(EditError):
    """The attribute cannot be measured in the unedited picture."""


class Solution(NamedTuple):
    """edit: with numbers only. steps: what was found of each step in a unit, in their order."""

    edit: Edit
    steps: tuple['Found', ...]


class Found(NamedTuple):
    name: str  # of the direction, with its rows
    wanted: Wanted
    strength: float
    change: float  # as measured at this strength
    reached: bool  # whether the change is the wanted one, within the tolerance

    def __str__(self) -> str:
        wanted = self.wanted
        text = f'{self.name}={wanted.spelled(self.name)}: '
        if not math.isfinite(self.change):
            return f'{text}{wanted.attribute} cannot be measured in the picture, so it is unedited'
        end = '' if self.reached else ' (not reached)'
        measured = f'measured {wanted.attribute} {self.change:+.3g}{wanted.unit}{end}'
        return f'{text}strength {self.strength:.4g}, {measured}'


def solve(
    edit: Edit,
    images_of: Images,
    measure: Measure,
    w: Any,
    spec: GeneratorSpec,
    *,
    tolerance: float = TOLERANCE,
    strict: bool = True,
) -> Solution:
    """The edit of one code w [1, 1 or num_ws, w_dim] with its strengths in units as numbers.

    images_of: e.g. functools.partial(rendering.render, generator, weights). measure: e.g.
    jaxinv.faces.attributes.measure. A step's change is that to the picture before it. tolerance: of
    the wanted change, as a share. strict: an EditError where the range does not reach the change;
    False = the strength that comes closest, with reached=False.

    Raises EditError for an attribute that is not measured, or not measurable in the picture.
    """
    steps: list[tuple[Direction, float]] = []
    found: list[Found] = []
    for direction, strength in edit.steps:
        if isinstance(strength, Wanted):
            before, wanted, own = tuple(steps), strength, direction

            def values(strengths, before=before, wanted=wanted, own=own):
                edits = [Edit('', (*before, (own, float(s)))) for s in strengths]
                codes, offsets = moved(w, edits, spec)
                offsets = {layer: offset[1:] for layer, offset in offsets.items()}
                measured = measure(to_uint8(np.asarray(images_of(codes[1:], offsets))))
                check_measured(own, wanted, measured)
                return np.asarray(measured[wanted.attribute], np.float64)

            low, high = search_range(direction, spec)
            aim = wanted.change, low, high, tolerance * abs(wanted.change)
            try:
                strength, change, reached = solve_strength(values, *aim)
            except Unmeasurable:
                if strict:
                    raise EditError(
                        f'{name_of(direction)}={wanted.spelled(direction.name)}: '
                        f'{wanted.attribute} cannot be measured in the picture before the edit'
                    ) from None
                strength, change, reached = 0.0, math.nan, False
            found.append(Found(name_of(direction), wanted, strength, change, reached))
            if strict and not reached:
                raise EditError(_not_reached(found[-1], low, high))
        steps.append((direction, strength))
    return Solution(dataclasses.replace(edit, steps=tuple(steps)), tuple(found))


def solve_strength(
    values: Callable[[np.ndarray], np.ndarray],
    change: float,
    low: float,
    high: float,
    tolerance: float,
    *,
    points: int = BATCH,
    rounds: int = ROUNDS,
) -> Strength:
    """The strength with a change of a measured function, within a tolerance.

    values: strengths [points] -> what is measured [points]; NaN = not measurable, which ends the
    range. The sought strength is in [low, high], low <= 0 <= high. Raises Unmeasurable if the value
    at 0 is NaN.
    """
    start = np.array([0.0, *(end for end in (low, high) if end != 0)])
    first = np.asarray(values(start), np.float64)
    zero = first[0]
    if not np.isfinite(zero):
        raise Unmeasurable('it cannot be measured in the picture before the edit')
    known = {0.0: 0.0} | dict(zip(start[1:].tolist(), (first[1:] - zero).tolist(), strict=True))
    if abs(change) <= tolerance or change == 0:
        return Strength(0.0, 0.0, True)
    for i in range(rounds):
        best = _closest(known, change)
        if abs(known[best] - change) <= tolerance:
            return Strength(best, known[best], True)
        part = _nearest_part(known, change) or _open_part(known, change)
        if part is None and i == 0 and len(known) > 1:
            # The change may be largest within the range.
            part = 0.0, _closest({s: x for s, x in known.items() if s}, change)
        if part is None:
            break
        cuts = np.linspace(*part, points + 2)[1:-1]
        measured = np.asarray(values(cuts), np.float64) - zero
        known |= dict(zip(cuts.tolist(), measured.tolist(), strict=True))
    best = _closest(known, change)
    return Strength(best, known[best], abs(known[best] - change) <= tolerance)


def search_range(direction: Direction, spec: GeneratorSpec) -> tuple[float, float]:
    """(low, high) strengths in which a change is sought: the calibrated range, or a length."""
    if direction.limits is not None:
        low, high = direction.limits
        return min(low, 0.0), max(high, 0.0)
    if direction.towards:
        return 0.0, 1.0
    if direction.styles is not None:
        largest = max(float(np.abs(offset).max()) for offset in direction.styles.values())
        reach = MAX_STYLE / max(largest, 1e-12)
        return -reach, reach
    if not direction.array.size:  # what it adds depends on the code
        return -MAX_MULTIPLE, MAX_MULTIPLE
    array = direction.array.reshape(-1, spec.w_dim)
    reach = MAX_LENGTH / max(float(np.linalg.norm(array, axis=1).max()), 1e-12)
    return -reach, reach


def _nearest_part(known: Mapping[float, float], change: float) -> tuple[float, float] | None:
    """The two neighbours between whose changes the wanted one is, nearest to 0."""
    finite = sorted(s for s, value in known.items() if math.isfinite(value))
    parts = [
        (a, b)
        for a, b in zip(finite[:-1], finite[1:], strict=True)
        if (known[a] - change) * (known[b] - change) <= 0
        # Beyond a strength at which nothing could be measured the picture is no face any more.
        and not any(min(0.0, a) < s < max(0.0, b) for s in _lost(known))
    ]
    return min(parts, key=lambda part: min(abs(part[0]), abs(part[1]))) if parts else None


def _open_part(known: Mapping[float, float], change: float) -> tuple[float, float] | None:
    """Between a measurable strength and the next that is not; the side that comes closer first."""
    best = _closest(known, change)
    for side in (1, -1) if best >= 0 else (-1, 1):
        lost = min((s * side for s in _lost(known) if s * side > 0), default=None)
        if lost is not None:
            finite = (s * side for s, value in known.items() if math.isfinite(value))
            return side * max(s for s in finite if 0 <= s < lost), side * lost
    return None


def _lost(known: Mapping[float, float]) -> list[float]:
    return [s for s, value in known.items() if not math.isfinite(value)]


def _closest(known: Mapping[float, float], change: float) -> float:
    finite = [s for s, value in known.items() if math.isfinite(value)]
    return min(finite, key=lambda s: (abs(known[s] - change), abs(s)))


def _not_reached(found: Found, low: float, high: float) -> str:
    wanted = found.wanted
    return (
        f'{found.name}={wanted.spelled(found.name)} is not reached for this picture: of the '
        f'strengths {low:.3g} to {high:.3g}, {found.strength:.3g} comes closest, with '
        f'{wanted.attribute} {found.change:+.3g}{wanted.unit}'
    )
