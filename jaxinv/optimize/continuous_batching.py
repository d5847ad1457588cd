"""Continuous batching: a finished row is refilled from the queue.

For loops whose rows are independent and count their own steps from args['examples']['start_step']
(tuning with one generator per identity, inversion/pti.py). An identity's results depend neither on
its row, nor on the step at which it is assigned, nor on the other rows. Memory is that of `slots`
rows for any number of identities.

A chunk ends when the first of the rows ends. Finished identities are then passed on, the next ones
take over their rows in place, and a checkpoint holds the rows and which identity each belongs to. A
run may resume with more or fewer slots.
"""

import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv.optimize import sharded_step
from jaxinv.optimize.loop import Loop, NotFinite
from jaxinv.optimize.sharded_step import AXES, fetch
from jaxinv.optimize.sharding import Sharding

EMPTY = -1


class RowTable(NamedTuple):
    """Identity of each row [slots]; finished flags [count]."""

    identity: np.ndarray  # int32 [slots]: identity in the row, or EMPTY
    start_step: np.ndarray  # int32 [slots]: step of the loop at which it was assigned
    seconds: np.ndarray  # float32 [slots]: its fraction of the time since then
    finished: np.ndarray  # bool [count]

    @classmethod
    def initial(cls, slots: int, count: int) -> 'RowTable':
        """The first identities in order, one per row."""
        rows = np.arange(slots, dtype=np.int32)
        identity = np.where(rows < count, rows, np.int32(EMPTY))
        zeros = np.zeros(slots, np.int32), np.zeros(slots, np.float32)
        return cls(identity, *zeros, np.zeros(count, bool))

    def occupied(self) -> np.ndarray:
        """Indices of the rows that have an identity."""
        return np.flatnonzero(self.identity != EMPTY)

    def queue(self) -> list[int]:
        """Identities that are neither finished nor in a row."""
        return np.setdiff1d(np.flatnonzero(~self.finished), self.identity).tolist()


class Finished(NamedTuple):
    """The result of an identity."""

    identity: int
    variables: Any  # without batch axis, on every device; None on an error
    traces: dict[str, np.ndarray]  # {name: [steps]}
    seconds: float  # a chunk's time is divided equally among the identities in its rows
    error: NotFinite | None


def run(
    loop: Loop,
    sharding: Sharding,
    prepare: Callable,
    key: jax.Array,
    num_steps: int,
    metric_names: tuple[str, ...],
    *,
    count: int,
    slots: int,
    saved: Any,
    finish: Callable[[Finished], None],
    on_chunk: Callable[[int, RowTable, dict[str, np.ndarray]], None] | None = None,
    names: tuple[str, ...] = (),
    log: Callable = print,
) -> dict[str, np.ndarray]:
    """Runs the loop for identities 0 ... count - 1; returns traces {name: [num_steps, count]}.

    prepare(which, shard) -> (state, args) of the identities `which`.
    slots: number of rows, over all devices.
    saved: checkpoints.LoopCheckpoints or NoCheckpoints; closed at the end. The same call resumes
      from the newest checkpoint, also with other slots or devices. With fewer slots, identities
      whose rows are gone start again.
    finish(result): called once an identity has finished. A run that is interrupted before the next
      checkpoint calls it again with the same result; one that resumes from a later checkpoint does
      not call it again.
    on_chunk(step, table, traces): called between chunks.
    names: of the identities, for error messages.

    A trace is NaN after its identity has stopped.
    """
    table = RowTable.initial(slots, count)
    traces = {name: np.full((num_steps, count), np.nan, np.float32) for name in metric_names}
    rows = _Rows(loop, sharding, prepare, slots, count)
    key = sharding.replicate(key)
    with contextlib.closing(saved):
        restored = saved.restore(rows.state, metric_names, log, count, table._asdict())
        if restored is not None:
            rows.state = restored.state
            for name, values in restored.traces.items():
                traces[name][: len(values)] = values
            _reassign(rows, table, RowTable(**restored.table), traces)
            finished = table.finished.sum()
            log(f'{finished} of {count} were finished; going on after step {rows.step}.')
        rows.mask_rows(table.identity == EMPTY)
        while len(occupied := table.occupied()):
            start, clock = rows.step, time.perf_counter()
            left = num_steps - (start - table.start_step[occupied])
            chunk, active = rows.chunk(key, min(loop.chunk_steps, int(left.min())))
            table.seconds[occupied] += (time.perf_counter() - clock) / len(occupied)
            done = fetch(rows.state.done)
            for row in occupied:
                identity, age = int(table.identity[row]), start - table.start_step[row]
                end = age + int(active[:, row].sum())
                for name, values in chunk.items():
                    traces[name][age:end, identity] = values[: end - age, row]
                own = {name: values[:end, identity] for name, values in traces.items()}
                error = _not_finite(own, age, end, identity, names)
                if not (error or done[row] or end == num_steps):
                    continue
                variables = None if error else rows.read_row(row)
                finish(Finished(identity, variables, own, float(table.seconds[row]), error))
                table.finished[identity] = True
                table.identity[row] = EMPTY
            _refill(rows, table)
            rows.mask_rows(table.identity == EMPTY)
            saved.save(rows.state, traces, table._asdict())
            if on_chunk is not None:
                on_chunk(rows.step, table, traces)
    return traces


def _refill(rows: '_Rows', table: RowTable) -> None:
    """Assigns the identities of the queue to empty rows."""
    queue = table.queue()
    for row, identity in zip(np.flatnonzero(table.identity == EMPTY), queue, strict=False):
        table.identity[row], table.start_step[row], table.seconds[row] = identity, rows.step, 0
        rows.assign_row(row, identity, rows.step)


def _reassign(rows: '_Rows', table: RowTable, saved: RowTable, traces) -> None:
    """Fills `table` after the rows were restored from a checkpoint with the table `saved`."""
    kept = min(len(table.identity), len(saved.identity))
    table.identity[:] = EMPTY
    for own, old in zip(table, saved, strict=True):
        own[:kept] = old[:kept]
    table.finished[:] = saved.finished
    for identity in saved.identity[kept:]:  # no row is left for them: they start again
        for values in traces.values() if identity != EMPTY else ():
            values[:, identity] = np.nan
    for row in table.occupied():
        rows.assign_row(row, table.identity[row], table.start_step[row], fresh=False)
    _refill(rows, table)


def _not_finite(traces, start: int, stop: int, identity: int, names) -> NotFinite | None:
    """The error of an identity's traces {name: [stop]}, if one is not finite from `start` on."""
    for name, values in traces.items():
        if not np.isfinite(values[start:]).all():
            label = str(names[identity]) if names else str(identity)
            return NotFinite(name, start, stop, [identity], [label])
    return None


class _Rows:
    """A loop's state and arguments, sharded over the mesh, whose rows can be replaced."""

    def __init__(self, loop, sharding, prepare, slots, count):
        first = np.minimum(np.arange(slots), count - 1)

        def prepare_first(which, shard):
            return prepare(first[which], shard)

        self._sharding, self._prepare = sharding, prepare
        self._loop, self.state, self._args = sharding.start(loop, slots, prepare_first)
        self._set_row, self._get_row = _row_operations(sharding.mesh)

    @property
    def step(self) -> int:
        return int(self.state.step)

    def chunk(self, key, num_steps: int):
        """Runs the steps; returns (traces {name: [steps, rows]}, active [steps, rows])."""
        start = self.step
        self.state, traces, active = self._loop.chunk(self.state, self._args, key, num_steps)
        ran = slice(self.step - start)
        return {name: fetch(values)[ran] for name, values in traces.items()}, fetch(active)[ran]

    def assign_row(self, row: int, identity: int, start_step: int, fresh: bool = True) -> None:
        """Gives a row to an identity. fresh: with its initial state; else the row's is kept."""
        state, args = self._prepare(np.array([identity]), 0)
        examples = args['examples'] | {'start_step': jnp.full(1, start_step, jnp.int32)}
        rows, new = {'examples': self._args['examples']}, {'examples': examples}
        if fresh:
            for name in ('done', 'variables', 'opt_state'):
                rows[name], new[name] = getattr(self.state, name), getattr(state, name)
        new = jax.tree.map(self._sharding.replicate, new)
        rows = self._set_row(rows, new, np.int32(row))
        self._args = self._args | {'examples': rows.pop('examples')}
        self.state = self.state._replace(**rows)

    def read_row(self, row: int):
        """The variables of a row, without the batch axis, on every device."""
        return self._get_row(self.state.variables, np.int32(row))

    def mask_rows(self, empty: np.ndarray) -> None:
        """Marks as done the rows where `empty` [slots] is True, and padding beyond the slots."""
        done = self.state.done
        frozen = np.ones(len(done), bool)
        frozen[: len(empty)] = empty
        mark = jax.jit(jnp.logical_or, out_shardings=done.sharding)
        self.state = self.state._replace(done=mark(done, frozen))


@functools.cache
def _row_operations(mesh):
    """(set_row, get_row), compiled.

    set_row(rows, new, index) -> rows: in place, `new` with batch axis 1 and replicated.
    get_row(rows, index) -> row: without the batch axis, replicated.
    """

    def set_row(rows, new, index):
        return jax.tree.map(lambda x, y: x.at[index].set(y[0]), rows, new)

    def get_row(rows, index):
        return jax.tree.map(lambda x: x[index], rows)

    if mesh is None:
        return jax.jit(set_row, donate_argnums=0), jax.jit(get_row)

    # By shard_map, since XLA's partitioner would gather all rows for an index that is not static.
    spec, everywhere = sharded_step.row_spec(0), sharded_step.P()

    def local_index(x, index):
        """The row's index in the device's shard, and whether the shard has it."""
        own = index - jax.lax.axis_index(AXES) * len(x)
        return jnp.clip(own, 0, len(x) - 1), (own >= 0) & (own < len(x))

    def set_local(rows, new, index):
        def set_leaf(x, y):
            own, here = local_index(x, index)
            return x.at[own].set(jnp.where(here, y[0], x[own]))

        return jax.tree.map(set_leaf, rows, new)

    def get_local(rows, index):
        def get_leaf(x):
            own, here = local_index(x, index)
            return jax.lax.psum(jnp.where(here, x[own], 0), AXES)

        return jax.tree.map(get_leaf, rows)

    on_mesh = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)
    set_row = on_mesh(set_local, in_specs=(spec, everywhere, everywhere), out_specs=spec)
    get_row = on_mesh(get_local, in_specs=(spec, everywhere), out_specs=everywhere)
    return jax.jit(set_row, donate_argnums=0), jax.jit(get_row)
