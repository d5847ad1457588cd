"""The main path, top to bottom: photographs -> pivots -> tuned generator -> edits -> report."""

import contextlib
import functools
import importlib.metadata
import pathlib
import platform
import resource
import sys
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import (
    attributes,
    checkpoints,
    classes,
    data,
    defaults,
    deltas,
    distributed,
    faces,
    generators,
    images,
    latents,
    metrics,
    placement,
    report,
    results,
    saving,
    slots,
)
from jaxinv import edits as edits_lib
from jaxinv import workdir as workdirs
from jaxinv.inversion import project, pti
from jaxinv.networks import lpips
from jaxinv.optimize import run as run_loop
from jaxinv.progress import Progress, SlotProgress, Stopwatch, duration
from jaxinv.rendering import render


def run(config, path: pathlib.Path, *, overwrite: bool = False, log=print) -> None:
    """Runs one experiment into the folder `path`, or goes on with it. See jaxinv/defaults.py."""
    start = time.perf_counter()
    # Spelling mistakes must not cost ten minutes: everything named is looked up first.
    projection, tuning = settings_of(config)
    project.check(projection)
    pti.check(tuning)
    deltas.check(saving.saving_of(config), tuning.shared)
    slots.check(config.tune.slots, tuning.shared)
    generator, weights, about = open_generator(config, log)
    edits = edits_lib.with_steps(parse_edits(config.edits, generator, weights, log))
    with begin(config, path, (generator, weights, about), overwrite, start, log) as job:
        if job is None:
            return
        pivots, projected = find_pivots(job)
        per_identity, tuned = tune(job, pivots)
        if not distributed.is_first():
            return
        tables = save(job, pivots, per_identity)
        result = score(job, pivots, per_identity, edits)
        result.tables = classes.tables(result.names, job.classes) + tables
        traces = [('project', projected), ('tune', tuned)]
        result.traces = [
            report.Trace(stage, name, rows) for stage, t in traces for name, rows in t.items()
        ]
        result.seconds = job.watch.seconds
        report.write(path, result)
    log(summary(result, path))


@contextlib.contextmanager
def begin(config, path, opened, overwrite, start, log, nouns=('identity', 'identities')):
    """Reads the photographs and LPIPS, claims the work folder, and yields the Job of a run.

    opened: what `open_generator` returned; start: when loading began, in perf_counter's seconds.
    Yields None if the folder holds this very run, finished.
    """
    generator, weights, about = opened
    place = placement.make(config.get('mesh', ''))
    targets = data.load_for(config.data, generator.spec, log)
    for item in targets.skipped:
        log(f'Skipped {item["file"]}: {item["reason"]}')
    count = len(targets.names)
    log(f'{count} {nouns[count != 1]}: {", ".join(targets.names)}', flush=True)
    if place.shares > 1:
        log(f'On {place}.')
    generator, chosen = classes.choose(generator, weights, targets, config.label, log)
    nets = {net: lpips.load(net, config.lpips) for net in ('alex', 'vgg')}

    record = {
        'config': workdirs.settings_of(config),
        'sources': [s['sha256'] for s in targets.sources],
    }
    if 'sha256' in about:
        record['generator'] = about['sha256']
    distributed.check_same(record)
    with distributed.entered_by_first(workdirs.claim(path, record, overwrite)) as finished:
        if finished:
            log(f'Finished already: {path / "report.html"} (--overwrite runs it again).')
            yield None
            return
        watch = Stopwatch(path / 'state' / 'seconds.json' if distributed.is_first() else None)
        watch.lap('load', start)
        statistics = latents.w_statistics(generator, weights, **config.w_statistics)
        looks = config.data.aligned or config.data.align == 'face'
        looks = looks or generator.spec.domain in data.WITH_FACES
        yield Job(
            config,
            path,
            generator,
            weights,
            targets,
            nets,
            watch,
            log,
            statistics,
            looks,
            about,
            place,
            chosen,
        )


def settings_of(config) -> tuple[project.Settings, pti.Settings]:
    """The settings of both steps, as the methods take them."""
    locality = pti.Locality(**config.locality.to_dict())
    others = (*deltas.Settings._fields, 'slots')
    given = {key: value for key, value in config.tune.to_dict().items() if key not in others}
    tuning = pti.Settings(**given, locality=locality)
    return project.Settings(**config.pivot.to_dict()), tuning


def open_generator(config, log=print):
    """config.generator as it is asked for: (generator, weights, what is known of its origin)."""
    generator, weights, about = checkpoints.open_generator(
        config.generator, config.resolution, log=log
    )
    for note in about.get('notes', ()) if about.get('fresh') else ():
        log(f'{generator.spec.name}: {note}')
    options = {key: config.get(key) for key in generators.OPTIONS}
    options = {key: value for key, value in options.items() if value is not None}
    generator = generators.with_options(generator, **options)
    generator = generators.with_compute_dtype(generator, config.compute_dtype)
    if not classes.in_w(generator.spec):  # else each picture has its own (begin)
        generator = generators.with_label(generator, config.label)
    return generator, weights, about


def parse_edits(asked, generator, weights, log=print):
    """The edits of config.edits that this generator can make, checked against its sizes."""
    spec = generator.spec
    if spec.domain != 'ffhq' and tuple(asked) == defaults.EDITS:
        log(
            f'No edits: smile, age and yaw are directions of FFHQ, which {spec.name} is not known '
            'to share; give your own, e.g. --config.edits="(\'my.npy=2\',)".'
        )
        return []
    known = classes.embeddings(generator, weights)
    edits = edits_lib.parse(asked, 'ffhq' if spec.domain == 'ffhq' else '', known)
    for edit in edits:
        edits_lib.apply(np.zeros([1, 1, spec.w_dim], np.float32), edit, spec.num_ws)
    return edits


class Job(NamedTuple):
    """What every stage needs and none of them changes."""

    config: Any
    path: pathlib.Path
    generator: Any
    weights: Any
    targets: data.Targets
    nets: dict[str, Any]  # LPIPS weights
    watch: Stopwatch
    log: Any
    statistics: latents.WStatistics | None = None  # of W; None = computed where needed
    looks_for_faces: bool = True  # False = identity and attributes are not measured
    about: Any = None  # what is known of the generator's origin
    place: placement.Placement = placement.Placement()  # where things lie
    classes: Any = None  # classes.Classes of the targets, where w holds a class


# --- Pivots (PTI 3.1) ---


def find_pivots(job: Job):
    """Pivots [n, k, w_dim] of all identities in one program, and the traces of their search."""
    config = job.config
    settings, _ = settings_of(config)
    projector = project.make_projector(job.generator, settings)
    statistics = w_statistics(job)
    with job.watch.stage('project'):
        targets, vgg = job.targets.images_uint8, job.nets['vgg']
        ids = latents.identity_ids(targets)
        key = jax.random.key(config.seed)

        def prepare(which, share):
            own = images.to_float(targets[which]), ids[which]
            start = statistics._replace(mean=with_classes(job, statistics.mean, which))
            return projector.prepare(job.weights, vgg, *own, start, key)

        variables, traces = loop_with_checkpoints(
            job, 'project', projector.loop, prepare, key, settings.num_steps, project.METRICS
        )
    return variables['w'], traces


def with_classes(job: Job, w, which=slice(None)):
    """Codes w, [w_dim] or [n, w_dim], of the targets `which`, with their classes in them."""
    return w if job.classes is None else latents.with_rest(w, job.classes.embeddings[which])


def w_statistics(job: Job) -> latents.WStatistics:
    if job.statistics is not None:
        return job.statistics
    return latents.w_statistics(job.generator, job.weights, **job.config.w_statistics)


# --- Tuning (PTI 3.2 and 3.3) ---


def tune(job: Job, pivots):
    """Weights for each identity (one object for all if shared), and the traces."""
    config, count = job.config, len(pivots)
    if config.tune.num_steps == 0:
        return [job.weights] * count, {}
    _, settings = settings_of(config)
    rows = min(config.tune.slots or count, count)
    tuner = pti.make_tuner(job.generator, settings, rows, shares=job.place.shares)
    with job.watch.stage('tune'):
        targets, net = job.targets.images_uint8, job.nets[settings.lpips_net]
        ids = latents.identity_ids(targets)
        key = jax.random.key(config.seed + 1)
        w_avg = w_statistics(job).mean

        feed = None
        if tuner.examples is not None:
            feed = job.place.feed(functools.partial(tuner.examples, targets, pivots, ids))

        def prepare(which, share):
            # What is fed is not looked at here.
            own = (targets if feed else targets[which]), pivots[which], ids[which]
            return tuner.prepare(job.weights, net, *own, w_avg, share)

        if config.tune.slots:
            save_one = saving.EachGenerator(job, pivots)
            traces = tune_in_slots(job, tuner, prepare, key, rows, save_one)
            return saving.Saved(job), traces
        params, traces = loop_with_checkpoints(
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
        return [tuner.weights(job.weights, params)] * count, traces
    return [
        tuner.weights(job.weights, jax.tree.map(lambda x, i=i: x[i], params)) for i in range(count)
    ], traces


def tune_in_slots(job: Job, tuner: pti.Tuner, prepare, key, rows: int, save_one):
    """Tunes `rows` identities at a time. Each is saved as it is finished; returns the traces.

    save_one(i, weights, facts) is called by the first process, for identity number i.
    """
    settings, names, start = tuner.settings, tuple(job.targets.names), time.perf_counter()
    progress = SlotProgress('tune', len(names), job.log)
    with contextlib.ExitStack() as stack:
        stack.enter_context(distributed.sigterm_waits())
        writer = None
        if distributed.is_first():
            writer = stack.enter_context(report.MetricsWriter(job.path))

        def finish(one: slots.Finished):
            if one.error is not None:
                raise one.error
            if writer is None:
                return
            writer.traces(f'tune/{names[one.identity]}', one.traces)
            facts = {'steps': len(one.traces['loss']), 'seconds': {'tune': round(one.seconds, 3)}}
            save_one(one.identity, tuner.weights(job.weights, one.variables), facts)

        def on_chunk(step, seats, traces):
            progress(step, seats, traces)
            job.watch.lap('tune', start)
            distributed.stop_if_asked()

        return slots.run(
            tuner.loop,
            job.place,
            prepare,
            key,
            settings.num_steps,
            settings.metrics,
            count=len(names),
            slots=rows,
            folder=job.path / 'state' / 'tune',
            finish=finish,
            on_chunk=on_chunk,
            names=names,
            log=job.log,
        )


def loop_with_checkpoints(
    job: Job,
    stage,
    loop,
    prepare,  # see Placement.start
    key,
    num_steps,
    metric_names,
    names=None,  # of the batch's rows; None = the targets
    members=None,  # see Placement.start
    feed=None,  # see optimize.run
):
    """Runs a loop from its last checkpoint, with a status line and a checkpoint every chunk.

    Returns the variables, without padding, and the traces.
    """
    names = tuple(job.targets.names) if names is None else names
    loop, state, args = job.place.start(loop, len(names), prepare, members)
    key = job.place.replicate(key)
    saved = checkpoints.LoopCheckpoints(job.path / 'state' / stage, num_steps)
    progress = Progress(stage, num_steps, job.log)
    traces, start = None, time.perf_counter()
    restored = saved.restore(state, metric_names, job.log, len(names))
    if restored is not None:
        state, traces = restored
        job.log(f'{stage}: going on after step {int(state.step)}.')
    with contextlib.ExitStack() as stack:
        stack.enter_context(distributed.sigterm_waits())
        writer = None
        if distributed.is_first():
            writer = stack.enter_context(report.MetricsWriter(job.path, names))

        def on_chunk(state, traces):
            progress(int(state.step), traces)
            if writer is not None:
                writer.traces(stage, traces)
            saved.save(state, traces)
            job.watch.lap(stage, start)
            distributed.stop_if_asked()

        state, traces = run_loop(
            loop,
            state,
            args,
            key,
            num_steps,
            traces=traces,
            on_chunk=on_chunk,
            feed=feed,
            names=names,
            count=len(names),
        )
    saved.close()
    return job.place.collect(loop, state.variables, len(names)), traces


# --- Results ---


def save(job: Job, pivots, per_identity) -> list[report.Table]:
    """pivots.npz, and generator/ or generators/NAME/. Returns tables for the report."""
    saving.save_pivots(job, pivots)
    config = job.config.tune
    if config.shared or config.num_steps == 0:
        checkpoints.save_generator(job.path / 'generator', job.generator, per_identity[0])
        return []
    save_one = saving.EachGenerator(job, pivots)
    if not config.slots:
        for i, weights in enumerate(per_identity):
            save_one(i, weights)
    return save_one.tables()


def score(job: Job, pivots, per_identity, edits) -> report.Run:
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
        stages = [measure_stage(job, 'pivot', pivot_images)]
        if config.tune.num_steps:
            stages.append(measure_stage(job, 'tuned', rendered[:, 0]))
        embedding = embed(job, targets.images_uint8)
        edited_results = []
        for j, edit in enumerate(edits, start=1):
            edited = images.to_uint8(rendered[:, j])
            distance = faces.identity_distance(embedding, embed(job, edited))
            edited_results.append(
                report.EditResult(
                    edit.name,
                    edit.parts,
                    edited,
                    distance,
                    measure_attributes(job, edited),
                    edit.requested,
                )
            )
        drift = measure_drift(job, per_identity) if config.tune.num_steps else None
    return report.Run(
        title='Pivotal tuning of one generator'
        if config.tune.shared
        else 'Pivotal tuning, one generator per identity',
        names=list(targets.names),
        targets_uint8=targets.images_uint8,
        stages=stages,
        target_attributes=measure_attributes(job, targets.images_uint8),
        edits=edited_results,
        drift=drift,
        config=config.to_dict(),
        generator=provenance(job),
        versions=versions(),
        seeds={'seed': config.seed, 'w_statistics': config.w_statistics.seed},
        sources=targets.sources,
        skipped=targets.skipped,
        facts={'peak memory': f'{peak_memory_gb():.1f} GB', 'devices': devices()},
        usage=usage(job),
    )


def measure_stage(job: Job, name: str, rendered) -> report.Stage:
    targets_uint8 = job.targets.images_uint8
    rendered_uint8 = images.to_uint8(rendered)
    values = dict(metrics.evaluate(images.to_float(targets_uint8), rendered, job.nets))
    if job.looks_for_faces:
        values['id_distance'] = faces.identity_distance(
            embed(job, targets_uint8), embed(job, rendered_uint8)
        )
    return report.Stage(name, rendered_uint8, values, measure_attributes(job, rendered_uint8))


def embed(job: Job, images_uint8) -> np.ndarray:
    """Identity embeddings [b, 128]; NaN where no face is, or none is looked for."""
    if job.looks_for_faces:
        return faces.embed(images_uint8)
    return np.full((len(images_uint8), 128), np.nan)


def measure_attributes(job: Job, images_uint8) -> dict[str, np.ndarray]:
    return attributes.measure(images_uint8) if job.looks_for_faces else {}


def measure_drift(job: Job, per_identity) -> report.Drift:
    """Images of random latents before and after tuning (PTI figures 14 and 15)."""
    settings, spec = job.config.drift, job.generator.spec
    z = latents.sample_z(settings.seed, settings.num_samples, spec.z_dim, spec.z_truncation)
    w = job.generator.map(job.weights, jnp.asarray(z))
    # Of the targets' classes in turn.
    w = with_classes(job, w, np.arange(len(w)) % len(job.targets.names))[:, None]
    before = render(job.generator, job.weights, w)
    # With a generator for each identity: the first one's pictures, the mean of all numbers.
    distinct = per_identity[:1] if job.config.tune.shared else per_identity
    first, values = None, []
    for weights in distinct:
        after = render(job.generator, weights, w)
        values.append(metrics.evaluate(before, after, job.nets))
        first = after if first is None else first
    samples = {k: np.mean([v[k] for v in values], axis=0) for k in ('lpips_alex', 'mse')}
    normals = 'N(0, 1), no truncation'
    if spec.z_truncation is not None:
        normals = f'N(0, 1) cut at {latents.CUT:g}, times {spec.z_truncation:g}'
    return report.Drift(
        {k: float(v.mean()) for k, v in samples.items()},
        {'original': images.to_uint8(before), 'tuned': images.to_uint8(first)},
        {'tuned': samples},
        f'{settings.num_samples} latents z ~ {normals}, seed {settings.seed}',
    )


# --- Provenance ---


def provenance(job: Job) -> dict[str, Any]:
    """Which generator it was."""
    spec, about = job.generator.spec, job.about or {}
    known = {key: about[key] for key in ('kind', 'address', 'sha256') if key in about}
    if job.config.label is not None:
        known['label'] = job.config.label
    return {
        'name': spec.name,
        'resolution': spec.resolution,
        'num_ws': spec.num_ws,
        **known,
    }


def versions() -> dict[str, str]:
    packages = ('jaxinv', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'dlib-bin')
    found = {'python': platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = 'not installed as a package'
    return found


def devices() -> str:
    kinds = {f'{d.device_kind} ({d.platform})' for d in jax.devices()}
    return f'{jax.device_count()} x {", ".join(sorted(kinds))}'


def peak_memory_gb() -> float:
    """Largest resident memory of this process so far (kilobytes on Linux, bytes on macOS)."""
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def usage(job: Job) -> str:
    shared = job.config.tune.shared or job.config.tune.num_steps == 0
    where = job.path if shared else job.path / 'generators' / job.targets.names[0]
    return (
        'import jaxinv, numpy as np\n'
        f'generator, weights = jaxinv.load_generator({str(where)!r})\n'
        f"pivots = np.load({str(job.path / 'pivots.npz')!r})['w']\n"
        'images, features = generator.synthesize(weights, pivots)'
    )


def summary(result: report.Run, path: pathlib.Path) -> str:
    lines = []
    for stage in result.stages:
        means = {name: results.mean(values) for name, values in stage.metrics.items()}
        shown = [f'{name} {"no face" if x is None else f"{x:.4f}"}' for name, x in means.items()]
        lines.append(f'{stage.name:<6} {"  ".join(shown)}')
    if result.drift:
        shown = [f'{name} {x:.4f}' for name, x in result.drift.metrics.items()]
        lines.append(f'drift of random latents: {"  ".join(shown)}')
    lines.append(f'{duration(sum(result.seconds.values()))} in all. Open {path / "report.html"}')
    return '\n'.join(lines)
