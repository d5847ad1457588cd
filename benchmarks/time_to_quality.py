r"""Quality against seconds: methods and budgets on the same pictures in one run.

    python benchmarks/time_to_quality.py [--images=demo] [--seeds=1] [--out=docs/time_to_quality] \
        [--methods='new=pti_multi_id,short=pti_multi_id?tune.num_steps=20,w_plus,sam,pti:official']
    python benchmarks/time_to_quality.py --draw [--out=...]     # tables and figure from OUT.json

Methods are spelled as those of --config=evaluate (docs/evaluate.md); the others are compared with
the first. Each runs by its plain functions, all pictures in one program on one device, and its
state is measured at --checkpoints steps of each stage. The seconds are those of the method: steps,
encoder, segments, maps. Compilation (each program is rehearsed), reading and measuring are not
among them. Drift is that of random codes, 0 where no generator is tuned.

Writes OUT.json with each picture's numbers, and OUT.png; prints tables in Markdown. The same
command goes on after the last finished run. A method with other settings than before runs again.
"""

import argparse
import hashlib
import json
import os
import pathlib
import platform
from typing import Any, NamedTuple

import jax
import numpy as np
import quality_figure
import state_quality
import timed_runs

import jaxinv
from jaxinv import defaults, generators, latents, settings
from jaxinv.errors import JaxinvError
from jaxinv.experiments import method_runs, session
from jaxinv.inversion import classes, encode, sam_prior
from jaxinv.inversion.invert_sam import invert_sam
from jaxinv.inversion.project import project
from jaxinv.inversion.tune import tune
from jaxinv.io import expanded, json_text, read_json, write_atomically
from jaxinv.networks.encoders import Encoder
from jaxinv.report import provenance
from jaxinv.runtime import malloc
from jaxinv.types import Generator
from jaxinv.weights.networks import lpips_origin

# The budget that pti_multi_id had by default first: every key that a later one sets.
OLD = (
    'pti_multi_id?pivot.num_steps=100&pivot.learning_rate=0.1&pivot.alex_fraction=0&pivot.start='
    '&pivot.loss_size=256&tune.num_steps=80&tune.learning_rate=3e-4&locality.weight=0.1'
    '&locality.interval=1'
)
METHODS = f'old default={OLD},default=pti_multi_id,W+=w_plus,SAM=sam,PTI official=pti:official'


class Opened(NamedTuple):
    """What a method needs that is no part of its time."""

    generator: Generator
    weights: Any
    run: settings.Inversion
    nets: dict  # LPIPS weights
    statistics: latents.WStatistics
    prior: sam_prior.Prior | None
    encoder: Encoder | None


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', default='demo', help='photographs: a folder, or files')
    parser.add_argument('--methods', default=METHODS, help='as of --config=evaluate')
    parser.add_argument('--seeds', type=int, default=1, help='runs with different noise')
    parser.add_argument('--checkpoints', type=int, default=8, help='of each stage')
    parser.add_argument('--generator', default='mobile_stylegan_ffhq')
    parser.add_argument('--resolution', type=int)
    parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('docs/time_to_quality'))
    parser.add_argument('--draw', action='store_true', help='only tables and figure, from OUT.json')
    options = parser.parse_args(arguments)
    file = options.out.with_name(f'{options.out.name}.json')
    if not options.draw:
        measure(options, file)
    results = read_json(file)
    if not results:
        parser.error(f'{file} is missing or damaged; run without --draw.')
    print(quality_figure.tables(results))
    quality_figure.draw(results, options.out.with_name(f'{options.out.name}.png'))


def measure(options, file: pathlib.Path) -> None:
    """Runs what `file` does not have yet, and writes it after every run."""
    config = defaults.get_config('evaluate')
    config.methods, config.generator = options.methods, options.generator
    config.resolution = options.resolution
    rows = method_runs.rows_of(config)
    for row in rows:
        check(row)
    nets = session.load_nets(config)
    opened = {computing(row): None for row in rows}
    for row in rows:  # equal generators share their compiled programs
        opened[computing(row)] = opened[computing(row)] or session.open_generator(row.config)
    generator, _, about = opened[computing(rows[0])]
    targets = jaxinv.load_images(options.images, generator)
    common = {
        'pictures': list(targets.names),
        'pixels_sha256': hashlib.sha256(targets.images_uint8.tobytes()).hexdigest(),
        'generator': provenance.generator_of(generator.spec, about),
        'lpips': {net: lpips_origin(net) for net in nets},
    }
    results = read_json(file) or common | {'methods': {}}
    if different := [name for name in common if results.get(name) != common[name]]:
        raise JaxinvError(
            f'{file} was made with other {", ".join(different)}; remove it, or use another --out.'
        )
    known = results['methods']
    # In the order of the command, those of earlier commands last.
    results['methods'] = {row.name: known.get(row.name) for row in rows} | {
        name: own for name, own in known.items() if name not in {row.name for row in rows}
    }
    for row in rows:
        facts = facts_of(row, options.checkpoints)
        own = results['methods'][row.name]
        if own is None or {name: own.get(name) for name in facts} != facts:
            own = results['methods'][row.name] = facts | {'runs': []}
        if len(own['runs']) >= options.seeds:
            print(f'{row.name}: finished before.', flush=True)
            continue
        method = open_method(row, opened[computing(row)], nets)
        rehearse(method, targets)
        for seed in range(len(own['runs']), options.seeds):
            print(f'{row.name}, seed {seed}', flush=True)
            own['runs'].append(run(method, targets, seed, options.checkpoints))
            finished = {name: one for name, one in results['methods'].items() if one}
            write_atomically(file, json_text(results | {'methods': finished}, indent=1) + b'\n')


def check(row: method_runs.Row) -> None:
    """Raises JaxinvError for a method whose time cannot be taken."""
    if row.config is None or row.config.start:
        raise JaxinvError(
            f'method {row.name!r} starts from the results of another run, whose time is unknown; '
            'leave it out.'
        )
    with row.config.unlocked():
        row.config.tune.slots = row.config.tune.resident = 0  # all pictures in one program


def facts_of(row: method_runs.Row, checkpoints: int) -> dict:
    """What a finished run is recognised by: its settings, and the digests of their files."""
    record = settings.record_of(row.config)
    for name in ('data', 'drift', 'edits', 'generator', 'mesh', 'text'):  # in `common`, or unused
        record.pop(name, None)
    files = session.files_of(row.config, {})
    found = {'settings': _by_name(record), 'files': files, 'checkpoints': checkpoints}
    return json.loads(json.dumps(found))  # with lists for tuples, as it is read again


def _by_name(value):
    """Files and folders by their names alone: where they are is this machine's affair."""
    if isinstance(value, dict):
        return {name: _by_name(own) for name, own in value.items()}
    if not isinstance(value, str) or os.sep not in value:
        return value
    prefix = encode.START if value.startswith(encode.START) else ''
    path = expanded(value.removeprefix(prefix))
    return f'{prefix}{path.name}' if path.exists() else value


def computing(row: method_runs.Row) -> tuple:
    """Settings of the generator that a method may change."""
    names = ('compute_dtype', 'remat', *generators.OPTIONS)
    return tuple(row.config.get(name) for name in names)


def open_method(row: method_runs.Row, opened: tuple, nets) -> Opened:
    """opened: what session.open_generator returned for the method's config."""
    generator, weights, _ = opened
    if classes.in_w(generator.spec):
        raise JaxinvError(f'{generator.spec.name} has classes in w; use a generator without.')
    run = settings.of(row.config, settings.METHODS[row.config.task].settings)
    given = run.w_statistics
    statistics = latents.w_statistics(generator, weights, given.num_samples, given.seed)
    prior = None
    if isinstance(run, settings.InvertSam):
        prior = sam_prior.statistics(generator, weights, run.prior)
    encoder = encode.opened(run.pivot.start or None)
    return Opened(generator, weights, run, nets, statistics, prior, encoder)


def invert(opened: Opened, targets, runner, seed: int):
    """(weights or [n] of them, codes): what jaxinv.render takes."""
    run, given = opened.run, (opened.generator, opened.weights, targets)
    shared = dict(seed=seed, statistics=opened.statistics, lpips=opened.nets, runner=runner)
    if isinstance(run, settings.InvertSam):
        options = dict(settings=run, start=opened.encoder, prior_statistics=opened.prior)
        inverted = invert_sam(*given, **options, **shared)
        return inverted.weights, inverted
    pivots = project(*given, settings=run.pivot, start=opened.encoder, **shared)
    return tune(*given, pivots, settings=run.tune, **shared).weights, pivots


def rehearse(opened: Opened, targets) -> None:
    """One step of each loop, which compiles all programs."""
    invert(opened, targets, timed_runs.TimedRunner(tuple(targets.names)), 0)


def run(opened: Opened, targets, seed: int, checkpoints: int) -> dict:
    """A method once: its stages, its checkpoints, and on what it ran."""
    generator, names = opened.generator, tuple(targets.names)
    drift = settings.Drift()
    judge = state_quality.Judge(generator, opened.weights, targets.images_uint8, opened.nets, drift)
    clock, points, load = timed_runs.Clock(), [], os.getloadavg()[0]
    latest = {name: [0.0] for name in state_quality.DRIFT}

    def keep(stage, step, state):
        nonlocal latest
        if state.tuned is not None:
            latest = judge.drift(state.tuned)
        seconds, values = clock.read(), judge.values(state.images)
        point = {'stage': stage, 'step': step, 'seconds': seconds.wall}
        point['processor_seconds'] = seconds.processor
        point['values'] = {name: _numbers(own) for name, own in values.items()}
        points.append(point | {'drift': latest})
        means = '  '.join(f'{name} {np.nanmean(own):.4f}' for name, own in values.items()
                          if np.isfinite(own).any())  # fmt: skip
        print(f'  {seconds.wall:7.1f} s  {stage} {step}  {means}', flush=True)

    def observe(stage, task, args, variables, step):
        # A later stage starts where the one before it has ended.
        if step or not points:
            state = state_quality.of_loop(generator, stage, task, args, variables, len(names))
            if state is not None:
                keep(stage, step, state)

    runner = timed_runs.TimedRunner(names, clock=clock, checkpoints=checkpoints, observe=observe)
    with clock:
        weights, codes = invert(opened, targets, runner, seed)
    stages = runner.stages
    if not any(point['step'] for point in points):  # an encoder alone
        end = clock.read()
        stages = [timed_runs.record('encode', 0, timed_runs.NONE, end, timed_runs.NONE)]
        points.clear()
        images = jaxinv.render(generator, weights, codes)
        keep('encode', 0, state_quality.State(images, None))
    if clock.compilation > 0.01 * clock.read().wall:
        print(f'  of which {clock.compilation:.1f} s are compilation that no rehearsal had done.')
    return {
        'seed': seed,
        'from_encoder': opened.encoder is not None,
        'machine': machine() | {'load': [round(load, 1), round(os.getloadavg()[0], 1)]},
        'versions': provenance.versions(),
        'drift': {'num_samples': drift.num_samples, 'seed': drift.seed},
        'compilation': clock.compilation,
        'stages': stages,
        'points': points,
    }


def machine() -> dict:
    """Devices, processor and cores that this process may use."""
    names = [line.partition(':')[2].strip() for line in _lines('/proc/cpuinfo')
             if line.startswith('model name')]  # fmt: skip
    affinity = getattr(os, 'sched_getaffinity', None)
    cores = len(affinity(0)) if affinity else os.cpu_count()
    processor = names[0] if names else platform.processor()
    return {'devices': provenance.devices(jax.devices()[:1]), 'processor': processor,
            'cores': cores}  # fmt: skip


def _lines(file: str) -> list[str]:
    path = pathlib.Path(file)
    return path.read_text().splitlines() if path.exists() else []


def _numbers(values) -> list[float | None]:
    return [round(float(x), 6) if np.isfinite(x) else None for x in values]


if __name__ == '__main__':
    malloc.restart_with_large_pages()  # as the launcher does
    main()
