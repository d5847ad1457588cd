"""Compiled programs of a loop: of one microbatch step, and of a chunk of steps.

On GPUs and TPUs a chunk is one program, a while loop over microbatches. On CPUs it is one program a
microbatch, called from Python: inside XLA:CPU's loops and conditionals convolutions use one core
(LPIPS-vgg with its gradient, two images of 256 pixels, two cores: 1.3 s outside, 6.6 s inside a
loop).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxinv.optimize.step import Carry
from jaxinv.runtime import distributed, malloc

# The concurrency-optimised scheduler runs small operations side by side and takes twice the memory.
CPU_OPTIONS = {'xla_cpu_enable_concurrency_optimized_scheduler': False}


class Programs:
    """The programs of a loop, compiled once per types and shardings of their arguments.

    step(carry, args, key, microbatch) -> carry, and chunk(carry, args, key, num_steps) -> carry,
    are functions to be compiled. The carry is donated. on_mesh: a new carry keeps the sharding of
    the given one. (XLA would return an equivalent one under another name, for which the next call
    compiles again.)
    """

    def __init__(self, step: Callable, chunk: Callable, on_mesh: bool):
        self._step, self._chunk, self._on_mesh = step, chunk, on_mesh
        self._jitted = functools.cache(self._jit)
        # The programs of a microbatch step by the types and shardings of their arguments.
        self.compiled: dict = {}

    def lower(self, carry: Carry, args, key, microbatch) -> jax.stages.Lowered:
        """The program of a microbatch step, not yet compiled."""
        step, _ = self._jitted(*self._placement(carry))
        return step.lower(carry, args, key, microbatch)

    def run_step(self, *arguments) -> Carry:
        """Runs a microbatch step: (carry, args, key, microbatch) -> carry."""
        leaves = jax.tree.leaves(arguments)
        signature = tuple((jax.typeof(x), getattr(x, 'sharding', None)) for x in leaves)
        if signature not in self.compiled:
            # Ahead of time, so that the compiler's memory is returned before the program allocates.
            self.compiled[signature] = self.lower(*arguments).compile()
            malloc.return_freed()
            # Gloo waits 30 s for the peers of a first collective; compiling can differ by more.
            distributed.wait_for_all('compiled')
        return self.compiled[signature](*arguments)

    def run_chunk(self, carry: Carry, args, key, num_steps) -> Carry:
        """Runs num_steps steps in one program."""
        _, chunk = self._jitted(*self._placement(carry))
        return chunk(carry, args, key, num_steps)

    def _placement(self, carry):
        """(structure, shardings) of the carry, hashable."""
        if not self._on_mesh:
            return None, ()
        leaves, structure = jax.tree.flatten(carry)
        return structure, tuple(x.sharding for x in leaves)

    def _jit(self, structure, shardings):
        """(step, chunk), jitted for a carry of this placement."""
        options = {'donate_argnums': 0}
        if structure is not None:
            options['out_shardings'] = structure.unflatten(shardings)
        cpu = CPU_OPTIONS if jax.default_backend() == 'cpu' else None
        return (
            jax.jit(self._step, compiler_options=cpu, **options),
            jax.jit(self._chunk, **options),
        )


def chunk_program(step: Callable, microbatches: int, stops: bool) -> Callable:
    """chunk(carry, args, key, num_steps) -> carry: a while loop over microbatch steps.

    stops: whether it ends early once all examples are done. On several devices the test takes a
    message each step, so it is left out where there is no stopping rule.
    """

    def chunk(carry, args, key, num_steps):
        def unfinished(loop):
            i, carry = loop
            more = i < num_steps * microbatches
            if not stops:
                return more
            return more & ~(jnp.all(carry.state.done) & (i % microbatches == 0))

        def body(loop):
            i, carry = loop
            microbatch = i % microbatches if microbatches > 1 else None
            return i + 1, step(carry, args, key, microbatch)

        return jax.lax.while_loop(unfinished, body, (jnp.int32(0), carry))[1]

    return chunk
