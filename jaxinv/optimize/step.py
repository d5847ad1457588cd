"""One microbatch of an optimisation step, as a pure function.

A method supplies two pure functions: the gradient of a microbatch, and how gradients are applied,

    gradient(variables, args, step, microbatch, key)
        -> (gradients, metrics {name: [m]}, example_index [m] or None)
    apply(gradients, variables, opt_state, args, step) -> (variables, opt_state)

variables       what is optimised; apply must be elementwise, since a device may hold a shard of it
args            what is constant; an argument of the compiled program, so that the next image reuses
                the program
step            int32: optimisation steps computed before this one
microbatch      int32: number of the microbatch within the step; None if a step has only one
key             PRNG key of the run, the same at every step. The gradient folds in the step and the
                example's identity: a resumed run draws the same numbers as an uninterrupted one.
example_index   which of the b examples the m metrics belong to; None = all, in order. Indices of b
                or more are padding and dropped.

With gradient accumulation the gradients of `accumulate_steps` microbatches are summed before they
are applied. With variables that several devices share, `Collectives` (sharded_step.py) sum them.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class Update(NamedTuple):
    """A method's step; see this module's docstring."""

    gradient: Callable
    apply: Callable


class StoppingRule(NamedTuple):
    """Stop at metrics[name] <= threshold.

    per_example: each example freezes by itself, tested before the update is applied, as in PTI's
    code; every leaf of the variables and of the optimiser's moments must lead with the batch axis.
    Otherwise the loop ends after the first step at which all examples are at or below.
    """

    name: str
    threshold: float
    per_example: bool


class LoopState(NamedTuple):
    """What a checkpoint holds of a loop."""

    step: Any  # int32 []: steps computed so far
    done: Any  # bool [b]: the example has met the stopping rule, or is padding
    variables: Any
    opt_state: Any


class Carry(NamedTuple):
    """The state and what is recorded within a chunk of steps."""

    state: LoopState
    row: Any  # int32 []: index of the current step in traces and active
    traces: dict[str, Any]  # {name: [chunk_steps, b]}
    active: Any  # bool [chunk_steps, b]: the example was not done when the step began
    grad_sum: Any  # sum over the batch's earlier microbatches; None without accumulation


def microbatch_step(
    update: Update,
    carry: Carry,
    args,
    key,
    microbatch,
    *,
    microbatches: int = 1,
    accumulate_steps: int = 1,
    stopping: StoppingRule | None = None,
    collectives=None,
) -> Carry:
    """Computes one microbatch and returns the new carry.

    microbatch: int32 in [0, microbatches), or None if there is only one. accumulate_steps divides
    microbatches. collectives: a sharded_step.Collectives where devices share the variables.
    """
    state, row, traces, active, grad_sum = carry
    if microbatch is None:
        microbatch = 0
    active = active.at[row].set(~state.done)
    variables = state.variables
    if collectives:
        variables = collectives.all_gather_params(variables)
    gradients, metrics, index = update.gradient(variables, args, state.step, microbatch, key)
    if collectives:
        gradients = collectives.reduce_scatter_grads(gradients)
    if accumulate_steps > 1:
        grad_sum = jax.tree.map(jnp.add, grad_sum, gradients)
        batch_ends = (microbatch + 1) % accumulate_steps == 0
        variables, opt_state, grad_sum = _apply_if(
            batch_ends, update, grad_sum, state, args, collectives
        )
    else:
        variables, opt_state = _apply(update, gradients, state, args, collectives)
    traces = _record(traces, row, metrics, index, len(state.done), collectives)
    done, step_ends = state.done, microbatch == microbatches - 1
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
    return Carry(state, row + step_ends, traces, active, grad_sum)


def _apply(update, gradients, state, args, collectives):
    """(variables, opt_state) after the gradients, summed over devices that share the variables."""
    if collectives:
        gradients = collectives.psum_grads(gradients)
    return update.apply(gradients, state.variables, state.opt_state, args, state.step)


def _apply_if(batch_ends, update, grad_sum, state, args, collectives):
    """(variables, opt_state, grad_sum): applied and reset if the batch ends, else as they are."""

    def apply(grad_sum, variables, opt_state):
        now = state._replace(variables=variables, opt_state=opt_state)
        applied = _apply(update, grad_sum, now, args, collectives)
        return *applied, jax.tree.map(jnp.zeros_like, grad_sum)

    def keep(grad_sum, variables, opt_state):
        return variables, opt_state, grad_sum

    return jax.lax.cond(batch_ends, apply, keep, grad_sum, state.variables, state.opt_state)


def _record(traces, row, metrics, index, count: int, collectives):
    """The traces {name: [steps, count]} with a microbatch's metrics {name: [m]} in `row`."""
    metrics = {name: metrics[name].astype(trace.dtype) for name, trace in traces.items()}
    if collectives:
        metrics = collectives.gather_metrics(metrics, index, count)
        return {name: trace.at[row].add(metrics[name]) for name, trace in traces.items()}
    index = slice(None) if index is None else index
    return {
        name: trace.at[row, index].set(metrics[name], mode='drop') for name, trace in traces.items()
    }


def _keep_done(done, old, new):
    """`old` for examples that are done, else `new`."""
    if old.shape[:1] != done.shape:
        return new  # a step count that all examples share
    return jnp.where(done.reshape(done.shape + (1,) * (old.ndim - 1)), old, new)


def gradient_update(
    objective: Callable, optimizer: optax.GradientTransformation, project: Callable | None = None
) -> Update:
    """An optax step on objective(variables, args, step, key) -> (loss [], metrics {name: [b]}).

    project: maps the new variables to the feasible set, e.g. normalises noise maps; None = none.
    """

    def gradient(variables, args, step, microbatch, key):
        del microbatch  # there is only one
        return *jax.grad(objective, has_aux=True)(variables, args, step, key), None

    def apply(gradients, variables, opt_state, args, step):
        del args, step
        changes, opt_state = optimizer.update(gradients, opt_state, variables)
        variables = optax.apply_updates(variables, changes)
        return (project(variables) if project else variables), opt_state

    return Update(gradient, apply)


def vmap_optimizer(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimiser for each row of the variables by itself, with a step count [b] of its own."""
    return optax.GradientTransformation(jax.vmap(optimizer.init), jax.vmap(optimizer.update))
