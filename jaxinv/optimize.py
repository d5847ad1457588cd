"""One loop for every inversion: chunks of steps in one compiled program.

A method supplies a pure step function

    update(variables, opt_state, args, step, key) -> (variables, opt_state, metrics {name: [b]})

`variables` moves, `args` does not; both are arguments of the compiled chunk, so the next image
reuses it. Between chunks the host logs, saves and stops; inside there is no round trip. `key` is
the run's key, the same at every step: an update folds in `step` (and the identity), so a resumed
run draws the same numbers as an uninterrupted one.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinv.errors import JaxinvError


class LoopState(NamedTuple):
    step: Any  # int32 []: updates evaluated so far
    done: Any  # bool [b]: examples that have met the stopping rule
    variables: Any
    opt_state: Any


class StoppingRule(NamedTuple):
    """Stop at metrics[name] <= threshold, tested before the update is applied, as PTI's code does.

    per_example: each example freezes by itself; every leaf of the variables and of the optimiser's
    moments must lead with the batch axis. Otherwise the loop ends when all examples are below.
    """

    name: str
    threshold: float
    per_example: bool


class Loop(NamedTuple):
    """A compiled chunk of an update; make one per method and settings with `make_loop`."""

    init: Callable  # (variables, batch) -> LoopState
    chunk: Callable  # (state, args, key, num_steps) -> (state, traces, active [chunk_steps, b])
    chunk_steps: int


def gradient_update(objective, optimizer: optax.GradientTransformation, project=None):
    """The plain update: one optax step on objective(variables, args, step, key) -> (loss, metrics).

    `project` maps the new variables to where they must lie, e.g. renormalises noise maps.
    """

    def update(variables, opt_state, args, step, key):
        gradients, metrics = jax.grad(objective, has_aux=True)(variables, args, step, key)
        changes, opt_state = optimizer.update(gradients, opt_state, variables)
        variables = optax.apply_updates(variables, changes)
        return (project(variables) if project else variables), opt_state, metrics

    return update


def make_loop(
    update: Callable,
    optimizer: optax.GradientTransformation,
    metric_names: tuple[str, ...],
    *,
    chunk_steps: int = 20,  # steps per compiled call; host work happens between
    stopping: StoppingRule | None = None,  # None = always all steps
) -> Loop:
    """Compiles lazily, once per shapes: a short last chunk and the next image reuse the program."""

    def init(variables, batch: int) -> LoopState:
        # Copies: the loop donates its state, and a caller may keep the very same buffers, as
        # pivotal tuning does with the frozen weights of its locality term.
        variables = jax.tree.map(lambda x: jnp.array(x, copy=True), variables)
        done = jnp.zeros([batch], bool)
        return LoopState(jnp.int32(0), done, variables, optimizer.init(variables))

    def one_step(state: LoopState, args, key):
        variables, opt_state, metrics = update(
            state.variables, state.opt_state, args, state.step, key
        )
        done = state.done
        if stopping is not None:
            reached = metrics[stopping.name] <= stopping.threshold
            done = (done | reached) if stopping.per_example else jnp.all(reached) | done
            keep = functools.partial(_keep_done, done, stopping.per_example)
            variables = jax.tree.map(keep, state.variables, variables)
            opt_state = jax.tree.map(keep, state.opt_state, opt_state)
        return LoopState(state.step + 1, done, variables, opt_state), metrics

    @functools.partial(jax.jit, donate_argnums=0)
    def chunk(state: LoopState, args, key, num_steps):
        """Runs `num_steps` <= chunk_steps steps, fewer if all examples are done."""
        rows = (chunk_steps,) + state.done.shape
        traces = {name: jnp.zeros(rows, jnp.float32) for name in metric_names}

        def unfinished(carry):
            i, state, _, _ = carry
            return (i < num_steps) & ~jnp.all(state.done)

        def body(carry):
            i, state, traces, active = carry
            active = active.at[i].set(~state.done)
            state, metrics = one_step(state, args, key)
            traces = {
                name: rows.at[i].set(metrics[name].astype(jnp.float32))
                for name, rows in traces.items()
            }
            return i + 1, state, traces, active

        start = (jnp.int32(0), state, traces, jnp.zeros(rows, bool))
        _, state, traces, active = jax.lax.while_loop(unfinished, body, start)
        return state, traces, active

    return Loop(init, chunk, chunk_steps)


def _keep_done(done, per_example, old, new):
    if not per_example:
        return jnp.where(done.all(), old, new)
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
        state, rows, active = loop.chunk(state, args, key, jnp.int32(count))
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
