"""The main path, top to bottom: photographs -> pivots -> tuned generator -> edits -> report."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Sequence

import numpy as np

from jaxinv import edits as edits_lib
from jaxinv import faces, latents, pixels, report, settings
from jaxinv.experiments import artifacts, bulk, bulk_group, evaluate
from jaxinv.experiments import session as sessions
from jaxinv.experiments.session import Session
from jaxinv.generators import checks
from jaxinv.inversion import code_files
from jaxinv.inversion import tune as inversion_tune
from jaxinv.inversion.project import project
from jaxinv.optimize.continuous_batching import Finished
from jaxinv.rendering import render
from jaxinv.report import provenance
from jaxinv.report import tables as tables_lib
from jaxinv.runtime import distributed
from jaxinv.weights.load import save_generator


def run(config, path: pathlib.Path, *, overwrite: bool = False, log=print) -> None:
    """Runs --config=pti_single_id, pti_multi_id or pti_biggan in the folder `path`, or resumes it.

    Raises JaxinvError for settings, files or pictures that cannot be used.
    """
    start = time.perf_counter()
    # Everything that is named is looked up before anything is computed.
    settings.check(config)
    generator, weights, about = sessions.open_generator(config, log)
    edits = edits_lib.with_steps(sessions.parse_edits(config.edits, generator, weights, log))
    opened = generator, weights, about
    if config.group:
        invert = functools.partial(invert_group, edits=edits)
        bulk.run(config, path, opened, invert, title(config), overwrite, start, log)
        return
    with sessions.begin(config, path, opened, overwrite, start, log) as session:
        if session is None:
            return
        pivots, projected = find_pivots(session)
        per_identity, tuned = tune(session, pivots)
        if not distributed.is_primary():
            return
        tables = save(session, pivots, per_identity)
        result = score(session, pivots, per_identity, edits)
        result.tables = tables_lib.class_tables(result.names, session.classes) + tables
        result.traces = [
            report.Trace(stage, name, rows)
            for stage, traces in (('project', projected), ('tune', tuned))
            for name, rows in traces.items()
        ]
        result.seconds = session.stopwatch.seconds
        report.write(path, result)
    log(provenance.summary(result, path))


def find_pivots(session: Session) -> tuple[np.ndarray, dict]:
    """(pivots [n, 1 or num_ws, w_dim], their history {metric: [steps, n]}): found, or given."""
    given = given_pivots(session)
    if given is not None:
        return given, {}
    pivots = project(
        session.generator,
        session.weights,
        session.targets,
        settings=session.settings.pivot,
        embeddings=session.embeddings,
        **session.shared_arguments,
    )
    return pivots.w, pivots.history


def given_pivots(session: Session) -> np.ndarray | None:
    """The codes of config.start [n, 1 or num_ws, w_dim], in the order of the targets."""
    if not session.config.start:
        return None
    w = code_files.pivots_for(session.config.start, session.targets.names)
    checks.check_w(w, session.generator.spec)
    if session.embeddings is not None:  # the classes are the run's, whatever the file's were
        w = latents.with_class(w, session.embeddings[:, None])
    return w


def tune(session: Session, pivots) -> tuple[Sequence, dict]:
    """(weights of each identity, history {metric: [steps, n]}).

    With one generator for all it is the same object n times; else each is read from where it was
    saved when it was finished.
    """
    run, n = session.settings.tune, len(pivots)
    if run.num_steps == 0:
        return [session.weights] * n, {}
    keep = None if run.shared else artifacts.EachGenerator(session, pivots)

    def on_finished(i, weights, finished):
        if finished.error is not None:
            raise finished.error
        if distributed.is_primary():
            keep(i, weights, facts_of(finished))

    tuned = inversion_tune.tune(
        session.generator,
        session.weights,
        session.targets,
        pivots,
        settings=run,
        on_finished=None if run.shared else on_finished,
        **session.shared_arguments,
    )
    if run.shared:
        return [tuned.weights] * n, tuned.history
    return artifacts.Saved(session), tuned.history


def facts_of(finished: Finished) -> dict:
    """What the manifest keeps of an identity's tuning."""
    return {
        'steps': len(finished.traces['loss']),
        'seconds': {'tune': round(finished.seconds, 3)},
    }


def invert_group(group: bulk_group.Group, edits) -> None:
    """Inverts a group of bulk mode; each identity is written when its generator is finished."""
    session = group.session
    run = session.settings.tune
    pivots, _ = find_pivots(session)
    writer = artifacts.Writer(session, pivots)

    def keep(i, weights, facts):
        one = group.one(i)
        if one is None:
            return
        artifacts.save_pivots(one, pivots[i : i + 1])
        if run.num_steps:
            facts = facts | writer.write(one.path, i, weights, orbax=False)
        result = score(one, pivots[i : i + 1], [weights], edits)
        result.tables = tables_lib.class_tables(result.names, one.classes)
        group.finish(i, result, facts, ('project',))

    if run.num_steps == 0:
        for i in range(group.count):
            keep(i, session.weights, {})
        return

    def on_finished(i, weights, finished):
        if finished.error is not None:
            group.fail(i, str(finished.error))
        else:
            keep(i, weights, facts_of(finished))

    # The group is padded to its size; padding is not tuned, and has rows in the program.
    targets = session.targets.rows(range(group.count))
    arguments = session.shared_arguments
    arguments['runner'] = dataclasses.replace(arguments['runner'], names=tuple(targets.names))
    inversion_tune.tune(
        session.generator,
        session.weights,
        targets,
        pivots[: group.count],
        settings=run,
        min_slots=len(pivots),
        on_finished=on_finished,
        **arguments,
    )


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
    with job.stopwatch.stage('score'):
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
