"""The main path, top to bottom: photographs -> pivots -> tuned generator -> edits -> report."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Sequence

import numpy as np

from jaxinv import latents, report
from jaxinv.experiments import artifacts, bulk, bulk_group, bulk_shared, preview, pti_score
from jaxinv.experiments import session as sessions
from jaxinv.experiments.session import Session
from jaxinv.generators import checks
from jaxinv.inversion import code_files
from jaxinv.inversion import tune as inversion_tune
from jaxinv.inversion.project import project
from jaxinv.optimize.continuous_batching import Finished
from jaxinv.runtime import distributed
from jaxinv.types import Weights


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
        pivots, projected = find_pivots(session)
        per_identity, tuned = tune(session, pivots)
        if not distributed.is_primary():
            return
        tables = pti_score.save(session, pivots, per_identity)
        result = pti_score.score(session, pivots, per_identity, edits)
        result.tables = [*result.tables, *tables]
        result.traces = [
            report.Trace(stage, name, rows)
            for stage, traces in (('project', projected), ('tune', tuned))
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
    if not session.config.start:
        return None
    names = session.targets.names
    w = code_files.pivots_for(session.config.start, names[:count])
    w = np.concatenate([w, np.repeat(w[-1:], len(names) - len(w), axis=0)])
    checks.check_w(w, session.generator.spec)
    if session.embeddings is not None:  # the classes are the run's, whatever the file's were
        w = latents.with_class(w, session.embeddings[:, None])
    return np.asarray(w)


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
        **session.shared_arguments | {'runner': preview.of_generator(session, pivots)},
    )
    if run.shared:
        return [tuned.weights] * n, tuned.history
    return artifacts.SavedGenerators(session), tuned.history


def facts_of(finished: Finished) -> dict:
    """What the manifest keeps of an identity's tuning."""
    return {
        'steps': len(finished.traces['loss']),
        'seconds': {'tune': round(finished.seconds, 3)},
    }


def invert_shared(session: Session) -> tuple[np.ndarray, Weights]:
    """(pivots [n, 1 or num_ws, w_dim], weights of the one generator) of bulk mode."""
    pivots, _ = find_pivots(session)
    per_identity, _ = tune(session, pivots)
    return pivots, per_identity[0]


def invert_group(group: bulk_group.Group, edits) -> None:
    """Inverts a group of bulk mode; each identity is written when its generator is finished."""
    session = group.session
    run = session.settings.tune
    pivots, _ = find_pivots(session, group.count)
    writer = artifacts.GeneratorWriter(session, pivots)

    def keep(i, weights, facts):
        one = group.one(i)
        if one is None:
            return
        code_files.save_pivots(one.path, one.targets.names, pivots[i : i + 1])
        if run.num_steps:
            facts = facts | writer.write(one.path, i, weights, orbax=False)
        result = pti_score.score(one, pivots[i : i + 1], [weights], edits, [one.path])
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
