"""Directions of edits: those that come with jaxinv, and arrays in files of the user's.

    array = load_direction('smile')            # float32 [1, 512], length 1
    array = load_direction('many.npz:beard')   # [1 or num_ws, w_dim]

Nothing in a file is executed.
"""

import difflib
import json
import pathlib
import warnings
from typing import Any

import numpy as np

from jaxinv import latents
from jaxinv.converters import array_files, safe_pickle
from jaxinv.converters.file_view import UnreadableFile
from jaxinv.converters.pickle_values import kind_of
from jaxinv.errors import JaxinvError
from jaxinv.io import atomic_path, expanded
from jaxinv.text import printable

DIRECTIONS = pathlib.Path(__file__).parents[1] / 'directions'
_COLUMNS = ('eigvec',)  # arrays whose components are columns, as closed-form factorisation saves
_INTERCEPTS = ('intercept', 'intercept_', 'bias', 'b')  # of InterFaceGAN's boundaries
PROBE = 'w_probe'  # array or metadata of a file: mapping_fingerprint of the W it belongs to
SUFFIXES = ('.npy', '.npz', '.safetensors', '.pt', '.pth')


class EditError(JaxinvError):
    """An edit or a direction that cannot be used; the message says why and what to do."""


class EditWarning(UserWarning):
    """Something that an edit leaves out, or goes beyond."""


def packaged(space: str = 'ffhq') -> list[str]:
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
    return _same_w(latents.mapping_fingerprint(generator, weights), known)


def calibrated_range(name: str, space: str = 'ffhq') -> tuple[float, float] | None:
    """(least, largest) strength of a packaged direction that was validated; None = not known."""
    strengths = describe(space).get('directions', {}).get(name, {}).get('strengths')
    return (float(min(strengths)), float(max(strengths))) if strengths else None


def check_probe(probe: Any, source: str, generator: Any, weights: Any) -> None:
    """Raises EditError if the fingerprint of W in a file is not that of the generator's W.

    probe [4, n]: of `latents.mapping_fingerprint`. A generator with classes has no fingerprint.
    """
    if generator is None or weights is None or generator.spec.label_dim:
        return
    try:
        known = np.asarray(probe, np.float32)
    except (TypeError, ValueError, OverflowError):
        known = np.zeros(0)
    found = latents.mapping_fingerprint(generator, weights)
    if known.shape != found.shape or not _same_w(found, known):
        raise EditError(
            f"{source} belongs to another generator's W than that of {generator.spec.name}: the "
            f'fingerprint of W in it ({PROBE}) differs'
        )


def _same_w(found, known) -> bool:
    return float(np.linalg.norm(found - known) / max(np.linalg.norm(known), 1e-9)) < 0.1


def save_direction(path, array, generator: Any = None, weights: Any = None) -> None:
    """Writes a direction [w_dim], [1, w_dim] or [num_ws, w_dim] to an .npz file.

    With a generator also the fingerprint of its W, by which `load_direction` recognises that the
    direction is used with another one.
    """
    arrays = {'direction': _as_direction(np.asarray(array), str(path))}
    if generator is not None and not generator.spec.label_dim:
        arrays[PROBE] = latents.mapping_fingerprint(generator, weights)
    with atomic_path(expanded(path)) as scratch, open(scratch, 'wb') as file:
        np.savez(file, **arrays)


def load_direction(
    source: str, space: str = 'ffhq', generator: Any = None, weights: Any = None
) -> np.ndarray:
    """A direction [1 or num_ws, w_dim] in float32 from a packaged name or a file.

    Files: .npy, .npz, .safetensors, .pt, .pth, holding [w_dim], [1, w_dim] or [num_ws, w_dim] (one
    more leading axis of 1 is dropped); `FILE:KEY` picks one array of several, and `FILE:KEY/3` its
    component 3: of GANSpace's [n, 1, w_dim] the row, of the eigenvectors [w_dim, n] of closed-form
    factorisation ('eigvec') the column. Nothing in a file is executed.

    InterFaceGAN's boundaries of flattened codes in W+ are [num_ws * w_dim] or [1, num_ws * w_dim].
    Intercepts beside a boundary are left out with an EditWarning.
    generator, weights: of the generator that is edited; with them the fingerprint of W in a file is
    compared (`save_direction` writes it). Raises EditError.
    """
    source = str(source)
    path, key = split_key(source)
    if path.suffix.lower() not in SUFFIXES and not path.exists():
        return _packaged(source, space)
    if not path.is_file():
        raise EditError(f'there is no file {str(path)!r} to read a direction from')
    try:
        arrays, probe = _read(path)
    except UnreadableFile as error:
        raise EditError(f'{path} could not be read as a direction: {error}') from error
    if probe is not None:
        check_probe(probe, source, generator, weights)
    return _as_direction(_pick(arrays, key, path), source, key)


def split_key(source: str) -> tuple[pathlib.Path, str | None]:
    head, colon, key = source.rpartition(':')
    if colon and pathlib.PurePath(head).suffix.lower() in SUFFIXES:
        return expanded(head), key
    return expanded(source), None


def _packaged(name: str, space: str) -> np.ndarray:
    names = packaged(space)
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f' Did you mean {close[0]!r}?' if close else ''
        raise EditError(
            f'no direction {name!r}.{hint} Directions of {space or "this generator"}: '
            f'{", ".join(names) or "none"}; or give a file ({", ".join(SUFFIXES)}).'
        )
    with np.load(DIRECTIONS / f'{space}.npz', allow_pickle=False) as arrays:
        return _as_direction(arrays[name], name)


def _read(path: pathlib.Path) -> tuple[Any, Any]:
    """(the array or {name: array}, the fingerprint of W or None) of a file."""
    suffix, metadata = path.suffix.lower(), {}
    if suffix in ('.npy', '.npz', '.safetensors'):
        arrays, metadata = array_files.read(path)
        arrays = arrays[''] if set(arrays) == {''} else arrays
    elif suffix in ('.pt', '.pth'):
        arrays = safe_pickle.load(path)
    else:
        raise EditError(f'{path}: a direction is one of {", ".join(SUFFIXES)}')
    if isinstance(arrays, dict) and PROBE in arrays:
        return {k: v for k, v in arrays.items() if k != PROBE}, arrays[PROBE]
    if PROBE not in metadata:
        return arrays, None
    try:
        return arrays, json.loads(metadata[PROBE])
    except (ValueError, RecursionError):
        raise EditError(f'{path}: {PROBE} in its metadata is not JSON') from None


def _pick(arrays: Any, key: str | None, path: pathlib.Path) -> Any:
    """One array of a file, by KEY, KEY/INDEX or /INDEX; None for a file with one array."""
    name, slash, index = (key or '').partition('/')
    if isinstance(arrays, dict) and key in arrays:
        name, slash = key, ''
    shown = printable(path.name)
    if isinstance(arrays, dict):
        names = ', '.join(printable(n, 40) for n in list(arrays)[:20]) or 'nothing'
        rest = [] if name else [n for n in arrays if not _is_intercept(n, arrays[n])]
        if len(rest) == 1:
            name = rest[0]
            if len(arrays) > 1:
                warnings.warn(
                    f'{shown}: the intercept beside {printable(name, 40)!r} is not used, because '
                    'an edit moves along the direction only.',
                    EditWarning,
                    stacklevel=4,
                )
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


def _is_intercept(name: str, value: Any) -> bool:
    return name in _INTERCEPTS and np.size(value) == 1


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
