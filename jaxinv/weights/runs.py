"""What a work folder says about the generator that its run started from (run.json)."""

import pathlib
from typing import NamedTuple

from jaxinv import generators
from jaxinv.converters.export import ExportError
from jaxinv.io import expanded, read_json, sha256
from jaxinv.weights import download, store
from jaxinv.weights.addresses import is_address
from jaxinv.weights.well_known import WELL_KNOWN

RECORD = 'run.json'
_DEPTH = 3  # of generators/NAME/generator.safetensors below the work folder


class Base(NamedTuple):
    """The generator before the tuning."""

    source: str  # an argument of load_generator
    which: str  # of the generators in its file
    sha256: str | None  # of its file, when the run started


def record_of(path, depth: int = _DEPTH) -> tuple[pathlib.Path, dict] | None:
    """(work folder, its run.json) of a work folder, or of a generator in it; None if it is none.

    depth: folders above `path` where run.json is looked for.
    """
    if is_address(path):
        return None
    path = expanded(path).absolute()
    path = path if path.is_dir() else path.parent
    for folder in [path, *path.parents][: depth + 1]:
        record = read_json(folder / RECORD)
        if isinstance(record, dict) and isinstance(record.get('config'), dict):
            return folder, record
    return None


def base_of(path, depth: int = _DEPTH) -> Base | None:
    """What the run of a folder started from; None if the folder is no run's. See `record_of`."""
    found = record_of(path, depth)
    if found is None or not isinstance(found[1]['config'].get('generator'), str):
        return None
    config, digest = found[1]['config'], found[1].get('generator')
    which = config.get('generator_key')
    which = which if isinstance(which, str) and which else 'G_ema'
    return Base(config['generator'], which, digest if isinstance(digest, str) else None)


def checkpoint_file(base: Base, log=print) -> pathlib.Path:
    """The file of another project that a generator came from; downloaded if it is an address.

    Raises ExportError if it is none, is gone, or is not the file of the run any more.
    """
    source, remedy = base.source, 'name the .pkl or .pt file by --base=FILE'
    if source in generators.GENERATORS:
        raise ExportError(
            f'{source} has no file that other programs open; use --to=onnx or --to=safetensors.'
        )
    if source in WELL_KNOWN or is_address(source):
        file = download.get(WELL_KNOWN[source].address if source in WELL_KNOWN else source, log=log)
    else:
        file = expanded(source)
    if not file.is_file():
        raise ExportError(f'{source}, from which the generator was tuned, is no file; {remedy}.')
    if file.suffix == '.safetensors' and store.is_ours(file):
        raise ExportError(f'{file} is a generator of jaxinv already; {remedy} it was made from.')
    if base.sha256 not in (None, sha256(file)):
        raise ExportError(
            f'{file} is not the file that the run started from (its SHA-256 is not '
            f'{base.sha256[:12]}...); {remedy}.'
        )
    return file
