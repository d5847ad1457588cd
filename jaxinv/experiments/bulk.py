"""Bulk mode of methods that treat each picture by itself: groups of constant size, resumable.

    manifest.jsonl            a line for each picture (runtime/manifest.py)
    identities/NAME/          results of one: pivots.npz, its generator, delta or codes.npz,
                              metrics.json, and its pictures
    groups/00000/             a group in progress: members.json, state/; its curves, metrics.jsonl,
                              stay
    report.html, metrics.json of all, at the end

A group is inverted as a whole run is, in a Session of its own with the same generator, networks and
compiled programs; its last rows are padded, so that nothing compiles again. A thread reads and
aligns the next group meanwhile. Pictures with a line in the manifest are not inverted again, and
pictures that are added later form new groups.

Of P processes each inverts every P-th group on its own devices; they communicate only when all
groups are finished. One generator for all pictures: bulk_shared.py.
"""

import contextlib
import hashlib
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator

import jax

from jaxinv import data, generators, settings
from jaxinv.data import discover
from jaxinv.data.prefetch import map_ahead
from jaxinv.experiments import bulk_group, evaluate
from jaxinv.experiments import session as sessions
from jaxinv.inversion import classes
from jaxinv.optimize import sharding
from jaxinv.report import bulk as report
from jaxinv.runtime import distributed
from jaxinv.runtime import workdir as workdirs
from jaxinv.runtime.manifest import FILE, Manifest
from jaxinv.runtime.progress import Stopwatch

STOP = '.stop'  # a file: a process received SIGTERM


def run(
    config,
    path,
    opened,
    invert: Callable,
    usage: Callable,
    title: str,
    overwrite,
    start,
    log,
    before: Callable | None = None,
) -> None:
    """Inverts the pictures of config.data, config.group at a time.

    opened: (generator, weights, the generator's origin). invert(group): inverts a bulk_group.Group
    and finishes each of its identities. usage(folder): Python lines that render an identity's
    results. title: of the report. start: when loading began, in perf_counter's seconds. before():
    is called before the groups, for what depends on all pictures, by all processes together; then
    no pictures can be added.
    """
    generator, weights, about = opened
    mesh = sharding.make(config.mesh, jax.local_devices())
    listing, request = data.find_for(config.data)
    options = data.align_options(config.data, generator.spec, log)
    nets = sessions.load_nets(config)
    if classes.in_w(generator.spec):  # the same class for all groups; codes hold their own
        opened = generators.with_label(generator, config.label or 0), weights, about
    base = sessions.make(config, path, opened, None, nets, mesh, Stopwatch(None), log)
    record = {'config': settings.record_of(config)}
    record |= sessions.files_of(config, about)
    distributed.check_same(record)
    of_all = before is not None
    groups = _claim_groups(path, record, overwrite, listing, request, config.group, of_all, log)
    with distributed.entered_by_primary(groups) as numbers:
        if numbers is None:
            log(f'Finished already: {path / "report.html"} (--overwrite runs it again).')
            return
        if before is not None:
            before()
        index, count = jax.process_index(), jax.process_count()
        divided = f', divided among {count} processes' if count > 1 else ''
        log(f'{len(numbers)} groups of {config.group} to do{divided}, each on {mesh}.', flush=True)
        manifest = Manifest(path / (f'manifest.{index}.jsonl' if index else FILE), log)
        manifest.records = Manifest(path / FILE, log).records | manifest.records
        files = {str(file): file for _, file in listing.files}

        def choose(targets):
            return classes.choose(generator, weights, targets, config.label, log)[1]

        def read(number, stopped):
            return _read(path, number, files, options, stopped)

        preempted = False
        try:
            with contextlib.closing(map_ahead(read, numbers[index::count])) as batches:
                with distributed.independent_processes(path / STOP):
                    for batch in batches:
                        bulk_group.Group(base, manifest, choose, batch).run(invert)
                        done = sum('skipped' not in r for r in manifest.records.values())
                        log(f'Group {batch.number} is finished; {done} pictures in all.')
        except distributed.Preempted:
            preempted = True
        distributed.wait_for_all('groups')
        if any(distributed.allgather_int(int(preempted))):
            raise distributed.Preempted
        if not distributed.is_primary():
            return
        records = list(_merge_manifests(path, listing, log).records.values())
        check_any_finished(records, listing, request)
        first = next(record for record in records if 'skipped' not in record)
        result = report.BulkRun(
            title,
            records,
            time.perf_counter() - start,
            usage=usage(path / first['folder']),
            **evaluate.provenance_of(base),
        )
        report.write(path, result)
        log(report.summary(path, result))


def check_any_finished(records: list[dict], listing: discover.Listing, request: str) -> None:
    """Raises NoImages if no picture could be used."""
    if all('skipped' in record for record in records):
        reasons = [{'file': r['file'], 'reason': r['skipped']} for r in records]
        raise data.NoImages(data.nothing_left(request, listing.files, reasons, 'picture'))


def digest(file) -> str:
    """SHA-256 of a file; of one that cannot be read, the name of the error."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        return type(error).__name__


def sources_of(listing: discover.Listing) -> dict[str, str]:
    """{file: SHA-256}, for the record of a run whose result depends on the set of pictures."""
    return {str(file): digest(file) for _, file in listing.files}


@contextlib.contextmanager
def _claim_groups(
    path: pathlib.Path,
    record: dict,
    overwrite: bool,
    listing: discover.Listing,
    request: str,
    size: int,
    of_all: bool,
    log: Callable,
) -> Iterator[list[int] | None]:
    """Owns the work folder and yields the numbers of its unfinished groups.

    Pictures in no group form new groups, unless the manifest has a line with their hash. Yields
    None if the run is finished and there are none. of_all: the set of pictures is part of the run.
    """
    if of_all:
        record = record | {'sources': sources_of(listing)}
    with workdirs.claim(path, record, overwrite) as finished:
        (path / STOP).unlink(missing_ok=True)
        manifest = _merge_manifests(path, listing, log)
        unfinished, members = _open_groups(path, manifest.damaged, log)
        names = {record['file']: record['name'] for record in manifest.records.values()}
        names |= {file: name for name, file in members}
        in_progress = {file for _, file in members}
        lost = [entry for entry in listing.skipped if entry['file'] not in names]
        new = [(stem, str(file)) for stem, file in listing.files if str(file) not in names]
        new += [(pathlib.Path(entry['file']).stem, entry['file']) for entry in lost]
        fresh = discover.unique_names([stem for stem, _ in new], taken=names.values())
        names |= {file: name for (_, file), name in zip(new, fresh, strict=True)}
        if not names:
            raise data.NoImages(
                data.nothing_left(request, listing.files, listing.skipped, 'picture')
            )
        for entry in lost:
            file = entry['file']
            manifest.add(
                {'name': names[file], 'file': file, 'sha256': None, 'skipped': entry['reason']}
            )
        todo = []
        for _, file in listing.files:
            name = names[str(file)]
            known = manifest.records.get(name)
            changed = known is None or known['sha256'] != digest(file)
            if str(file) not in in_progress and changed:
                todo.append([name, str(file)])
        first = bulk_group.next_number(path)
        for number, i in enumerate(range(0, len(todo), size), start=first):
            bulk_group.write_members(path, number, todo[i : i + size])
            unfinished.append(number)
        yield unfinished if unfinished or not finished else None


def _open_groups(path: pathlib.Path, restart: bool, log: Callable) -> tuple[list[int], list]:
    """(numbers, members) of the unfinished groups. restart: deletes their checkpoints.

    A group whose members cannot be read is given up; its pictures form new groups.
    """
    numbers, members = [], []
    for number in bulk_group.open_groups(path):
        folder, own = bulk_group.folder_of(path, number), bulk_group.read_members(path, number)
        if own is None or restart:
            shutil.rmtree(folder / 'state', ignore_errors=True)
        if own is None:
            log(f'{folder / bulk_group.MEMBERS} is damaged; its pictures form a new group.')
            (folder / bulk_group.MEMBERS).unlink()
        else:
            numbers.append(number)
            members += own
    return numbers, members


def _read(
    path, number: int, files: dict, options: data.AlignOptions, stopped
) -> bulk_group.Batch | None:
    """The targets of a group, and the manifest's lines of its skipped pictures."""
    targets, skipped = [], []
    for name, file in bulk_group.read_members(path, number):
        if stopped():
            return None
        source, reasons = files.get(file), []
        if source is None:
            reasons = [{'reason': f'{file} does not exist any more.'}]
        else:
            targets += data.read(name, source, options, reasons)
        for entry in reasons:
            sha256 = None if source is None else digest(source)
            line = {'name': name, 'file': file, 'sha256': sha256, 'skipped': entry['reason']}
            skipped.append(line)
    return bulk_group.Batch(number, targets, skipped)


def _merge_manifests(path: pathlib.Path, listing: discover.Listing, log: Callable) -> Manifest:
    """The manifest with the lines of all processes, in the order of the listing."""
    manifest = Manifest(path / FILE, log)
    others = sorted(path.glob('manifest.*.jsonl'))
    for file in others:
        other = Manifest(file, log)
        other.set_aside()
        manifest.records |= other.records
        manifest.damaged |= other.damaged
    if manifest.records:
        manifest.rewrite(in_order(manifest, listing))
    for file in others:
        file.unlink()
    return manifest


def in_order(manifest: Manifest, listing: discover.Listing) -> list[str]:
    """The names in the manifest, in the order of the listing; those of lost files last."""
    order = {str(file): i for i, (_, file) in enumerate(listing.files)}
    records = manifest.records.values()
    records = sorted(records, key=lambda record: order.get(record['file'], len(order)))
    return [record['name'] for record in records]
