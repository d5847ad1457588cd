"""SAM's regions on disk, and the maps that another run measured.

regions.npz  names [n], labels and chosen [n, size, size], maps/SPACE [n, size, size],
             inputs [n]: SHA-256 of the generator's weights and the picture
"""

import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxinv.converters import array_files, file_view
from jaxinv.errors import JaxinvError
from jaxinv.io import atomic_path, expanded

FILE = 'regions.npz'
_MAPS = 'maps/'  # before a space's name


def inputs(weights: Any, images_uint8) -> np.ndarray:
    """[n] of str: what the maps of each picture belong to."""
    every = hashlib.sha256()
    for path, array in jax.tree_util.tree_leaves_with_path(weights):
        every.update(jax.tree_util.keystr(path).encode())
        every.update(np.ascontiguousarray(array).tobytes())
    found = []
    for image in images_uint8:
        own = every.copy()
        own.update(f'{image.shape}'.encode() + np.ascontiguousarray(image).tobytes())
        found.append(own.hexdigest())
    return np.array(found, str)


def save(folder: pathlib.Path, names: Sequence[str], regions) -> None:
    """Writes sam_regions.Regions: labels, chosen spaces, and maps in their order."""
    arrays = {'names': np.array(list(names), str), 'inputs': regions.inputs}
    arrays |= {'labels': regions.labels, 'chosen': regions.chosen}
    arrays |= {f'{_MAPS}{space}': values for space, values in regions.maps.items()}
    with atomic_path(folder / FILE) as path, open(path, 'wb') as file:
        np.savez(file, **arrays)


def local_file(source) -> pathlib.Path:
    """regions.npz of a work folder, or a file itself. Raises JaxinvError if there is none."""
    path = expanded(source)
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise JaxinvError(
            f'there is no {path}; give the work folder of a finished run of SAM without groups.'
        )
    return path


def load(source) -> tuple[list[str], list[str], dict[str, np.ndarray]]:
    """(names, inputs, maps {space: [n, size, size]}) of a work folder or its regions.npz.

    Raises JaxinvError if there is no such file, or it holds something else.
    """
    path = local_file(source)
    with file_view.reading(path, 'the regions.npz of a SAM run'):
        arrays, _ = array_files.read(path)
        maps = {
            name.removeprefix(_MAPS): np.asarray(array, np.float32)
            for name, array in arrays.items()
            if name.startswith(_MAPS)
        }
        if maps and 'inputs' not in arrays:
            raise JaxinvError(
                f'{path} is of an earlier version, which did not note the pictures; measure again.'
            )
        names, of = arrays['names'], arrays['inputs']
        shapes = {array.shape for array in maps.values()}
        if len(shapes) != 1 or names.dtype.kind != 'U' or of.dtype.kind != 'U':
            raise ValueError(f'maps {sorted(shapes)}')
        ((n, height, width),) = shapes
        if names.shape != (n,) or of.shape != (n,) or height != width:
            raise ValueError(f'names {list(names.shape)} and maps [{n}, {height}, {width}]')
    return names.tolist(), of.tolist(), maps


def check(source, spaces: Sequence[str], size: int) -> None:
    """Raises JaxinvError for maps that lack one of these spaces, or have another size."""
    maps = load(source)[2]
    missing = [space for space in spaces if space not in maps]
    if missing:
        raise JaxinvError(
            f'{source} has no maps of {", ".join(missing)}; it has {", ".join(maps)}: set '
            'invertibility.spaces.'
        )
    own = next(iter(maps.values())).shape[1]
    if own != size:
        raise JaxinvError(f'the maps of {source} have {own} pixels and the generator needs {size}.')


def maps_for(source, wanted: Sequence[str], names: Sequence[str]) -> dict[str, np.ndarray]:
    """{space: [n, size, size]} of pictures with these `inputs`. names: for the error's sentence.

    Raises JaxinvError for pictures that are not there.
    """
    found, of, maps = load(source)
    rows = {key: i for i, key in enumerate(of)}
    missing = [name for name, key in zip(names, wanted, strict=True) if key not in rows]
    if missing:
        some, known = (f'{", ".join(x[:8])}{", ..." * (len(x) > 8)}' for x in (missing, found))
        raise JaxinvError(
            f'{source} has no maps for {some}; its maps are of {known}, and hold for the same '
            'picture, crop and generator alone.'
        )
    return {space: values[[rows[key] for key in wanted]] for space, values in maps.items()}
