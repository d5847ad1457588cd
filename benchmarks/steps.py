"""Step times of projection, tuning and SAM with the real generator, and their FLOP rates.

    python benchmarks/steps.py [--resolution=512] [--identities=2] [--steps=4] [--only=SAM]

'share' is the FLOP rate of the step (XLA's count of its HLO) divided by that of a large float32
matrix product, measured before and after each step in the same run. Compilation is timed without
the cache.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from jaxinv import data, latents, pixels
from jaxinv.inversion import project, pti, sam, sam_prior
from jaxinv.report import provenance
from jaxinv.runtime import malloc, memory
from jaxinv.settings import Locality, Prior, Projection, Search, Tuning
from jaxinv.weights.networks import load_lpips
from jaxinv.weights.zoo import load_named

_RESOLUTION = flags.DEFINE_integer('resolution', 512, 'Pixels: 512 or 1024.')
_IDENTITIES = flags.DEFINE_integer('identities', 2, 'Identities in the batch.')
_STEPS = flags.DEFINE_integer('steps', 4, 'Timed steps, after compilation and a first step.')
_ONLY = flags.DEFINE_string('only', '', 'Only rows whose name begins with this text.')


def matmul_rate(size=3000) -> float:
    """FLOPs per second of a float32 matrix product, the best of five."""
    x = jnp.ones((size, size))
    product = jax.jit(jnp.dot)
    product(x, x).block_until_ready()
    best = np.inf
    for _ in range(5):
        start = time.perf_counter()
        product(x, x).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def step_flops(loop, state, args, key) -> float:
    """XLA's count for the HLO of one step: its microbatches are equal programs."""
    return loop.microbatches * loop.lower(state, args, key).cost_analysis()['flops']


def step_time(loop, state, args, key):
    """(seconds to compile, seconds a step) of a loop with chunks of one step."""
    start = time.perf_counter()
    state, *_ = jax.block_until_ready(loop.chunk(state, args, key, 1))
    first = time.perf_counter() - start
    times = []
    for _ in range(_STEPS.value):
        start = time.perf_counter()
        state, *_ = jax.block_until_ready(loop.chunk(state, args, key, 1))
        times.append(time.perf_counter() - start)
    return first - min(times), min(times)


def main(argv):
    del argv
    generator, weights = load_named('mobile_stylegan_ffhq', _RESOLUTION.value)
    demo = data.load_images('demo', generator).images_uint8
    targets_uint8 = demo[np.arange(_IDENTITIES.value) % len(demo)]
    targets = pixels.to_float(targets_uint8)
    ids = np.arange(len(targets), dtype=np.uint32)
    nets = {net: load_lpips(net) for net in ('alex', 'vgg')}
    statistics = latents.w_statistics(generator, weights, 1000)
    key = jax.random.key(0)
    pivots = jnp.tile(statistics.mean, (len(targets), 1, 1))

    def projection():
        settings = Projection(num_steps=100, learning_rate=0.1, chunk_steps=1)
        projector = project.make_projector(generator, settings)
        own = {'vgg': nets['vgg']}
        state, args = projector.prepare(weights, own, targets, ids, statistics, key)
        return projector.loop, state, args

    def tuning(**kwargs):
        settings = Tuning(num_steps=100, microbatch=1, chunk_steps=1, **kwargs)
        tuner = pti.make_tuner(generator, settings, len(targets))
        arguments = (weights, nets['alex'], targets, pivots, ids, statistics.mean)
        state, args = tuner.prepare(*arguments)
        return tuner.loop, state, args

    def search():
        inverter = sam.make_inverter(generator, Search(num_steps=100, chunk_steps=1))
        prior = sam_prior.statistics(generator, weights, Prior(num_samples=1000))
        masks = {space: jnp.ones((len(targets), *shape[:2], 1)) for space, shape in spaces}
        state, args = inverter.prepare(weights, nets['vgg'], targets, masks, pivots, ids, prior)
        return inverter.loop, state, args

    spaces = generator.spec.feature_shapes
    off = Locality(weight=0.0)
    programs = {
        'projection': projection,
        'tuning': lambda: tuning(locality=off),
        'tuning, regularised': lambda: tuning(locality=Locality()),
        'tuning, one generator each': lambda: tuning(locality=off, shared=False),
        'SAM, all spaces': search,
    }
    print(f'{_RESOLUTION.value} pixels, {len(targets)} identities, {provenance.devices()}')
    print(f'{"":<28}{"compile s":>10}{"step s":>8}{"GFLOP":>8}{"GFLOP/s":>9}{"share":>7}')
    for name, make in programs.items():
        if not name.startswith(_ONLY.value):
            continue
        rate = matmul_rate()
        loop, state, args = make()
        flops = step_flops(loop, state, args, key)
        seconds, step = step_time(loop, state, args, key)
        rate = max(rate, matmul_rate())
        share = flops / step / rate
        print(
            f'{name:<28}{seconds:>10.1f}{step:>8.2f}{flops / 1e9:>8.0f}'
            f'{flops / step / 1e9:>9.0f}{share:>7.0%}',
            flush=True,
        )
    print(f'matrix product {rate / 1e9:.0f} GFLOP/s, peak memory {memory.peak_host_gb():.1f} GB')


if __name__ == '__main__':
    malloc.restart_with_large_pages()  # as the launcher does
    app.run(main)
