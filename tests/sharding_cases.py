"""Runs methods on meshes of virtual CPU devices, for test_sharding.py, which starts it:

    JAX_NUM_CPU_DEVICES=8 [JAX_ENABLE_X64=1] python sharding_cases.py OUT.npz METHOD:MESH ...

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
from flax.traverse_util import flatten_dict

from jaxinv import latents, optimize
from jaxinv.inversion import project, pti, sam, sam_prior
from jaxinv.io import cache_dir
from jaxinv.optimize import checkpoints, continuous_batching, sharding
from jaxinv.runtime import cluster, distributed
from jaxinv.settings import Locality, Prior, Projection, Search, Tuning
from jaxinv.weights.networks import load_lpips
from jaxinv.weights.zoo import load_named

N, STEPS = 3, 4
LOCALITY = Locality(alpha=2.0, norm='w')
TUNING = Tuning(num_steps=STEPS, learning_rate=3e-3, locality=LOCALITY, microbatch=0, chunk_steps=1)


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


def projection(placement, dtype):
    weights, nets, targets, _, ids, statistics = problem(toy.GENERATOR, dtype)
    method = project.make_projector(
        toy.GENERATOR, Projection(num_steps=STEPS, learning_rate=0.1, chunk_steps=1)
    )

    def prepare(which, shard):
        return method.prepare(
            weights, {'vgg': nets['vgg']}, targets[which], ids[which], statistics, key_of_run()
        )

    return *placement.start(method.loop, N, prepare), None


def tuning(placement, dtype, count=N, **settings):
    weights, nets, targets, pivots, ids, statistics = problem(toy.GENERATOR, dtype)
    targets, pivots, ids = (x[np.arange(count) % N] for x in (targets, pivots, ids))
    settings = TUNING.replace(**settings)
    tuner = pti.make_tuner(toy.GENERATOR, settings, count, num_shards=placement.num_shards)

    def prepare(which, shard):
        own = targets[which], pivots[which], ids[which]
        return tuner.prepare(weights, nets['alex'], *own, statistics.mean, shard)

    host_batches = None
    if tuner.examples is not None:
        host_batches = placement.host_batches(
            functools.partial(tuner.examples, targets, pivots, ids)
        )
    return *placement.start(tuner.loop, count, prepare, tuner.members), host_batches


def search(placement, dtype):
    generator = tiny()[0]
    weights, nets, targets, pivots, ids, _ = problem(generator, dtype)
    prior = cast(sam_prior.from_samples(np.random.RandomState(0).randn(50, 16), Prior()), dtype)
    settings = Search(num_steps=STEPS, lpips_net='alex', noise='random', chunk_steps=1)
    inverter = sam.make_inverter(generator, settings)
    masks = {k: np.array(m, dtype) for k, m in sam.full_masks(generator.spec, SPACES).items()}

    def prepare(which, shard):
        own = {space: mask[which] for space, mask in masks.items()}
        start = pivots[which], ids[which], prior
        return inverter.prepare(weights, nets['alex'], targets[which], own, *start)

    return *placement.start(inverter.loop, N, prepare), None


SPACES = ('W+', 'F4', 'F6')
METHODS = {
    'projection': projection,
    'shared': functools.partial(tuning, microbatch=1),
    'fed': functools.partial(tuning, microbatch=1, resident=1),  # on 1 or 2 devices
    'regrouped': (  # the resumed part has other microbatches, and targets on the host
        functools.partial(tuning, microbatch=1),
        functools.partial(tuning, microbatch=2, resident=1),
    ),
    'minibatches': functools.partial(tuning, batch_size=2),
    'each': functools.partial(tuning, shared=False, stop_lpips=0.0021),
    'sam': search,
}


def run_in_slots(mesh, dtype, folder) -> dict:
    """'each' with room for two at a time; 'A>B' is interrupted on mesh A and goes on on B."""
    weights, nets, targets, pivots, ids, statistics = problem(toy.GENERATOR, dtype)
    settings = TUNING.replace(shared=False, stop_lpips=0.0021)
    results, first = {}, mesh.partition('>')[0]
    for part in mesh.split('>'):
        placement = sharding.make(part)
        tuner = pti.make_tuner(toy.GENERATOR, settings, 2, num_shards=placement.num_shards)

        def prepare(which, shard, tuner=tuner):
            own = targets[which], pivots[which], ids[which]
            return tuner.prepare(weights, nets['alex'], *own, statistics.mean)

        def finish(one):
            results[one.identity] = jax.tree.map(np.asarray, one.variables)

        def on_chunk(step, table, traces, part=part):
            if '>' in mesh and part == first and step == 2:
                raise KeyboardInterrupt

        try:
            traces = continuous_batching.run(
                tuner.loop,
                placement,
                prepare,
                key_of_run(),
                STEPS,
                settings.metrics,
                count=N,
                slots=2,
                saved=checkpoints.LoopCheckpoints(folder / f'slots_{mesh}', STEPS),
                finish=finish,
                on_chunk=on_chunk,
            )
        except KeyboardInterrupt:
            continue
    ran = np.isfinite(traces['loss']).any(axis=1)
    found = {f'trace/{name}': rows[ran] for name, rows in traces.items()}
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(results[i] for i in range(N)))
    for name, leaf in flatten_dict(stacked, sep='/').items():
        found[f'result/{name}'] = leaf
    return {f'slots:{mesh}/{name}': value for name, value in found.items()}


def compiled(mesh, dtype) -> dict:
    """'weak:MESH': shared tuning of an identity a device, which is compiled and not run."""
    placement = sharding.make(mesh)
    loop, state, args, _ = tuning(placement, dtype, placement.num_shards, microbatch=1)
    lowered = loop.lower(state, args, placement.replicate(key_of_run()))
    return {f'weak:{mesh}/text': np.array(lowered.compile().as_text())}


def run(method, mesh, dtype, folder) -> dict:
    """mesh: '4', '2,2', ...; 'A>B' saves half-way on mesh A and goes on on B, 'A>' only saves in
    the folder, and '>B' only goes on."""
    if method == 'slots':
        return run_in_slots(mesh, dtype, folder)
    if method == 'weak':
        return compiled(mesh, dtype)
    first, arrow, second = mesh.partition('>')
    traces, methods = None, METHODS[method]
    before, after = methods if isinstance(methods, tuple) else (methods, methods)
    if first:
        placement = sharding.make(first)
        loop, state, args, host_batches = before(placement, dtype)
        key = placement.replicate(key_of_run())
    if arrow:
        saved = checkpoints.LoopCheckpoints(folder / method, STEPS)
        if first:
            state, traces = optimize.run(
                loop, state, args, key, STEPS // 2, host_batches=host_batches, count=N
            )
            saved.save(state, traces)
        if second:
            placement = sharding.make(second)
            loop, state, args, host_batches = after(placement, dtype)
            key = placement.replicate(key_of_run())
            restored = saved.restore(state, loop.metric_names, count=N)
            state, traces = restored.state, restored.traces
        saved.close()
        if not second:
            return {}
    state, traces = optimize.run(
        loop, state, args, key, STEPS, traces=traces, host_batches=host_batches, count=N
    )
    found = {f'trace/{name}': rows for name, rows in traces.items()}
    collected = placement.collect(loop, state.variables, N)
    for name, leaf in flatten_dict(collected, sep='/').items():
        found[f'result/{name}'] = np.asarray(leaf)
    found['programs'] = np.array(len(loop.compiled))
    found['text'] = np.array(next(iter(loop.compiled.values())).as_text())
    donated = jax.tree.leaves(state)
    loop.chunk(state, args, key, 1, host_batches)
    found['donated'] = np.array(np.mean([x.is_deleted() for x in donated]))
    return {f'{method}:{mesh}/{name}': value for name, value in found.items()}


def main():
    out, *cases = sys.argv[1:]
    process = cluster.process_from(None, None, None)
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
