"""Opens a generator from a name, an address, a file or a folder, and saves one to a folder."""

import pathlib
from typing import Any, NamedTuple

from jaxinv import generators
from jaxinv.converters import biggan, foreign_files
from jaxinv.errors import JaxinvError
from jaxinv.io import expanded, sha256
from jaxinv.types import Generator, Weights
from jaxinv.weights import deltas, download, hub, import_checkpoint, store, upload
from jaxinv.weights.addresses import is_address, is_repository, parse_repository
from jaxinv.weights.deltas import DELTA_FILE
from jaxinv.weights.store import GENERATOR_FILE, ORBAX_FOLDER, SIDECAR
from jaxinv.weights.well_known import WELL_KNOWN
from jaxinv.weights.zoo import load_named

MAX_DELTAS = 8  # in a chain, where the base of a delta is a delta


class Opened(NamedTuple):
    """A generator and its origin.

    about: {'kind': in words, 'file', 'sha256', 'address', 'base', 'origin', 'notes': what a
    conversion took and left out, 'fresh': converted just now}, those that apply.
    """

    generator: Generator
    weights: Weights
    about: dict[str, Any]


def load_generator(
    source, resolution: int | None = None, *, which: str = 'G_ema', log=print, base=None
) -> tuple[Generator, Weights]:
    """(generator, weights) of `open_generator`, which describes the arguments.

    log: called with a line and flush=True: the progress of downloads, notes of a first conversion.
    """
    generator, weights, about = open_generator(source, resolution, which=which, log=log, base=base)
    if about.get('fresh'):
        for note in about['notes']:
            log(f'{generator.spec.name}: {note}', flush=True)
    return generator, weights


def open_generator(
    source, resolution: int | None = None, *, which: str = 'G_ema', log=print, base=None
) -> Opened:
    """Opens a generator.

    source: a name in generators.GENERATORS or well_known.WELL_KNOWN; an address, https:// or hf://
    (weights/addresses.py), also of a run that `push_to_hub` uploaded; a work folder; a folder or
    file written by jaxinv; a checkpoint of another project (.pkl, .pt, .npz, .safetensors, or a
    folder of pytorch-pretrained-biggan, see docs/checkpoints.md), which is converted once and kept
    in the cache folder.
    resolution: pixels, where the generator offers several; None = its default or the saved one.
    which: of the generators in a checkpoint of another project: 'G_ema', the averaged one where
    there is a choice, 'G', the other, or a name in the file.
    base: source of the generator that a delta (weights/deltas.py) was tuned from; None = the one
    that its header names.
    Raises JaxinvError with what was looked for.
    """
    return _open(source, resolution, which, log, base, depth=0)


def save_generator(folder: pathlib.Path, generator: Generator, weights: Weights) -> None:
    """Writes generator.safetensors, generator.json and orbax/ (weights/store.py)."""
    store.write(folder / GENERATOR_FILE, generator, weights)
    store.write_orbax(folder, generator, weights)


def _open(source, resolution, which, log, base, depth):
    """depth: number of deltas that lead to this source."""
    if source in generators.GENERATORS:
        return Opened(*load_named(source, resolution), {'kind': 'generator known by name'})
    if is_repository(source):
        folder = hub.fetch_folder(parse_repository(source), upload.RUN_FILES)
        opened = _open(str(folder), resolution, which, log, base, depth)
        return opened._replace(about=opened.about | {'address': source})
    if source in WELL_KNOWN or is_address(source):
        known = WELL_KNOWN.get(source)
        address = known.address if known else source
        file = download.get(address, log=log)
        opened = _open_file(file, resolution, which, log, base, depth)
        if known and known.domain and not opened.generator.spec.domain:
            generator = generators.with_domain(opened.generator, known.domain)
            opened = opened._replace(generator=generator)
        return opened._replace(about=opened.about | {'address': address})
    path = expanded(source)
    candidates = [path, path / GENERATOR_FILE, path / 'generator' / GENERATOR_FILE]
    candidates += [path / DELTA_FILE, path / biggan.FILE]
    for file in candidates:
        if file.is_file():
            return _open_file(file, resolution, which, log, base, depth)
    for folder in (path, path / 'generator', path.parent):
        if (folder / SIDECAR).is_file() and (folder == path.parent) == (path.name == ORBAX_FOLDER):
            generator, weights, origin = store.read_orbax(folder, resolution)
            about = {'kind': 'jaxinv generator, Orbax', 'file': str(folder)}
            return Opened(generator, weights, about | ({'origin': origin} if origin else {}))
    if mistake := foreign_files.unpacked(path) if path.is_dir() else None:
        raise JaxinvError(f'{path} {mistake}.')
    several = sorted(
        file.parent.name
        for name in (GENERATOR_FILE, DELTA_FILE)
        for file in path.glob(f'generators/*/{name}')
    )
    if several:
        raise JaxinvError(
            f'{path} holds one generator per identity ({", ".join(several)}); '
            f'load one of them, e.g. {path}/generators/{several[0]}.'
        )
    raise JaxinvError(
        f'{str(source)!r} is neither a generator ({", ".join(sorted(generators.GENERATORS))}), nor '
        f'a well-known checkpoint ({", ".join(WELL_KNOWN)}), nor an address (https://, hf://), nor '
        f'a checkpoint file or a folder with {GENERATOR_FILE}; check the spelling.'
    )


def _open_file(file, resolution, which, log, base, depth):
    if file.suffix == '.safetensors' and store.is_ours(file):
        generator, weights, origin = store.read(file, resolution)
        about = {'kind': 'jaxinv generator', 'file': str(file), 'sha256': sha256(file)}
        return Opened(generator, weights, about | ({'origin': origin} if origin else {}))
    if file.suffix == '.safetensors' and deltas.is_ours(file):
        return _open_delta(file, resolution, log, base, depth)
    generator, weights, about = import_checkpoint.load(file, which=which)
    generators.check_resolution(generator, resolution)
    return Opened(generator, weights, about)


def _open_delta(file, resolution, log, base, depth):
    delta = deltas.read(file)
    if depth >= MAX_DELTAS:
        raise JaxinvError(
            f'{file} is the last of more than {MAX_DELTAS} deltas in a chain; save one of them '
            'with tune.save=full.'
        )
    source = delta.source if base is None else base
    try:
        opened = _open(source, resolution or delta.resolution, 'G_ema', log, None, depth + 1)
    except JaxinvError as error:
        if base is not None or depth:
            raise
        raise JaxinvError(
            f'{file} holds differences from the generator {delta.source!r}, which could not be '
            f'opened ({str(error).rstrip(".")}); name it by load_generator(..., base=FILE).'
        ) from None
    about = {'kind': f'jaxinv delta, {delta.header.get("save")}', 'file': str(file)}
    about |= {'sha256': sha256(file), 'base': opened.about.get('kind', '')}
    about |= {key: opened.about[key] for key in ('fresh', 'notes') if key in opened.about}
    generator = generators.with_options(opened.generator, **delta.options)
    return Opened(generator, deltas.restore(delta, opened.weights), about)
