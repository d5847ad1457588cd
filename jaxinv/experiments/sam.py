"""Main path of --config=sam and its baselines, top to bottom.

photographs -> W pivots -> segments, invertibility maps, choice of spaces -> joint search -> edits
"""

import functools
import pathlib
import time

from jaxinv import report, settings
from jaxinv.experiments import artifacts, bulk, bulk_group, sam_score, sam_shared
from jaxinv.experiments import session as sessions
from jaxinv.experiments.pti import given_pivots
from jaxinv.experiments.session import Session
from jaxinv.inversion import encode, invert_sam, sam_render
from jaxinv.inversion.invert_sam import Inverted
from jaxinv.report import provenance
from jaxinv.runtime import distributed


def run(config, path: pathlib.Path, *, overwrite: bool = False, log=print) -> None:
    """Runs --config=sam or sam_biggan in the folder `path`, or resumes it.

    Raises JaxinvError for settings, files or pictures that cannot be used.
    """
    start = time.perf_counter()
    config = resolved(config)
    opened, edits = sessions.open_run(config, log)
    sam_render.check_edits(edits)
    spec = opened[0].spec
    wanted = settings.of(config, settings.InvertSam)
    invert_sam.check(wanted, spec)
    if config.method in settings.WITH_ENCODER:
        encode.check_fits(invert_sam.encoder_of(wanted, None), spec)
    title, nouns = settings.title(config, spec), ('picture', 'pictures')
    if config.group:
        shared = sam_shared.Shared(config, path, opened, log) if wanted.tunes else None
        invert_own = functools.partial(invert_group, edits=edits, shared=shared)
        usage = functools.partial(provenance.usage_of_codes, path if shared else config.generator)
        before = shared and shared.make
        bulk.run(config, path, opened, invert_own, usage, title, overwrite, start, log, before)
        return
    with sessions.begin(config, path, opened, overwrite, start, log, nouns) as session:
        if session is None:
            return
        inverted = invert(session)
        if distributed.is_primary():
            sam_score.save(session, inverted)
        result = sam_score.score(session, inverted, edits)  # in all processes: a sweep searches
        if result is None:
            return
        result.seconds = session.stopwatch.seconds
        report.write(path, result)
    log(report.summary(result, path))


def resolved(config):
    """The config with the method by one name (InvertSam.resolved)."""
    settings.check(config)
    config = config.copy_and_resolve_references()
    config.method = settings.of(config, settings.InvertSam).resolved.method
    return config


def invert(session: Session, count: int | None = None, start=None, tuned=None) -> Inverted:
    """The inversion of all targets, with the prior that was saved with the generator if it fits.

    count: targets without the padding of a group; None = all. start, tuned: pivots [n, k, w_dim]
    and weights that were tuned at them before; None = the method's own.
    """
    run = session.settings
    prior = artifacts.prior_of(
        session.generator, session.weights, run.prior, session.config.generator
    )
    return invert_sam.invert_sam(
        session.generator,
        session.weights,
        session.targets,
        settings=run,
        start=given_pivots(session, count) if start is None else start,
        tuned=tuned,
        embeddings=session.embeddings,
        prior_statistics=prior,
        **session.shared_arguments,
    )


def invert_group(group: bulk_group.Group, edits, shared: sam_shared.Shared | None = None) -> None:
    """Inverts a group of bulk mode; each picture is measured and written by itself.

    shared: the generator that was tuned for all groups; None = the session's.
    """
    facts: dict = {}
    if shared is None:
        inverted = invert(group.session, group.count)
    else:
        start, tuned = shared.pivots_of(group), shared.weights
        if not group.count:
            return
        inverted, facts = invert(group.session, None, start, tuned), shared.facts
    session = group.session
    stages = tuple(session.stopwatch.seconds)
    for i in range(group.count):
        one = group.one(i)
        if one is not None:
            own = sam_score.select(inverted, slice(i, i + 1))
            sam_score.save(one, own, of_all=False)
            group.finish(i, sam_score.score(one, own, edits, [one.path]), facts, stages)
