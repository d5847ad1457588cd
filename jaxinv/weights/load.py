"""Opens a generator from a name, an address, a file or a folder, and saves one to a folder."""

import pathlib

from jaxinv import generators
from jaxinv.converters import biggan
from jaxinv.errors import JaxinvError
from jaxinv.io import sha256
from jaxinv.types import Generator, Weights
from jaxinv.weights import deltas, download, import_checkpoint, store
from jaxinv.weights.addresses import is_address
from jaxinv.weights.deltas import DELTA_FILE
from jaxinv.weights.store import GENERATOR_FILE, ORBAX_FOLDER, SIDECAR
from jaxinv.weights.zoo import WELL_KNOWN, load_named

MAX_DELTAS = 8  # a delta may be of a delta; a file is not trusted to end


def save_generator(folder: pathlib.Path, generator: Generator, weights: Weights) -> None:
    """Writes generator.safetensors (its header tells how to make the generator), generator.json
    with the same header, and orbax/."""
    store.write(folder / GENERATOR_FILE, generator, weights)
    store.write_orbax(folder, generator, weights)


def load_generator(
    source, resolution: int | None = None, *, which: str = 'G_ema', log=print, base=None
) -> tuple[Generator, Weights]:
    """Loads a generator from wherever it is.

    source: a name in generators.GENERATORS; a work folder; a folder or file that jaxinv wrote; a
    checkpoint of another project (.pkl, .pt, .npz, .safetensors, or a folder of
    pytorch-pretrained-biggan, see docs/checkpoints.md); its
    address, https:// or hf://; or a name in generators.well_known.WELL_KNOWN. Files of others are
    converted once and kept in the cache folder.
    resolution: pixels, where the generator offers several; None = its default or the saved one.
    which: of the generators in a checkpoint of another project, 'G_ema' or 'G'.
    log: takes the progress of downloads, and what a first conversion has to say.
    base: of a delta (weights/deltas.py), what it was tuned from, if that is not where the run had it.
    Returns (generator, weights): see types.Generator. Raises JaxinvError with what was looked for.
    """
    generator, weights, about = open_generator(source, resolution, which=which, log=log, base=base)
    if about.get('fresh'):
        for note in about['notes']:
            log(f'{generator.spec.name}: {note}', flush=True)
    return generator, weights


def open_generator(
    source,
    resolution: int | None = None,
    *,
    which: str = 'G_ema',
    log=print,
    base=None,
    depth: int = 0,  # of a base of a base, ...
):
    """The same with a third value, what is known of its origin: {'kind', 'file', 'notes', ...}."""
    if source in generators.GENERATORS:
        return *load_named(source, resolution), {'kind': 'generator known by name'}
    if source in WELL_KNOWN or is_address(source):
        known = WELL_KNOWN.get(source)
        file = download.get(known.address if known else source, log=log)
        generator, weights, about = _open_file(file, resolution, which, log, base, depth)
        if known and known.domain and not generator.spec.domain:
            generator = generators.with_domain(generator, known.domain)
        return generator, weights, about | {'address': known.address if known else source}
    path = pathlib.Path(source).expanduser()
    candidates = [path, path / GENERATOR_FILE, path / 'generator' / GENERATOR_FILE]
    candidates += [path / DELTA_FILE, path / biggan.FILE]
    for file in candidates:
        if file.is_file():
            return _open_file(file, resolution, which, log, base, depth)
    for folder in (path, path / 'generator', path.parent):
        if (folder / SIDECAR).is_file() and (folder == path.parent) == (path.name == ORBAX_FOLDER):
            generator, weights, origin = store.read_orbax(folder, resolution)
            about = {'kind': 'jaxinv generator, Orbax', 'file': str(folder)}
            return generator, weights, about | ({'origin': origin} if origin else {})
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
        return generator, weights, about | ({'origin': origin} if origin else {})
    if file.suffix == '.safetensors' and deltas.is_ours(file):
        return _open_delta(file, resolution, log, base, depth)
    generator, weights, about = import_checkpoint.load(file, which=which)
    generators.check_resolution(generator, resolution)
    return generator, weights, about


def _open_delta(file, resolution, log, base, depth):
    delta = deltas.read(file)
    if depth >= MAX_DELTAS:
        raise JaxinvError(
            f'{file} is the last of {MAX_DELTAS} deltas in a row; keep one of them in full.'
        )
    source = delta.source if base is None else base
    try:
        generator, weights, origin = open_generator(
            source, resolution or delta.resolution, log=log, depth=depth + 1
        )
    except JaxinvError as error:
        if base is not None or depth:
            raise
        raise JaxinvError(
            f'{file} holds differences from the generator {delta.source!r}, which could not be '
            f'opened ({str(error).rstrip(".")}); say where it is, load_generator(..., base=FILE).'
        ) from None
    about = {'kind': f'jaxinv delta, {delta.header.get("save")}', 'file': str(file)}
    about |= {'sha256': sha256(file), 'base': origin.get('kind', '')}
    about |= {key: origin[key] for key in ('fresh', 'notes') if key in origin}
    generator = generators.with_options(generator, **delta.options)
    return generator, deltas.restore(delta, weights), about
