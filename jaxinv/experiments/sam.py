"""SAM from photographs to report, and its baselines: the main path of --config=sam, top to bottom.

photographs -> W pivots -> segments, invertibility maps, choice of spaces -> joint search -> edits
"""

import functools
import pathlib
import time

import jax
import numpy as np

from jaxinv import edits as edits_lib
from jaxinv import report
from jaxinv.errors import JaxinvError
from jaxinv.experiments import artifacts, bulk, bulk_group, pti, sam_score, sam_stages, session
from jaxinv.experiments.sam_stages import Inverted, find_start, search
from jaxinv.experiments.session import Session
from jaxinv.inversion import sam
from jaxinv.report import provenance
from jaxinv.runtime import distributed
from jaxinv.settings import (
    CHOOSING,
    SINGLE,
    check,
    measuring_settings,
    named,
    prior_settings,
    title,
)


def run(config, path: pathlib.Path, *, overwrite: bool = False, log=print) -> None:
    """Runs one experiment into the folder `path`, or goes on with it. See configs/sam.py."""
    start = time.perf_counter()
    check(config)
    generator, weights, about = session.open_generator(config, log)
    edits = edits_lib.with_steps(session.parse_edits(config.edits, generator, weights, log))
    spaces = sam.spaces(generator.spec)
    if config.method in CHOOSING:
        sam_stages.check(config, generator.spec)
    if config.method in SINGLE and named(SINGLE[config.method], generator.spec) not in spaces:
        raise JaxinvError(
            f'{generator.spec.name} has no {SINGLE[config.method]}; it has {", ".join(spaces)}.'
        )
    opened, nouns = (generator, weights, about), ('picture', 'pictures')
    if config.group:
        invert_own = functools.partial(invert_group, edits=edits)
        bulk.run(
            config, path, opened, invert_own, title(config, generator.spec), overwrite, start, log
        )
        return
    with session.begin(config, path, opened, overwrite, start, log, nouns) as job:
        if job is None:
            return
        inverted = invert(job)
        if distributed.is_primary():
            sam_score.save(job, inverted)
        result = sam_score.score(job, inverted, edits)  # by all: a sweep is a search of all
        result.seconds = job.watch.seconds
        if not distributed.is_primary():
            return
        report.write(path, result)
    log(provenance.summary(result, path))


# --- Inversion ---


def invert(job: Session) -> Inverted:
    """Pivots, the generator's tuning, regions and the search, as far as the method has them."""
    config, spec, method = job.config, job.generator.spec, job.config.method
    # First what may go wrong: a label map that does not fit must not cost a projection.
    segments = sam_stages.segment(job) if method in CHOOSING else []
    pivots, projected = find_start(job)
    traces, weights = [('project', projected)], job.weights
    if method in ('pti', 'pti_sam'):
        per_identity, tuned = pti.tune(job, pivots)
        weights = per_identity[0]
        traces.append(('tune', tuned))
    settings = prior_settings(config)
    prior = artifacts.prior_of(job.generator, job.weights, settings, config.generator)
    w_plus = np.broadcast_to(pivots, (len(pivots), spec.num_ws, spec.w_dim))
    if method in ('w', 'pti'):
        codes = sam.Codes(w_plus, {})
        return Inverted(pivots, weights, codes, {}, prior, None, traces)
    regions = None
    if method in SINGLE:
        masks = sam.full_masks(spec, [named(SINGLE[method], spec)] * len(pivots))
        masks = jax.device_get(masks)
    else:
        settings = measuring_settings(config)
        regions = sam_stages.find(job, segments, weights, w_plus, prior, settings)
        masks = regions.masks
        traces += regions.traces
    codes, searched = search(job, 'invert', weights, masks, w_plus, prior)
    traces.append(('invert', searched))
    # Spaces that nobody lies in took part only so that every choice is the same program.
    used = [space for space, mask in masks.items() if np.any(mask)]
    masks = {space: masks[space] for space in used}
    codes = sam.Codes(codes.w_plus, {space: codes.offsets[space] for space in used})
    return Inverted(pivots, weights, codes, masks, prior, regions, traces)


def invert_group(group: bulk_group.Group, edits) -> None:
    """The same for a group of many, each measured and written by itself (experiments/bulk.py)."""
    inverted = invert(group.job)
    stages = tuple(group.job.watch.seconds)
    for i in range(group.count):
        one = group.one(i)
        if one is not None:
            own = only(inverted, i)
            sam_score.save(one, own, with_prior=False)
            group.finish(i, sam_score.score(one, own, edits), {}, stages)


def only(inverted: Inverted, i: int) -> Inverted:
    """Of picture i alone."""
    n = len(inverted.pivots)

    def own(tree):
        if isinstance(tree, dict):  # in its order, which jax's trees do not keep
            return {name: own(values) for name, values in tree.items()}
        return jax.tree.map(lambda x: x[i : i + 1], tree)

    regions = inverted.regions
    if regions is not None:
        fields = ('labels', 'maps', 'singles', 'chosen', 'masks')
        fields = {name: own(getattr(regions, name)) for name in fields}
        regions = regions._replace(segments=regions.segments[i : i + 1], traces=[], **fields)
    return inverted._replace(
        pivots=own(inverted.pivots),
        codes=own(inverted.codes),
        masks=own(inverted.masks),
        regions=regions,
        # Rows are spaces, and in each of them the pictures.
        traces=[
            (stage, {name: rows[:, i::n] for name, rows in t.items()})
            for stage, t in inverted.traces
        ],
    )
