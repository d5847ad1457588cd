"""The optimisation loop: chunks of steps without a host round trip inside.

    loop = make_loop(update, optimizer, ('loss',))
    state, traces = run(loop, loop.init(variables, batch), args, key, num_steps)

Between chunks the host logs, saves and stops. Symbols are those of step.py; b is the batch size,
padding included.

Where the args of all microbatches do not fit on the device, `host_batches(microbatch)` returns
those of one, {name: ...}. The next microbatch's are copied while one is computed: two are on the
device at most.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxinv.errors import JaxinvError
from jaxinv.optimize import sharded_step
from jaxinv.optimize.programs import Programs, chunk_program
from jaxinv.optimize.sharded_step import BatchAxes, fetch
from jaxinv.optimize.step import Carry, LoopState, StoppingRule, Update, microbatch_step


class NotFinite(JaxinvError):
    """A metric of some examples became nan or infinite. examples: their indices."""

    def __init__(self, metric: str, start: int, stop: int, examples: list[int], labels: list[str]):
        super().__init__(
            f'{metric} became nan or infinite within steps [{start}, {stop}) for '
            f'{", ".join(labels)}: check the weights and the image, or lower the learning rate.'
        )
        self.examples = examples


@dataclasses.dataclass(frozen=True, eq=False)
class Loop:
    """An update with its compiled programs; made by `make_loop`, once per method and settings."""

    update: Update
    optimizer: optax.GradientTransformation
    metric_names: tuple[str, ...]
    microbatches: int  # per step
    accumulate_steps: int  # microbatches whose summed gradients are applied at once
    chunk_steps: int  # steps between which the host works
    stopping: StoppingRule | None  # None = all steps
    axes: BatchAxes | None  # None = for one device only
    mesh: Mesh | None  # None = one device
    _by_mesh: dict = dataclasses.field(default_factory=dict, init=False, repr=False)

    def init(self, variables, batch: int) -> LoopState:
        """The state before the first step, for `batch` examples."""
        # Copies: the loop donates its state, and a caller may keep the very same buffers, as
        # pivotal tuning does with the frozen weights of its locality term.
        variables = jax.tree.map(lambda x: jnp.array(x, copy=True), variables)
        done = jnp.zeros([batch], bool)
        return LoopState(jnp.int32(0), done, variables, self.optimizer.init(variables))

    def init_carry(self, state: LoopState) -> Carry:
        """The carry before the first microbatch of a chunk."""
        if self.mesh is None:
            return self._init_carry(state)
        return self._init_carry_on_mesh(state)

    def chunk(self, state: LoopState, args, key, num_steps: int, host_batches=None):
        """Runs `num_steps` <= chunk_steps steps, fewer if all examples are done.

        Returns (state, traces {name: [chunk_steps, b]}, active [chunk_steps, b]): `active` is
        False where an example was done before the step. The state given is donated.
        """
        carry = self.init_carry(state)
        if host_batches is None and jax.default_backend() != 'cpu':
            carry = self.programs.run_chunk(carry, args, key, np.int32(num_steps))
        else:
            carry = self._run_from_host(carry, args, key, num_steps, host_batches)
        return carry.state, carry.traces, carry.active

    def on(self, mesh: Mesh) -> 'Loop':
        """The same loop for state and args that lie on the mesh."""
        if mesh not in self._by_mesh:
            self._by_mesh[mesh] = dataclasses.replace(self, mesh=mesh)
        return self._by_mesh[mesh]

    def lower(self, state: LoopState, args, key) -> jax.stages.Lowered:
        """The program of a microbatch step, not yet compiled."""
        microbatch = np.int32(0) if self.microbatches > 1 else None
        return self.programs.lower(self.init_carry(state), args, key, microbatch)

    @functools.cached_property
    def microbatch_step(self) -> Callable:
        """(carry, args, key, microbatch) -> carry, not compiled."""
        step = functools.partial(
            microbatch_step,
            self.update,
            microbatches=self.microbatches,
            accumulate_steps=self.accumulate_steps,
            stopping=self.stopping,
        )
        if self.mesh is None:
            return step
        return sharded_step.shard_step(self.mesh, self.axes, self.optimizer, step)

    @functools.cached_property
    def programs(self) -> Programs:
        step = self.microbatch_step
        chunk = chunk_program(step, self.microbatches, stops=self.stopping is not None)
        return Programs(step, chunk, on_mesh=self.mesh is not None)

    @property
    def compiled(self) -> dict:
        """On CPUs, the compiled programs of a microbatch by the types of their arguments."""
        return self.programs.compiled

    @functools.cached_property
    def _init_carry_on_mesh(self):
        return sharded_step.shard_init_carry(self.mesh, self.axes, self.optimizer, self._init_carry)

    def _init_carry(self, state):
        shape = (self.chunk_steps,) + state.done.shape
        # float64 in x64 mode
        traces = {name: jnp.zeros(shape) for name in self.metric_names}
        grad_sum = None
        if self.accumulate_steps > 1:
            grad_sum = jax.tree.map(jnp.zeros_like, state.variables)
        return Carry(state, jnp.int32(0), traces, jnp.zeros(shape, bool), grad_sum)

    def _run_from_host(self, carry, args, key, num_steps, host_batches):
        """Calls the program of a microbatch from Python."""
        own = host_batches(0) if host_batches else {}
        for step in range(num_steps):
            for microbatch in range(self.microbatches):
                index = np.int32(microbatch) if self.microbatches > 1 else None
                merged = args | own if host_batches else args
                carry = self.programs.run_step(carry, merged, key, index)
                last = step + 1 == num_steps and microbatch + 1 == self.microbatches
                if host_batches and not last:
                    own = host_batches((microbatch + 1) % self.microbatches)
                    # Otherwise the args of the whole chunk would be copied to the device.
                    jax.block_until_ready(carry)
            if self.stopping is not None and np.all(fetch(carry.state.done)):
                break
        return carry


def make_loop(
    update: Update,
    optimizer: optax.GradientTransformation,
    metric_names: tuple[str, ...],
    *,
    microbatches: int = 1,
    accumulate_steps: int = 1,
    chunk_steps: int = 20,
    stopping: StoppingRule | None = None,
    axes: BatchAxes | None = None,
    mesh: Mesh | None = None,
) -> Loop:
    """A Loop, whose fields the arguments are.

    Nothing is compiled before the first chunk, and then once per shapes: a short last chunk and the
    next image reuse the program. Raises ValueError for counts that do not fit together.
    """
    if stopping is not None and stopping.per_example and microbatches > 1:
        raise ValueError('examples can stop one by one only if a step has one microbatch')
    if microbatches % accumulate_steps:
        raise ValueError(
            f'accumulate_steps {accumulate_steps} does not divide microbatches {microbatches}'
        )
    return Loop(
        update,
        optimizer,
        tuple(metric_names),
        microbatches,
        accumulate_steps,
        chunk_steps,
        stopping,
        axes,
        mesh,
    )


def run(
    loop: Loop,
    state: LoopState,
    args: Any,
    key: jax.Array,
    num_steps: int,
    *,
    traces: dict[str, np.ndarray] | None = None,
    on_chunk: Callable[[LoopState, dict[str, np.ndarray]], None] | None = None,
    host_batches: Callable | None = None,
    names: tuple[str, ...] = (),
    count: int | None = None,
) -> tuple[LoopState, dict[str, np.ndarray]]:
    """Runs up to step `num_steps` and returns (state, traces {name: [steps, count]}).

    traces: of the steps before state.step, when resuming. on_chunk(state, traces so far): called
    between chunks. host_batches: see this module's docstring. names: of the examples, for error
    messages. count: examples without padding; None = all.

    A trace is NaN after its example has stopped. Raises NotFinite with steps and examples when a
    metric of an active example is not finite.
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
    """The traces with a chunk's steps [start, stop) appended.

    rows {name: [chunk_steps, b]}, active [chunk_steps, b]. Raises NotFinite.
    """
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
