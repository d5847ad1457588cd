"""Results of pivotal tuning: pivots and generators on disk, images measured for the report."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxinv import edits as edits_lib
from jaxinv import metrics, rendering, report
from jaxinv.experiments import artifacts, evaluate
from jaxinv.experiments.session import Session
from jaxinv.inversion import code_files, region_render
from jaxinv.report import provenance
from jaxinv.report import tables as tables_lib
from jaxinv.report.text import METRICS, number
from jaxinv.weights.load import save_generator

DRIFTS = 'drift_of_each'  # key in metrics.json, {identity: {metric: value}}
MOVED = {'moved_lpips_alex': 'lpips_alex', 'moved_mse': 'mse'}  # of pivots that were moved


class Tuned(NamedTuple):
    """Pivots and generators after the tuning."""

    pivots: np.ndarray  # [n, 1 or num_ws, w_dim]
    per_identity: Sequence  # weights for each target, read one at a time
    start: np.ndarray | None = None  # pivots before a tuning that moved them; None = the same
    history: Mapping[str, np.ndarray] = {}  # {metric: [steps, n]}


def title(config) -> str:
    if config.tune.shared:
        return 'Pivotal tuning of one generator'
    return 'Pivotal tuning, one generator per identity'


def save(session: Session, tuned: Tuned) -> list[report.Table]:
    """Writes pivots.npz, and generator/ if there is one for all. Returns tables for the report.

    Generators of each identity are written as they are finished (artifacts.EachGenerator).
    """
    code_files.save_pivots(session.path, session.targets.names, tuned.pivots, tuned.start)
    if session.settings.tune.shared or session.settings.tune.num_steps == 0:
        save_generator(session.path / 'generator', session.generator, tuned.per_identity[0])
        return []
    return artifacts.delta_tables(session)


def score(
    session: Session,
    tuned: Tuned,
    edits,
    folders: Sequence[pathlib.Path] | None = None,
) -> report.Run:
    """Everything the report shows but curves: stages, edits and drift, measured, with provenance.

    folders: for the pictures of each target, which are written as they are made; None =
    images/NAME/ of the work folder.
    """
    session.log('Rendering edits and measuring ...', flush=True)
    names, drift = session.targets.names, None
    tables = tables_lib.class_tables(names, session.classes)
    folders = report.folders(session.path / 'images', names) if folders is None else folders
    measured = []
    with session.stopwatch.stage('score'):
        for rows in evaluate.batches(range(len(names))):
            found = score_batch(session, rows, tuned, edits)
            measured.append(report.save_pictures(found, [folders[i] for i in rows]))
        if session.settings.tune.num_steps:
            distinct = tuned.per_identity
            distinct = distinct[:1] if session.settings.tune.shared else distinct
            drift, each = evaluate.measure_drifts(session, distinct)
            if len(distinct) > 1:
                tables.append(drift_table(names, each))
    return dataclasses.replace(
        report.join(measured),
        drift=drift,
        tables=tables,
        sources=session.targets.sources,
        skipped=session.targets.skipped,
        usage=usage(session),
        **evaluate.provenance_of(session),
    )


def drift_table(names: Sequence[str], drifts: Mapping[str, np.ndarray]) -> report.Table:
    """Drift of the generator of each identity. drifts: {metric: [n]}."""
    kinds = {name: METRICS[name] for name in drifts}
    values = {
        name: {metric: float(column[i]) for metric, column in drifts.items()}
        for i, name in enumerate(names)
    }
    rows = [
        [name, *(number(own[metric], kind) for metric, kind in kinds.items())]
        for name, own in values.items()
    ]
    columns = ['identity', *(kind.title for kind in kinds.values())]
    note = 'Mean over images at the random latents, before and after the tuning.'
    return report.Table(DRIFTS, 'Drift of each generator', columns, rows, note, values)


def score_batch(session: Session, rows: np.ndarray, tuned: Tuned, edits) -> report.Run:
    """Stages and edits of the targets `rows`, rendered and measured.

    Holds float32 images of at most 3 * len(rows) pivots and of one target's edits.
    """
    generator, spec, own = session.generator, session.generator.spec, tuned.pivots[rows]
    per_identity, targets = tuned.per_identity, evaluate.reference(session, rows)
    first = own if tuned.start is None else tuned.start[rows]
    before = rendering.render(generator, session.weights, first)
    stages = [evaluate.measure_stage(targets, 'pivot', before)]
    if tuned.start is not None:
        stages.append(_moved(session, targets, before, own))
    del before
    solutions: list = []

    def columns():
        for k, i in enumerate(rows):
            images_of = functools.partial(rendering.render, generator, per_identity[i])
            name, w = session.targets.names[i], own[k : k + 1]
            found = evaluate.solve_edits(edits, images_of, w, spec, name, session.log)
            solutions.append(found)
            solved = [solution.edit for solution in found]
            images = images_of(*edits_lib.moved(w, solved, spec))
            confined = functools.partial(
                region_render.render_edit, generator, per_identity[i], w, solved
            )
            yield region_render.confine_edits(images, solved, name, session.log, confined)

    last, edited = evaluate.measure_stage_and_edits(targets, 'tuned', edits, columns())
    edited = evaluate.with_strengths(edited, solutions)
    edited = evaluate.with_texts(session, edited, edits)
    if session.settings.tune.num_steps:
        stages.append(last)
    return evaluate.results_of(session, rows, targets, title(session.config), stages, edited)


def _moved(session: Session, targets: evaluate.Reference, before, pivots) -> report.Stage:
    """The stage of pivots [b, k, w_dim] that the tuning moved, by the generator before it.

    Besides the distances to the target, moved_lpips_alex and moved_mse (pixels in [-1, 1]) are
    those to `before`, the images of the pivots where they started (PTI, section 4.4).
    """
    after = rendering.render(session.generator, session.weights, pivots)
    stage = evaluate.measure_stage(targets, 'moved', after)
    found = metrics.evaluate(before, after, session.nets, names=tuple(MOVED.values()))
    own = {name: found[metric] for name, metric in MOVED.items()}
    return dataclasses.replace(stage, metrics={**stage.metrics, **own})


def usage(session: Session) -> str:
    """Python lines that render the results; of each identity's generators, the first one."""
    run, path = session.settings.tune, session.path
    each = not run.shared and run.num_steps > 0
    source = path / 'generators' / session.targets.names[0] if each else path
    return provenance.usage_of_pivots(source, path, first_only=each)


def usage_of_identity(config, folder: pathlib.Path) -> str:
    """Python lines that render the results of one identity of bulk mode, in its folder."""
    source = folder if config.tune.num_steps else config.generator
    return provenance.usage_of_pivots(source, folder)
