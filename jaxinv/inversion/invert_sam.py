"""SAM from targets to codes, and its baselines: start, tuning, regions, joint search.

    inverted = invert_sam(generator, weights, targets)
    inverted.codes, inverted.masks, inverted.regions

Parmar et al. 2022 (arXiv:2206.08357), section 3. `method` chooses SAM or a baseline of its table 1:
'w', 'w_plus', 'gaussian_prior', 'f4' ... 'f10' (one space for all of an image), 'pti', 'pti_sam';
'encoder', 'e4e' and 'restyle' (an encoder's codes), 'hybrid' (a search in W+ that starts there).
'sam_encoder' is SAM without a search: codes by its own encoders (appendix 6.2).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxinv import latents, settings
from jaxinv.errors import JaxinvError
from jaxinv.generators import checks
from jaxinv.inversion import (
    encode,
    inputs,
    notebook,
    region_files,
    sam,
    sam_encode,
    sam_prior,
    sam_regions,
)
from jaxinv.inversion.project import project
from jaxinv.inversion.sam_regions import Problem, Regions
from jaxinv.inversion.tune import tune
from jaxinv.networks.encoders import Encoder
from jaxinv.networks.sam_encoders import Encoders
from jaxinv.optimize.runner import LoopTask, Runner
from jaxinv.pixels import to_float
from jaxinv.settings import (
    CHOOSING,
    ENCODED,
    SINGLE,
    WITH_ENCODER,
    Invertibility,
    InvertSam,
    Search,
    named,
)
from jaxinv.types import Generator, GeneratorSpec
from jaxinv.weights.sam_encoders import load_sam_encoders

SEARCH_FIELDS = tuple(field.name for field in dataclasses.fields(Search))


class Inverted(NamedTuple):
    """The result of an inversion: arrays on the host, but for weights and prior."""

    names: tuple[str, ...]
    pivots: np.ndarray  # [n, 1 or num_ws, w_dim], where w_plus started
    weights: Any  # of the generator, tuned by the methods 'pti' and 'pti_sam'
    codes: sam.Codes  # w_plus [n, num_ws, w_dim], offsets {'F4': [n, h, w, c], ...}
    masks: dict[str, np.ndarray]  # {'F4': [n, h, w, 1], ...} of every space in codes.offsets
    prior: sam_prior.Prior | None
    regions: Regions | None  # of the methods that choose a space for each region
    history: list  # [(stage, {metric: [steps, n]})]

    def _repr_html_(self) -> str:
        last = self.history[-1][1] if self.history else {}
        call = 'jaxinv.show(targets, jaxinv.render(generator, inverted.weights, inverted))'
        return notebook.table('Inverted', self.names, last, call)


def check(run: InvertSam, spec: GeneratorSpec) -> None:
    """Raises JaxinvError for settings that cannot be used with a generator of this spec."""
    run.check()
    run = run.resolved
    own_encoders = sam_encoders_of(run, spec) if run.method == 'sam_encoder' else None
    if run.method in CHOOSING:
        sam_regions.check(run.segments, choice_of(run, own_encoders), spec)
    spaces = sam.spaces(spec)
    if run.method in SINGLE and named(SINGLE[run.method], spec) not in spaces:
        raise JaxinvError(f'{spec.name} has no {SINGLE[run.method]}; it has {", ".join(spaces)}.')


def invert_sam(
    generator: Generator,
    weights,
    targets,
    *,
    settings: InvertSam | None = None,
    start=None,
    seed: int = 0,
    statistics: latents.WStatistics | None = None,
    embeddings=None,
    prior_statistics: sam_prior.Prior | None = None,
    tuned=None,
    lpips: Any = 'auto',
    mesh: str = '',
    verbose: bool = True,
    callback=None,
    runner: Runner | None = None,
    **changes,
) -> Inverted:
    """Inverts targets by SAM or a baseline.

    targets: what `load_images` returned, or images [n, h, w, 3] of the generator's resolution.
    settings: of all stages (settings.InvertSam); None = the released code's budgets. **changes:
      fields of it, e.g. method='w_plus', pivot={'num_steps': 60}, invertibility={'num_steps': 30};
      fields of settings.Search, as num_steps=100, change the joint search.
    start: codes [n, 1 or num_ws, w_dim] where w_plus starts, or an Encoder that makes them; None =
      by projection into W.
    statistics, prior_statistics: of the generator, if computed already.
    tuned: weights that were tuned at `start` already, of these and other targets, for the methods
      'pti' and 'pti_sam'; None = they tune them.
    embeddings [n, e]: of each image's class, for BigGAN-deep (`classes.choose`).
    seed, lpips, mesh, verbose, callback, runner: as in `project`.

    Raises JaxinvError for settings or shapes that do not fit, NotFinite.
    """
    run = changed(InvertSam() if settings is None else settings, **changes).resolved
    spec = generator.spec
    check(run, spec)
    examples = inputs.examples_of(targets, spec)
    if run.sam.padding == 'crop' and examples.valid is not None:
        # An error here costs no projection.
        sam.padded_rows(examples.valid, min(run.sam.loss_size, spec.resolution))
    runner = runner or inputs.make_runner(examples.names, mesh, verbose, callback)
    nets = inputs.lpips_weights(lpips, ('alex', 'vgg'))
    choosing = run.method in CHOOSING
    # Label maps and measured maps that do not fit must not cost a projection.
    if run.invertibility.maps and run.method != 'pti_sam':  # whose weights are not tuned yet
        wanted = region_files.inputs(weights, examples.images_uint8)
        region_files.maps_for(run.invertibility.maps, wanted, examples.names)
    segments = sam_regions.segment_images(examples, runner, run.segments) if choosing else []
    shared = {'seed': seed, 'statistics': statistics, 'lpips': nets, 'runner': runner}
    history = []
    own_encoders = sam_encoders_of(run, spec) if run.method == 'sam_encoder' else None
    if own_encoders is not None:
        pivots = sam_encode.start(own_encoders, examples, spec)
    elif run.method in WITH_ENCODER:
        encoder, passes = encoder_of(run, start), run.pivot.refinements
        if run.method == 'hybrid':
            if statistics is None:
                statistics = latents.w_statistics(generator, weights)
            opened = generator, weights, examples
            pivots = encode.start_codes(encoder, *opened, statistics, runner.log, passes)
        else:
            pivots = encode.encode(encoder, generator, weights, examples, steps=passes)
    elif start is None or isinstance(start, Encoder):
        given = {'settings': run.pivot, 'start': start, 'embeddings': embeddings}
        pivots = project(generator, weights, examples, **given, **shared)
        history.append(('project', pivots.history))
        pivots = pivots.w
    else:
        pivots = np.asarray(start)
        checks.check_w(pivots, spec)
    if tuned is not None:
        weights = tuned
    elif run.method in ('pti', 'pti_sam'):
        found = tune(generator, weights, examples, pivots, settings=run.tune, **shared)
        weights, pivots = found.weights, found.pivots
        history.append(('tune', found.history))
    n, prior = len(examples.names), prior_statistics
    w_plus = np.broadcast_to(pivots, (n, spec.num_ws, spec.w_dim))
    problem = Problem(generator, weights, examples, nets, runner, seed)
    if run.method in ('w', 'pti', *ENCODED):
        codes = sam.Codes(w_plus, {})
        return Inverted(examples.names, pivots, weights, codes, {}, prior, None, history)
    measured = not (run.invertibility.network or run.invertibility.maps)
    if prior is None and (measured or run.method != 'sam_encoder'):
        prior = sam_prior.statistics(generator, weights, run.prior)
    regions, choice = None, choice_of(run, own_encoders)
    if choosing:
        regions = sam_regions.find_regions(problem, segments, w_plus, prior, run.measuring, choice)
        masks = regions.masks
        history += regions.history
    else:
        masks = sam.full_masks(spec, [named(SINGLE[run.method], spec)] * n)
        masks = jax.device_get(masks)
    if run.method == 'sam_encoder':
        codes = encode_regions(problem, own_encoders, tuple(regions.maps), regions.chosen, masks)
    else:
        codes, traces = search(problem, 'invert', masks, w_plus, prior, run.searching)
        history.append(('invert', traces))
    # Unused spaces were kept in the program so that it does not recompile.
    used = [space for space, mask in masks.items() if np.any(mask)]
    masks = {space: masks[space] for space in used}
    codes = sam.Codes(codes.w_plus, {space: codes.offsets[space] for space in used})
    return Inverted(examples.names, pivots, weights, codes, masks, prior, regions, history)


def choice_of(run: InvertSam, encoders: Encoders | None) -> Invertibility:
    """run.invertibility; without spaces of its own, those of SAM's encoders if they are used."""
    choice = run.invertibility
    return (
        choice if encoders is None or choice.spaces else choice.replace(spaces=encoders.spec.spaces)
    )


def encode_regions(problem: Problem, encoders: Encoders, spaces, chosen, masks) -> sam.Codes:
    """Codes of all images by SAM's encoders.

    chosen int [n, h, w]: index into `spaces`, of the maps; masks {feature: [n, h, w, 1]}.
    """
    places = np.array([encoders.spec.spaces.index(space) for space in spaces], np.int32)
    with problem.runner.stopwatch.stage('encode'):
        return sam_encode.encode(
            encoders, problem.generator, problem.weights, problem.examples, places[chosen], masks
        )


def sam_encoders_of(run: InvertSam, spec: GeneratorSpec) -> Encoders:
    """SAM's encoders. Raises JaxinvError if there are none, or they are of other spaces."""
    if not run.sam_encoders:
        raise JaxinvError(
            f'method is {run.method!r} and sam_encoders is {run.sam_encoders!r}; give '
            'sam_encoders.safetensors of --config=train_sam_encoders.'
        )
    found = load_sam_encoders(run.sam_encoders)
    sam_encode.check_fits(found, spec)
    own = found.spec.spaces
    missing = [s for s in run.invertibility.spaces if s not in own]
    missing += [s for _, s in run.invertibility.assign if s not in own]
    if missing:
        raise JaxinvError(
            f'invertibility names the space {missing[0]}, which sam_encoders has not; it has '
            f'{", ".join(own)}.'
        )
    return found


def encoder_of(run: InvertSam, start) -> Encoder:
    """The encoder of the methods that need one. Raises JaxinvError if it is not of their kind."""
    encoder = encode.opened((run.pivot.start or None) if start is None else start)
    if not isinstance(encoder, Encoder):
        raise JaxinvError(
            f'method is {run.method!r}, which needs an encoder; give pivot.start=encoder:PATH'
            f'{", or sam_encoders=PATH" if run.method == "encoder" else ""}.'
        )
    kind, wanted = encoder.spec.kind, run.method
    if wanted in ('e4e', 'restyle') and not kind.startswith(wanted):
        raise JaxinvError(
            f'method is {wanted!r} and the encoder of pivot.start is of the kind {kind!r}; use '
            "method='encoder' for encoders of any kind."
        )
    return encoder


def changed(run: InvertSam, **changes) -> InvertSam:
    """A checked copy with these fields changed; those of Search are changed in `sam`."""
    search = {name: changes.pop(name) for name in SEARCH_FIELDS if name in changes}
    if search:
        changes['sam'] = settings.changed(changes.get('sam', run.sam), **search)
    return settings.changed(run, **changes)


def search(problem: Problem, stage: str, masks, w_plus, prior, options: Search):
    """The joint search (equations 5 to 8): (Codes of all images, {metric: [steps, n]}).

    masks {feature: [n, h, w, 1]}; w_plus [n, num_ws, w_dim], where it starts.
    """
    generator, weights, examples, nets, runner, seed = problem
    inverter = sam.make_inverter(generator, options)
    key, ids = latents.stream(seed, 'search'), examples.ids
    images, valid = examples.images_uint8, examples.valid

    def make_task(rows):
        def prepare(which, shard):
            own = rows[which]
            return inverter.prepare(
                weights,
                nets[options.lpips_net],
                to_float(images[own]),
                {space: mask[own] for space, mask in masks.items()},
                w_plus[own],
                ids[own],
                prior,
                None if valid is None else valid[own],
            )

        return LoopTask(
            inverter.loop, prepare, key, options.num_steps, options.metrics, inverter.codes
        )

    return runner.run(stage, make_task, batch_per_device=options.batch_per_device)
