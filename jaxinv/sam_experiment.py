"""SAM from photographs to report, and its baselines: the main path of --config=sam, top to bottom.

photographs -> W pivots -> segments, invertibility maps, choice of spaces -> joint search -> edits
"""

import functools
import pathlib
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxinv import (
    checkpoints,
    classes,
    data,
    deltas,
    distributed,
    experiment,
    faces,
    groups,
    images,
    invertibility,
    jobs,
    latents,
    loops,
    provenance,
    rendering,
    report,
    results,
    sam_figures,
    sam_files,
    sam_metrics,
    sam_regions,
    saving,
    scoring,
    slots,
    stream,
)
from jaxinv import edits as edits_lib
from jaxinv.errors import JaxinvError
from jaxinv.generators import arguments
from jaxinv.inversion import project, pti, sam, sam_prior
from jaxinv.jobs import Job

LABELS = {
    'w': 'W',
    'w_plus': 'W+',
    'gaussian_prior': 'W+ prior',
    'f2': 'F2',
    'f4': 'F4',
    'f6': 'F6',
    'f8': 'F8',
    'f10': 'F10',
    'sam': 'SAM',
    'pti': 'PTI',
    'pti_sam': 'PTI+SAM',
}
SINGLE = {'gaussian_prior': 'W+'} | {
    name: LABELS[name] for name in ('w_plus', 'f2', 'f4', 'f6', 'f8', 'f10')
}
CHOOSING = ('sam', 'pti_sam')  # the methods that choose a space for each region
EDITS_A_PASS = 3  # with the unedited image a batch of 4; bounds memory


def run(config, path: pathlib.Path, *, overwrite: bool = False, log=print) -> None:
    """Runs one experiment into the folder `path`, or goes on with it. See configs/sam.py."""
    start = time.perf_counter()
    check(config)
    generator, weights, about = jobs.open_generator(config, log)
    edits = edits_lib.with_steps(jobs.parse_edits(config.edits, generator, weights, log))
    spaces = sam.spaces(generator.spec)
    if config.method in CHOOSING:
        sam_regions.check(config, generator.spec)
    if config.method in SINGLE and named(SINGLE[config.method], generator.spec) not in spaces:
        raise JaxinvError(
            f'{generator.spec.name} has no {SINGLE[config.method]}; it has {", ".join(spaces)}.'
        )
    opened, nouns = (generator, weights, about), ('picture', 'pictures')
    if config.group:
        invert_own = functools.partial(invert_group, edits=edits)
        stream.run(
            config, path, opened, invert_own, title(config, generator.spec), overwrite, start, log
        )
        return
    with jobs.begin(config, path, opened, overwrite, start, log, nouns) as job:
        if job is None:
            return
        inverted = invert(job)
        if distributed.is_first():
            save(job, inverted)
        result = score(job, inverted, edits)  # by all: a sweep is a search of all
        result.seconds = job.watch.seconds
        if not distributed.is_first():
            return
        report.write(path, result)
    log(provenance.summary(result, path))


def title(config, spec) -> str:
    return f'{named(LABELS[config.method], spec)} inversion'


def named(label: str, spec) -> str:
    """A label or space as it is called for the generator: W and W+ of BigGAN are Z and Z+."""
    return label.replace('W', spec.latent)


def check(config) -> None:
    """Raises JaxinvError for settings that cannot be used, before anything is computed."""
    if config.method not in LABELS:
        raise JaxinvError(f'method is {config.method!r}; it can be {", ".join(LABELS)}.')
    projection, tuning = jobs.settings_of(config)
    project.check(projection)
    pti.check(tuning)
    deltas.check(saving.saving_of(config), shared=True)
    slots.check(config.tune.slots, shared=True)
    stream.check(config, config.method.startswith('pti'))
    if config.group and config.sweep.num_steps:
        raise JaxinvError(
            f'group={config.group} and sweep.num_steps={config.sweep.num_steps} do not go '
            'together; sweep a few pictures with group=0.'
        )
    if config.method.startswith('pti') and not tuning.shared:
        raise JaxinvError(
            f'method {config.method} tunes one generator for all pictures (tune.shared=True); '
            'run pictures one by one for a generator each.'
        )
    sam.check(search_settings(config))
    sam.check(measuring_settings(config))
    sam_prior.check(prior_settings(config))
    if config.edit_mixing not in ('with_offsets', 'official'):
        raise JaxinvError(
            f"edit_mixing is {config.edit_mixing!r}; it can be 'with_offsets' or 'official'."
        )


def search_settings(config) -> sam.Settings:
    settings = sam.Settings(**config.sam.to_dict())
    if config.method == 'gaussian_prior':
        settings = settings._replace(prior_weight=config.gaussian_prior_weight)
    return settings


def measuring_settings(config) -> sam.Settings:
    s = config.invertibility
    settings = sam.Settings(**config.sam.to_dict())
    return settings._replace(num_steps=s.num_steps, learning_rate=s.learning_rate)


def prior_settings(config) -> sam_prior.Settings:
    return sam_prior.Settings(**config.prior.to_dict())


# --- Inversion ---


class Inverted(NamedTuple):
    """On the host, but for weights and prior."""

    pivots: np.ndarray  # [n, 1 or num_ws, w_dim]
    weights: Any  # of the generator, tuned or not
    codes: sam.Codes
    masks: dict[str, np.ndarray]
    prior: sam_prior.Prior
    regions: sam_regions.Regions | None  # of the methods that choose
    traces: list  # [(stage, traces)]


def invert(job: Job) -> Inverted:
    """Pivots, the generator's tuning, regions and the search, as far as the method has them."""
    config, spec, method = job.config, job.generator.spec, job.config.method
    # First what may go wrong: a label map that does not fit must not cost a projection.
    segments = sam_regions.segment(job) if method in CHOOSING else []
    pivots, projected = find_start(job)
    traces, weights = [('project', projected)], job.weights
    if method in ('pti', 'pti_sam'):
        per_identity, tuned = experiment.tune(job, pivots)
        weights = per_identity[0]
        traces.append(('tune', tuned))
    settings = prior_settings(config)
    prior = sam_files.prior_of(job.generator, job.weights, settings, config.generator)
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
        regions = sam_regions.find(job, segments, weights, w_plus, prior, settings)
        masks = regions.masks
        traces += regions.traces
    codes, searched = search(job, 'invert', weights, masks, w_plus, prior)
    traces.append(('invert', searched))
    # Spaces that nobody lies in took part only so that every choice is the same program.
    used = [space for space, mask in masks.items() if np.any(mask)]
    masks = {space: masks[space] for space in used}
    codes = sam.Codes(codes.w_plus, {space: codes.offsets[space] for space in used})
    return Inverted(pivots, weights, codes, masks, prior, regions, traces)


def invert_group(group: groups.Group, edits) -> None:
    """The same for a group of many, each measured and written by itself (stream.py)."""
    inverted = invert(group.job)
    stages = tuple(group.job.watch.seconds)
    for i in range(group.count):
        one = group.one(i)
        if one is not None:
            own = only(inverted, i)
            save(one, own, with_prior=False)
            group.finish(i, score(one, own, edits), {}, stages)


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


def find_start(job: Job):
    """Where w_plus starts, [n, 1 or num_ws, w_dim], and the traces of the search for it.

    By projection into W, or read from config.start: another run's pivots.npz, or what an encoder
    said, by the targets' names.
    """
    if not job.config.start:
        return experiment.find_pivots(job)
    path = pathlib.Path(job.config.start)
    path = path / 'pivots.npz' if path.is_dir() else path
    try:
        with np.load(path, allow_pickle=False) as arrays:
            codes = dict(zip(arrays['names'].tolist(), arrays['w'], strict=True))
    except (OSError, ValueError, KeyError) as error:
        raise JaxinvError(
            f'start {path} is not an .npz file with arrays names [n] and w [n, 1 or num_ws, w_dim] '
            f'({error}).'
        ) from None
    missing = [name for name in job.targets.names if name not in codes]
    if missing:
        raise JaxinvError(f'start {path} has no code for {", ".join(missing)}.')
    w = np.stack([codes[name] for name in job.targets.names]).astype(np.float32)
    arguments.check_w(w, job.generator.spec)
    if job.classes is not None:  # these are the run's, whatever the file's were
        w = latents.with_rest(w, job.classes.embeddings[:, None])
    return w, {}


def search(job: Job, stage, weights, masks, w_plus, prior):
    """Codes of all targets, and the traces of the search."""
    config = job.config
    settings = search_settings(config)
    inverter = sam.make_inverter(job.generator, settings)
    with job.watch.stage(stage):
        net, valid = job.nets[settings.lpips_net], job.targets.valid
        targets, key = job.targets.images_uint8, jax.random.key(config.seed + 3)
        ids = latents.identity_ids(targets)

        def find(rows, run):
            def prepare(which, share):
                own = rows[which]
                return inverter.prepare(
                    weights,
                    net,
                    images.to_float(targets[own]),
                    {space: mask[own] for space, mask in masks.items()},
                    w_plus[own],
                    ids[own],
                    prior,
                    None if valid is None else valid[own],
                )

            variables = run(inverter.loop, prepare, key, settings.num_steps, settings.metrics)
            return inverter.codes(variables)

        return loops.in_parts(job, stage, settings.at_once, find)


# --- Results ---


def save(job: Job, inverted: Inverted, with_prior: bool = True) -> None:
    """codes.npz, pivots.npz, prior.npz, regions.npz, and generator/ if it was tuned."""
    names = list(job.targets.names)
    np.savez(job.path / 'pivots.npz', names=np.array(names), w=np.asarray(inverted.pivots))
    sam_files.save_codes(job.path, names, inverted.codes, inverted.masks)
    if with_prior:
        sam_files.save_prior(job.path, inverted.prior, prior_settings(job.config))
    regions = inverted.regions
    if regions is not None:
        maps = {f'maps/{space}': values for space, values in regions.maps.items()}
        np.savez(job.path / sam_files.REGIONS, labels=regions.labels, chosen=regions.chosen, **maps)
    if inverted.weights is not job.weights:
        checkpoints.save_generator(job.path / 'generator', job.generator, inverted.weights)


@functools.cache
def _editor(generator, mixing):
    return jax.jit(
        lambda weights, codes, masks, deltas: sam.synthesize_edits(
            generator, weights, codes, masks, deltas, mixing=mixing
        )
    )


def render(job: Job, weights, codes: sam.Codes, masks, deltas) -> np.ndarray:
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
    start = np.array(w_plus)
    start[..., : spec.moving_dims] = 0  # of w only the class has a say in what an edit adds
    deltas = [np.asarray(edits_lib.apply(start, edit, spec.num_ws)) - start for edit in edits]
    return np.stack(deltas) if deltas else np.zeros((0, *start.shape), np.float32)


def score(job: Job, inverted: Inverted, edits) -> report.Run:
    """Everything the report shows: stages, edits, maps and curves, measured, with provenance."""
    config, spec, targets = job.config, job.generator.spec, job.targets
    label = named(LABELS[config.method], spec)
    job.log('Rendering edits and measuring ...', flush=True)
    with job.watch.stage('score'):
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
        embedding = scoring.embed(job, targets.images_uint8)
        edited_results = []
        for edit, pictures in zip(edits, rendered[1:], strict=True):
            edited = images.to_uint8(pictures)
            distance = faces.identity_distance(embedding, scoring.embed(job, edited))
            measured = scoring.measure_attributes(job, edited)
            edited_results.append(
                report.EditResult(edit.name, edit.parts, edited, distance, measured, edit.requested)
            )
    traces = [
        report.Trace(stage, name, rows) for stage, t in inverted.traces for name, rows in t.items()
    ]
    panels, tables = [], classes.tables(targets.names, job.classes)
    if inverted.regions is not None:
        panels = sam_figures.panels(job, inverted.regions)
        traces += sam_figures.threshold_curves(job, inverted.regions)
        if config.sweep.num_steps:
            traces += sweep(job, inverted)
        if config.edit_table and edits and job.looks_for_faces and inverted.regions.singles:
            with job.watch.stage('edit table'):
                tables.append(edit_table(job, inverted, edits, deltas))
    return report.Run(
        title=title(config, spec),
        names=list(targets.names),
        targets_uint8=targets.images_uint8,
        stages=stages,
        target_attributes=scoring.measure_attributes(job, targets.images_uint8),
        edits=edited_results,
        panels=panels,
        tables=tables,
        traces=traces,
        config=config.to_dict(),
        generator=provenance.generator_of(job),
        versions=provenance.versions(),
        seeds={
            'seed': config.seed,
            'w_statistics': config.w_statistics.seed,
            'prior': config.prior.seed,
        },
        sources=targets.sources,
        skipped=targets.skipped,
        facts={
            'peak memory': f'{provenance.peak_memory_gb():.1f} GB',
            'devices': provenance.devices(),
        },
        usage=usage(job, inverted),
    )


def measure_stage(job: Job, name: str, rendered) -> report.Stage:
    targets_uint8 = job.targets.images_uint8
    rendered_uint8 = images.to_uint8(rendered)
    targets = images.to_float(targets_uint8, np)
    values = dict(sam_metrics.evaluate(targets, rendered, job.nets, job.targets.valid))
    if job.looks_for_faces:
        values['id_distance'] = faces.identity_distance(
            scoring.embed(job, targets_uint8), scoring.embed(job, rendered_uint8)
        )
    attributes = scoring.measure_attributes(job, rendered_uint8)
    return report.Stage(name, rendered_uint8, values, attributes)


def edit_table(job: Job, inverted: Inverted, edits, deltas) -> report.Table:
    """Which edit acts in which space: all images inverted into one space alone, then edited."""
    kept = [i for i, edit in enumerate(edits) if len(edit.parts) == 1]
    changes = {}  # {space: [{attribute: mean change} for each edit]}
    for space, single in inverted.regions.singles.items():
        pictures = render(job, inverted.weights, single.codes, single.masks, deltas[kept])
        measured = [scoring.measure_attributes(job, images.to_uint8(p)) for p in pictures]
        changes[space] = [
            {name: results.mean(after[name] - before) for name, before in measured[0].items()}
            for after in measured[1:]
        ]
    return sam_figures.edit_table([edits[i] for i in kept], changes)


def sweep(job: Job, inverted: Inverted) -> list[report.Trace]:
    """An inversion at every threshold, and how well each reproduces."""
    config, regions, n = job.config, inverted.regions, len(job.targets.names)
    taus = config.sweep.taus
    found = invertibility.sweep(
        regions.maps,
        regions.labels,
        taus,
        job.generator.spec,
        valid=sam_regions.valid_of(job, regions.labels.shape[1:]),
        resample=config.invertibility.resample,
        at_once=config.sam.at_once,
    )
    count = len(taus)
    valid = job.targets.valid
    repeated = data.Targets(
        names=[f'{name} {tau}' for tau in taus for name in job.targets.names],
        images_uint8=np.tile(job.targets.images_uint8, (count, 1, 1, 1)),
        sources=[],
        skipped=[],
        valid=None if valid is None else np.tile(valid, (count, 1, 1, 1)),
    )
    rows = job._replace(targets=repeated, config=config.copy_and_resolve_references())
    rows.config.sam.num_steps = config.sweep.num_steps
    masks = invertibility.rows_of(found.masks)
    w_plus = np.tile(
        np.broadcast_to(inverted.pivots, (n, *inverted.codes.w_plus.shape[1:])), (count, 1, 1)
    )
    codes, _ = search(rows, 'sweep', inverted.weights, masks, w_plus, inverted.prior)
    none = np.zeros((0, *codes.w_plus.shape))
    pictures = render(job, inverted.weights, codes, masks, none)[0]
    targets = images.to_float(repeated.images_uint8, np)
    values = sam_metrics.evaluate(targets, pictures, job.nets, repeated.valid)
    step = taus[1] - taus[0] if count > 1 else 1.0
    return [
        report.Trace('inversions at thresholds τ', m, values[m].reshape(count, n), taus[0], step)
        for m in ('psnr', 'lpips_vgg')
    ]


def usage(job: Job, inverted: Inverted) -> str:
    source = job.path if inverted.weights is not job.weights else job.config.generator
    return (
        'import jaxinv\n'
        'from jaxinv import sam_files\n'
        'from jaxinv.inversion import sam\n'
        f'generator, weights = jaxinv.load_generator({str(source)!r})\n'
        f'codes, masks = sam_files.load_codes({str(job.path)!r})\n'
        'images = sam.synthesize(generator, weights, codes, masks)  # delta=...: an edit'
    )
