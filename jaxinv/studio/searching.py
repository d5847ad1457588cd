"""Edits that are searched for one picture: points that are dragged, and texts.

A search runs in the thread of `Work`; the page follows it by its id, with pictures on the way. What
it finds is a direction of strength 1, which becomes a slider.
"""

import dataclasses
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

import jaxinv
from jaxinv import edits as edits_lib
from jaxinv.errors import JaxinvError
from jaxinv.studio import regions
from jaxinv.studio.opened import EditState, Opened
from jaxinv.text import printable

MAX_POINTS = 16
MAX_STEPS = 300
MAX_TEXT = 200  # characters
SHOWN_EVERY = 5  # steps of a drag between pictures
KINDS = ('drag', 'text')


@dataclasses.dataclass
class Search:
    """A search and how far it is."""

    id: str
    run: str
    kind: str  # of KINDS
    title: str
    identity: int = 0
    # 'waiting', 'searching', then 'done' or 'failed'
    state: str = 'waiting'
    step: int = 0
    steps: int = 0
    distance: float | None = None  # of a drag: mean pixels to the targets; of a text: CLIP's
    points: list[list[float]] = dataclasses.field(default_factory=list)
    error: str = ''
    control: dict[str, Any] | None = None  # the slider of what was found
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)
    picture: np.ndarray | None = None  # uint8 [h, w, 3]

    def public(self) -> dict[str, Any]:
        """What the page gets."""
        hidden = ('stop', 'picture', 'run', 'identity')
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in hidden
        }


class _StopSearch(Exception):
    """The page asked for the end."""


def pairs_of(value: Any, size: int) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Points that a page sent, [[x, y, to x, to y], ...] from 0 to 1, in pixels of the picture.

    Raises JaxinvError.
    """
    if not isinstance(value, list) or not 0 < len(value) <= MAX_POINTS:
        raise JaxinvError(f'Set 1 to {MAX_POINTS} points, each with the place it should go to.')
    pairs = []
    for row in value:
        if not isinstance(row, list) or len(row) != 4:
            raise JaxinvError('A point is [x, y, to x, to y].')
        if not all(isinstance(x, (int, float)) and 0 <= x <= 1 for x in row):
            raise JaxinvError('Points and their targets are numbers from 0 to 1.')
        x, y, to_x, to_y = (value * (size - 1) for value in row)
        pairs.append(((x, y), (to_x, to_y)))
    return pairs


def text_of(value: Any) -> str:
    """The text that a page sent. Raises JaxinvError."""
    if not isinstance(value, str) or not 0 < len(value.strip()) <= MAX_TEXT:
        raise JaxinvError(f'Write a text of 1 to {MAX_TEXT} characters.')
    return value.strip()


def dragged(opened: Opened, search: Search, edit: EditState, pairs, mask) -> np.ndarray:
    """The offset [num_ws, w_dim] of a drag from the edited picture. mask: what may move, or None.

    mask: bool [n, n].
    """
    size = opened.generator.spec.resolution

    def follow(moment):
        search.step = int(moment.step)
        distances = np.asarray(moment.distances, np.float64)
        search.distance = float(np.nanmean(distances)) if np.isfinite(distances).any() else None
        search.points = [
            [float(x) / (size - 1), float(y) / (size - 1)]
            for x, y in np.asarray(moment.points)[0]
            if math.isfinite(x) and math.isfinite(y)
        ]
        if search.step % SHOWN_EVERY == 0:
            search.picture = opened.render(search.identity, np.asarray(moment.w)[:1])
        return not search.stop.is_set()

    code, _ = opened.code(search.identity, edit)
    found = jaxinv.drag(
        opened.generator,
        opened.weights(search.identity),
        code,
        pairs,
        None if mask is None else regions.resize(mask, size),
        search.steps,
        follow,
    )
    return np.asarray(found.offsets[0], np.float32)


def towards_text(opened: Opened, search: Search, edit: EditState, text: str, clip) -> np.ndarray:
    """The offset [num_ws, w_dim] that makes the edited picture more like a text."""

    def follow(stage, step, num_steps, metrics):
        search.step = int(step)
        search.distance = float(np.mean(metrics['clip']))
        if search.stop.is_set():
            raise _StopSearch

    code, _ = opened.code(search.identity, edit)
    found = jaxinv.edit_by_text(
        opened.generator,
        opened.weights(search.identity),
        code,
        text,
        clip,
        num_steps=search.steps,
        verbose=False,
        callback=follow,
    )
    return np.asarray(found.w[0, 0] - code[0], np.float32)


def run(opened: Opened, search: Search, find: Callable[[], np.ndarray]) -> None:
    """Calls `find` and keeps what it found as a slider; errors are told on the page."""
    search.state = 'searching'
    try:
        direction = edits_lib.Direction(search.title, find())
        search.control = opened.keep(search.id, direction).public()
        search.state = 'done'
    except _StopSearch:
        search.state, search.error = 'failed', 'Stopped.'
    except Exception as error:
        text = str(error) if isinstance(error, JaxinvError) else ' '.join(str(error).split())[:200]
        search.state, search.error = 'failed', printable(text) or type(error).__name__
    finally:
        search.picture = None
