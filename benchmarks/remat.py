r"""Memory and time of shared tuning with and without `remat`.

    python benchmarks/remat.py compile [--only=embedded]   # nothing is run
    python benchmarks/remat.py step --generator='embedded, 512²' --microbatch=4 --remat=1

compile prints the table of docs/devices.md. Temporary memory is XLA:CPU's; "kept" is what the
forward pass of one identity keeps for its gradient, independent of the compiler. step runs several
steps with random weights and prints the process's peak memory after the first one.
"""

import argparse
import pathlib
import time

import abstract
import counts
import jax
import jax.numpy as jnp
import numpy as np
from scaling import OPTIONS

from jaxinv import generators
from jaxinv.inversion import pti
from jaxinv.runtime import malloc, memory
from jaxinv.weights.networks import load_lpips

METHODS = ('shared', 'shared, regularised')
MICROBATCHES = (1, 4)


def generator_of(name, remat):
    return generators.with_computing(abstract.GENERATORS[name](), remat=remat)


def of_program(name, method, microbatch, remat) -> tuple[float, float, float]:
    """(GFLOP, MB kept of one identity, MB temporary)."""
    generator = generator_of(name, remat)
    settings = abstract.settings(method, microbatch=microbatch)
    step = abstract.tuning_step(generator, settings, abstract.one_device(), microbatch)
    flops = counts.of_function(step.function, step.arguments)
    kept = abstract.kept_bytes(generator, settings)
    temporary = step.compile(**OPTIONS).memory_analysis().temp_size_in_bytes
    return flops / 1e9, kept / 1e6, temporary / 1e6


def compile_all(only: str) -> None:
    print('| | microbatch | GFLOP | kept, MB each | temporary, MB |\n|---|---|---|---|---|')
    for name in abstract.GENERATORS:
        for method in METHODS:
            for microbatch in MICROBATCHES:
                row = f'{name}, {method} | {microbatch}'
                if only not in row:
                    continue
                both = [of_program(name, method, microbatch, remat) for remat in (False, True)]
                cells = (f'{a:.0f} to {b:.0f}' for a, b in zip(*both, strict=True))
                print(f'| {row} | {" | ".join(cells)} |', flush=True)


def run_steps(name, method, microbatch, remat, steps) -> None:
    generator, key = generator_of(name, remat), jax.random.key(0, impl='unsafe_rbg')
    weights = jax.jit(generator.init)(key)
    settings = abstract.settings(method, microbatch=microbatch, chunk_steps=1)
    tuner = pti.make_tuner(generator, settings, microbatch)
    size = generator.spec.resolution
    targets = np.random.default_rng(0).integers(0, 256, (microbatch, size, size, 3), np.uint8)
    mean = weights['buffers']['w_avg']
    pivots = jnp.tile(mean, (microbatch, 1, 1))
    ids = np.arange(microbatch, dtype=np.uint32)
    state, args = tuner.prepare(weights, load_lpips('alex'), targets, pivots, ids, mean)
    del weights
    key, times = jax.random.key(0), []
    for i in range(steps + 1):
        start = time.perf_counter()
        state, *_ = jax.block_until_ready(tuner.loop.chunk(state, args, key, 1))
        times.append(time.perf_counter() - start)
        if i == 0:  # compilation can need more memory than a step
            malloc.return_freed()
            pathlib.Path('/proc/self/clear_refs').write_text('5')
    print(
        f'{name}, {method}, microbatch {microbatch}, remat {remat}: '
        f'{min(times[1:]):.2f} s a step, peak {memory.peak_host_gb():.2f} GB',
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest='command', required=True)
    command = commands.add_parser('compile')
    command.add_argument('--only', default='', help='only rows that contain this text')
    command = commands.add_parser('step')
    command.add_argument('--generator', choices=abstract.GENERATORS, required=True)
    command.add_argument('--method', choices=METHODS, default='shared')
    command.add_argument('--microbatch', type=int, default=1)
    command.add_argument('--remat', type=int, choices=(0, 1), default=0)
    command.add_argument('--steps', type=int, default=3)
    given = parser.parse_args()
    if given.command == 'compile':
        compile_all(given.only)
        return
    malloc.restart_with_large_pages()  # as the launcher does
    run_steps(given.generator, given.method, given.microbatch, bool(given.remat), given.steps)


if __name__ == '__main__':
    main()
