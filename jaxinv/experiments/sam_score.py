"""Results of SAM: codes and regions on disk, images measured, curves and tables for the report."""

import dataclasses
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from jaxinv import metrics, rendering, report
from jaxinv.experiments import artifacts, evaluate
from jaxinv.experiments.session import Session
from jaxinv.faces import attributes
from jaxinv.inversion import code_files, invertibility, region_files, region_render
from jaxinv.inversion.inputs import Examples
from jaxinv.inversion.invert_sam import Inverted, encode_regions, sam_encoders_of, search
from jaxinv.inversion.sam_regions import Problem, valid_at
from jaxinv.inversion.sam_render import edit_deltas, render_each
from jaxinv.pixels import to_uint8
from jaxinv.report import provenance, schema
from jaxinv.report import sam as sam_figures
from jaxinv.report import tables as tables_lib
from jaxinv.runtime import distributed
from jaxinv.settings import ENCODED, LABELS, named, title
from jaxinv.weights.load import save_generator


def save(session: Session, inverted: Inverted, of_all: bool = True) -> None:
    """Writes codes.npz, pivots.npz, prior.npz, regions.npz, and generator/ if it was tuned.

    of_all: also prior and generator, which all pictures have in common.
    """
    path, names = session.path, list(session.targets.names)
    code_files.save_pivots(path, names, inverted.pivots)
    code_files.save_codes(path, names, inverted.codes, inverted.masks)
    if of_all and inverted.prior is not None:
        artifacts.save_prior(
            path, inverted.prior, session.generator, session.weights, session.settings.prior
        )
    if inverted.regions is not None:
        region_files.save(path, names, inverted.regions)
    if of_all and inverted.weights is not session.weights:
        save_generator(path / 'generator', session.generator, inverted.weights)


def select(inverted: Inverted, rows) -> Inverted:
    """The inversion of the images `rows` (an index array or slice), without history."""

    def own(tree):
        if isinstance(tree, dict):  # in its order, which JAX's trees do not keep
            return {name: own(values) for name, values in tree.items()}
        return jax.tree.map(lambda x: x[rows], tree)

    regions = inverted.regions
    if regions is not None:
        fields = ('labels', 'maps', 'singles', 'chosen', 'masks', 'inputs')
        fields = {name: own(getattr(regions, name)) for name in fields}
        indices = np.arange(len(regions.segments))[rows]
        segments = [regions.segments[i] for i in indices]
        regions = regions._replace(segments=segments, history=[], **fields)
    return inverted._replace(
        names=tuple(np.array(inverted.names, object)[rows]),
        pivots=own(inverted.pivots),
        codes=own(inverted.codes),
        masks=own(inverted.masks),
        regions=regions,
        history=[],
    )


def score(
    session: Session,
    inverted: Inverted,
    edits: Sequence,
    folders: Sequence[pathlib.Path] | None = None,
) -> report.Run | None:
    """Everything the report shows: stages, edits, maps, curves and tables, with provenance.

    All processes call it, since a sweep is a search; process 0 renders and measures, and the others
    get None. folders: for the pictures of each target, which are written as they are made; None =
    images/NAME/ of the work folder.
    """
    config, regions, names = session.config, inverted.regions, session.targets.names
    swept = []
    if regions is not None and config.sweep.num_steps:
        swept = sweep(session, inverted)
    if not distributed.is_primary():
        return None
    session.log('Rendering edits and measuring ...', flush=True)
    folders = report.folders(session.path / 'images', names) if folders is None else folders
    measured = []
    with session.stopwatch.stage('score'):
        deltas, solutions = deltas_of(session, inverted, edits)
        for rows in evaluate.batches(range(len(names))):
            found = score_batch(session, rows, select(inverted, rows), edits, deltas[:, rows])
            found.edits = evaluate.with_strengths(found.edits, [solutions[i] for i in rows])
            found.edits = evaluate.with_texts(session, found.edits, edits)
            measured.append(report.save_pictures(found, [folders[i] for i in rows]))
    traces = [
        report.Trace(stage, name, values)
        for stage, history in inverted.history
        for name, values in history.items()
    ]
    tables = tables_lib.class_tables(names, session.classes)
    if regions is not None:
        valid = valid_at(session.targets.valid, regions.labels.shape[1:])
        traces += sam_figures.threshold_curves(
            regions, config.sweep.taus, session.generator.spec, valid
        )
        if config.edit_table and edits and session.measures_faces and regions.singles:
            with session.stopwatch.stage('edit table'):
                tables.append(edit_table(session, inverted, edits, deltas))
    return dataclasses.replace(
        report.join(measured),
        tables=tables,
        traces=traces + swept,
        sources=session.targets.sources,
        skipped=session.targets.skipped,
        usage=usage(session, inverted),
        **evaluate.provenance_of(session, prior=config.prior.seed),
    )


def deltas_of(session: Session, inverted: Inverted, edits) -> tuple[np.ndarray, list]:
    """(what the edits add to w_plus [e, n, num_ws, w_dim], their solutions [n][e])."""
    spec, w_plus = session.generator.spec, np.asarray(inverted.codes.w_plus)
    deltas, solutions = [], []
    for i, name in enumerate(session.targets.names):
        w = w_plus[i : i + 1]

        def images_of(codes, offsets, i=i, w=w):
            del offsets  # of styles, which SAM's codes do not take
            own = select(inverted, np.array([i]))
            arguments = session.generator, own.weights, own.codes, own.masks
            moved = np.asarray(codes)[:, None] - w[None]
            return next(render_each(*arguments, moved, session.config.edit_mixing))[1:]

        found = evaluate.solve_edits(edits, images_of, w, spec, name, session.log)
        solutions.append(found)
        deltas.append(edit_deltas([solution.edit for solution in found], w, spec))
    return np.concatenate(deltas, axis=1), solutions


def score_batch(session: Session, rows, inverted: Inverted, edits, deltas) -> report.Run:
    """Stages, edits and panels of the targets `rows`, rendered and measured.

    inverted: of these targets alone; deltas [e, len(rows), num_ws, w_dim] of `edit_deltas`. Holds
    float32 images of 3 * len(rows) codes and of one target's edits.
    """
    config, generator, spec = session.config, session.generator, session.generator.spec
    targets = evaluate.reference(session, rows, metrics.SAM_METRICS, session.targets.valid)
    stages = []
    if config.method not in ('w', *ENCODED):
        pivots = rendering.render(generator, session.weights, inverted.pivots)
        encoded = config.method in ('hybrid', 'sam_encoder')
        name = LABELS['encoder'] if encoded else spec.latent
        stages.append(evaluate.measure_stage(targets, name, pivots))
    if config.method == 'pti_sam':
        tuned = rendering.render(generator, inverted.weights, inverted.pivots)
        stages.append(evaluate.measure_stage(targets, 'PTI', tuned))
    columns = render_each(
        generator, inverted.weights, inverted.codes, inverted.masks, deltas, config.edit_mixing
    )
    names = [session.targets.names[i] for i in rows]
    columns = (
        region_render.confine_edits(column, edits, name, session.log)
        for name, column in zip(names, columns, strict=True)
    )
    label = named(LABELS[config.method], spec)
    stage, edited = evaluate.measure_stage_and_edits(targets, label, edits, columns)
    run = evaluate.results_of(session, rows, targets, title(config, spec), [*stages, stage], edited)
    if inverted.regions is not None:
        regions = inverted.regions
        valid = valid_at(targets.valid, regions.labels.shape[1:])
        run.panels = sam_figures.panels(
            targets.images_uint8, regions, config.invertibility.tau, valid
        )
    return run


def edit_table(session: Session, inverted: Inverted, edits, deltas) -> report.Table:
    """Which edit acts in which space: all images inverted into one space alone, then edited."""
    kept = [i for i, edit in enumerate(edits) if len(edit.parts) == 1]
    changes = {}  # {space: [{attribute: mean change} of each edit]}
    for space, single in inverted.regions.singles.items():
        columns = render_each(
            session.generator,
            inverted.weights,
            single.codes,
            single.masks,
            deltas[kept],
            session.config.edit_mixing,
        )
        measured = [attributes.measure(to_uint8(column)) for column in columns]
        changes[space] = [
            {
                name: schema.mean([own[name][j] - own[name][0] for own in measured])
                for name in measured[0]
            }
            for j in range(1, 1 + len(kept))
        ]
    return sam_figures.edit_table([edits[i] for i in kept], changes)


class Tiled:
    """An array [n, ...] repeated to [count * n, ...] without a copy; indexing copies rows."""

    def __init__(self, base: np.ndarray, count: int):
        self.base, self.shape = base, (count * len(base), *base.shape[1:])
        self._rows = np.tile(np.arange(len(base)), count)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index) -> np.ndarray:
        return self.base[self._rows[index]]


def sweep(session: Session, inverted: Inverted) -> list[report.Trace]:
    """An inversion at every threshold of config.sweep.taus, and how well each reproduces."""
    config, regions, n = session.config, inverted.regions, len(session.targets.names)
    taus = config.sweep.taus
    found = invertibility.sweep(
        regions.maps,
        regions.labels,
        taus,
        session.generator.spec,
        valid=valid_at(session.targets.valid, regions.labels.shape[1:]),
        resample=config.invertibility.resample,
        batch_per_device=config.sam.batch_per_device,
    )
    count, valid = len(taus), session.targets.valid
    repeated = Examples(
        tuple(f'{name} {tau}' for tau in taus for name in session.targets.names),
        Tiled(session.targets.images_uint8, count),
        None if valid is None else Tiled(valid, count),
    )
    runner = dataclasses.replace(session.runner, names=repeated.names)
    problem = Problem(
        session.generator, inverted.weights, repeated, session.nets, runner, session.settings.seed
    )
    masks = invertibility.rows_of(found.masks)
    w_plus = np.broadcast_to(inverted.pivots, (n, *inverted.codes.w_plus.shape[1:]))
    w_plus = np.tile(w_plus, (count, 1, 1))
    if config.method == 'sam_encoder':
        encoders = sam_encoders_of(session.settings, session.generator.spec)
        chosen = found.chosen.reshape(-1, *found.chosen.shape[2:])
        codes = encode_regions(problem, encoders, tuple(regions.maps), chosen, masks)
    else:
        options = session.settings.searching.replace(num_steps=config.sweep.num_steps)
        codes, _ = search(problem, 'sweep', masks, w_plus, inverted.prior, options)
    if not distributed.is_primary():
        return []
    names, values = ('psnr', 'lpips_vgg'), []
    none = np.zeros((0, *codes.w_plus.shape), np.float32)
    columns = render_each(session.generator, inverted.weights, codes, masks, none)
    for i, column in enumerate(columns):
        own = None if valid is None else repeated.valid[i : i + 1]
        targets = repeated.images_uint8[i : i + 1]
        values.append(metrics.evaluate(targets, column, session.nets, own, names=names))
    step = taus[1] - taus[0] if count > 1 else 1.0
    return [
        report.Trace(
            'inversions at thresholds τ',
            name,
            np.concatenate([value[name] for value in values]).reshape(count, n),
            taus[0],
            step,
        )
        for name in names
    ]


def usage(session: Session, inverted: Inverted) -> str:
    """Python lines that render the codes again."""
    tuned = inverted.weights is not session.weights
    source = session.path if tuned else session.config.generator
    return provenance.usage_of_codes(source, session.path)
