"""Writes a generator for jaxinv or as a state dict for the PyTorch codes (converters/export.py)."""

import pathlib

import numpy as np
import safetensors.numpy

from jaxinv.converters.export import ExportError, notes, state_dict
from jaxinv.io import atomic_path, write_atomically
from jaxinv.types import Generator, Weights
from jaxinv.weights import store

FORMATS = ('safetensors', 'orbax', 'ada', 'rosinality')
CONTAINERS = ('.safetensors', '.npz')  # of state dicts


def format_of(path: pathlib.Path, to: str | None = None) -> str:
    """One of FORMATS: `to`, or by the ending of the path. Raises ExportError if the two differ."""
    ending = path.suffix.lower()
    if to is None and ending in ('', '.safetensors'):
        return 'safetensors' if ending else 'orbax'
    if to is None and ending == '.npz':
        raise ExportError(f'{path} may hold either naming; choose --to=ada or --to=rosinality.')
    if to not in FORMATS and to is not None:
        raise ExportError(f'--to={to} is unknown; it can be {", ".join(FORMATS)}.')
    allowed = {'orbax': ('',), 'safetensors': ('.safetensors',)}.get(to, CONTAINERS)
    if to is None or ending not in allowed:
        wanted = ' or '.join(allowed if to else CONTAINERS) or 'no ending, as it is a folder'
        pickles = ' Pickles (.pt, .pkl) are never written.' if ending in ('.pt', '.pkl') else ''
        raise ExportError(
            f'{path} should end in {wanted}{f" for --to={to}" if to else ""}.{pickles}'
        )
    return to


def check_free(path: pathlib.Path, to: str, overwrite: bool) -> None:
    """Raises ExportError if `path` exists and may not be replaced."""
    if to == 'orbax' and path.is_dir() and any(path.iterdir()):
        names = {entry.name for entry in path.iterdir()}
        if not overwrite or not names <= {store.SIDECAR, store.ORBAX_FOLDER}:
            hint = '--overwrite replaces' if overwrite is False else 'that replaces'
            raise ExportError(
                f'{path} is not empty; {hint} a generator written by --to=orbax and nothing else.'
            )
    elif path.is_dir() and to != 'orbax':
        raise ExportError(f'{path} is a folder; name a file.')
    elif path.exists() and (to == 'orbax' or not overwrite):
        hint = 'name a folder' if to == 'orbax' else '--overwrite replaces it'
        raise ExportError(f'{path} exists already; {hint}.')


def write(
    path, generator: Generator, weights: Weights, to: str, about: dict | None = None
) -> tuple[str, ...]:
    """Writes the generator in the format `to`, one of FORMATS.

    about: its origin, in JSON's types, for the header. Returns notes for the user, sentences.
    Raises ExportError.
    """
    path = pathlib.Path(path)
    if to == 'orbax':
        store.write_orbax(path, generator, weights, about)
        return ()
    if to == 'safetensors':
        store.write(path, generator, weights, about)
        store.write_sidecar(path.with_suffix('.json'), generator, about)
        return ()
    arrays = state_dict(generator.spec, weights, to)
    if path.suffix.lower() == '.npz':
        with atomic_path(path) as scratch, open(scratch, 'wb') as file:  # DST.NPZ stays that
            np.savez(file, **arrays)
    else:
        # Loaders of PyTorch expect 'format'.
        data = safetensors.numpy.save(arrays, {'format': 'pt', 'names': to, 'by': 'jaxinv'})
        write_atomically(path, data)
    return notes(generator.spec, to)
