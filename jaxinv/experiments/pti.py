"""The main path, top to bottom: photographs -> pivots -> tuned generator -> edits -> report."""

import functools
import pathlib
import time

import jax
import numpy as np

from jaxinv import edits as edits_lib
from jaxinv import faces, latents, pixels, report
from jaxinv.experiments import artifacts, bulk, bulk_group, evaluate, session
from jaxinv.experiments.session import Session
from jaxinv.inversion import project, pti
from jaxinv.optimize import continuous_batching, runner
from jaxinv.render import render
from jaxinv.report import provenance
from jaxinv.report import tables as tables_lib
from jaxinv.runtime import distributed
from jaxinv.weights import deltas
from jaxinv.weights.load import save_generator


def run(config, path: pathlib.Path, *, overwrite: bool = False, log=print) -> None:
    """Runs one experiment into the folder `path`, or goes on with it. See jaxinv/defaults.py."""
    start = time.perf_counter()
    # Spelling mistakes must not cost ten minutes: everything named is looked up first.
    projection, tuning = session.settings_of(config)
    project.check(projection)
    pti.check(tuning)
    deltas.check(artifacts.saving_of(config), tuning.shared)
    continuous_batching.check(config.tune.slots, tuning.shared)
    bulk.check(config, tuning.shared and tuning.num_steps > 0)
    generator, weights, about = session.open_generator(config, log)
    edits = edits_lib.with_steps(session.parse_edits(config.edits, generator, weights, log))
    opened = generator, weights, about
    if config.group:
        invert = functools.partial(invert_group, edits=edits)
        bulk.run(config, path, opened, invert, title(config), overwrite, start, log)
        return
    with session.begin(config, path, opened, overwrite, start, log) as job:
        if job is None:
            return
        pivots, projected = find_pivots(job)
        per_identity, tuned = tune(job, pivots)
        if not distributed.is_primary():
            return
        tables = save(job, pivots, per_identity)
        result = score(job, pivots, per_identity, edits)
        result.tables = tables_lib.class_tables(result.names, job.classes) + tables
        traces = [('project', projected), ('tune', tuned)]
        result.traces = [
            report.Trace(stage, name, rows) for stage, t in traces for name, rows in t.items()
        ]
        result.seconds = job.watch.seconds
        report.write(path, result)
    log(provenance.summary(result, path))


def invert_group(group: bulk_group.Group, edits) -> None:
    """The same for a group of many, each finished as its generator is (experiments/bulk.py)."""
    job, config = group.job, group.job.config.tune
    pivots, _ = find_pivots(job)
    writer = artifacts.Writer(job, pivots)
    stages = ('project',) if config.slots else ('project', 'tune')

    def keep(i, weights, facts, error=None):
        if error is not None:
            group.fail(i, str(error))
            return
        one = group.one(i)
        if one is None:
            return
        artifacts.save_pivots(one, pivots[i : i + 1])
        if config.num_steps:
            facts = facts | writer.write(one.path, i, weights, orbax=False)
        result = score(one, pivots[i : i + 1], [weights], edits)
        result.tables = tables_lib.class_tables(result.names, one.classes)
        group.finish(i, result, facts, stages)

    per_identity, _ = tune(job, pivots, group.count, keep)
    if not (config.slots and config.num_steps):
        for i in range(group.count):
            keep(i, per_identity[i], {})


# --- Pivots (PTI 3.1) ---


def find_pivots(job: Session):
    """Pivots [n, k, w_dim] of all identities, and the traces of their search."""
    config = job.config
    settings, _ = session.settings_of(config)
    projector = project.make_projector(job.generator, settings)
    statistics = session.w_statistics(job)
    with job.watch.stage('project'):
        targets, vgg = job.targets.images_uint8, job.nets['vgg']
        ids, key = latents.identity_ids(targets), jax.random.key(config.seed)

        def find(rows, run):
            def prepare(which, share):
                own = rows[which]
                mean = session.with_classes(job, statistics.mean, own)
                return projector.prepare(
                    job.weights,
                    vgg,
                    pixels.to_float(targets[own]),
                    ids[own],
                    statistics._replace(mean=mean),
                    key,
                )

            return run(projector.loop, prepare, key, settings.num_steps, project.METRICS)['w']

        return runner.in_parts(job, 'project', settings.batch_per_device, find)


# --- Tuning (PTI 3.2 and 3.3) ---


def tune(job: Session, pivots, count=None, keep=None):
    """Weights for each identity (one object for all if shared), and the traces.

    In slots, of the first `count` identities, each is kept as it is finished: keep(i, weights,
    facts, error) is called by the first process, with an error by all; None = saving.EachGenerator.
    """
    config, n = job.config, len(pivots)
    if config.tune.num_steps == 0:
        return [job.weights] * n, {}
    _, settings = session.settings_of(config)
    rows = min(config.tune.slots or n, n)
    tuner = pti.make_tuner(job.generator, settings, rows, shares=job.place.shares)
    if not settings.shared and not config.tune.slots:
        advice = continuous_batching.advice(-(-n // job.place.shares), job.weights['params'])
        if advice:
            job.log(advice)
    with job.watch.stage('tune'):
        targets, net = job.targets.images_uint8, job.nets[settings.lpips_net]
        ids = latents.identity_ids(targets)
        key = jax.random.key(config.seed + 1)
        w_avg = session.w_statistics(job).mean

        feed = None
        if tuner.examples is not None:
            feed = job.place.feed(functools.partial(tuner.examples, targets, pivots, ids))

        def prepare(which, share):
            # What is fed is not looked at here.
            own = (targets if feed else targets[which]), pivots[which], ids[which]
            return tuner.prepare(job.weights, net, *own, w_avg, share)

        if config.tune.slots:
            count, keep = count or n, keep or artifacts.EachGenerator(job, pivots)
            traces = runner.in_slots(job, tuner, prepare, key, rows, count, keep)
            return artifacts.Saved(job), traces
        params, traces = runner.with_checkpoints(
            job,
            'tune',
            tuner.loop,
            prepare,
            key,
            settings.num_steps,
            settings.metrics,
            members=tuner.members,
            feed=feed,
        )
    if settings.shared:
        return [tuner.weights(job.weights, params)] * n, traces
    return [
        tuner.weights(job.weights, jax.tree.map(lambda x, i=i: x[i], params)) for i in range(n)
    ], traces


# --- Results ---


def title(config) -> str:
    if config.tune.shared:
        return 'Pivotal tuning of one generator'
    return 'Pivotal tuning, one generator per identity'


def save(job: Session, pivots, per_identity) -> list[report.Table]:
    """pivots.npz, and generator/ or generators/NAME/. Returns tables for the report."""
    artifacts.save_pivots(job, pivots)
    config = job.config.tune
    if config.shared or config.num_steps == 0:
        save_generator(job.path / 'generator', job.generator, per_identity[0])
        return []
    keep = artifacts.EachGenerator(job, pivots)
    if not config.slots:
        for i, weights in enumerate(per_identity):
            keep(i, weights)
    return keep.tables()


def score(job: Session, pivots, per_identity, edits) -> report.Run:
    """Everything the report shows: stages and edits rendered and measured, drift, provenance."""
    config, spec, targets = job.config, job.generator.spec, job.targets
    job.log('Rendering edits and measuring ...', flush=True)
    with job.watch.stage('score'):
        pivot_images = render(job.generator, job.weights, pivots)
        codes = [pivots] + [edits_lib.apply(pivots, edit, spec.num_ws) for edit in edits]
        codes = np.stack(
            [np.broadcast_to(c, (len(pivots), spec.num_ws, spec.w_dim)) for c in codes]
        )
        # Identity by identity, since each may have its own weights; [identities, codes, h, w, 3].
        rendered = np.stack(
            [render(job.generator, w, codes[:, i]) for i, w in enumerate(per_identity)]
        )
        stages = [evaluate.measure_stage(job, 'pivot', pivot_images)]
        if config.tune.num_steps:
            stages.append(evaluate.measure_stage(job, 'tuned', rendered[:, 0]))
        embedding = evaluate.embed(job, targets.images_uint8)
        edited_results = []
        for j, edit in enumerate(edits, start=1):
            edited = pixels.to_uint8(rendered[:, j])
            distance = faces.identity_distance(embedding, evaluate.embed(job, edited))
            edited_results.append(
                report.EditResult(
                    edit.name,
                    edit.parts,
                    edited,
                    distance,
                    evaluate.measure_attributes(job, edited),
                    edit.requested,
                )
            )
        drift = evaluate.measure_drift(job, per_identity) if config.tune.num_steps else None
    return report.Run(
        title=title(config),
        stages=stages,
        target_attributes=evaluate.measure_attributes(job, targets.images_uint8),
        edits=edited_results,
        drift=drift,
        usage=provenance.usage(job),
        **provenance.of_run(job),
    )
