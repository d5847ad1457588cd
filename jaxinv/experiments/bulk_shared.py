"""Bulk mode of shared tuning: one generator for thousands of pictures, in bounded memory.

    manifest.jsonl            a line for each picture: read, finished or skipped
    identities/NAME/          target.png, once read; then the other pictures and metrics.json
    state/targets.npy         all targets, uint8 [n, h, w, 3], mapped into memory
    generator/, pivots.npz    of all, written when the tuning is finished
    report.html, metrics.json of all, at the end

Pictures are read, aligned and scored config.group at a time. An interrupted run resumes: lines of
the manifest are not read or scored again, projection and tuning go on from their checkpoints. The
set of pictures is part of the run, since every picture moves the generator: a folder with other
pictures is another run.

In several processes reading is divided among them, projection and tuning run on all devices, and
process 0 writes and scores.
"""

import contextlib
import dataclasses
import pathlib
import shutil
import time
from collections.abc import Callable, Sequence

import numpy as np
import PIL.Image

from jaxinv import data, optimize, report, settings
from jaxinv.data import discover, images, prefetch
from jaxinv.experiments import bulk, bulk_group, evaluate, pti_score
from jaxinv.experiments import session as sessions
from jaxinv.experiments.pti_score import Tuned
from jaxinv.experiments.session import Session
from jaxinv.inversion import classes, code_files
from jaxinv.io import atomic_path
from jaxinv.optimize import sharding
from jaxinv.report import bulk as bulk_report
from jaxinv.report import provenance, schema
from jaxinv.report import tables as tables_lib
from jaxinv.runtime import distributed, metrics_log
from jaxinv.runtime import workdir as workdirs
from jaxinv.runtime.manifest import FILE, Manifest
from jaxinv.runtime.progress import Stopwatch
from jaxinv.weights import store
from jaxinv.weights.load import save_generator

TARGETS = 'targets.npy'


def run(
    config, path: pathlib.Path, opened, invert: Callable, edits, overwrite: bool, start, log
) -> None:
    """Tunes one generator for the pictures of config.data and reports on each of them.

    opened: (generator, weights, the generator's origin). invert(session): pti_score.Tuned of all
    targets. start: when loading began, in perf_counter's seconds.
    """
    about = opened[2]
    listing, _ = data.find_for(config.data)
    record = {'config': settings.record_of(config)}
    record |= sessions.files_of(config, about)
    distributed.check_same([record, [str(file) for _, file in listing.files]])
    with distributed.entered_by_primary(_claim(path, record, overwrite, listing)) as finished:
        if finished:
            log(f'Finished already: {path / "report.html"} (--overwrite runs it again).')
            return
        session, tuned = invert_all(config, path, opened, invert, log)
        if not distributed.is_primary():
            return
        manifest, stopwatch = Manifest(path / FILE, log), session.stopwatch
        score(session, manifest, tuned, edits)
        manifest.rewrite(bulk.in_order(manifest, listing))
        result = bulk_report.BulkRun(
            pti_score.title(config),
            list(manifest.records.values()),
            time.perf_counter() - start,
            shared_seconds=stopwatch.seconds,
            drift=evaluate.measure_drift(session, tuned.per_identity[:1]).metrics,
            usage=provenance.usage_of_pivots(path, path),
            **evaluate.provenance_of(session),
        )
        bulk_report.write(path, result)
        with contextlib.suppress(OSError):  # Windows does not delete a mapped file
            (path / 'state' / TARGETS).unlink()
        log(bulk_report.summary(path, result))


def invert_all(config, path: pathlib.Path, opened, invert: Callable, log) -> tuple[Session, Tuned]:
    """Reads the pictures of config.data in a work folder and inverts them together. Collective.

    opened, invert: as in `run`. Resumes. Returns the Session of the pictures that could be
    inverted; the others are skipped in the manifest.
    """
    generator, weights, about = opened
    mesh, nets = sharding.make(config.mesh), sessions.load_nets(config)
    listing, request = data.find_for(config.data)
    options = data.align_options(config.data, generator.spec, log)
    file = path / 'state' / 'seconds.json' if distributed.is_primary() else None
    stopwatch = Stopwatch(file)
    with stopwatch.stage('read'):
        read_pictures(path, listing, options, config.group, log)
    if mesh.num_shards > 1:
        log(f'On {mesh}.')
    while True:
        manifest = Manifest(path / FILE, log)
        bulk.check_any_finished(list(manifest.records.values()), listing, request)
        targets = load_targets(path, manifest, listing, options.resolution)
        own, chosen = classes.choose(generator, weights, targets, config.label, log)
        opened = own, weights, about
        session = sessions.make(config, path, opened, targets, nets, mesh, stopwatch, log, chosen)
        try:
            return session, _inverted(session, invert)
        except optimize.NotFinite as error:
            _drop(session, manifest, error)


@contextlib.contextmanager
def _claim(path: pathlib.Path, record: dict, overwrite: bool, listing: discover.Listing):
    """Owns the work folder of the run of these pictures; yields whether it is finished."""
    sources = bulk.sources_of(listing)
    with workdirs.claim(path, record | {'sources': sources}, overwrite) as finished:
        yield finished


# --- Reading --------------------------------------------------------------------------------------


def read_pictures(
    path: pathlib.Path, listing: discover.Listing, options: data.AlignOptions, size: int, log
) -> None:
    """Reads and aligns the pictures that have no line in the manifest, `size` at a time.

    A usable one gets identities/NAME/target.png, and each its line. Collective.
    """
    manifest = Manifest(path / FILE, log)
    stems = [stem for stem, _ in listing.files]
    lost = [(pathlib.Path(entry['file']).stem, entry) for entry in listing.skipped]
    names = discover.unique_names([*stems, *(stem for stem, _ in lost)])
    if distributed.is_primary():
        for name, (_, entry) in zip(names[len(stems) :], lost, strict=True):
            _skip(manifest, name, entry['file'], None, entry['reason'], log)
    files = dict(zip(names, (file for _, file in listing.files), strict=False))
    todo = [(name, file) for name, file in files.items() if name not in manifest.records]
    distributed.wait_for_all('manifest')  # all have seen the same lines
    reader = prefetch.read_distributed if distributed.is_multiprocess() else data.read_all
    for i in range(0, len(todo), size):
        members = todo[i : i + size]
        targets, skipped = reader(members, options)
        if distributed.is_primary():
            _write_read(path, manifest, dict(members), targets, skipped, log)
        log(f'{min(i + size, len(todo))} of {len(todo)} pictures read.', flush=True)
        distributed.raise_if_preempted()
    distributed.wait_for_all('read')


def _write_read(path, manifest: Manifest, files: dict, targets, skipped, log) -> None:
    for target in targets:
        folder = path / bulk_group.IDENTITIES / target.stem
        images.save(folder / 'target.png', target.image_uint8)
        record = bulk_group.line_of(target) | {'face': target.source['face']}
        record['folder'] = f'{bulk_group.IDENTITIES}/{target.stem}'
        if target.source['warning']:
            record['warning'] = target.source['warning']
        manifest.add(record)
    names = {str(file): name for name, file in files.items()}
    for entry in skipped:
        name = names[entry['file']]
        _skip(manifest, name, entry['file'], bulk.digest(files[name]), entry['reason'], log)


def _skip(manifest: Manifest, name: str, file: str, sha256, reason: str, log) -> None:
    log(f'Skipped {file}: {reason}')
    manifest.add({'name': name, 'file': file, 'sha256': sha256, 'skipped': reason})


def load_targets(
    path: pathlib.Path, manifest: Manifest, listing: discover.Listing, resolution: int
) -> data.Targets:
    """The targets that were read, in the order of the listing, mapped into memory. Collective."""
    records = [manifest.records[name] for name in bulk.in_order(manifest, listing)]
    used = [record for record in records if 'skipped' not in record]
    file = path / 'state' / TARGETS
    if distributed.is_primary() and _opened(file, len(used), resolution) is None:
        with atomic_path(file) as scratch:
            shape = (len(used), resolution, resolution, 3)
            array = np.lib.format.open_memmap(scratch, 'w+', np.uint8, shape)
            for row, record in zip(array, used, strict=True):
                with PIL.Image.open(path / record['folder'] / 'target.png') as image:
                    row[:] = np.asarray(image)
            array.flush()
    distributed.wait_for_all('targets')
    skipped = [
        {'file': record['file'], 'reason': record['skipped']}
        for record in records
        if 'skipped' in record
    ]
    sources = [
        {'face': None, 'warning': None}
        | {key: record[key] for key in ('file', 'sha256', 'face', 'warning') if key in record}
        for record in used
    ]
    names = [record['name'] for record in used]
    return data.Targets(names, _opened(file, len(used), resolution), sources, skipped)


def _opened(file, count: int, resolution: int) -> np.ndarray | None:
    """The targets in the file, not read into memory; None if it is missing or damaged."""
    try:
        array = np.load(file, mmap_mode='r', allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = array.shape == (count, resolution, resolution, 3) and array.dtype == np.uint8
    return array if fits else None


# --- Inverting ------------------------------------------------------------------------------------


def _inverted(session: Session, invert: Callable) -> Tuned:
    """What `invert` found, from the work folder if it was written there."""
    path, names = session.path, session.targets.names
    file = path / code_files.PIVOTS  # written last
    if distributed.broadcast_str(str(file.is_file())) == 'True':
        weights = store.read(path / 'generator' / store.GENERATOR_FILE)[1]
        moved = session.settings.tune.pivot_learning_rate > 0
        start = code_files.pivots_for(file, names, 'start') if moved else None
        return Tuned(code_files.pivots_for(file, names), [weights] * len(names), start)
    tuned = invert(session)
    if distributed.is_primary():
        save_generator(path / 'generator', session.generator, tuned.per_identity[0])
        code_files.save_pivots(path, names, tuned.pivots, tuned.start)
    return tuned


def _drop(session: Session, manifest: Manifest, error: optimize.NotFinite) -> None:
    """Skips the pictures whose projection was not finite; the others are inverted anew.

    Raises the error again if it names all of them, as in the tuning of the one generator.
    """
    targets = session.targets
    if len(set(error.examples)) >= len(targets):
        raise error
    if distributed.is_primary():
        for i in sorted(set(error.examples)):
            source = targets.sources[i]
            shutil.rmtree(session.path / bulk_group.IDENTITIES / targets.names[i])
            known = targets.names[i], source['file'], source['sha256']
            _skip(manifest, *known, str(error), session.log)
        (session.path / 'state' / TARGETS).unlink()
        for stage in ('project', 'tune'):
            shutil.rmtree(session.path / 'state' / stage, ignore_errors=True)
        (session.path / metrics_log.FILE).unlink(missing_ok=True)  # curves of the other pictures
    distributed.wait_for_all('dropped')


# --- Scoring --------------------------------------------------------------------------------------


def score(session: Session, manifest: Manifest, tuned: Tuned, edits: Sequence) -> None:
    """Renders, measures and writes the targets whose line in the manifest has no metrics.

    A few at a time (evaluate.batches); the host holds float32 images of those alone.
    """
    names, path = session.targets.names, session.path
    session.log('Rendering edits and measuring ...', flush=True)
    todo = [i for i, name in enumerate(names) if 'metrics' not in manifest.records[name]]
    done = 0
    for rows in evaluate.batches(todo):
        clock = time.perf_counter()
        measured = pti_score.score_batch(session, rows, tuned, edits)
        numbers = schema.metrics(measured)['identities']
        spent = {'score': round((time.perf_counter() - clock) / len(rows), 3)}
        for k, i in enumerate(rows):
            name, record = names[i], manifest.records[names[i]]
            run = dataclasses.replace(
                schema.select(measured, k), sources=[session.targets.sources[i]]
            )
            if session.classes is not None:
                run.tables = tables_lib.class_tables([name], session.classes.rows([i]))
            pictures = report.write_identity(path / record['folder'], run)
            facts = {'seconds': spent, 'metrics': numbers[name], 'pictures': pictures}
            manifest.add(record | facts)
        done += len(rows)
        if done % session.config.group < len(rows):
            session.log(f'{done} of {len(todo)} pictures measured.', flush=True)
