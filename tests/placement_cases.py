"""Runs methods on meshes of virtual CPU devices, for test_placement.py, which starts it:

    JAX_NUM_CPU_DEVICES=8 [JAX_ENABLE_X64=1] python placement_cases.py OUT.npz METHOD:MESH ...

A process cannot change its number of devices, so this is one of its own. Three identities: 2, 4 and
8 devices do not divide them. With JAXINV_COORDINATOR and so on it is one of several processes; the
folder of OUT.npz is then one of all. OUT.npz holds, under METHOD:MESH/,

    trace/NAME [steps, 3]    what every step said
    result/LEAF              the variables at the end, without padding
    text, programs           the compiled step, and how many of it there are
    donated                  share of the state's arrays that a step overwrites
"""

import functools
import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import toy
from jaxinv.converters import tables

from jaxinv import latents, optimize
from jaxinv.inversion import project, pti, sam, sam_prior
from jaxinv.io import cache_dir
from jaxinv.optimize import checkpoints, continuous_batching, sharding
from jaxinv.runtime import distributed
from jaxinv.weights.networks import load_lpips
from jaxinv.weights.zoo import load_named

N, STEPS = 3, 4
LOCALITY = pti.Locality(weight=0.1, alpha=2.0)


@functools.cache
def problem(generator, dtype):
    """A generator's weights, and targets which it nearly makes, all of `dtype`."""
    weights = generator.init(jax.random.key(0)) if generator is toy.GENERATOR else tiny()[1]
    weights = cast(weights, dtype)
    w = generator.map(weights, jnp.asarray(latents.sample_z(1, N, generator.spec.z_dim), dtype))
    targets = generator.synthesize(weights, w[:, None] + 0.3)[0]
    targets = np.array(jnp.clip(targets + 0.1, -1, 1), dtype)
    nets = {net: cast(load_lpips(net), dtype) for net in ('alex', 'vgg')}
    statistics = latents.WStatistics(w.mean(axis=0), jnp.asarray(1.0, dtype))
    return (
        weights,
        nets,
        targets,
        np.array(w)[:, None],
        np.array([11, 22, 33], np.uint32),
        statistics,
    )


@functools.cache
def key_of_run():
    return jax.random.key(3)


def cast(tree, dtype):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


@functools.cache
def tiny():
    return load_named('tiny')


def projection(place, dtype):
    weights, nets, targets, _, ids, statistics = problem(toy.GENERATOR, dtype)
    method = project.make_projector(
        toy.GENERATOR, project.Settings(STEPS, learning_rate=0.1, chunk_steps=1)
    )

    def prepare(which, share):
        return method.prepare(
            weights, nets['vgg'], targets[which], ids[which], statistics, key_of_run()
        )

    return *place.start(method.loop, N, prepare), None


def tuning(place, dtype, count=N, **settings):
    weights, nets, targets, pivots, ids, statistics = problem(toy.GENERATOR, dtype)
    targets, pivots, ids = (x[np.arange(count) % N] for x in (targets, pivots, ids))
    settings = pti.Settings(STEPS, 3e-3, locality=LOCALITY, chunk_steps=1, **settings)
    tuner = pti.make_tuner(toy.GENERATOR, settings, count, shares=place.shares)

    def prepare(which, share):
        own = targets[which], pivots[which], ids[which]
        return tuner.prepare(weights, nets['alex'], *own, statistics.mean, share)

    feed = None
    if tuner.examples is not None:
        feed = place.feed(functools.partial(tuner.examples, targets, pivots, ids))
    return *place.start(tuner.loop, count, prepare, tuner.members), feed


def search(place, dtype):
    generator = tiny()[0]
    weights, nets, targets, pivots, ids, _ = problem(generator, dtype)
    prior = cast(
        sam_prior.from_samples(np.random.RandomState(0).randn(50, 16), sam_prior.Settings()), dtype
    )
    settings = sam.Settings(STEPS, lpips_net='alex', noise='random', chunk_steps=1)
    inverter = sam.make_inverter(generator, settings)
    masks = {k: np.array(m, dtype) for k, m in sam.full_masks(generator.spec, SPACES).items()}

    def prepare(which, share):
        own = {space: mask[which] for space, mask in masks.items()}
        start = pivots[which], ids[which], prior
        return inverter.prepare(weights, nets['alex'], targets[which], own, *start)

    return *place.start(inverter.loop, N, prepare), None


SPACES = ('W+', 'F4', 'F6')
METHODS = {
    'projection': projection,
    'shared': functools.partial(tuning, microbatch=1),
    'fed': functools.partial(tuning, microbatch=1, resident=1),  # on 1 or 2 devices
    'minibatches': functools.partial(tuning, batch_size=2),
    'each': functools.partial(tuning, shared=False, stop_lpips=0.0021),
    'sam': search,
}


def run_in_slots(mesh, dtype, folder) -> dict:
    """'each' with room for two at a time; 'A>B' is interrupted on mesh A and goes on on B."""
    weights, nets, targets, pivots, ids, statistics = problem(toy.GENERATOR, dtype)
    settings = pti.Settings(
        STEPS, 3e-3, locality=LOCALITY, chunk_steps=1, shared=False, stop_lpips=0.0021
    )
    results, first = {}, mesh.partition('>')[0]
    for part in mesh.split('>'):
        place = sharding.make(part)
        tuner = pti.make_tuner(toy.GENERATOR, settings, 2, shares=place.shares)

        def prepare(which, share, tuner=tuner):
            own = targets[which], pivots[which], ids[which]
            return tuner.prepare(weights, nets['alex'], *own, statistics.mean)

        def finish(one):
            results[one.identity] = jax.tree.map(np.asarray, one.variables)

        def on_chunk(step, seats, traces, part=part):
            if '>' in mesh and part == first and step == 2:
                raise KeyboardInterrupt

        try:
            traces = continuous_batching.run(
                tuner.loop,
                place,
                prepare,
                key_of_run(),
                STEPS,
                settings.metrics,
                count=N,
                slots=2,
                folder=folder / f'slots_{mesh}',
                finish=finish,
                on_chunk=on_chunk,
            )
        except KeyboardInterrupt:
            continue
    ran = np.isfinite(traces['loss']).any(axis=1)
    found = {f'trace/{name}': rows[ran] for name, rows in traces.items()}
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(results[i] for i in range(N)))
    for name, leaf in tables.flatten(stacked).items():
        found[f'result/{name}'] = leaf
    return {f'slots:{mesh}/{name}': value for name, value in found.items()}


def compiled(mesh, dtype) -> dict:
    """'weak:MESH': shared tuning of an identity a device, which is compiled and not run."""
    place = sharding.make(mesh)
    loop, state, args, _ = tuning(place, dtype, place.shares, microbatch=1)
    part = loop.part.lower(loop.begin(state), args, place.replicate(key_of_run()), None)
    return {f'weak:{mesh}/text': np.array(part.compile().as_text())}


def run(method, mesh, dtype, folder) -> dict:
    """mesh: '4', '2,2', ...; 'A>B' saves half-way on mesh A and goes on on B, 'A>' only saves in
    the folder, and '>B' only goes on."""
    if method == 'slots':
        return run_in_slots(mesh, dtype, folder)
    if method == 'weak':
        return compiled(mesh, dtype)
    first, arrow, second = mesh.partition('>')
    traces = None
    if first:
        place = sharding.make(first)
        loop, state, args, feed = METHODS[method](place, dtype)
        key = place.replicate(key_of_run())
    if arrow:
        saved = checkpoints.LoopCheckpoints(folder / method, STEPS)
        if first:
            state, traces = optimize.run(loop, state, args, key, STEPS // 2, feed=feed, count=N)
            saved.save(state, traces)
        if second:
            place = sharding.make(second)
            loop, state, args, feed = METHODS[method](place, dtype)
            key = place.replicate(key_of_run())
            state, traces = saved.restore(state, list(loop.begin(state).traces), count=N)
        saved.close()
        if not second:
            return {}
    state, traces = optimize.run(loop, state, args, key, STEPS, traces=traces, feed=feed, count=N)
    found = {f'trace/{name}': rows for name, rows in traces.items()}
    collected = place.collect(loop, state.variables, N)
    for name, leaf in tables.flatten(collected).items():
        found[f'result/{name}'] = np.asarray(leaf)
    found['programs'] = np.array(len(loop.compiled))
    found['text'] = np.array(next(iter(loop.compiled.values())).as_text())
    before = jax.tree.leaves(state)
    loop.chunk(state, args, key, 1, feed)
    found['donated'] = np.array(np.mean([x.is_deleted() for x in before]))
    return {f'{method}:{mesh}/{name}': value for name, value in found.items()}


def main():
    out, *cases = sys.argv[1:]
    process = distributed.process_from(None, None, None)
    if process is not None:
        distributed.initialize(process, timeout=60, heartbeat=10)
    dtype = np.float64 if jax.config.jax_enable_x64 else np.float32
    jax.config.update('jax_compilation_cache_dir', str(cache_dir() / 'programs'))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)
    found = {}
    for case in cases:
        start = time.perf_counter()
        found |= run(*case.split(':'), dtype, pathlib.Path(out).parent / 'state')
        print(f'{case}: {time.perf_counter() - start:.1f} s', flush=True)
    if distributed.is_primary():
        np.savez(out, **found)


if __name__ == '__main__':
    main()
