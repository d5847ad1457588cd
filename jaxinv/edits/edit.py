"""An edit as a value, and its effect on codes."""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxinv.edits.directions import EditError


class Direction(NamedTuple):
    name: str  # 'smile', or the stem of a file
    array: np.ndarray  # float32 [1 or num_ws, w_dim]
    rows: tuple[int | None, int | None] | None = None  # slice of the W+ rows that move; None = all
    # True: `array` is the embedding [1, e] of a class, w's last e numbers move towards it, and
    # strength 1 reaches it.
    is_class: bool = False
    # Mean [w_dim] of W: a strength is the new coordinate of w along `array`, measured from the mean
    # on the first row. None: a strength is the multiple of `array` that is added.
    mean: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Edit:
    """A sequence of (direction, strength), applied in this order."""

    name: str  # its spelling in short, e.g. 'yaw=3,smile=-2'; unique within one `parse`
    steps: tuple[tuple[Direction, float], ...]
    requested: bool = True  # False for the intermediate pictures of a sequence
    region: str = ''  # where it acts (segmentation/regions.py); '' = everywhere. Not for `apply`

    @property
    def parts(self) -> tuple[tuple[str, float], ...]:
        """(direction name, strength) of every step, for reports; 'NAME:' if it is set."""
        return tuple((name_of(d) + (':' if d.mean is not None else ''), s) for d, s in self.steps)


def apply(w: Any, edit: Edit, num_ws: int) -> jnp.ndarray:
    """w [b, 1 or num_ws, w_dim] moved along the edit's steps.

    The result keeps w's rows, unless a direction differs between rows: then it is
    [b, num_ws, w_dim]. Raises EditError if a direction does not fit.
    """
    w = _checked(w, num_ws)
    for direction, strength in edit.steps:
        w = w + _move(w, direction, strength, num_ws)
    return w


def difference(w: Any, edit: Edit, num_ws: int) -> jnp.ndarray:
    """What `apply` adds to w, [b, 1 or num_ws, w_dim], without the rounding of a subtraction."""
    w = _checked(w, num_ws)
    total = jnp.zeros_like(w)
    for direction, strength in edit.steps:
        total = total + _move(w + total, direction, strength, num_ws)
    return total


def name_of(direction: Direction) -> str:
    if direction.rows is None:
        return direction.name
    start, stop = ('' if bound is None else bound for bound in direction.rows)
    return f'{direction.name}[{start}:{stop}]'


def _checked(w, num_ws: int) -> jnp.ndarray:
    w = jnp.asarray(w)
    if w.ndim != 3 or w.shape[1] not in (1, num_ws):
        raise EditError(f'w has shape {list(w.shape)}; expected [b, 1 or {num_ws}, w_dim]')
    return w


def _move(w, direction: Direction, strength: float, num_ws: int):
    """What one step adds to w, [1 or b, 1 or num_ws, w_dim]."""
    strength, d = np.float32(strength), direction.array
    if direction.is_class:
        size = d.shape[1]
        moved = strength * _row_mask(direction, num_ws)[None] * (d[None] - w[..., -size:])
        rest = jnp.zeros((*moved.shape[:-1], w.shape[-1] - size), w.dtype)
        return jnp.concatenate([rest, moved], -1)
    if d.shape[1] != w.shape[-1]:
        raise EditError(
            f'{direction.name} has {d.shape[1]} values a row; this generator takes {w.shape[-1]}'
        )
    if d.shape[0] not in (1, num_ws):
        raise EditError(
            f'{direction.name} has {d.shape[0]} rows; this generator takes 1 or {num_ws}'
        )
    masked = (_row_mask(direction, num_ws) * d)[None]
    if direction.mean is None:
        return jnp.asarray(strength * masked)
    first = d[None, :1]
    from_mean = w[:, :1] - direction.mean[None, None]
    coordinate = jnp.sum(from_mean * first, axis=-1, keepdims=True) / np.sum(first**2)
    return (strength - coordinate) * masked


def _row_mask(direction: Direction, num_ws: int) -> np.ndarray:
    """1 in the rows that the direction moves, [1 or num_ws, 1]."""
    if direction.rows is None:
        return np.ones((1, 1), np.float32)
    start, stop = direction.rows
    if (stop is not None and stop > num_ws) or len(range(num_ws)[start:stop]) == 0:
        raise EditError(f'{name_of(direction)}: the rows of this generator are 0..{num_ws - 1}')
    mask = np.zeros((num_ws, 1), np.float32)
    mask[start:stop] = 1
    return mask
