"""Main path of --config=sam and its baselines, top to bottom.

photographs -> W pivots -> segments, invertibility maps, choice of spaces -> joint search -> edits
"""

import functools
import pathlib
import time

import jax

from jaxinv import edits as edits_lib
from jaxinv import report, settings
from jaxinv.experiments import artifacts, bulk, bulk_group, sam_score
from jaxinv.experiments import session as sessions
from jaxinv.experiments.pti import given_pivots
from jaxinv.experiments.session import Session
from jaxinv.inversion import invert_sam
from jaxinv.inversion.invert_sam import Inverted
from jaxinv.report import provenance
from jaxinv.runtime import distributed


def run(config, path: pathlib.Path, *, overwrite: bool = False, log=print) -> None:
    """Runs --config=sam or sam_biggan in the folder `path`, or resumes it.

    Raises JaxinvError for settings, files or pictures that cannot be used.
    """
    start = time.perf_counter()
    # Everything that is named is looked up before anything is computed.
    settings.check(config)
    generator, weights, about = sessions.open_generator(config, log)
    edits = edits_lib.with_steps(sessions.parse_edits(config.edits, generator, weights, log))
    invert_sam.check(settings.of(config, settings.InvertSam), generator.spec)
    opened, nouns = (generator, weights, about), ('picture', 'pictures')
    title = settings.title(config, generator.spec)
    if config.group:
        invert_own = functools.partial(invert_group, edits=edits)
        bulk.run(config, path, opened, invert_own, title, overwrite, start, log)
        return
    with sessions.begin(config, path, opened, overwrite, start, log, nouns) as session:
        if session is None:
            return
        inverted = invert(session)
        if distributed.is_primary():
            sam_score.save(session, inverted)
        result = sam_score.score(session, inverted, edits)  # in all processes: a sweep searches
        result.seconds = session.stopwatch.seconds
        if not distributed.is_primary():
            return
        report.write(path, result)
    log(provenance.summary(result, path))


def invert(session: Session) -> Inverted:
    """The inversion of all targets, with the prior that was saved with the generator if it fits."""
    run = session.settings
    prior = artifacts.prior_of(
        session.generator, session.weights, run.prior, session.config.generator
    )
    return invert_sam.invert_sam(
        session.generator,
        session.weights,
        session.targets,
        settings=run,
        start=given_pivots(session),
        embeddings=session.embeddings,
        prior_statistics=prior,
        **session.shared_arguments,
    )


def invert_group(group: bulk_group.Group, edits) -> None:
    """Inverts a group of bulk mode; each picture is measured and written by itself."""
    session = group.session
    inverted = invert(session)
    stages = tuple(session.stopwatch.seconds)
    for i in range(group.count):
        one = group.one(i)
        if one is not None:
            own = only(inverted, i)
            sam_score.save(one, own, with_prior=False)
            group.finish(i, sam_score.score(one, own, edits), {}, stages)


def only(inverted: Inverted, i: int) -> Inverted:
    """The inversion of picture i alone."""
    n = len(inverted.pivots)

    def own(tree):
        if isinstance(tree, dict):  # in its order, which JAX's trees do not keep
            return {name: own(values) for name, values in tree.items()}
        return jax.tree.map(lambda x: x[i : i + 1], tree)

    regions = inverted.regions
    if regions is not None:
        fields = ('labels', 'maps', 'singles', 'chosen', 'masks')
        fields = {name: own(getattr(regions, name)) for name in fields}
        regions = regions._replace(segments=regions.segments[i : i + 1], history=[], **fields)
    return inverted._replace(
        names=inverted.names[i : i + 1],
        pivots=own(inverted.pivots),
        codes=own(inverted.codes),
        masks=own(inverted.masks),
        regions=regions,
        # Columns are spaces, and for each of them the pictures.
        history=[
            (stage, {name: values[:, i::n] for name, values in traces.items()})
            for stage, traces in inverted.history
        ],
    )
