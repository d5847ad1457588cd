"""Main path of --config=evaluate: photographs -> targets -> runs of all methods -> one table.

    targets/, targets.jsonl    comparison_targets.py
    methods/NAME-HASH/         method_runs.py: a run of the launcher each
    measured/NAME-HASH/        comparison_measure.py: numbers of each picture
    table.csv, table.tex, page.html, metrics.json

A rerun continues where it was, in the method that was interrupted; a finished method is only read.
Methods can be added to a work folder: the list of methods, what is measured and the statistics are
no part of the run's record.
"""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxinv import settings
from jaxinv.errors import JaxinvError
from jaxinv.experiments import comparison_measure, comparison_table, comparison_targets, method_runs
from jaxinv.experiments import session as sessions
from jaxinv.experiments.comparison_measure import Measurer
from jaxinv.experiments.comparison_targets import Pictures
from jaxinv.experiments.method_runs import Outcome, Row
from jaxinv.io import sha256
from jaxinv.metrics import identity
from jaxinv.report import comparison as report
from jaxinv.report import provenance, slugs
from jaxinv.report.text import PROTOCOLS
from jaxinv.runtime import distributed
from jaxinv.runtime import workdir as workdirs
from jaxinv.text import printable
from jaxinv.weights import networks
from jaxinv.weights.load import open_generator

# Numbers of a picture that its method's run measured.
OF_RUNS = (*method_runs.MOVED, *method_runs.DRIFT, 'seconds')
OWN = ('methods', 'measure', 'statistics', 'edits')  # of the config, that a run may change


class Opened(NamedTuple):
    """What a comparison needs, before its pictures are read."""

    rows: list[Row]
    spec: Any  # of config.generator
    about: dict
    record: dict


def run(config, path: pathlib.Path, *, overwrite: bool = False, log=print) -> None:
    """Runs --config=evaluate in the folder `path`, or resumes it.

    Raises JaxinvError for settings, files or pictures that cannot be used, and at the end if a
    method failed, whose row then says why.
    """
    start = time.perf_counter()
    settings.check(config)
    wanted = settings.of(config, settings.Evaluate)
    opened = open_comparison(config, log)
    measure = wanted.measure
    judges = identity.judges(measure.identity, measure.arcface, measure.curricularface)
    sets = _set_networks(measure)
    own = method_runs.place_of_runs(config, path)
    with entered(opened, config, path, overwrite, log) as pictures:
        rows = method_runs.placed(opened.rows, own, pictures)
        outcomes, failures = run_methods(rows, pictures, log)
        opened = opened._replace(rows=rows)
        wants_lpips = any(name.startswith('lpips') for name in measure.image_metrics)
        nets = sessions.load_nets(config) if wants_lpips else {}
        set_files = {}
        if 'fid_inception' in sets:
            set_files['fid_inception'] = sha256(pathlib.Path(measure.inception))
        measurer = Measurer(pictures, measure.image_metrics, nets, judges, sets, {}, set_files)
        if distributed.is_multiprocess():
            measure_own_share(opened.rows, measurer, outcomes, path, log)
            distributed.wait_for_all('shares')
        if distributed.is_primary():
            result = tables(config, wanted, opened, measurer, outcomes, failures, path, log)
            report.write(path, result, finished=not failures)
            log(report.summary(result, path, time.perf_counter() - start))
        distributed.wait_for_all('measured')
    if failures:
        names = ', '.join(failures)
        raise JaxinvError(
            f'{len(failures)} of {len(opened.rows)} methods failed ({printable(names, 200)}); the '
            f'table has the others, and the same command tries again.'
        )


def measure_own_share(
    rows: Sequence[Row],
    measurer: Measurer,
    outcomes: Mapping[str, Outcome],
    path: pathlib.Path,
    log: Callable,
) -> None:
    """This process's part of all measurements, into the files that `tables` reads."""
    share = jax.process_index(), jax.process_count()
    places = {place_of(row): row.name for row in reversed(rows) if row.name in outcomes}
    for place, name in places.items():
        folder, made = path / comparison_measure.FOLDER / place, outcomes[name].made
        comparison_measure.measure(measurer, name, folder, made, log, share)


def _set_networks(options) -> dict[str, Any]:
    loaders = {
        'efficientnet_lite0': networks.load_efficientnet,
        'fid_inception': lambda: networks.load_inception(pathlib.Path(options.inception)),
    }
    return {kind: loaders[kind]() for kind in options.sets}


# --- Shared by the comparisons --------------------------------------------------------------------


def open_comparison(config, log: Callable, edits: Sequence[str] = ()) -> Opened:
    """The methods and the generator, checked. edits: of every method's config."""
    rows = method_runs.rows_of(config, edits)
    generator, _, about = open_generator(
        config.generator, config.resolution, which=config.generator_key, log=log
    )
    record = settings.record_of(config)
    for name in OWN:
        record.pop(name, None)
    record = {'config': record} | ({'generator': about['sha256']} if 'sha256' in about else {})
    return Opened(rows, generator.spec, about, record)


@contextlib.contextmanager
def entered(opened: Opened, config, path: pathlib.Path, overwrite: bool, log: Callable):
    """Owns the work folder and yields the Pictures, prepared by process 0. Collective."""
    distributed.check_same([opened.record, config.methods])

    @contextlib.contextmanager
    def prepared():
        with workdirs.claim(path, opened.record, overwrite):
            found = comparison_targets.prepare(path, config, opened.spec, log)
            yield dataclasses.asdict(found) | {'path': str(path)}

    with distributed.entered_by_primary(prepared()) as found:
        yield Pictures(**found | {'path': pathlib.Path(found['path'])})


def run_methods(
    rows: Sequence[Row], pictures: Pictures, log: Callable
) -> tuple[dict[str, Outcome], dict[str, str]]:
    """({method: Outcome}, {method: why it failed}), one method after the other. Collective.

    rows: of method_runs.placed; those that share a folder run once. A method that fails, also for
    lack of memory, does not end the others.
    """
    outcomes, failures = {}, {}
    _log_memory(rows, len(pictures), log)
    first: dict[pathlib.Path, str] = {}  # {folder: the row that ran there}
    for count, row in enumerate(rows, start=1):
        log(f'{row.name} ({count} of {len(rows)})', flush=True)
        same = None if row.folder is None else first.setdefault(row.folder, row.name)
        if same not in (None, row.name):
            log(f'{row.name} has the settings of {same}, whose run it is.', flush=True)
            for found in (outcomes, failures):
                if same in found:
                    found[row.name] = found[same]
            continue
        if row.folder is not None and not row.folder.is_dir():
            _log_new(row, pictures, log)
        try:
            outcomes[row.name] = method_runs.run(row, pictures, log)
        except (JaxinvError, jax.errors.JaxRuntimeError, MemoryError) as error:
            if not isinstance(error, JaxinvError) and distributed.is_multiprocess():
                raise  # the other processes may wait for this one
            failures[row.name] = _why(error)
            log(f'{row.name} failed: {failures[row.name]}', flush=True)
        distributed.wait_for_all('method')
    return outcomes, failures


def _why(error: Exception) -> str:
    """Why a method failed, as one line."""
    if isinstance(error, JaxinvError):
        return str(error)
    lines = str(error).strip().splitlines()
    text = printable(lines[0], 300) if lines else type(error).__name__
    if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in text:
        return (
            f'out of memory ({text}); with the setting group=8, as in pti?group=8, a row has 8 '
            'pictures in memory at a time.'
        )
    return f'{type(error).__name__}: {text}'


def _log_memory(rows: Sequence[Row], count: int, log: Callable) -> None:
    whole = [row.name for row in rows if row.config is not None and not row.config.group
             and not (row.folder / workdirs.FINISHED).is_file()]  # fmt: skip
    if whole and (hint := sessions.too_many(count, ', '.join(whole))):
        log(hint, flush=True)


def _log_new(row: Row, pictures: Pictures, log: Callable) -> None:
    """Says that a method is not among the runs of another comparison, where it runs now."""
    other = row.folder.parent.parent
    if method_runs.is_other(other, pictures):
        log(
            f'{row.name} was not found in {printable(other)} and runs there now; a run is found by '
            'the same spelling, settings, generator and pictures.',
            flush=True,
        )


def place_of(row: Row) -> str:
    """Name of the folder of a row's numbers."""
    return f'{slugs([row.name])[0]}-external' if row.folder is None else row.folder.name


def tables(
    config, wanted, opened: Opened, measurer: Measurer, outcomes, failures, path, log
) -> report.Comparison:
    """Measures all pictures of all methods and makes the tables."""
    pictures, rank = measurer.pictures, wanted.measure.rank_by
    records, features = {}, {}
    rows = {row.name: row for row in opened.rows if row.name in outcomes}
    firsts: dict[pathlib.Path, str] = {}  # {folder of a run: the first of its rows}
    for name, row in rows.items():
        first = name if row.folder is None else firsts.setdefault(row.folder, name)
        if first != name:
            records[name], features[name] = records[first], features[first]
            continue
        folder = path / comparison_measure.FOLDER / place_of(row)
        made = outcomes[name].made
        log(f'Measuring {name} ...', flush=True)
        records[name] = comparison_measure.measure(measurer, name, folder, made, log)
        features[name] = {
            kind: comparison_table.Features(
                *comparison_measure.pair_of_features(
                    measurer, kind, path, folder, records[name], made
                )
            )
            for kind in measurer.sets
        }
    names = [*measurer.names, *OF_RUNS]
    values = {name: columns(own, names) for name, own in records.items()}
    reference = wanted.statistics.reference or next(row.name for row in opened.rows)
    if reference not in values and values:
        reference = next(iter(values))
    found = comparison_table.summaries(values, reference, wanted.statistics, names)
    sets = comparison_table.set_summaries(features, reference, len(pictures), wanted.statistics)
    better = PROTOCOLS[rank].better
    methods = []
    for row in opened.rows:
        own = report.Method(row.name, row.method.spelling, failure=failures.get(row.name, ''))
        if row.name in values:
            summary = found[row.name] | sets[row.name]
            for judge in measurer.judges:
                lost = comparison_measure.faces_not_found(records[row.name].values(), judge)
                summary[f'id_{judge}']['no_face'] = lost
            # Last, and not where no picture has one.
            last = {metric: summary.pop(metric) for metric in OF_RUNS}
            last |= _of_method(outcomes[row.name], last)
            own.summary = summary | {k: entry for k, entry in last.items() if entry['count']}
            chosen = comparison_table.best_median_worst(values[row.name][rank], better)
            own.examples = [
                _example(measurer, outcomes[row.name], label, i, values[row.name][rank][i])
                for label, i in chosen.items()
            ]
            own.memory, own.drift = outcomes[row.name].memory, outcomes[row.name].drift
            own.missing = {
                name: record['reason'] for name, record in records[row.name].items()
                if 'reason' in record
            }  # fmt: skip
        methods.append(own)
    used = dict.fromkeys(name for method in methods for name in method.summary)
    return report.Comparison(
        'Comparison of methods',
        methods,
        list(used),
        reference,
        rank,
        groups=_groups(list(used), measurer),
        **provenance_of(config, opened, pictures, measurer.nets),
    )


def _of_method(outcome: Outcome, known: Mapping[str, dict]) -> dict[str, dict]:
    """Entries of the numbers that are one for the method: drift of one generator, peak memory.

    known: the entries of OF_RUNS. A run of an earlier version has the mean drift of its generators
    alone, which is such a number too.
    """
    found = {}
    for name, metric in method_runs.DRIFT.items():
        if not known[name]['count'] and outcome.drift.get(metric) is not None:
            found[name] = comparison_table.of_method(outcome.drift[metric])
    for where in ('host', 'device'):
        if where in outcome.memory:
            gigabytes = outcome.memory[where] / 1e9
            found[f'peak_memory_{where}'] = comparison_table.of_method(gigabytes)
    return found


def _groups(names: Sequence[str], measurer: Measurer) -> dict[str, list[str]]:
    """The columns, in tables that fit a page."""
    groups = {'Pictures': [], 'Identity': [], report.COST: []}
    for name in names:
        faces = name.startswith('id_')
        title = 'Pictures' if name in measurer.images else 'Identity' if faces else report.COST
        groups[title].append(name)
    return {title: own for title, own in groups.items() if own}


def provenance_of(
    config, opened: Opened, pictures: Pictures, nets: Mapping[str, Any] | Sequence[str]
) -> dict[str, Any]:
    """The fields of a Comparison that say of what and how it was made. nets: names of LPIPS."""
    statistics = config.statistics
    made = provenance.of_run(
        config=config.to_dict(),
        spec=opened.spec,
        about=opened.about,
        lpips={net: networks.lpips_origin(net, config.lpips) for net in nets},
        seeds={'seed': config.seed, 'statistics': statistics.seed},
    )
    return made | {
        'pictures': pictures.names,
        'statistics': {name: statistics[name] for name in ('resamples', 'confidence', 'seed')},
        'skipped': pictures.skipped,
        'sources': pictures.sources,
    }


def columns(records: Mapping[str, dict], names: Sequence[str]) -> dict[str, np.ndarray]:
    """{metric: float64 [n]} of the records of n pictures, NaN where there is no number."""

    def value(record: dict, name: str) -> float:
        found = record.get(name) if name in OF_RUNS else record['metrics'].get(name)
        return np.nan if found is None else float(found)

    return {name: np.array([value(r, name) for r in records.values()]) for name in names}


def _example(measurer: Measurer, outcome: Outcome, label: str, i: int, value: float) -> dict:
    pictures = measurer.pictures
    name = pictures.names[i]
    image, _, _ = comparison_measure.read_made(outcome.made[name], pictures.resolution)
    target, _ = pictures.read(i)
    found = {'label': label, 'picture': name, 'value': float(value)}
    return found | {'target': target, 'image': image}
