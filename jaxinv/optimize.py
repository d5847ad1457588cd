"""One loop for every inversion: chunks of steps without a host round trip inside.

A method supplies a pure function for one part of a step,

    update(variables, opt_state, args, step, part, key)
        -> (variables, opt_state, metrics {name: [m]}, place [m] or None)

`variables` moves, `args` does not; both are arguments of the compiled program, so the next image
reuses it. Most methods have one part a step; gradient accumulation has one a microbatch, and
`place` says which examples the part's metrics belong to (None = all of them, in order; numbers
beyond the batch are dropped). `key` is the run's key, the same at every step: an update folds in
`step` and the identity, so a resumed run draws the same numbers as an uninterrupted one.

On GPUs and TPUs a chunk is one program, a loop over parts. On CPUs it is one program a part, issued
back to back: inside XLA:CPU's loops and conditionals convolutions use one core (LPIPS-vgg with its
gradient, two images of 256 pixels, two cores: 1.3 s outside, 6.6 s inside a loop).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinv import memory
from jaxinv.errors import JaxinvError

# The other scheduler runs small operations side by side, and holds twice the memory for it.
_CPU_OPTIONS = {'xla_cpu_enable_concurrency_optimized_scheduler': False}


class LoopState(NamedTuple):
    step: Any  # int32 []: updates evaluated so far
    done: Any  # bool [b]: examples that have met the stopping rule
    variables: Any
    opt_state: Any


class StoppingRule(NamedTuple):
    """Stop at metrics[name] <= threshold.

    per_example: each example freezes by itself, tested before the update is applied, as PTI's code
    does; every leaf of the variables and of the optimiser's moments must lead with the batch axis.
    Otherwise the loop ends after the first step at which all examples were below.
    """

    name: str
    threshold: float
    per_example: bool


class Loop(NamedTuple):
    """The compiled steps of an update; make one per method and settings with `make_loop`."""

    init: Callable  # (variables, batch) -> LoopState
    chunk: Callable  # (state, args, key, num_steps) -> (state, traces, active [chunk_steps, b])
    begin: Callable  # (state) -> carry of a chunk's first part
    part: Callable  # (carry, args, key, part) -> carry, jitted; a step is `parts` of them
    compiled: dict  # on CPUs: the part's programs, by the types of their arguments
    parts: int
    chunk_steps: int


def gradient_update(objective, optimizer: optax.GradientTransformation, project=None):
    """The plain update: one optax step on objective(variables, args, step, key) -> (loss, metrics).

    `project` maps the new variables to where they must lie, e.g. renormalises noise maps.
    """

    def update(variables, opt_state, args, step, part, key):
        del part  # there is only one
        gradients, metrics = jax.grad(objective, has_aux=True)(variables, args, step, key)
        changes, opt_state = optimizer.update(gradients, opt_state, variables)
        variables = optax.apply_updates(variables, changes)
        return (project(variables) if project else variables), opt_state, metrics, None

    return update


class _Carry(NamedTuple):
    state: LoopState
    row: Any  # int32 []: of the chunk's traces
    traces: dict[str, Any]  # {name: [chunk_steps, b]}
    active: Any  # bool [chunk_steps, b]: the example was not done when the step began


def make_loop(
    update: Callable,
    optimizer: optax.GradientTransformation,
    metric_names: tuple[str, ...],
    *,
    parts: int = 1,  # calls of `update` that make a step
    chunk_steps: int = 20,  # steps between which the host logs, saves and stops
    stopping: StoppingRule | None = None,  # None = always all steps
) -> Loop:
    """Compiles lazily, once per shapes: a short last chunk and the next image reuse the program."""
    if stopping is not None and stopping.per_example and parts > 1:
        raise ValueError('examples can stop by themselves only if a step has one part')

    def init(variables, batch: int) -> LoopState:
        # Copies: the loop donates its state, and a caller may keep the very same buffers, as
        # pivotal tuning does with the frozen weights of its locality term.
        variables = jax.tree.map(lambda x: jnp.array(x, copy=True), variables)
        done = jnp.zeros([batch], bool)
        return LoopState(jnp.int32(0), done, variables, optimizer.init(variables))

    def one_part(carry: _Carry, args, key, part) -> _Carry:
        state, row, traces, active = carry
        if part is None:  # the only one
            part = 0
        active = active.at[row].set(~state.done)
        variables, opt_state, metrics, place = update(
            state.variables, state.opt_state, args, state.step, part, key
        )
        place = slice(None) if place is None else place
        traces = {
            name: rows.at[row, place].set(metrics[name].astype(rows.dtype), mode='drop')
            for name, rows in traces.items()
        }
        done = state.done
        step_ends = part == parts - 1
        if stopping is not None:
            reached = traces[stopping.name][row] <= stopping.threshold
            if stopping.per_example:
                done = done | reached
                keep = functools.partial(_keep_done, done)
                variables = jax.tree.map(keep, state.variables, variables)
                opt_state = jax.tree.map(keep, state.opt_state, opt_state)
            else:
                done = done | (jnp.all(reached) & step_ends)
        state = LoopState(state.step + step_ends, done, variables, opt_state)
        return _Carry(state, row + step_ends, traces, active)

    @functools.partial(jax.jit, donate_argnums=0, compiler_options=_CPU_OPTIONS)
    def jitted_part(carry, args, key, part):
        return one_part(carry, args, key, part)

    compiled = {}

    def run_part(*arguments):
        """Calls the part, compiled apart so that the compiler's memory is back before it runs."""
        signature = tuple(map(jax.typeof, jax.tree.leaves(arguments)))
        if signature not in compiled:
            compiled[signature] = jitted_part.lower(*arguments).compile()
            memory.return_freed()
        return compiled[signature](*arguments)

    @functools.partial(jax.jit, donate_argnums=0)
    def jitted_chunk(carry, args, key, num_steps):
        def unfinished(loop):
            i, carry = loop
            return (i < num_steps * parts) & ~(jnp.all(carry.state.done) & (i % parts == 0))

        def body(loop):
            i, carry = loop
            return i + 1, one_part(carry, args, key, i % parts if parts > 1 else None)

        return jax.lax.while_loop(unfinished, body, (jnp.int32(0), carry))[1]

    def begin(state: LoopState) -> _Carry:
        shape = (chunk_steps,) + state.done.shape
        traces = {name: jnp.zeros(shape) for name in metric_names}  # float64 in x64 mode
        return _Carry(state, jnp.int32(0), traces, jnp.zeros(shape, bool))

    def chunk(state: LoopState, args, key, num_steps: int):
        """Runs `num_steps` <= chunk_steps steps, fewer if all examples are done."""
        carry = begin(state)
        if jax.default_backend() != 'cpu':
            carry = jitted_chunk(carry, args, key, jnp.int32(num_steps))
            return carry.state, carry.traces, carry.active
        for _ in range(num_steps):
            for part in range(parts):
                carry = run_part(carry, args, key, jnp.int32(part) if parts > 1 else None)
            if stopping is not None and np.all(carry.state.done):
                break
        return carry.state, carry.traces, carry.active

    return Loop(init, chunk, begin, jitted_part, compiled, parts, chunk_steps)


def _keep_done(done, old, new):
    if old.shape[:1] != done.shape:
        return new  # the optimiser's step counter, shared by all examples
    return jnp.where(done.reshape(done.shape + (1,) * (old.ndim - 1)), old, new)


def run(
    loop: Loop,
    state: LoopState,
    args: Any,
    key: jax.Array,
    num_steps: int,
    *,
    traces: dict[str, np.ndarray] | None = None,  # of the steps before state.step, when resuming
    on_chunk: Callable[[LoopState, dict[str, np.ndarray]], None] | None = None,
    names: tuple[str, ...] = (),  # of the examples, for error messages
) -> tuple[LoopState, dict[str, np.ndarray]]:
    """Runs up to `num_steps` steps in all and returns the state and traces {name: [steps, b]}.

    Rows of an example after it stopped are NaN. `on_chunk(state, traces so far)` runs between
    chunks. Raises JaxinvError naming steps and examples when a metric is not finite.
    """
    traces = dict(traces or {})
    while int(state.step) < num_steps and not np.all(jax.device_get(state.done)):
        start = int(state.step)
        count = min(loop.chunk_steps, num_steps - start)
        state, rows, active = loop.chunk(state, args, key, count)
        traces = append_traces(traces, rows, active, start, int(state.step), names)
        if on_chunk is not None:
            on_chunk(state, traces)
    return state, traces


def append_traces(traces, rows, active, start: int, stop: int, names=()) -> dict[str, np.ndarray]:
    """Adds a chunk's steps [start, stop) to the traces; JaxinvError if one is not finite."""
    active = np.asarray(active)[: stop - start]
    joined = {}
    for metric, values in rows.items():
        values = np.array(values)[: stop - start]
        bad = (active & ~np.isfinite(values)).any(axis=0)
        if bad.any():
            labels = [str(names[i]) if names else str(i) for i in np.flatnonzero(bad)]
            raise JaxinvError(
                f'{metric} became nan or infinite within steps [{start}, {stop}) for '
                f'{", ".join(labels)}: check the weights and the image, or lower the learning rate.'
            )
        values[~active] = np.nan
        joined[metric] = np.concatenate([traces[metric], values]) if metric in traces else values
    return joined
