"""Measures edits of one picture: change by an independent judge, identity, what changed outside.

The judge of an attribute is a measure that its direction was not fitted to
(jaxinv/faces/measures.py). Identity is that of the edited picture and the photograph. A number that
cannot be measured, as without a face, is None.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.ndimage

from jaxinv import edits as edits_lib
from jaxinv.edits.solve import TOLERANCE, Strength, Unmeasurable, search_range, solve_strength
from jaxinv.experiments.edited_pictures import Inverted
from jaxinv.faces import measures
from jaxinv.metrics import identity
from jaxinv.metrics.identity import Judge
from jaxinv.segmentation import segment

GROWTH = 1 / 32  # of a picture's side, by which the edited region is grown
_FACE = ('face', 'eyes', 'brows', 'nose', 'mouth')
_HEAD = (*_FACE, 'hair or hat')
_HAIR = ('hair or hat', 'face', 'brows')
# Segments (jaxinv/segmentation/face.py) that an edit of an attribute may change.
REGIONS = {
    'yaw': (*_HEAD, 'neck and clothes'), 'pitch': (*_HEAD, 'neck and clothes'),
    'roll': (*_HEAD, 'neck and clothes'), 'age': _HEAD, 'gender': _HEAD, 'light': (),
    'eyes_closed': ('eyes', 'brows'), 'eyes_wide': ('eyes', 'brows'), 'gaze': ('eyes',),
    'brows': ('brows', 'eyes'), 'glasses': ('eyes', 'brows', 'nose', 'face'),
    'hair_length': (*_HAIR, 'neck and clothes'), 'fringe': _HAIR, 'hair_colour': _HAIR,
}  # fmt: skip
EVERYWHERE = ('light',)  # attributes of the whole picture


class Equal(NamedTuple):
    """A wanted change of an attribute, as its judge measures it."""

    direction: edits_lib.Direction
    change: float

    @property
    def name(self) -> str:
        return f'{self.direction.name}{self.change:+g}'


def attributes_of(edit: edits_lib.Edit) -> list[str]:
    """The attributes that the steps of an edit are named after."""
    names = dict.fromkeys(direction.name for direction, _ in edit.steps)
    return [name for name in names if name in measures.ATTRIBUTES]


class Original(NamedTuple):
    """What edits of one picture are compared with."""

    target: Mapping[str, np.ndarray]  # {judge: embedding [1, e] of the photograph}
    image: np.ndarray  # uint8 [h, w, 3], the reconstruction
    values: Mapping[str, float]  # its measures
    segments: Any  # of the reconstruction


def original(inverted: Inverted, target: Mapping[str, np.ndarray]) -> Original:
    (image,) = inverted.render([])
    values = {name: float(v[0]) for name, v in measures.measure(image[None]).items()}
    return Original(target, image, values, segment.segment(image))


def of_edits(
    before: Original,
    inverted: Inverted,
    edits: Sequence[edits_lib.Edit],
    judges: Mapping[str, Judge],
) -> list[dict[str, Any]]:
    """[{'change': {attribute: judged}, 'steered': {...}, 'id_JUDGE', 'outside'}] of each edit.

    Besides 'no_face': {judge: 'target', 'picture' or 'both'} where one was not found.
    """
    images = inverted.render(edits)[1:]
    values = measures.measure(images)
    alike, lost = {}, {}
    for name, judge in judges.items():
        pair = np.repeat(before.target[name], len(images), 0), judge.embed(images)
        alike[name], lost[name] = judge.compare(*pair), identity.no_face(*pair)
    found = []
    for k, edit in enumerate(edits):
        names = attributes_of(edit)
        record: dict[str, Any] = {'strengths': [strength for _, strength in edit.steps]}
        for key, which in (('change', 'judge'), ('steered', 'steer')):
            record[key] = {
                name: known(
                    values[getattr(measures.ATTRIBUTES[name], which)][k]
                    - before.values[getattr(measures.ATTRIBUTES[name], which)]
                )
                for name in names
            }
        record |= {f'id_{name}': known(column[k]) for name, column in alike.items()}
        record['outside'] = outside(before, images[k], names)
        record['no_face'] = {name: where[k] for name, where in lost.items() if where[k]}
        found.append(record)
    return found


def outside(before: Original, image_uint8: np.ndarray, attributes: Sequence[str]) -> float | None:
    """MSE of pixels in [0, 1] between edited picture and reconstruction, outside the region.

    The region is the union of REGIONS of the attributes, in the reconstruction, grown by GROWTH.
    None if there is no face, no known attribute, or nothing outside.
    """
    segments = before.segments
    if not attributes or 'face' not in segments.names or set(attributes) & set(EVERYWHERE):
        return None
    inside = {part for name in attributes for part in REGIONS.get(name, _FACE)}
    labels = [i for i, name in enumerate(segments.names) if name.startswith(tuple(inside))]
    region = np.isin(segments.labels, labels)
    growth = max(1, round(GROWTH * len(region)))
    rest = ~scipy.ndimage.binary_dilation(region, iterations=growth)
    if not rest.any():
        return None
    difference = (image_uint8.astype(np.float64) - before.image) / 255
    return float(np.mean(difference[rest] ** 2))


def at_equal_change(
    before: Original, inverted: Inverted, wanted: Equal, judges: Mapping[str, Judge]
) -> dict[str, Any]:
    """The edit whose judged change is the wanted one, measured: of `of_edits`, and 'reached'.

    The strength is bisected within the direction's range (edits/solve.py), within a twentieth of
    the change. Where the range does not reach it, or the attribute cannot be measured, numbers are
    None.
    """
    attribute = measures.ATTRIBUTES[wanted.direction.name]

    def values(strengths):
        edits = [_edit(wanted.direction, strength) for strength in strengths]
        return measures.measure(inverted.render(edits)[1:], attribute.judge)[attribute.judge]

    low, high = search_range(wanted.direction, inverted.generator.spec)
    try:
        found = solve_strength(values, wanted.change, low, high, TOLERANCE * abs(wanted.change))
    except Unmeasurable:
        found = Strength(0.0, math.nan, False)
    nothing = {f'id_{name}': None for name in judges} | {'outside': None, 'no_face': {}}
    result = {'strength': found.strength, 'closest': known(found.change), 'reached': found.reached}
    if not found.reached:
        return result | nothing
    (own,) = of_edits(before, inverted, [_edit(wanted.direction, found.strength)], judges)
    return result | {name: own[name] for name in nothing}


def curve(
    before: Original,
    inverted: Inverted,
    direction: edits_lib.Direction,
    count: int,
    judges: Mapping[str, Judge],
) -> list[dict[str, Any]]:
    """`of_edits` at `count` strengths over the direction's range, lowest first."""
    low, high = search_range(direction, inverted.generator.spec)
    edits = [_edit(direction, float(strength)) for strength in np.linspace(low, high, count)]
    return of_edits(before, inverted, edits, judges)


def known(value) -> float | None:
    value = float(value)
    return value if math.isfinite(value) else None


def _edit(direction: edits_lib.Direction, strength: float) -> edits_lib.Edit:
    return edits_lib.Edit(f'{direction.name}={strength:g}', ((direction, float(strength)),))
