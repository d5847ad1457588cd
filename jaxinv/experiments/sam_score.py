"""What becomes of a SAM run's codes: files, pictures, edits, metrics, curves and tables."""

import dataclasses
import functools

import jax
import numpy as np

from jaxinv import edits as edits_lib
from jaxinv import faces, metrics, pixels, rendering, report
from jaxinv.experiments import artifacts, evaluate
from jaxinv.experiments.session import Session
from jaxinv.inversion import invertibility, sam, sam_regions
from jaxinv.inversion.inputs import Examples
from jaxinv.inversion.invert_sam import Inverted, search
from jaxinv.inversion.sam_regions import Problem
from jaxinv.io import atomic_path
from jaxinv.report import provenance, schema
from jaxinv.report import sam as sam_figures
from jaxinv.report import tables as tables_lib
from jaxinv.settings import LABELS, named, prior_settings, title
from jaxinv.weights.load import save_generator

EDITS_A_PASS = 3  # with the unedited image a batch of 4; bounds memory


def save(job: Session, inverted: Inverted, with_prior: bool = True) -> None:
    """codes.npz, pivots.npz, prior.npz, regions.npz, and generator/ if it was tuned."""
    names = list(job.targets.names)
    artifacts.save_pivots(job, inverted.pivots)
    artifacts.save_codes(job.path, names, inverted.codes, inverted.masks)
    if with_prior:
        artifacts.save_prior(job.path, inverted.prior, prior_settings(job.config))
    regions = inverted.regions
    if regions is not None:
        maps = {f'maps/{space}': values for space, values in regions.maps.items()}
        with atomic_path(job.path / artifacts.REGIONS) as scratch:
            np.savez(scratch, labels=regions.labels, chosen=regions.chosen, **maps)
    if inverted.weights is not job.weights:
        save_generator(job.path / 'generator', job.generator, inverted.weights)


@functools.cache
def _editor(generator, mixing):
    return jax.jit(
        lambda weights, codes, masks, deltas: sam.synthesize_edits(
            generator, weights, codes, masks, deltas, mixing=mixing
        )
    )


def render(job: Session, weights, codes: sam.Codes, masks, deltas) -> np.ndarray:
    """Inversions and edits [1 + e, n, h, w, 3] by deltas [e, n, num_ws, w_dim], as one program."""
    editor = _editor(job.generator, job.config.edit_mixing)
    count = len(deltas)
    padded = np.zeros((max(-(-count // EDITS_A_PASS), 1) * EDITS_A_PASS, *codes.w_plus.shape))
    padded[:count] = deltas
    columns = []
    for i in range(len(codes.w_plus)):
        own = jax.tree.map(lambda x, i=i: x[i : i + 1], (codes, dict(masks)))
        parts = []
        for part in np.split(padded.astype(np.float32), len(padded) // EDITS_A_PASS):
            pictures = np.asarray(editor(weights, *own, part[:, i : i + 1]))[:, 0]
            parts.append(pictures if not parts else pictures[1:])
        columns.append(np.concatenate(parts)[: 1 + count])
    return np.stack(columns, axis=1)


def deltas_of(edits, w_plus, spec) -> np.ndarray:
    """What each edit adds to w_plus [n, num_ws, w_dim], [e, n, num_ws, w_dim]."""
    w_plus = np.asarray(w_plus)
    deltas = [np.asarray(edits_lib.difference(w_plus, edit, spec.num_ws)) for edit in edits]
    return np.stack(deltas) if deltas else np.zeros((0, *w_plus.shape), np.float32)


def score(job: Session, inverted: Inverted, edits) -> report.Run:
    """Everything the report shows: stages, edits, maps and curves, measured, with provenance."""
    config, spec, targets = job.config, job.generator.spec, job.targets
    label = named(LABELS[config.method], spec)
    job.log('Rendering edits and measuring ...', flush=True)
    with job.stopwatch.stage('score'):
        deltas = deltas_of(edits, inverted.codes.w_plus, spec)
        rendered = render(job, inverted.weights, inverted.codes, inverted.masks, deltas)
        stages = []
        if config.method != 'w':
            pivot = rendering.render(job.generator, job.weights, inverted.pivots)
            stages.append(measure_stage(job, spec.latent, pivot))
        if config.method == 'pti_sam':
            tuned = rendering.render(job.generator, inverted.weights, inverted.pivots)
            stages.append(measure_stage(job, 'PTI', tuned))
        stages.append(measure_stage(job, label, rendered[0]))
        embedding = evaluate.embed(job, targets.images_uint8)
        edited_results = []
        for edit, pictures in zip(edits, rendered[1:], strict=True):
            edited = pixels.to_uint8(pictures)
            distance = faces.identity_distance(embedding, evaluate.embed(job, edited))
            measured = evaluate.measure_attributes(job, edited)
            edited_results.append(
                report.EditResult(edit.name, edit.parts, edited, distance, measured, edit.requested)
            )
    traces = [
        report.Trace(stage, name, rows) for stage, t in inverted.history for name, rows in t.items()
    ]
    panels, tables = [], tables_lib.class_tables(targets.names, job.classes)
    if inverted.regions is not None:
        panels = sam_figures.panels(job, inverted.regions)
        traces += sam_figures.threshold_curves(job, inverted.regions)
        if config.sweep.num_steps:
            traces += sweep(job, inverted)
        if config.edit_table and edits and job.measures_faces and inverted.regions.singles:
            with job.stopwatch.stage('edit table'):
                tables.append(edit_table(job, inverted, edits, deltas))
    return report.Run(
        title=title(config, spec),
        stages=stages,
        target_attributes=evaluate.measure_attributes(job, targets.images_uint8),
        edits=edited_results,
        panels=panels,
        tables=tables,
        traces=traces,
        usage=usage(job, inverted),
        **provenance.of_run(job, prior=config.prior.seed),
    )


def measure_stage(job: Session, name: str, rendered) -> report.Stage:
    targets_uint8 = job.targets.images_uint8
    rendered_uint8 = pixels.to_uint8(rendered)
    targets = pixels.to_float(targets_uint8, np)
    values = dict(metrics.evaluate(targets, rendered, job.nets, job.targets.valid))
    if job.measures_faces:
        values['id_distance'] = faces.identity_distance(
            evaluate.embed(job, targets_uint8), evaluate.embed(job, rendered_uint8)
        )
    attributes = evaluate.measure_attributes(job, rendered_uint8)
    return report.Stage(name, rendered_uint8, values, attributes)


def edit_table(job: Session, inverted: Inverted, edits, deltas) -> report.Table:
    """Which edit acts in which space: all images inverted into one space alone, then edited."""
    kept = [i for i, edit in enumerate(edits) if len(edit.parts) == 1]
    changes = {}  # {space: [{attribute: mean change} for each edit]}
    for space, single in inverted.regions.singles.items():
        pictures = render(job, inverted.weights, single.codes, single.masks, deltas[kept])
        measured = [evaluate.measure_attributes(job, pixels.to_uint8(p)) for p in pictures]
        changes[space] = [
            {name: schema.mean(after[name] - before) for name, before in measured[0].items()}
            for after in measured[1:]
        ]
    return sam_figures.edit_table([edits[i] for i in kept], changes)


def sweep(job: Session, inverted: Inverted) -> list[report.Trace]:
    """An inversion at every threshold, and how well each reproduces."""
    config, regions, n = job.config, inverted.regions, len(job.targets.names)
    taus = config.sweep.taus
    found = invertibility.sweep(
        regions.maps,
        regions.labels,
        taus,
        job.generator.spec,
        valid=sam_regions.valid_at(job.targets.valid, regions.labels.shape[1:]),
        resample=config.invertibility.resample,
        batch_per_device=config.sam.batch_per_device,
    )
    count = len(taus)
    valid = job.targets.valid
    repeated = Examples(
        tuple(f'{name} {tau}' for tau in taus for name in job.targets.names),
        np.tile(job.targets.images_uint8, (count, 1, 1, 1)),
        None if valid is None else np.tile(valid, (count, 1, 1, 1)),
    )
    runner = dataclasses.replace(job.runner, names=repeated.names)
    problem = Problem(
        job.generator, inverted.weights, repeated, job.nets, runner, job.settings.seed
    )
    masks = invertibility.rows_of(found.masks)
    w_plus = np.tile(
        np.broadcast_to(inverted.pivots, (n, *inverted.codes.w_plus.shape[1:])), (count, 1, 1)
    )
    options = job.settings.searching.replace(num_steps=config.sweep.num_steps)
    codes, _ = search(problem, 'sweep', masks, w_plus, inverted.prior, options)
    none = np.zeros((0, *codes.w_plus.shape))
    pictures = render(job, inverted.weights, codes, masks, none)[0]
    targets = pixels.to_float(repeated.images_uint8, np)
    values = metrics.evaluate(targets, pictures, job.nets, repeated.valid)
    step = taus[1] - taus[0] if count > 1 else 1.0
    return [
        report.Trace('inversions at thresholds τ', m, values[m].reshape(count, n), taus[0], step)
        for m in ('psnr', 'lpips_vgg')
    ]


def usage(job: Session, inverted: Inverted) -> str:
    source = job.path if inverted.weights is not job.weights else job.config.generator
    return (
        'import jaxinv\n'
        'from jaxinv import sam_files\n'
        'from jaxinv.inversion import sam\n'
        f'generator, weights = jaxinv.load_generator({str(source)!r})\n'
        f'codes, masks = sam_files.load_codes({str(job.path)!r})\n'
        'images = sam.synthesize(generator, weights, codes, masks)  # delta=...: an edit'
    )
