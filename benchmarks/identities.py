"""Many identities with one generator each: pictures per hour, and memory by their number.

    python benchmarks/identities.py rate [--batch_per_device=1,2,4] [--steps=2]
    python benchmarks/identities.py slots IDENTITIES SLOTS
    python benchmarks/identities.py memory [--identities=8,32,128] [--all_at_once=8,16,32]
    python benchmarks/identities.py sam [--identities=8,32,128] [--all_at_once=8,16,32]

rate: seconds of a step of projection and of tuning (pti_single_id, with its regulariser) for
several batch sizes, and processor seconds of all cores, which other work on the machine affects
less; pictures per hour follow for the default budget of 100 + 80 steps, without reading, compiling
and measuring.

slots: peak memory of continuous batching with checkpoints, for substitutes of generators: 4 MB each
and their moments, two steps.

memory: whole runs of pti_single_id on random pictures, each in its own process, with 32 pixels, 256
channels and no regulariser, so that generators dominate; two steps of each stage, in groups of 8
with two slots, in groups of one, and without either.

sam: the same for SAM, four pictures at a time and all at once.
"""

import json
import os
import pathlib
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import PIL.Image
import sides
from absl import app, flags

from jaxinv import data, defaults, latents, optimize, pixels
from jaxinv.configs import sam as sam_config
from jaxinv.experiments import pti as experiment
from jaxinv.experiments import sam
from jaxinv.generators.stylegan2 import stylegan2
from jaxinv.inversion import project, pti
from jaxinv.io import cache_dir
from jaxinv.optimize import checkpoints, continuous_batching, sharding
from jaxinv.report import provenance
from jaxinv.runtime import malloc, memory
from jaxinv.runtime.progress import silent
from jaxinv.settings import Projection, Tuning
from jaxinv.weights import store
from jaxinv.weights.networks import load_lpips
from jaxinv.weights.zoo import load_named

_GENERATOR = flags.DEFINE_string(
    'generator', 'mobile_stylegan_ffhq', 'rate: name of the generator.'
)
_AT_ONCE = flags.DEFINE_list('batch_per_device', '1,2,4', 'rate: batch sizes.')
_STEPS = flags.DEFINE_integer('steps', 2, 'rate: timed steps, after the first one.')
_IDENTITIES = flags.DEFINE_list(
    'identities', '8,32,128', 'memory and sam: numbers of identities, a few at a time.'
)
_ONE_BY_ONE = flags.DEFINE_list(
    'one_by_one', '32', 'memory: numbers of identities in groups of one.'
)
_ALL_AT_ONCE = flags.DEFINE_list(
    'all_at_once', '8,16,32', 'memory and sam: numbers of identities, all at once.'
)
BUDGET = {'projection': 100, 'tuning': 80}


def rate():
    generator, weights = load_named(_GENERATOR.value)
    demo = data.load_images('demo', generator).images_uint8
    nets = {net: load_lpips(net) for net in ('alex', 'vgg')}
    statistics = latents.w_statistics(generator, weights, 1000)
    key = jax.random.key(0)
    print(f'{generator.spec.name}, {generator.spec.resolution} pixels, {provenance.devices()}')
    print(f'{"":>8}{"projection, s":>18}{"tuning, s":>18}{"pictures per hour":>22}{"GB":>7}')
    print(f'{"at once":>8}' + f'{"clock":>9}{"cores":>9}' * 2 + f'{"clock":>11}{"cores":>11}')
    for n in map(int, _AT_ONCE.value):
        targets = pixels.to_float(demo[np.arange(n) % len(demo)])
        ids = np.arange(n, dtype=np.uint32)
        settings = Projection(num_steps=100, learning_rate=0.1, chunk_steps=1)
        projector = project.make_projector(generator, settings)
        prepared = projector.prepare(weights, {'vgg': nets['vgg']}, targets, ids, statistics, key)
        seconds = {'projection': step_time(projector.loop, *prepared, key)}
        del prepared
        settings = Tuning(num_steps=80, shared=False, chunk_steps=1)
        tuner = pti.make_tuner(generator, settings, n)
        pivots = jnp.tile(statistics.mean, (n, 1, 1))
        prepared = tuner.prepare(weights, nets['alex'], targets, pivots, ids, statistics.mean)
        seconds['tuning'] = step_time(tuner.loop, *prepared, key)
        del prepared
        clock, cores = sum(BUDGET[stage] * np.array(seconds[stage]) for stage in BUDGET)
        rates = 3600 * n / clock, 3600 * n * os.cpu_count() / cores
        shown = ''.join(f'{x:>9.2f}' for stage in BUDGET for x in seconds[stage])
        shown += ''.join(f'{x:>11.1f}' for x in rates)
        print(f'{n:>8}{shown}{memory.peak_host_gb():>7.1f}', flush=True)


def step_time(loop, state, args, key) -> tuple[float, float]:
    """(seconds, processor seconds of all cores) of the fastest step after the first."""
    state, *_ = jax.block_until_ready(loop.chunk(state, args, key, 1))
    times = []
    for _ in range(_STEPS.value):
        start = time.perf_counter(), time.process_time()
        state, *_ = jax.block_until_ready(loop.chunk(state, args, key, 1))
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return min(clock for clock, _ in times), min(cores for _, cores in times)


def measure_slots(count, rows):
    size = 1_000_000

    def objective(variables, args, step, key):
        loss = jnp.mean((variables['x'] - args['examples']['target'][:, None]) ** 2, axis=1)
        return loss.sum(), {'loss': loss}

    optimizer = optimize.vmap_optimizer(optax.adam(0.1))
    update = optimize.gradient_update(objective, optimizer)
    axes = optimize.BatchAxes(variables=True, args={'examples': 0})
    loop = optimize.make_loop(update, optimizer, ('loss',), chunk_steps=2, axes=axes)

    def prepare(which, shard):
        target = jnp.asarray(which, jnp.float32)
        examples = {'target': target, 'start_step': jnp.zeros(len(which), jnp.int32)}
        state = loop.init({'x': jnp.zeros([len(which), size])}, len(which))
        return state, {'examples': examples}

    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        continuous_batching.run(
            loop,
            sharding.Sharding(),
            prepare,
            jax.random.key(0),
            2,
            ('loss',),
            count=int(count),
            slots=int(rows),
            saved=checkpoints.LoopCheckpoints(scratch / 'state', 2),
            finish=lambda one: np.save(scratch / 'last.npy', np.asarray(one.variables['x'])),
        )
    print(f'{count} identities, {rows} slots: {memory.peak_host_gb():.2f} GB')


def measure_memory():
    cases = [(int(n), 8, 2) for n in _IDENTITIES.value]
    cases += [(int(n), 1, 0) for n in _ONE_BY_ONE.value]
    cases += [(int(n), 0, 0) for n in _ALL_AT_ONCE.value]
    whole_runs('one', ('group', 'slots'), cases)


def measure_sam():
    cases = [(int(n), 4) for n in _IDENTITIES.value] + [(int(n), 0) for n in _ALL_AT_ONCE.value]
    whole_runs('one_of_sam', ('at once',), cases)


def whole_runs(what, columns, cases):
    """Prints a line for each case (identities, ...), run by the function `what` in a child."""
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        generator = stylegan2(32, channel_max=256)
        weights = jax.jit(generator.init)(jax.random.key(0))
        store.write(scratch / 'generator.safetensors', generator, weights)
        random = np.random.RandomState(0)
        for i in range(max(n for n, *_ in cases)):
            blocks = PIL.Image.fromarray(random.randint(0, 255, (4, 4, 3)).astype(np.uint8))
            folder = scratch / f'{i:04}'
            folder.mkdir()
            blocks.resize((64, 64), PIL.Image.Resampling.BICUBIC).save(folder / 'face.png')
        print(''.join(f'{name:>10}' for name in ('identities', *columns, 'GB', 'seconds')))
        for case in cases:
            result = sides.run(__file__, what, scratch, *case)
            shown = (*case, f'{result["gb"]:.2f}', f'{result["seconds"]:.0f}')
            print(''.join(f'{value:>10}' for value in shown), flush=True)


def one(scratch, n, group, slots):
    """A whole run of pti_single_id; prints its peak memory and seconds."""
    config = small_run(defaults.get_config(), scratch, n)
    config.tune.num_steps = 2
    config.tune.shared, config.drift.num_samples = False, 1
    config.tune.save, config.locality.weight = 'bfloat16', 0.0
    config.group, config.tune.slots = int(group), int(slots)
    measured(experiment, config)


def one_of_sam(scratch, n, batch_per_device):
    config = small_run(sam_config.get_config(), scratch, n)
    config.sam.num_steps = config.invertibility.num_steps = 2
    config.segments.how, config.segments.parts = 'slic', 4
    config.prior.num_samples, config.sweep.taus = 100, (0.1, 0.3)
    config.pivot.batch_per_device = config.sam.batch_per_device = int(batch_per_device)
    measured(sam, config)


def small_run(config, scratch, n):
    """The config with the small generator and n random pictures."""
    config.generator = f'{scratch}/generator.safetensors'
    config.data.images = ','.join(f'{scratch}/{i:04}/face.png' for i in range(int(n)))
    config.data.align = 'none'
    config.w_statistics.num_samples, config.pivot.num_steps, config.edits = 100, 2, ()
    return config


def measured(module, config):
    start = time.perf_counter()
    jax.config.update('jax_compilation_cache_dir', str(cache_dir() / 'programs'))
    with tempfile.TemporaryDirectory() as work:
        module.run(config, pathlib.Path(work) / 'work', log=silent)
    print(json.dumps({'gb': memory.peak_host_gb(), 'seconds': time.perf_counter() - start}))


def main(argv):
    known = rate, one, one_of_sam
    what = {function.__name__: function for function in known}
    what |= {'slots': measure_slots, 'memory': measure_memory, 'sam': measure_sam}
    what[argv[1]](*argv[2:])


if __name__ == '__main__':
    malloc.restart_with_large_pages()  # as the launcher does
    app.run(main)
