"""Thousands of pictures: in groups of constant size, each written as it is finished, and only once.

    manifest.jsonl            a line for every picture (runtime/manifest.py)
    identities/NAME/          what was found of one: pivots.npz, its generator, delta or codes.npz,
                              metrics.json, and its pictures
    groups/00000/             a group at work: members.json, state/; its curves, metrics.jsonl, stay
    report.html, metrics.json of all, at the end

A group takes the path that a whole run takes else, as a Job of its own with the same generator,
networks and compiled programs; its last rows are filled up, so that nothing compiles again. A
thread reads and aligns the next group meanwhile. What the manifest has is not done again, and
pictures that came later make groups of their own.

Of P processes each takes every P-th group, on its own devices, and nothing is sent until all are
finished.
"""

import contextlib
import hashlib
import pathlib
import time
from collections.abc import Callable

import jax

from jaxinv import data, generators, settings
from jaxinv.data import discover
from jaxinv.data.prefetch import map_ahead
from jaxinv.experiments import bulk_group, session
from jaxinv.inversion import classes
from jaxinv.optimize import sharding
from jaxinv.report import bulk
from jaxinv.runtime import distributed
from jaxinv.runtime import workdir as workdirs
from jaxinv.runtime.manifest import FILE, Manifest
from jaxinv.runtime.progress import Stopwatch

STOP = '.stop'  # a file: some process was told to stop


def run(config, path, opened, invert: Callable, title: str, overwrite, start, log) -> None:
    """Inverts what config.data asks for, config.group at a time.

    opened: (generator, weights, what is known of their origin). invert(group): takes a groups.Group
    and finishes each of its identities. title: of the report. start: when loading began, in
    perf_counter's seconds.
    """
    generator, weights, about = opened
    mesh = sharding.make(config.mesh, jax.local_devices())
    found, asked = data.find_for(config.data)
    way = data.align_options(config.data, generator.spec, log)
    nets = session.load_nets(config)
    if classes.in_w(generator.spec):  # any one of its classes, so that all groups have the same
        opened = generators.with_label(generator, config.label or 0), weights, about
    base = session.make(config, path, opened, None, nets, mesh, Stopwatch(None), log)
    record = {'config': settings.record_of(config)}
    if 'sha256' in about:
        record['generator'] = about['sha256']
    distributed.check_same(record)
    plan = _planned(path, record, overwrite, found, asked, config.group)
    with distributed.entered_by_primary(plan) as numbers:
        if numbers is None:
            log(f'Finished already: {path / "report.html"} (--overwrite runs it again).')
            return
        index, count = jax.process_index(), jax.process_count()
        shared = f', shared out over {count} processes' if count > 1 else ''
        log(f'{len(numbers)} groups of {config.group} to do{shared}, each on {mesh}.', flush=True)
        manifest = Manifest(path / (f'manifest.{index}.jsonl' if index else FILE))
        manifest.records = Manifest(path / FILE).records | manifest.records
        sources = {str(file): file for _, file in found.files}

        def choose(targets):
            return classes.choose(generator, weights, targets, config.label, log)[1]

        def read(number, stopped):
            return _read(path, number, sources, way, stopped)

        preempted = False
        try:
            with contextlib.closing(map_ahead(read, numbers[index::count])) as arriving:
                with distributed.independent_processes(path / STOP):
                    for group in arriving:
                        bulk_group.Group(base, manifest, choose, group).work(invert)
                        done = sum('skipped' not in r for r in manifest.records.values())
                        log(f'Group {group.number} is finished; {done} pictures in all.')
        except distributed.Preempted:
            preempted = True
        distributed.wait_for_all('groups')
        if any(distributed.allgather_int(int(preempted))):
            raise distributed.Preempted
        if not distributed.is_primary():
            return
        records = list(_joined(path, found).records.values())
        if all('skipped' in record for record in records):
            reasons = [{'file': r['file'], 'reason': r['skipped']} for r in records]
            raise data.NoImages(data.nothing_left(asked, found.files, reasons, 'picture'))
        seconds = time.perf_counter() - start
        bulk.write(base, title, records, seconds)
        log(bulk.summary(path, records, seconds))


@contextlib.contextmanager
def _planned(path, record, overwrite, found: discover.Listing, asked: str, size: int):
    """Owns the work folder and yields the numbers of its unfinished groups, new ones made of what
    is in none yet; None if the run is finished and nothing came since."""
    with workdirs.claim(path, record, overwrite) as finished:
        (path / STOP).unlink(missing_ok=True)
        manifest = _joined(path, found)
        unfinished = bulk_group.open_groups(path)
        members = [
            member for number in unfinished for member in bulk_group.read_members(path, number)
        ]
        names = {record['file']: record['name'] for record in manifest.records.values()}
        names |= {file: name for name, file in members}
        at_work = {file for _, file in members}
        lost = [entry for entry in found.skipped if entry['file'] not in names]
        new = [(stem, str(file)) for stem, file in found.files if str(file) not in names]
        new += [(pathlib.Path(entry['file']).stem, entry['file']) for entry in lost]
        fresh = discover.unique_names([stem for stem, _ in new], taken=names.values())
        names |= {file: name for (_, file), name in zip(new, fresh, strict=True)}
        if not names:
            raise data.NoImages(data.nothing_left(asked, found.files, found.skipped, 'picture'))
        for entry in lost:
            file = entry['file']
            line = {'name': names[file], 'file': file, 'sha256': None, 'skipped': entry['reason']}
            manifest.add(line)
        todo = [
            [names[str(file)], str(file)]
            for _, file in found.files
            if str(file) not in at_work and _is_new(manifest.records.get(names[str(file)]), file)
        ]
        first = bulk_group.next_number(path)
        for number, i in enumerate(range(0, len(todo), size), start=first):
            bulk_group.write_members(path, number, todo[i : i + size])
            unfinished.append(number)
        yield unfinished if unfinished or not finished else None


def _is_new(record: dict | None, file) -> bool:
    """Whether the manifest knows nothing of the file as it is now."""
    return record is None or record['sha256'] != _digest(file)


def _digest(file) -> str:
    """Of a file, or of what there is to say of one that cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        return type(error).__name__


def _read(
    path, number: int, sources: dict, way: data.AlignOptions, stopped
) -> bulk_group.Read | None:
    rows, skipped = [], []
    for name, file in bulk_group.read_members(path, number):
        if stopped():
            return None
        source, reasons = sources.get(file), []
        if source is None:
            reasons, digest = [{'reason': f'{file} is no longer there.'}], None
        else:
            rows += data.read(name, source, way, reasons)
        for entry in reasons:
            digest = None if source is None else _digest(source)
            line = {'name': name, 'file': file, 'sha256': digest, 'skipped': entry['reason']}
            skipped.append(line)
    return bulk_group.Read(number, rows, skipped)


def _joined(path: pathlib.Path, found: discover.Listing) -> Manifest:
    """The manifest with the lines of all processes, in the order of the pictures."""
    manifest = Manifest(path / FILE)
    others = sorted(path.glob('manifest.*.jsonl'))
    for file in others:
        manifest.records |= Manifest(file).records
    if manifest.records:
        order = {str(file): i for i, (_, file) in enumerate(found.files)}
        records = manifest.records.values()
        records = sorted(records, key=lambda record: order.get(record['file'], len(order)))
        manifest.rewrite([record['name'] for record in records])
    for file in others:
        file.unlink()
    return manifest
