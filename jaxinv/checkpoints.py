"""What is kept on disk: the loop's state (Orbax) and generators (Orbax and safetensors).

No pickle is written. Those of other projects are read as data and never executed (converters/).
"""

import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp

from converters import biggan
from jaxinv import assets, deltas, distributed, download, generators, state_files
from jaxinv.deltas import DELTA_FILE
from jaxinv.errors import JaxinvError
from jaxinv.generators import from_files, stored
from jaxinv.generators.stored import GENERATOR_FILE, ORBAX_FOLDER, SIDECAR
from jaxinv.generators.well_known import WELL_KNOWN
from jaxinv.optimize import LoopState
from jaxinv.types import Generator, Weights

MAX_DELTAS = 8  # a delta may be of a delta; a file is not trusted to end


class LoopCheckpoints:
    """The last two chunks of a loop; a half-written one is never seen (Orbax renames).

    What was saved on some number of devices goes on on any other (placement.py).
    """

    def __init__(self, folder: pathlib.Path, num_steps: int):
        self._num_steps = num_steps
        if distributed.is_apart():
            self._manager = state_files.StateFiles(folder)
            return
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def save(
        self, state: LoopState, traces: dict[str, np.ndarray], seats: dict | None = None
    ) -> None:
        """seats: arrays kept beside them (slots.py)."""
        tree = {'state': state._asdict(), 'traces': self._padded(traces)}
        if seats is not None:
            tree['seats'] = seats
        if isinstance(self._manager, state_files.StateFiles):
            self._manager.save(int(state.step), tree)
            return
        self._manager.save(int(state.step), args=ocp.args.StandardSave(tree))
        self._manager.wait_until_finished()

    def restore(
        self,
        state: LoopState,
        metric_names,
        log=print,
        count: int | None = None,
        seats: dict | None = None,
    ):
        """(state, traces) of the newest readable checkpoint, or None.

        `state` says which shapes, and where they lie; count: examples without padding, None = all.
        With `seats`, arrays like those that were saved, it is (state, traces, seats), and examples
        may be more than rows, whose padding is left as it is.
        """
        count = len(state.done) if count is None else count
        rows = np.zeros((self._num_steps, count), np.float32)
        like = {'state': state._asdict(), 'traces': dict.fromkeys(metric_names, rows)}
        if seats is not None:
            like['seats'] = seats
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                tree = self._read_alone(step, like)
                reason = ''
            except Exception as error:  # whatever a damaged file makes the reader raise
                reason = type(error).__name__
            if not all(distributed.everybodys(not reason)):
                reason = reason or 'for another process'
                log(f'Checkpoint {step} is damaged ({reason}); trying the one before.')
                continue
            # A fresh process places restored arrays anew, so that they may be donated.
            restored = LoopState(**jax.tree.map(jax.numpy.asarray, tree['state']))
            traces = {name: np.asarray(x)[:step] for name, x in tree['traces'].items()}
            if seats is not None:
                return restored, traces, tree['seats']
            if count < len(state.done):
                restored = restored._replace(done=_with_padding_done(restored.done, count))
            return restored, traces
        return None

    def close(self) -> None:
        self._manager.close()

    def _read_alone(self, step, like):
        """By this process alone: together with others it would wait at the end for those that have
        failed on the way, and they wait elsewhere."""
        if isinstance(self._manager, state_files.StateFiles):
            return self._manager.restore(step, like)
        # Not strict: on other devices there was more or less padding.
        like = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args = ocp.args.StandardRestore(like, strict=False)
        if not distributed.several():
            return self._manager.restore(step, args=args)
        own = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own})
        options = ocp.CheckpointManagerOptions(
            create=False, read_only=True, multiprocessing_options=alone
        )
        with ocp.CheckpointManager(self._manager.directory, options=options) as reader:
            return reader.restore(step, args=args)

    def _padded(self, traces):
        def pad(rows):
            padded = np.full((self._num_steps,) + rows.shape[1:], np.nan, np.float32)
            padded[: len(rows)] = rows
            return padded

        return {name: pad(rows) for name, rows in traces.items()}


def _with_padding_done(done, count):
    mark = jax.jit(lambda x: x | (jax.numpy.arange(len(x)) >= count), out_shardings=done.sharding)
    return mark(done)


def save_generator(folder: pathlib.Path, generator: Generator, weights: Weights) -> None:
    """Writes generator.safetensors (its header tells how to make the generator), generator.json
    with the same header, and orbax/."""
    stored.write(folder / GENERATOR_FILE, generator, weights)
    stored.write_orbax(folder, generator, weights)


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
    base: of a delta (deltas.py), what it was tuned from, if that is not where the run had it.
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
        return *generators.load(source, resolution), {'kind': 'generator known by name'}
    if source in WELL_KNOWN or download.is_address(source):
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
            generator, weights, origin = stored.read_orbax(folder, resolution)
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
    if file.suffix == '.safetensors' and stored.is_ours(file):
        generator, weights, origin = stored.read(file, resolution)
        about = {'kind': 'jaxinv generator', 'file': str(file), 'sha256': assets.sha256(file)}
        return generator, weights, about | ({'origin': origin} if origin else {})
    if file.suffix == '.safetensors' and deltas.is_ours(file):
        return _open_delta(file, resolution, log, base, depth)
    generator, weights, about = from_files.load(file, which=which)
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
    about |= {'sha256': assets.sha256(file), 'base': origin.get('kind', '')}
    about |= {key: origin[key] for key in ('fresh', 'notes') if key in origin}
    generator = generators.with_options(generator, **delta.options)
    return generator, deltas.restore(delta, weights), about
