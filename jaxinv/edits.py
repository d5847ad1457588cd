"""Edits: straight moves of a latent along directions, alone or one after the other.

Symbols: w [b, k, w_dim] a latent with k = 1 (W) or num_ws (W+) rows; d [1 or num_ws, w_dim] a
direction. An edit adds strength * d:

    smile=2                  w + 2 * smile
    age=-4/4                 two edits, one for each strength
    yaw=3,smile=-2           a sequence: turn the head, then smile less (PTI, figure 12)
    pc3[0:8]=2               only the rows 0..7 of W+ (GANSpace's layer range)
    my.npy=1.5               your own direction
    my.npz:beard=1.5         one array of several in a file
    class:207=0.5            half the way from a picture's class embedding to that of class 207

The unit of strength. The directions that come with jaxinv have length 1 in every row, so a strength
is the length moved in W; the typical ones of each are in its entry in `directions/NAME.json`, with
what one unit changes (`describe`). A file of your own is used as it is: strength 1 adds it once.
"""

import dataclasses
import difflib
import json
import pathlib
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxinv import latents
from jaxinv.errors import JaxinvError

DIRECTIONS = pathlib.Path(__file__).parent / 'directions'
SUFFIXES = ('.npy', '.npz', '.safetensors', '.pt', '.pth')

_STEP = re.compile(
    r"""\s*(?P<source>[^\s].*?)\s*
    (?:\[\s*(?P<start>\d*)\s*:\s*(?P<stop>\d*)\s*\])?
    \s*=\s*(?P<strengths>[-+\d.eE/\s]+?)\s*(?:,|$)""",
    re.VERBOSE,
)


class EditError(JaxinvError):
    """An edit or a direction that cannot be used; the message says why and what to do."""


class Direction(NamedTuple):
    name: str  # 'smile', or the stem of a file
    array: np.ndarray  # float32 [1 or num_ws, w_dim]
    rows: tuple[int | None, int | None] | None = None  # None = all; else a slice of the W+ rows
    # True = `array` is an embedding [1, e] of a class: the last e numbers of w go there, strength 1
    # being the whole way.
    is_class: bool = False


@dataclasses.dataclass(frozen=True)
class Edit:
    """A sequence of (direction, strength), applied in this order."""

    name: str  # its spelling in short, e.g. 'yaw=3,smile=-2'; unique within one `parse`
    steps: tuple[tuple[Direction, float], ...]
    requested: bool = True  # False for the intermediate pictures of a sequence

    @property
    def parts(self) -> tuple[tuple[str, float], ...]:
        """(direction name, strength) of every step, for reports."""
        return tuple((_direction_name(d), s) for d, s in self.steps)


def parse(specs: str | Iterable[str], space: str = 'ffhq', classes=None) -> list[Edit]:
    """Edits from the spellings above; one string may hold several, separated by semicolons.

    classes: the embeddings [n, e] of a class-conditional generator, for edits of the class.

    Raises EditError for a spelling, name or file that cannot be used.
    """
    if isinstance(specs, str):
        specs = specs.split(';')
    cache: dict[str, np.ndarray] = {}
    edits: dict[str, Edit] = {}
    for spec in specs:
        if not str(spec).strip():
            continue
        for edit in _parse_one(str(spec), space, cache, classes):
            edits.setdefault(edit.name, edit)
    return list(edits.values())


def with_steps(edits: Iterable[Edit]) -> list[Edit]:
    """The edits, and before each sequence the shorter ones that lead to it (requested=False)."""
    edits = list(edits)
    known = {edit.name for edit in edits}
    result = []
    for edit in edits:
        for n in range(1, len(edit.steps)):
            part = Edit(_edit_name(edit.steps[:n]), edit.steps[:n], requested=False)
            if part.name not in known:
                known.add(part.name)
                result.append(part)
        result.append(edit)
    return result


def apply(w: Any, edit: Edit, num_ws: int) -> jnp.ndarray:
    """w [b, 1 or num_ws, w_dim] moved along the edit's steps.

    The result keeps w's rows, unless a direction differs between rows: then it is
    [b, num_ws, w_dim]. Raises EditError if a direction does not fit.
    """
    w = jnp.asarray(w)
    if w.ndim != 3 or w.shape[1] not in (1, num_ws):
        raise EditError(f'w has shape {list(w.shape)}; expected [b, 1 or {num_ws}, w_dim]')
    for direction, strength in edit.steps:
        d = _rows(direction, num_ws, w.shape[-1])
        if d.shape[0] > w.shape[1]:
            w = jnp.broadcast_to(w, (w.shape[0], num_ws, w.shape[2]))
        if direction.is_class:
            size = direction.array.shape[1]
            moved = w[..., -size:] + np.float32(strength) * d * (direction.array - w[..., -size:])
            w = jnp.concatenate([w[..., :-size], moved], -1)
        else:
            w = w + jnp.asarray(np.float32(strength) * d)[None]
    return w


def available(space: str = 'ffhq') -> list[str]:
    """Names of the directions that come with jaxinv for a latent space."""
    path = DIRECTIONS / f'{space}.npz'
    if not path.is_file():
        return []
    with np.load(path, allow_pickle=False) as arrays:
        return sorted(arrays.files)


def describe(space: str = 'ffhq') -> dict[str, Any]:
    """The recipe and measured effect of the packaged directions ({} if there are none)."""
    path = DIRECTIONS / f'{space}.json'
    return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}


def shares_w(generator: Any, weights: Any, space: str = 'ffhq') -> bool:
    """Whether the generator's W is the one that the packaged directions were found in.

    W is what the mapping network makes of it, and several generators share FFHQ's: tuned ones,
    those distilled from it, and other projects' files of it.
    """
    spec, known = generator.spec, describe(space).get('w_probe')
    if known is None or spec.label_dim or (spec.z_dim, spec.w_dim) != (512, 512):
        return False
    found = latents.mapping_fingerprint(generator, weights)
    return float(np.linalg.norm(found - known) / np.linalg.norm(known)) < 0.1


def load_direction(source: str, space: str = 'ffhq') -> np.ndarray:
    """A direction [1 or num_ws, w_dim] in float32 from a packaged name or a file.

    Files: .npy, .npz, .safetensors, .pt, .pth, holding [w_dim], [1, w_dim] or [num_ws, w_dim] (one
    more leading axis of 1 is dropped); `FILE:KEY` picks one array of several. Nothing in a file is
    executed. Raises EditError.
    """
    source = str(source)
    path, key = _split_key(source)
    if path.suffix.lower() not in SUFFIXES and not path.exists():
        return _packaged(source, space)
    if not path.is_file():
        raise EditError(f'there is no file {str(path)!r} to read a direction from')
    try:
        arrays = _read(path)
    except EditError:
        raise
    except Exception as error:  # whatever a damaged or hostile file makes its reader raise
        raise EditError(f'{path} could not be read as a direction: {error}') from error
    return _as_direction(_pick(arrays, key, path), source)


def _parse_one(spec: str, space: str, cache: dict[str, np.ndarray], classes) -> list[Edit]:
    steps, end = [], 0
    for match in _STEP.finditer(spec):
        if match.start() != end:
            break
        end = match.end()
        steps.append(match)
    if not steps or end != len(spec):
        raise EditError(
            f'{spec!r} is not an edit; write NAME=STRENGTH, for example smile=2, age=-4/4 or '
            f'yaw=3,smile=-2 (a sequence). Directions: {", ".join(available(space)) or "none"}.'
        )
    alternatives: list[list[tuple[Direction, float]]] = []
    for match in steps:
        source = match['source']
        is_class = source.startswith('class:')
        if source not in cache:
            cache[source] = _class(source, classes) if is_class else load_direction(source, space)
        rows = None
        if match['start'] is not None:
            rows = tuple(int(match[g]) if match[g] else None for g in ('start', 'stop'))
        direction = Direction(_source_name(source), cache[source], rows, is_class)
        strengths = [_number(text, spec) for text in match['strengths'].split('/')]
        alternatives.append([(direction, strength) for strength in strengths])
    if len(alternatives) == 1:
        sequences = [(step,) for step in alternatives[0]]
    elif all(len(steps) == 1 for steps in alternatives):
        sequences = [tuple(steps[0] for steps in alternatives)]
    else:
        raise EditError(f'{spec!r}: several strengths (a/b) are for one direction, not a sequence')
    return [Edit(_edit_name(sequence), sequence) for sequence in sequences]


def _number(text: str, spec: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise EditError(f'{text.strip()!r} in {spec!r} is not a strength; write a number') from None
    if not np.isfinite(value):
        raise EditError(f'strength {text.strip()} in {spec!r} is not finite')
    return value


def _source_name(source: str) -> str:
    path, key = _split_key(source)
    if path.suffix.lower() not in SUFFIXES:
        return source
    return f'{path.stem}:{key}' if key else path.stem


def _direction_name(direction: Direction) -> str:
    if direction.rows is None:
        return direction.name
    start, stop = ('' if bound is None else bound for bound in direction.rows)
    return f'{direction.name}[{start}:{stop}]'


def _edit_name(steps: Iterable[tuple[Direction, float]]) -> str:
    return ','.join(f'{_direction_name(d)}={strength:g}' for d, strength in steps)


def _split_key(source: str) -> tuple[pathlib.Path, str | None]:
    head, colon, key = source.rpartition(':')
    if colon and pathlib.PurePath(head).suffix.lower() in SUFFIXES:
        return pathlib.Path(head).expanduser(), key
    return pathlib.Path(source).expanduser(), None


def _class(source: str, classes) -> np.ndarray:
    number = source.removeprefix('class:').strip()
    if classes is None:
        raise EditError(f'{source} is a class, and the generator has no embeddings of classes')
    if not number.isdecimal() or int(number) >= len(classes):
        raise EditError(
            f'{source} is none of the classes of this generator, class:0 ... class:'
            f'{len(classes) - 1}'
        )
    return np.asarray(classes[int(number)], np.float32)[None]


def _packaged(name: str, space: str) -> np.ndarray:
    names = available(space)
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f' Did you mean {close[0]!r}?' if close else ''
        raise EditError(
            f'no direction {name!r}.{hint} Directions of {space or "this generator"}: '
            f'{", ".join(names) or "none"}; or give a file ({", ".join(SUFFIXES)}).'
        )
    with np.load(DIRECTIONS / f'{space}.npz', allow_pickle=False) as arrays:
        return _as_direction(arrays[name], name)


def _read(path: pathlib.Path) -> Any:
    suffix = path.suffix.lower()
    if suffix == '.npy':
        return np.load(path, allow_pickle=False)
    if suffix == '.npz':
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    if suffix == '.safetensors':
        import safetensors.numpy

        return safetensors.numpy.load_file(path)
    if suffix in ('.pt', '.pth'):
        from jaxinv.converters import safe_pickle

        return safe_pickle.load(path)
    raise EditError(f'{path}: a direction is one of {", ".join(SUFFIXES)}')


def _pick(arrays: Any, key: str | None, path: pathlib.Path) -> Any:
    if not isinstance(arrays, dict):
        if key is not None:
            raise EditError(f'{path} holds one array, so leave out {":" + key!r}')
        return arrays
    names = ', '.join(map(str, arrays)) or 'nothing'
    if key is None and len(arrays) == 1:
        return next(iter(arrays.values()))
    if key is None:
        raise EditError(f'{path} holds {names}; say which one, as {path.name}:KEY')
    if key not in arrays:
        raise EditError(f'{path} has no {key!r}; it holds {names}')
    return arrays[key]


def _as_direction(value: Any, source: str) -> np.ndarray:
    try:
        array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise EditError(f'{source} does not hold an array of numbers') from error
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or 0 in array.shape:
        raise EditError(
            f'{source} has shape {list(np.shape(value))}; a direction is [w_dim], [1, w_dim] or '
            '[num_ws, w_dim]'
        )
    if not np.isfinite(array).all():
        raise EditError(f'{source} has values that are not finite')
    return array


def _rows(direction: Direction, num_ws: int, w_dim: int) -> np.ndarray:
    d, name = direction.array, direction.name
    if direction.is_class:  # how far depends on w
        return _mask(direction, num_ws)
    if d.shape[1] != w_dim:
        raise EditError(f'{name} has {d.shape[1]} values a row; this generator takes {w_dim}')
    if d.shape[0] not in (1, num_ws):
        raise EditError(f'{name} has {d.shape[0]} rows; this generator takes 1 or {num_ws}')
    return _mask(direction, num_ws) * d


def _mask(direction: Direction, num_ws: int) -> np.ndarray:
    """1 in the rows that the direction moves, [1 or num_ws, 1]."""
    if direction.rows is None:
        return np.ones((1, 1), np.float32)
    start, stop = direction.rows
    if (stop is not None and stop > num_ws) or len(range(num_ws)[start:stop]) == 0:
        raise EditError(
            f'{_direction_name(direction)}: the rows of this generator are 0..{num_ws - 1}'
        )
    mask = np.zeros((num_ws, 1), np.float32)
    mask[start:stop] = 1
    return mask
