"""Codes on disk: pivots.npz and codes.npz. Plain arrays with names, no pickles.

pivots.npz   names [n], w [n, 1 or num_ws, w_dim]; start, the same before a tuning that moved them
codes.npz    names [n], w_plus [n, num_ws, w_dim], offsets/F4 [n, h, w, c], masks/F4
             [n, h, w, 1], ...
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from jaxinv.converters import array_files, file_view
from jaxinv.errors import JaxinvError
from jaxinv.inversion.sam import Codes
from jaxinv.io import atomic_path, expanded

PIVOTS, CODES = 'pivots.npz', 'codes.npz'


def save_pivots(folder: pathlib.Path, names: Sequence[str], w, start=None) -> None:
    """Writes codes w [n, 1 or num_ws, w_dim] with the names of their images.

    start: the codes before the tuning of the generator, where it moved them; None = the same.
    """
    arrays = {'names': np.array(list(names), str), 'w': np.asarray(w)}
    if start is not None:
        arrays['start'] = np.asarray(start)
    with atomic_path(folder / PIVOTS) as path, open(path, 'wb') as file:
        np.savez(file, **arrays)


def load_pivots(source, key: str = 'w') -> tuple[list[str], np.ndarray]:
    """(names, w [n, 1 or num_ws, w_dim]) of a work folder or an .npz file with these arrays.

    key: 'w', or 'start' (`save_pivots`). Raises JaxinvError if there is no such file, or it holds
    something else.
    """
    path = expanded(source)
    path = path / PIVOTS if path.is_dir() else path
    what = (
        'the work folder of a run, or an .npz file with arrays names [n] and w [n, 1 or num_ws, '
        'w_dim]'
    )
    if not path.is_file():
        raise JaxinvError(f'there is no {path}; give {what}.')
    with file_view.reading(path, what):
        arrays, _ = array_files.read(path)
        names, w = arrays['names'], np.asarray(arrays[key], np.float32)
        if names.ndim != 1 or names.dtype.kind != 'U' or w.ndim != 3 or len(names) != len(w):
            raise ValueError(f'names {list(names.shape)} and w {list(w.shape)}')
    return names.tolist(), w


def pivots_for(source, names: Sequence[str], key: str = 'w') -> np.ndarray:
    """The codes [n, 1 or num_ws, w_dim] of `names` in a file of `load_pivots`, in their order.

    Raises JaxinvError that lists the names without a code.
    """
    found, w = load_pivots(source, key)
    rows = {name: i for i, name in enumerate(found)}
    missing = [name for name in names if name not in rows]
    if missing:
        raise JaxinvError(
            f'{source} has no code for {", ".join(missing)}; it has {", ".join(found[:8])}'
            f'{", ..." if len(found) > 8 else ""}.'
        )
    return w[[rows[name] for name in names]]


def save_codes(folder: pathlib.Path, names: Sequence[str], codes: Codes, masks) -> None:
    """Writes SAM's codes and the masks of every space in codes.offsets."""
    arrays = {'names': np.array(list(names), str), 'w_plus': np.asarray(codes.w_plus)}
    for space, offset in codes.offsets.items():
        arrays[f'offsets/{space}'] = np.asarray(offset)
        arrays[f'masks/{space}'] = np.asarray(masks[space])
    with atomic_path(folder / CODES) as path, open(path, 'wb') as file:
        np.savez(file, **arrays)


def load_codes(source) -> tuple[Codes, dict[str, np.ndarray]]:
    """(codes, masks) of a work folder or its codes.npz, as `sam.synthesize` takes them."""
    path = expanded(source)
    path = path / CODES if path.is_dir() else path
    if not path.is_file():
        raise JaxinvError(f'there is no {path}; give the work folder of a finished SAM run.')
    groups = {'offsets': {}, 'masks': {}}
    with file_view.reading(path, 'an .npz file with the codes of a SAM run'):
        arrays, _ = array_files.read(path)
        for name, array in arrays.items():
            group, _, space = name.partition('/')
            if group in groups:
                groups[group][space] = array
        return Codes(arrays['w_plus'], groups['offsets']), groups['masks']
