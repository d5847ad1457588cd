"""One loop for every inversion: chunks of steps without a host round trip inside.

A method supplies two pure functions, the gradient of one part of a step and what it does,

    gradient(variables, args, step, microbatch, key)
        -> (gradients, metrics {name: [m]}, example_index [m] or None)
    apply(gradients, variables, opt_state, args, step) -> (variables, opt_state)

`variables` moves, `args` does not; both are arguments of the compiled program, so the next image
reuses it. Most methods have one part a step; gradient accumulation has one a microbatch, adds up
the gradients of a batch's microbatches before they are applied, and `example_index` says which examples the part's
metrics belong to (None = all of them, in order; numbers beyond the batch are dropped). `key` is the
run's key, the same at every step: a gradient folds in `step` and the identity, so a resumed run
draws the same numbers as an uninterrupted one.

Between the two the gradients of several devices are added up, where they move the same variables
(`Loop.on`, optimize/sharding.py).

On GPUs and TPUs a chunk is one program, a loop over microbatches. On CPUs it is one program a part, issued
back to back: inside XLA:CPU's loops and conditionals convolutions use one core (LPIPS-vgg with its
gradient, two images of 256 pixels, two cores: 1.3 s outside, 6.6 s inside a loop).

Where args cannot all lie on the device, `host_batches(microbatch)` gives those of one part, {name: ...}, which
join the others. Then, too, it is one program a part, and the next part's args are on their way
while one is computed: two microbatches' are on the device at most.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxinv.errors import JaxinvError
from jaxinv.optimize import sharded_step
from jaxinv.optimize.sharded_step import BatchAxes, fetch
from jaxinv.runtime import malloc

# The other scheduler runs small operations side by side, and holds twice the memory for it.
_CPU_OPTIONS = {'xla_cpu_enable_concurrency_optimized_scheduler': False}


class NotFinite(JaxinvError):
    """A metric of some examples became nan or infinite."""

    def __init__(self, metric: str, start: int, stop: int, examples: list[int], labels: list[str]):
        super().__init__(
            f'{metric} became nan or infinite within steps [{start}, {stop}) for '
            f'{", ".join(labels)}: check the weights and the image, or lower the learning rate.'
        )
        self.examples = examples  # their numbers


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


class Update(NamedTuple):
    """What a method does in a step, as this module's docstring says."""

    gradient: Callable
    apply: Callable  # elementwise, since a device may have only a part of the variables


class Loop(NamedTuple):
    """The compiled steps of an update; make one per method and settings with `make_loop`."""

    init: Callable  # (variables, batch) -> LoopState
    # (state, args, key, num_steps, host_batches=None) -> (state, traces, active [chunk_steps, b])
    chunk: Callable
    init_carry: Callable  # (state) -> carry of a chunk's first part
    microbatch_step: Callable  # (carry, args, key, microbatch) -> carry, jitted; a step is `microbatches` of them
    compiled: dict  # on CPUs: the part's programs, by the types of their arguments
    microbatches: int
    chunk_steps: int
    axes: BatchAxes | None  # None = for one device only
    on: Callable  # (mesh) -> the same loop for state and args that lie on it
    optimizer: optax.GradientTransformation


def gradient_update(objective, optimizer: optax.GradientTransformation, project=None):
    """The plain update: one optax step on objective(variables, args, step, key) -> (loss, metrics).

    `project` maps the new variables to where they must lie, e.g. renormalises noise maps.
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


class _Carry(NamedTuple):
    state: LoopState
    row: Any  # int32 []: of the chunk's traces
    traces: dict[str, Any]  # {name: [chunk_steps, b]}
    active: Any  # bool [chunk_steps, b]: the example was not done when the step began
    total: Any  # gradients of a batch's earlier microbatches; None if it has only one


def make_loop(
    update: Update,
    optimizer: optax.GradientTransformation,
    metric_names: tuple[str, ...],
    *,
    microbatches: int = 1,  # calls of `update.gradient` that make a step
    accumulate_steps: int = 1,  # of them, those whose sum is applied at once; divides microbatches
    chunk_steps: int = 20,  # steps between which the host logs, saves and stops
    stopping: StoppingRule | None = None,  # None = always all steps
    axes: BatchAxes | None = None,  # None = for one device only
    mesh: Any = None,  # see Loop.on
) -> Loop:
    """Compiles lazily, once per shapes: a short last chunk and the next image reuse the program."""
    if stopping is not None and stopping.per_example and microbatches > 1:
        raise ValueError('examples can stop by themselves only if a step has one part')

    def init(variables, batch: int) -> LoopState:
        # Copies: the loop donates its state, and a caller may keep the very same buffers, as
        # pivotal tuning does with the frozen weights of its locality term.
        variables = jax.tree.map(lambda x: jnp.array(x, copy=True), variables)
        done = jnp.zeros([batch], bool)
        return LoopState(jnp.int32(0), done, variables, optimizer.init(variables))

    def one_microbatch(carry: _Carry, args, key, microbatch, collectives=None) -> _Carry:
        """collectives: where variables are shared by several devices, how these come together."""
        state, row, traces, active, total = carry
        if microbatch is None:  # the only one
            microbatch = 0
        active = active.at[row].set(~state.done)
        variables = (
            collectives.all_gather_params(state.variables) if collectives else state.variables
        )
        gradients, metrics, example_index = update.gradient(
            variables, args, state.step, microbatch, key
        )
        gradients = collectives.reduce_scatter_grads(gradients) if collectives else gradients
        before = state.variables, state.opt_state
        if accumulate_steps > 1:
            total = jax.tree.map(jnp.add, total, gradients)
            batch_ends = (microbatch + 1) % accumulate_steps == 0
            gradients = total
            if collectives:  # once a batch, not once a part
                gradients = jax.lax.cond(batch_ends, collectives.psum_grads, lambda x: x, total)
            variables, opt_state = jax.tree.map(
                functools.partial(jnp.where, batch_ends),
                update.apply(gradients, *before, args, state.step),
                before,
            )
            total = jax.tree.map(lambda x: jnp.where(batch_ends, 0, x), total)
        else:
            gradients = collectives.psum_grads(gradients) if collectives else gradients
            variables, opt_state = update.apply(gradients, *before, args, state.step)
        if collectives:
            metrics = {name: metrics[name].astype(rows.dtype) for name, rows in traces.items()}
            everybodys = collectives.gather_metrics(metrics, example_index, len(state.done))
            traces = {name: rows.at[row].add(everybodys[name]) for name, rows in traces.items()}
        else:
            example_index = slice(None) if example_index is None else example_index
            traces = {
                name: rows.at[row, example_index].set(metrics[name].astype(rows.dtype), mode='drop')
                for name, rows in traces.items()
            }
        done = state.done
        step_ends = microbatch == microbatches - 1
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
        return _Carry(state, row + step_ends, traces, active, total)

    any_microbatch = one_microbatch
    if mesh is not None:
        any_microbatch = sharded_step.microbatch_on(mesh, axes, optimizer, one_microbatch)

    def many_microbatches(carry, args, key, num_steps):
        def unfinished(loop):
            i, carry = loop
            more = i < num_steps * microbatches
            if stopping is None:  # on several devices asking would cost a message
                return more
            return more & ~(jnp.all(carry.state.done) & (i % microbatches == 0))

        def body(loop):
            i, carry = loop
            return i + 1, any_microbatch(
                carry, args, key, i % microbatches if microbatches > 1 else None
            )

        return jax.lax.while_loop(unfinished, body, (jnp.int32(0), carry))[1]

    @functools.cache
    def programs(structure=None, shardings=()):
        """(a part, a chunk), jitted. On a mesh the new carry lies where the given one did, which
        XLA says in other words: then the next call would compile again."""
        place = {'out_shardings': structure.unflatten(shardings)} if structure else {}
        options = _CPU_OPTIONS if jax.default_backend() == 'cpu' else None
        part = jax.jit(any_microbatch, donate_argnums=0, compiler_options=options, **place)
        return part, jax.jit(many_microbatches, donate_argnums=0, **place)

    def programs_for(carry):
        if mesh is None:
            return programs()
        leaves, structure = jax.tree.flatten(carry)
        return programs(structure, tuple(x.sharding for x in leaves))

    compiled = {}

    def run_microbatch(*arguments):
        """Calls the part, compiled apart so that the compiler's memory is back before it runs."""
        leaves = jax.tree.leaves(arguments)
        signature = tuple((jax.typeof(x), getattr(x, 'sharding', None)) for x in leaves)
        if signature not in compiled:
            compiled[signature] = programs_for(arguments[0])[0].lower(*arguments).compile()
            malloc.return_freed()
        return compiled[signature](*arguments)

    def init_carry(state: LoopState) -> _Carry:
        shape = (chunk_steps,) + state.done.shape
        traces = {name: jnp.zeros(shape) for name in metric_names}  # float64 in x64 mode
        total = jax.tree.map(jnp.zeros_like, state.variables) if accumulate_steps > 1 else None
        return _Carry(state, jnp.int32(0), traces, jnp.zeros(shape, bool), total)

    init_carry_on_mesh = init_carry
    if mesh is not None:
        init_carry_on_mesh = sharded_step.init_carry_on(mesh, axes, optimizer, init_carry)

    def chunk(state: LoopState, args, key, num_steps: int, host_batches=None):
        """Runs `num_steps` <= chunk_steps steps, fewer if all examples are done."""
        carry = init_carry_on_mesh(state)
        if host_batches is None and jax.default_backend() != 'cpu':
            carry = programs_for(carry)[1](carry, args, key, np.int32(num_steps))
            return carry.state, carry.traces, carry.active
        from_host = host_batches(0) if host_batches else {}
        for step in range(num_steps):
            for microbatch in range(microbatches):
                index = np.int32(microbatch) if microbatches > 1 else None
                carry = run_microbatch(
                    carry, args | from_host if host_batches else args, key, index
                )
                if host_batches and (microbatch + 1 < microbatches or step + 1 < num_steps):
                    from_host = host_batches((microbatch + 1) % microbatches)
                    jax.block_until_ready(carry)  # else all of the chunk's would be on the device
            if stopping is not None and np.all(fetch(carry.state.done)):
                break
        return carry.state, carry.traces, carry.active

    @functools.cache
    def on(mesh):
        settings = dict(
            microbatches=microbatches, accumulate_steps=accumulate_steps, chunk_steps=chunk_steps
        )
        return make_loop(
            update, optimizer, metric_names, stopping=stopping, axes=axes, mesh=mesh, **settings
        )

    return Loop(
        init,
        chunk,
        init_carry_on_mesh,
        programs()[0],
        compiled,
        microbatches,
        chunk_steps,
        axes,
        on,
        optimizer,
    )


def vmap_optimizer(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimiser of every row by itself, with a count of steps of its own."""
    return optax.GradientTransformation(jax.vmap(optimizer.init), jax.vmap(optimizer.update))


def _keep_done(done, old, new):
    if old.shape[:1] != done.shape:
        return new  # a step counter that all examples share
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
    host_batches: Callable
    | None = None,  # (microbatch) -> {name: ...}, more args; None = they are all in args
    names: tuple[str, ...] = (),  # of the examples, for error messages
    count: int | None = None,  # of examples; those beyond fill up devices and leave no trace
) -> tuple[LoopState, dict[str, np.ndarray]]:
    """Runs up to `num_steps` steps in all and returns the state and traces {name: [steps, b]}.

    BatchAxes of an example after it stopped are NaN. `on_chunk(state, traces so far)` runs between
    chunks. Raises NotFinite naming steps and examples when a metric is not finite.
    """
    traces = dict(traces or {})
    while int(state.step) < num_steps and not np.all(fetch(state.done)):
        start = int(state.step)
        steps = min(loop.chunk_steps, num_steps - start)
        state, rows, active = loop.chunk(state, args, key, steps, host_batches)
        rows = {name: fetch(values)[:, :count] for name, values in rows.items()}
        active = fetch(active)[:, :count]
        traces = append_traces(traces, rows, active, start, int(state.step), names)
        if on_chunk is not None:
            on_chunk(state, traces)
    return state, traces


def append_traces(traces, rows, active, start: int, stop: int, names=()) -> dict[str, np.ndarray]:
    """Adds a chunk's steps [start, stop) to the traces; NotFinite if one is not finite."""
    active = np.asarray(active)[: stop - start]
    joined = {}
    for metric, values in rows.items():
        values = np.array(values)[: stop - start]
        bad = (active & ~np.isfinite(values)).any(axis=0)
        if bad.any():
            examples = np.flatnonzero(bad).tolist()
            labels = [str(names[i]) if names else str(i) for i in examples]
            raise NotFinite(metric, start, stop, examples, labels)
        values[~active] = np.nan
        joined[metric] = np.concatenate([traces[metric], values]) if metric in traces else values
    return joined
