"""What --config=evaluate_edits renders of every picture and method, looked up and checked."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxinv import edits as edits_lib
from jaxinv.errors import JaxinvError
from jaxinv.experiments import edited_pictures
from jaxinv.experiments import session as sessions
from jaxinv.experiments.edit_measures import Equal
from jaxinv.faces import measures
from jaxinv.metrics import identity
from jaxinv.settings.evaluation import parse_equal
from jaxinv.weights import networks


class Plan(NamedTuple):
    """What is rendered of every picture and method."""

    edits: list[edits_lib.Edit]
    equal: list[Equal]
    curves: list[edits_lib.Direction]
    curve_points: int
    consistency: list[edits_lib.Edit]
    judges: Mapping[str, identity.Judge]
    lpips: Any  # weights of AlexNet
    key: str  # of all of this, for resumption


def plan_of(wanted, generator, weights, lpips: str, log: Callable) -> Plan:
    """The edits of the settings, looked up and checked. Raises JaxinvError."""
    own = wanted.measure

    def parsed(texts: Sequence[str]) -> list[edits_lib.Edit]:
        found = sessions.parse_edits(texts, generator, weights, log)
        for edit in found:
            if not edit.is_solved or any(d.styles is not None for d, _ in edit.steps):
                raise JaxinvError(
                    f'{edit.name} moves styles or has a strength in a unit; give edits of W by '
                    'numbers, and measured changes as measure.equal.'
                )
        return found

    def direction(text: str) -> edits_lib.Direction:
        ((found, _),) = parsed([f'{text}=1'])[0].steps
        if found.name not in measures.ATTRIBUTES:
            raise JaxinvError(
                f'{text!r} is named after no attribute with a judge; there are '
                f'{", ".join(measures.ATTRIBUTES)}.'
            )
        return found

    edits = edits_lib.with_steps(parsed(wanted.edits))
    equal = []
    for name, changes in map(parse_equal, own.equal):
        equal += [Equal(direction(name), change) for change in changes]
    again = parsed(own.consistency)
    for edit in again:
        edited_pictures.negated(edit)
    curves = [direction(name) for name in own.curves]
    arrays = [d.array for edit in (*edits, *again) for d, _ in edit.steps]
    arrays += [item.direction.array for item in equal] + [item.array for item in curves]
    content = hashlib.sha256(b''.join(np.asarray(array).tobytes() for array in arrays))
    names = [[edit.name for edit in edits], [item.name for item in equal], own.curves]
    judges = identity.judges(own.identity, own.arcface, own.curricularface)
    files = [judge.file for judge in judges.values() if judge.file]
    content.update(json.dumps([*names, own.curve_points, own.identity, *files]).encode())
    return Plan(
        edits,
        equal,
        curves,
        own.curve_points,
        again,
        judges,
        networks.load_lpips('alex', lpips),
        content.hexdigest()[:16],
    )
