"""Writes a generator for jaxinv, for ONNX, as a state dict, or into the file it came from."""

import pathlib
import shutil

import numpy as np
import safetensors.numpy

from jaxinv.converters.export import ExportError, notes, state_dict
from jaxinv.io import atomic_path, expanded, write_atomically
from jaxinv.types import Generator, GeneratorSpec, Weights
from jaxinv.weights import card, onnx_export, runs, store
from jaxinv.weights.formats import BY_ENDING, FORMATS


def format_of(path: pathlib.Path, to: str | None = None) -> str:
    """One of FORMATS: `to`, or by the ending of the path. Raises ExportError if the two differ."""
    ending = path.suffix.lower()
    if to is None and ending == '.npz':
        raise ExportError(f'{path} may hold either naming; choose --to=ada or --to=rosinality.')
    if to not in FORMATS and to is not None:
        raise ExportError(f'--to={to} is unknown; it can be {", ".join(FORMATS)}.')
    to = to or BY_ENDING.get(ending)
    allowed = FORMATS[to].endings if to else tuple(end for end in BY_ENDING if end)
    if ending not in allowed:
        wanted = ' or '.join(end for end in allowed if end)
        wanted = f'{wanted}, or be a folder' if wanted and '' in allowed else wanted
        wanted = wanted or 'no ending, as it is a folder'
        pickles = '; --to=pkl writes these' if ending in ('.pt', '.pkl') else ''
        raise ExportError(
            f'{path} should end in {wanted}{f" for --to={to}" if to else ""}{pickles}.'
        )
    return to


_OWN = {  # what a folder may hold that --overwrite replaces
    'orbax': {store.SIDECAR, store.ORBAX_FOLDER},
    'safetensors': {store.SIDECAR, store.GENERATOR_FILE, card.FILE},
    'pti': {'embeddings', 'checkpoints', 'latents.pt'},
}


def check_free(path: pathlib.Path, to: str, overwrite: bool) -> None:
    """Raises ExportError if `path` exists and may not be replaced."""
    is_folder = not path.suffix and '' in FORMATS[to].endings
    if is_folder and path.is_dir() and any(path.iterdir()):
        names = {entry.name for entry in path.iterdir()}
        own = _OWN.get(to) or {n for n in names if n.endswith('.npy') or n == 'names.json'}
        if not overwrite or not names <= own:
            hint = '--overwrite replaces' if overwrite is False else 'that replaces'
            raise ExportError(
                f'{path} is not empty; {hint} what --to={to} has written and nothing else.'
            )
    elif path.is_dir() and not is_folder:
        raise ExportError(f'{path} is a folder; name a file.')
    elif path.exists() and (is_folder or not overwrite) and not path.is_dir():
        hint = 'name a folder' if is_folder else '--overwrite replaces it'
        raise ExportError(f'{path} exists already; {hint}.')


def clear(path: pathlib.Path) -> None:
    """Removes what an earlier export left in a folder that `check_free` allows to replace."""
    for entry in path.iterdir() if path.is_dir() else ():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def original_of(path: pathlib.Path, base: runs.Base, log=print) -> pathlib.Path:
    """The file that `base` names, of which `path` is to be a tuned copy.

    Raises ExportError if there is none, or the two files' endings differ.
    """
    file = runs.checkpoint_file(base, log)
    if path.suffix.lower() != file.suffix.lower():
        raise ExportError(f'{path} should end in {file.suffix}, as {file} does.')
    if path.absolute() == file.absolute():
        raise ExportError(f'{path} is the file that the generator was tuned from; name another.')
    return file


def write_card(folder: pathlib.Path, source, spec: GeneratorSpec) -> None:
    """Writes the model card of the generator in `source`, a run's or another, to the folder."""
    path = expanded(source)
    if path.exists():
        text = card.of_run(path, spec, codes=False)
    else:
        text = card.text(spec, {}, {}, codes=False)
    write_atomically(folder / card.FILE, text)


def write(
    path, generator: Generator, weights: Weights, to: str, about: dict | None = None
) -> tuple[str, ...]:
    """Writes the generator in the format `to`, of FORMATS, but for `pkl` and those of OF_RUNS.

    about: its origin, in JSON's types, for the header. Returns notes for the user, sentences.
    Raises ExportError.
    """
    path = pathlib.Path(path)
    if to == 'orbax':
        store.write_orbax(path, generator, weights, about)
        return ()
    if to == 'onnx':
        onnx_export.write(path, generator, weights, about)
        w = onnx_export.sample_codes(generator, weights)
        error = onnx_export.difference(path, generator, weights, w)
        if not error <= onnx_export.TOLERANCE:
            path.unlink()
            raise ExportError(f"onnxruntime's pictures differ from jaxinv's by {error:.1e}.")
        return (f"onnxruntime's pictures of {len(w)} codes differ by at most {error:.1e}.",)
    if to == 'safetensors' and not path.suffix:
        store.write(path / store.GENERATOR_FILE, generator, weights, about)
        store.write_sidecar(path / store.SIDECAR, generator, about)
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
