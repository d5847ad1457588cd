"""Directions of edits: those that come with jaxinv, and arrays in files of the user's.

    array = load_direction('smile')            # float32 [1, 512], length 1
    array = load_direction('many.npz:beard')   # [1 or num_ws, w_dim]

Nothing in a file is executed.
"""

import difflib
import json
import pathlib
from typing import Any

import numpy as np

from jaxinv import latents
from jaxinv.converters import array_files, safe_pickle
from jaxinv.converters.file_view import UnreadableFile
from jaxinv.converters.pickle_values import kind_of
from jaxinv.errors import JaxinvError
from jaxinv.io import expanded
from jaxinv.text import printable

DIRECTIONS = pathlib.Path(__file__).parents[1] / 'directions'
_COLUMNS = ('eigvec',)  # arrays whose components are columns, as closed-form factorisation saves
SUFFIXES = ('.npy', '.npz', '.safetensors', '.pt', '.pth')


class EditError(JaxinvError):
    """An edit or a direction that cannot be used; the message says why and what to do."""


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
    more leading axis of 1 is dropped); `FILE:KEY` picks one array of several, and `FILE:KEY/3` its
    component 3: of GANSpace's [n, 1, w_dim] the row, of the eigenvectors [w_dim, n] of closed-form
    factorisation ('eigvec') the column. Nothing in a file is executed. Raises EditError.
    """
    source = str(source)
    path, key = split_key(source)
    if path.suffix.lower() not in SUFFIXES and not path.exists():
        return _packaged(source, space)
    if not path.is_file():
        raise EditError(f'there is no file {str(path)!r} to read a direction from')
    try:
        arrays = _read(path)
    except UnreadableFile as error:
        raise EditError(f'{path} could not be read as a direction: {error}') from error
    return _as_direction(_pick(arrays, key, path), source, key)


def split_key(source: str) -> tuple[pathlib.Path, str | None]:
    head, colon, key = source.rpartition(':')
    if colon and pathlib.PurePath(head).suffix.lower() in SUFFIXES:
        return expanded(head), key
    return expanded(source), None


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
        arrays, _ = array_files.read(path)
        return arrays[''] if set(arrays) == {''} else arrays
    if suffix in ('.npz', '.safetensors'):
        return array_files.read(path)[0]
    if suffix in ('.pt', '.pth'):
        return safe_pickle.load(path)
    raise EditError(f'{path}: a direction is one of {", ".join(SUFFIXES)}')


def _pick(arrays: Any, key: str | None, path: pathlib.Path) -> Any:
    """One array of a file, by KEY, KEY/INDEX or /INDEX; None for a file with one array."""
    name, slash, index = (key or '').partition('/')
    if isinstance(arrays, dict) and key in arrays:
        name, slash = key, ''
    shown = printable(path.name)
    if isinstance(arrays, dict):
        names = ', '.join(printable(n, 40) for n in list(arrays)[:20]) or 'nothing'
        if not name and len(arrays) == 1:
            name = next(iter(arrays))
        if not name:
            raise EditError(f'{path} holds {names}; say which one, as {shown}:KEY')
        if name not in arrays:
            raise EditError(f'{path} has no {name!r}; it holds {names}')
        array = arrays[name]
    elif name:
        raise EditError(f'{path} holds one array, so leave out {":" + key!r}')
    else:
        array = arrays
    return _component(array, name, index, f'{path}:{name}') if slash else array


def _component(array, name, index, source):
    """Component `index` of an array of several: a row, or a column of eigenvectors."""
    axis = -1 if name in _COLUMNS else 0
    if not isinstance(array, np.ndarray) or array.ndim < 2:
        raise EditError(f'{source} has no components, so leave out {"/" + index!r}')
    count = array.shape[axis]
    if not index.isdecimal() or len(index) > 9 or int(index) >= count:
        raise EditError(f'{source} has the components 0 ... {count - 1}, not {index!r}')
    return np.take(array, int(index), axis)


def _as_direction(value: Any, source: str, key: str | None = None) -> np.ndarray:
    if not isinstance(value, np.ndarray | np.number | list | tuple):
        raise EditError(f'{source} holds {kind_of(value)}, not an array of numbers')
    try:
        array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise EditError(f'{source} does not hold an array of numbers') from error
    shape = list(array.shape)
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 1:
        array = array[None]
    several = array.ndim == 3 or (key in _COLUMNS and array.ndim == 2)
    if several and 0 not in array.shape:
        first = f'{source}/0' if key else f'{source}:/0'
        raise EditError(
            f'{source} has shape {shape}, several components; take one of them, the first as '
            f'{first}=STRENGTH'
        )
    if array.ndim != 2 or 0 in array.shape:
        raise EditError(
            f'{source} has shape {shape}; a direction is [w_dim], [1, w_dim] or [num_ws, w_dim]'
        )
    if not np.isfinite(array).all():
        raise EditError(f'{source} has values that are not finite')
    return array
