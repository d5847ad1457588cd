"""Dragging points of a picture (jaxinv.drag), one drag at a time, with pictures on the way."""

import dataclasses
import math
import threading
from typing import Any

import numpy as np

import jaxinv
from jaxinv.errors import JaxinvError
from jaxinv.studio import regions
from jaxinv.studio.opened import EditState, Opened

MAX_POINTS = 16
MAX_STEPS = 300
SHOWN_EVERY = 5  # steps between pictures


@dataclasses.dataclass
class Drag:
    """A drag and how far it is."""

    id: str
    run: str
    identity: int
    # 'waiting', 'dragging', then 'done' or 'failed'
    state: str = 'waiting'
    step: int = 0
    steps: int = 0
    distance: float | None = None  # pixels from the points to their targets, mean
    points: list[list[float]] = dataclasses.field(default_factory=list)
    error: str = ''
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)
    picture: np.ndarray | None = None  # uint8 [h, w, 3]

    def public(self) -> dict[str, Any]:
        """What the page gets."""
        return {
            'id': self.id,
            'state': self.state,
            'step': self.step,
            'steps': self.steps,
            'distance': self.distance,
            'points': self.points,
            'error': self.error,
        }


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
        if not all(isinstance(x, (int, float)) and math.isfinite(x) for x in row):
            raise JaxinvError('A point has four numbers from 0 to 1.')
        if not all(0 <= x <= 1 for x in row):
            raise JaxinvError('Points and their targets lie inside the picture.')
        x, y, to_x, to_y = (value * (size - 1) for value in row)
        pairs.append(((x, y), (to_x, to_y)))
    return pairs


def run(opened: Opened, drag: Drag, edit: EditState, pairs, mask, steps: int) -> None:
    """Drags from the edited picture, and keeps the offset as an edit named 'drag:ID'.

    mask: bool [n, n] of what may move, or None.
    """
    drag.state, drag.steps = 'dragging', steps
    size = opened.generator.spec.resolution
    if mask is not None:
        mask = regions.resize(mask, size)

    def follow(moment):
        drag.step = int(moment.step)
        distances = np.asarray(moment.distances, np.float64)
        drag.distance = float(np.nanmean(distances)) if np.isfinite(distances).any() else None
        drag.points = [
            [float(x) / (size - 1), float(y) / (size - 1)]
            for x, y in np.asarray(moment.points)[0]
            if math.isfinite(x) and math.isfinite(y)
        ]
        if drag.step % SHOWN_EVERY == 0:
            drag.picture = opened.render(drag.identity, np.asarray(moment.w)[:1])
        return not drag.stop.is_set()

    try:
        found = jaxinv.drag(
            opened.generator,
            opened.weights(drag.identity),
            opened.code(drag.identity, edit),
            pairs,
            mask,
            steps,
            follow,
        )
        opened.drags[drag.id] = np.asarray(found.offsets[0], np.float32)
        drag.state = 'done'
    except Exception as error:  # told on the page
        text = str(error) if isinstance(error, JaxinvError) else ' '.join(str(error).split())[:200]
        drag.state, drag.error = 'failed', f'The drag ended: {text or type(error).__name__}'
    finally:
        drag.picture = None
