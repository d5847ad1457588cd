"""An edit as a value, and its effect on codes and styles.

A step is (direction, strength). A direction moves w, or styles of layers (StyleSpace), which
`style_offsets` collects for `Generator.synthesize`:

    codes, offsets = moved(w, edits, spec)       # of several edits of one code
    images, _ = generator.synthesize(weights, codes, style_offsets=offsets)

What another tool found becomes an edit by `of_arrays`: an array that is added to w, as that of a
drag, or offsets of styles, as those of a text. `join` makes a sequence of several edits.
"""

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxinv.edits.directions import EditError
from jaxinv.text import shortest
from jaxinv.types import GeneratorSpec


class Direction(NamedTuple):
    name: str  # 'smile', or the stem of a file
    array: np.ndarray  # float32 [1 or num_ws, w_dim]; of styles [1, 0]
    rows: tuple[int | None, int | None] | None = None  # slice of the W+ rows that move; None = all
    # True: `array` [1 or num_ws, e] is a code or the embedding of a class, w's last e numbers move
    # towards it, and strength 1 reaches it.
    towards: bool = False
    # Mean [w_dim] of W: a strength is the new coordinate of w along `array`, measured from the mean
    # on the first row. None: a strength is the multiple of `array` that is added.
    mean: np.ndarray | None = None
    # {layer: [1, channels]}: a strength is the multiple that is added to the styles, not to w.
    styles: Mapping[str, np.ndarray] | None = None
    limits: tuple[float, float] | None = None  # calibrated strengths; None = not calibrated
    # (w [b, num_ws, w_dim]) -> what strength 1 adds to it, for moves that depend on the code, as a
    # mapper's; `array` is [1, 0] then.
    change: Callable[[Any], Any] | None = None


class Wanted(NamedTuple):
    """A strength that is given by the change it makes; `solve` finds its number."""

    change: float  # of the attribute, in its unit
    unit: str  # 'deg', 'y' or 'u'
    attribute: str  # 'yaw', ...: what is measured

    def spelled(self, name: str) -> str:
        """'10deg' for the direction of the attribute's name, 'yaw:10deg' for another."""
        own = self.attribute == name.partition('[')[0].partition('|')[0]
        return f'{"" if own else self.attribute + ":"}{shortest(self.change)}{self.unit}'


@dataclasses.dataclass(frozen=True)
class Edit:
    """A sequence of (direction, strength), applied in this order."""

    name: str  # its spelling in short, e.g. 'yaw=3,smile=-2'; unique within one `parse`
    steps: tuple[tuple[Direction, float | Wanted], ...]
    requested: bool = True  # False for the intermediate pictures of a sequence
    region: str = ''  # where it acts (segmentation/regions.py); '' = everywhere. Not for `apply`

    @property
    def parts(self) -> tuple[tuple[str, float], ...]:
        """(direction name, strength) of every step, for reports; 'NAME:' if it is set.

        A strength in a unit has it after the name: ('yaw (deg)', 10.0).
        """
        return tuple(_part(*step) for step in self.steps)

    @property
    def is_solved(self) -> bool:
        """Whether every strength is a number."""
        return not self.measured

    @property
    def measured(self) -> tuple[str, ...]:
        """The attributes that strengths in units are changes of."""
        return tuple(s.attribute for _, s in self.steps if isinstance(s, Wanted))


def of_arrays(name: str, array=None, styles: Mapping[str, Any] | None = None) -> Edit:
    """An edit of strength 1 that adds an array to w, or offsets to styles.

    array [1 or num_ws, w_dim]: the difference of two codes, as a drag finds it; styles {layer:
    [1, channels]}, as a text's direction in StyleSpace. Raises EditError unless one is given.
    """
    if (array is None) == (styles is None):
        raise EditError(f'{name}: an edit of arrays has either an array or styles')
    if styles is not None:
        return Edit(name, ((styles_direction(name, styles), 1.0),))
    array = np.asarray(array, np.float32)
    if array.ndim != 2 or 0 in array.shape or not np.isfinite(array).all():
        raise EditError(
            f'{name} has shape {list(array.shape)}; an edit of W adds finite [1 or num_ws, w_dim]'
        )
    return Edit(name, ((Direction(name, array), 1.0),))


def styles_direction(name: str, styles: Mapping[str, Any]) -> Direction:
    """The direction that adds multiples of {layer: [1, channels]} to the styles."""
    arrays = {layer: np.asarray(offset, np.float32) for layer, offset in styles.items()}
    for layer, offset in arrays.items():
        if offset.ndim != 2 or offset.shape[0] != 1 or not np.isfinite(offset).all():
            raise EditError(
                f'{name}: offsets of {layer} have shape {list(offset.shape)}, not finite '
                '[1, channels]'
            )
    return Direction(name, np.zeros((1, 0), np.float32), styles=arrays)


def join(edits: Sequence[Edit], name: str | None = None) -> Edit:
    """One edit with the steps of several, in their order."""
    steps = tuple(step for edit in edits for step in edit.steps)
    return Edit(','.join(edit.name for edit in edits) if name is None else name, steps)


def apply(w: Any, edit: Edit, num_ws: int) -> jnp.ndarray:
    """w [b, 1 or num_ws, w_dim] moved along the edit's steps.

    The result keeps w's rows, unless a direction differs between rows: then it is
    [b, num_ws, w_dim]. Directions of styles leave w as it is (`style_offsets`). Raises EditError if
    a direction does not fit, or a strength in a unit has not been solved.
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


def style_offsets(edit: Edit, spec: GeneratorSpec) -> dict[str, np.ndarray]:
    """What the edit adds to styles: {layer: [1, channels]}; {} = nothing.

    Raises EditError for a layer that the generator does not have, or another number of channels.
    """
    channels = {layer: count for layer, _, count in spec.style_layers}
    total: dict[str, np.ndarray] = {}
    for direction, strength in edit.steps:
        for layer, offset in (direction.styles or {}).items():
            if channels.get(layer) != offset.shape[1]:
                has = f'{channels[layer]} channels' if layer in channels else 'no such layer'
                raise EditError(
                    f'{direction.name} moves {offset.shape[1]} channels of {layer}; {spec.name} '
                    f'has {has}, so it belongs to another generator'
                )
            added = np.float32(_number(direction, strength)) * offset
            total[layer] = total[layer] + added if layer in total else added
    return total


def moved(w: Any, edits: Iterable[Edit], spec: GeneratorSpec):
    """(codes [1 + e, num_ws, w_dim], style_offsets {layer: [1 + e, channels]}) of one code.

    w [1, 1 or num_ws, w_dim]. The first is the code itself; a layer is there if an edit moves it.
    """
    edits = list(edits)
    codes = [w, *(apply(w, edit, spec.num_ws) for edit in edits)]
    codes = np.concatenate(
        [np.broadcast_to(np.asarray(c), (1, spec.num_ws, spec.w_dim)) for c in codes]
    )
    each = [style_offsets(edit, spec) for edit in edits]
    offsets = {}
    for layer, _, count in spec.style_layers:
        if any(layer in own for own in each):
            none = np.zeros((1, count), np.float32)
            offsets[layer] = np.concatenate([none, *(own.get(layer, none) for own in each)])
    return codes, offsets


def check(edit: Edit, spec: GeneratorSpec, measured: Iterable[str] | None = None) -> None:
    """Raises EditError if a step does not fit the generator; strengths in units count as 1.

    measured: attributes that can be measured; a strength in a unit must be of one of them. None =
    not checked.
    """
    for direction, strength in edit.steps:
        if measured is not None and isinstance(strength, Wanted):
            check_measured(direction, strength, measured)
    steps = tuple((d, 1.0 if isinstance(s, Wanted) else s) for d, s in edit.steps)
    plain = dataclasses.replace(edit, steps=steps)
    apply(np.zeros((1, 1, spec.w_dim), np.float32), plain, spec.num_ws)
    style_offsets(plain, spec)


def check_measured(direction: Direction, wanted: Wanted, measured: Iterable[str]) -> None:
    """Raises EditError for a change of an attribute that is not measured; suggests close names."""
    names = list(measured)
    if wanted.attribute in names:
        return
    close = difflib.get_close_matches(wanted.attribute, names, n=1, cutoff=0.6)
    hint = f' Did you mean {close[0]!r}?' if close else ''
    text = f'{wanted.change:g}{wanted.unit}'
    raise EditError(
        f'{name_of(direction)}={text}: {wanted.attribute} is not measured, so no strength can be '
        f'found for it.{hint} Measured are {", ".join(names)}; name one of them as '
        f'{name_of(direction)}={(names or ["yaw"])[0]}:{text}, or give a strength without unit'
    )


def name_of(direction: Direction) -> str:
    if direction.rows is None:
        return direction.name
    start, stop = ('' if bound is None else bound for bound in direction.rows)
    return f'{direction.name}[{start}:{stop}]'


def _part(direction: Direction, strength) -> tuple[str, float]:
    name = name_of(direction) + (':' if direction.mean is not None else '')
    if isinstance(strength, Wanted):
        # Without the number: '(deg)' or '(yaw, deg)'.
        own = strength.spelled(direction.name)[0] in '+-.0123456789'
        aim = '' if own else f'{strength.attribute}, '
        return f'{name} ({aim}{strength.unit})', strength.change
    return name, strength


def _number(direction: Direction, strength) -> float:
    if isinstance(strength, Wanted):
        raise EditError(
            f'{name_of(direction)}={strength.spelled(direction.name)} is a change of the picture; '
            'find its strength for each identity by jaxinv.edits.solve first'
        )
    return strength


def _checked(w, num_ws: int) -> jnp.ndarray:
    w = jnp.asarray(w)
    if w.ndim != 3 or w.shape[1] not in (1, num_ws):
        raise EditError(f'w has shape {list(w.shape)}; expected [b, 1 or {num_ws}, w_dim]')
    return w


def _move(w, direction: Direction, strength, num_ws: int):
    """What one step adds to w, [1 or b, 1 or num_ws, w_dim]."""
    strength, d = np.float32(_number(direction, strength)), direction.array
    if direction.styles is not None:
        return jnp.zeros((1, 1, w.shape[-1]), w.dtype)
    if direction.change is not None:
        rows = jnp.broadcast_to(w, (len(w), num_ws, w.shape[-1]))
        return strength * _row_mask(direction, num_ws)[None] * direction.change(rows)
    if d.shape == (1, num_ws * w.shape[-1]):  # a boundary of flattened codes in W+
        d = d.reshape(num_ws, w.shape[-1])
    if direction.towards:
        size = d.shape[1]
        if size > w.shape[-1] or d.shape[0] not in (1, num_ws):
            raise EditError(
                f'{direction.name} is a code of shape {list(d.shape)}; this generator takes '
                f'[1 or {num_ws}, {w.shape[-1]}]'
            )
        moved = strength * _row_mask(direction, num_ws)[None] * (d[None] - w[..., -size:])
        rest = jnp.zeros((*moved.shape[:-1], w.shape[-1] - size), w.dtype)
        return jnp.concatenate([rest, moved], -1)
    if d.shape[1] != w.shape[-1]:
        raise EditError(
            f'{direction.name} has {d.shape[1]} values a row; this generator takes {w.shape[-1]}, '
            "so it is a direction of another generator's W"
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
