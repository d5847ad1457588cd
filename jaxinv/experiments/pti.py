"""The main path, top to bottom: photographs -> pivots -> tuned generator -> edits -> report."""

import dataclasses
import functools
import pathlib
import time

import numpy as np

from jaxinv import latents, rendering, report, settings
from jaxinv.experiments import artifacts, bulk, bulk_group, bulk_shared, preview, pti_score
from jaxinv.experiments import session as sessions
from jaxinv.experiments.pti_score import Tuned
from jaxinv.experiments.session import Session
from jaxinv.generators import checks
from jaxinv.inversion import code_files
from jaxinv.inversion import tune as inversion_tune
from jaxinv.inversion.project import project
from jaxinv.optimize.continuous_batching import Finished
from jaxinv.runtime import distributed


def run(config, path: pathlib.Path, *, overwrite: bool = False, log=print) -> None:
    """Runs --config=pti_single_id, pti_multi_id or pti_biggan in the folder `path`, or resumes it.

    Raises JaxinvError for settings, files or pictures that cannot be used.
    """
    start = time.perf_counter()
    opened, edits = sessions.open_run(config, log)
    if config.group:
        if config.tune.shared and config.tune.num_steps:
            bulk_shared.run(config, path, opened, invert_shared, edits, overwrite, start, log)
            return
        invert = functools.partial(invert_group, edits=edits)
        usage = functools.partial(pti_score.usage_of_identity, config)
        title = pti_score.title(config)
        bulk.run(config, path, opened, invert, usage, title, overwrite, start, log)
        return
    with sessions.begin(config, path, opened, overwrite, start, log) as session:
        if session is None:
            return
        start_pivots, projected = find_pivots(session)
        tuned = tune(session, start_pivots)
        if not distributed.is_primary():
            return
        tables = pti_score.save(session, tuned)
        result = pti_score.score(session, tuned, edits)
        result.tables = [*result.tables, *tables]
        result.traces = [
            report.Trace(stage, name, rows)
            for stage, traces in (('project', projected), ('tune', tuned.history))
            for name, rows in traces.items()
        ]
        result.seconds = session.stopwatch.seconds
        report.write(path, result)
    log(report.summary(result, path))


def find_pivots(session: Session, count: int | None = None) -> tuple[np.ndarray, dict]:
    """(pivots [n, 1 or num_ws, w_dim], their history {metric: [steps, n]}): found, or given.

    count: targets without the padding of a group; None = all.
    """
    given = given_pivots(session, count)
    if given is not None:
        return given, {}
    pivots = project(
        session.generator,
        session.weights,
        session.targets,
        settings=session.settings.pivot,
        embeddings=session.embeddings,
        **session.shared_arguments | {'runner': preview.of_pivots(session)},
    )
    return pivots.w, pivots.history


def given_pivots(session: Session, count: int | None = None) -> np.ndarray | None:
    """The codes of config.start [n, 1 or num_ws, w_dim], in the order of the targets."""
    start, names = session.settings.start, session.targets.names
    if not start:
        return None
    seed = settings.random_seed(start)
    if start == 'mean':
        w = np.repeat(np.asarray(session.statistics.mean)[None, None], len(names), axis=0)
    elif seed is not None:
        w = random_codes(session, seed)
    else:
        w = code_files.pivots_for(start, names[:count])
        w = np.concatenate([w, np.repeat(w[-1:], len(names) - len(w), axis=0)])
    checks.check_w(w, session.generator.spec)
    if session.embeddings is not None:  # the classes are the run's, whatever the file's were
        w = latents.with_class(w, session.embeddings[:, None])
    return np.asarray(w)


def random_codes(session: Session, seed: int) -> np.ndarray:
    """A code w [n, 1, w_dim] for each target, z ~ N(0, 1) without truncation.

    A picture has the same code alone, in a batch, and in a group of bulk mode.
    """
    spec, ids = session.generator.spec, latents.identity_ids(session.targets.images_uint8)
    z = latents.identity_normals(latents.stream(seed, 'start'), ids, 0, (spec.z_dim,))
    with rendering.full_precision():
        w = session.generator.map(session.weights, latents.truncated_normal(z, spec.z_truncation))
    return np.asarray(w)[:, None]


def tune(session: Session, pivots) -> Tuned:
    """The pivots, and the weights of each identity.

    With one generator for all it is the same object n times; else each is read from where it was
    saved when it was finished.
    """
    run, n = session.settings.tune, len(pivots)
    if run.num_steps == 0:
        return Tuned(pivots, [session.weights] * n)
    keep = None if run.shared else artifacts.EachGenerator(session)

    def on_finished(i, weights, finished):
        if finished.error is not None:
            raise finished.error
        if distributed.is_primary():
            pivot = inversion_tune.pivot_of(run, finished, pivots[i])
            keep(i, weights, pivot, facts_of(finished))

    tuned = inversion_tune.tune(
        session.generator,
        session.weights,
        session.targets,
        pivots,
        settings=run,
        on_finished=None if run.shared else on_finished,
        **session.shared_arguments | {'runner': preview.of_generator(session)},
    )
    start = pivots if run.pivot_learning_rate else None
    if run.shared:
        return Tuned(tuned.pivots, [tuned.weights] * n, start, tuned.history)
    saved = artifacts.SavedGenerators(session)
    if start is not None and distributed.is_primary():
        pivots = saved.pivots()
    return Tuned(pivots, saved, start, tuned.history)


def facts_of(finished: Finished) -> dict:
    """What the manifest keeps of an identity's tuning."""
    return {
        'steps': len(finished.traces['loss']),
        'seconds': {'tune': round(finished.seconds, 3)},
    }


def invert_shared(session: Session) -> Tuned:
    """The pivots and the one generator of bulk mode."""
    return tune(session, find_pivots(session)[0])


def invert_group(group: bulk_group.Group, edits) -> None:
    """Inverts a group of bulk mode; each identity is written when its generator is finished."""
    session = group.session
    run = session.settings.tune
    pivots, _ = find_pivots(session, group.count)
    writer = artifacts.GeneratorWriter(session)

    def keep(i, weights, pivot, facts):
        one = group.one(i)
        if one is None:
            return
        if run.num_steps:
            facts = facts | writer.write(one.path, i, weights, pivot, orbax=False)
        start = pivots[i : i + 1] if run.num_steps and run.pivot_learning_rate else None
        code_files.save_pivots(one.path, one.targets.names, pivot[None], start)
        tuned = Tuned(pivot[None], [weights], start)
        result = pti_score.score(one, tuned, edits, [one.path])
        group.finish(i, result, facts, ('project',))

    if run.num_steps == 0:
        for i in range(group.count):
            keep(i, session.weights, pivots[i], {})
        return

    def on_finished(i, weights, finished):
        if finished.error is not None:
            group.fail(i, str(finished.error))
        else:
            pivot = inversion_tune.pivot_of(run, finished, pivots[i])
            keep(i, weights, pivot, facts_of(finished))

    # The group is padded to its size; padding is not tuned, and has rows in the program.
    targets = session.targets.select(range(group.count))
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
