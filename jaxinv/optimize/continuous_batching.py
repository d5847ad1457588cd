"""A bounded number of identities at a time: whoever is finished makes room for the next.

For loops whose rows share nothing and count their own steps from args['examples']['start_step'] (tuning
with a generator each, inversion/pti.py): an identity's numbers do not depend on the row it has, on
when it gets it, nor on who has the others. So memory is that of `slots` rows, whatever the number
of identities is.

A chunk ends where the first of the rows does. Then results are handed out, the next identities
take the rows in place, and a checkpoint says who sits where.
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
from jaxinv.optimize import loop as optimize
from jaxinv.optimize.sharded_step import AXES, fetch
from jaxinv.optimize.sharding import Sharding

EMPTY = -1
MANY = 8  # generators on a device without a word


def advice(each: int, params) -> str | None:
    """A sentence where so many generators with these parameters are too many for a device."""
    if each <= MANY:
        return None
    size = 3 * each * sum(x.nbytes for x in jax.tree.leaves(params)) / 1e9  # Adam has two moments
    return (
        f'{each} generators at once on a device take {size:.1f} GB with their moments, feature '
        'maps not counted; --config.tune.slots=S tunes S at a time, in the memory of S.'
    )


class RowTable(NamedTuple):
    """Who sits where, arrays [slots]; and who has left, [count]."""

    identity: np.ndarray  # int32: the identity in the row, or EMPTY
    start_step: np.ndarray  # int32: the loop's step at which it sat down
    seconds: np.ndarray  # float32: its share of the time since
    finished: np.ndarray  # bool

    @classmethod
    def initial(cls, slots: int, count: int) -> 'RowTable':
        rows = np.arange(slots, dtype=np.int32)
        identity = np.where(rows < count, rows, np.int32(EMPTY))
        return cls(
            identity, np.zeros_like(rows), np.zeros(slots, np.float32), np.zeros(count, bool)
        )

    def occupied(self) -> np.ndarray:
        return np.flatnonzero(self.identity != EMPTY)

    def queue(self) -> list[int]:
        return np.setdiff1d(np.flatnonzero(~self.finished), self.identity).tolist()


class Finished(NamedTuple):
    """What an identity leaves with."""

    identity: int  # its number
    variables: Any  # without the axis of rows, on every device; None if it failed
    traces: dict[str, np.ndarray]  # {name: [steps]}
    seconds: float  # its share of the time: a chunk's is divided among those who sit
    error: optimize.NotFinite | None  # None = all is well


def run(
    loop: optimize.Loop,
    sharding: Sharding,
    prepare: Callable,  # (which, shard) -> (state, args) of the identities with these numbers
    key: jax.Array,
    num_steps: int,
    metric_names: tuple[str, ...],
    *,
    count: int,  # identities, numbered 0 ...
    slots: int,  # rows for them
    saved: Any,  # checkpoints.LoopCheckpoints, or NoCheckpoints
    finish: Callable[[Finished], None],  # may be called again with the same, after an interruption
    on_chunk: Callable[[int, RowTable, dict[str, np.ndarray]], None] | None = None,
    names: tuple[str, ...] = (),  # of the identities, for error messages
    log=print,
) -> dict[str, np.ndarray]:
    """Runs the loop for every identity and returns the traces {name: [num_steps, count]}.

    Values of an identity after it stopped are NaN. `on_chunk(step, table, traces)` runs between
    chunks. The same call goes on from the last checkpoint, also on other devices.
    """
    table = RowTable.initial(slots, count)
    traces = {name: np.full((num_steps, count), np.nan, np.float32) for name in metric_names}
    rows = _Rows(loop, sharding, prepare, slots, count)
    key = sharding.replicate(key)
    with contextlib.closing(saved):
        restored = saved.restore(rows.state, metric_names, log, count, table._asdict())
        if restored is not None:
            rows.state, earlier, found = restored
            table = RowTable(**{name: np.array(x) for name, x in found.items()})
            for name, values in earlier.items():
                traces[name][: len(values)] = values
            for row in table.occupied():
                rows.assign_row(row, table.identity[row], table.start_step[row], fresh=False)
            log(
                f'{table.finished.sum()} of {count} were finished; going on after step {rows.step}.'
            )
        rows.mask_rows(table.identity == EMPTY)
        while len(taken := table.occupied()):
            start, clock = rows.step, time.perf_counter()
            left = num_steps - (start - table.start_step[taken])
            found, active = rows.chunk(key, min(loop.chunk_steps, int(left.min())))
            table.seconds[taken] += (time.perf_counter() - clock) / len(taken)
            done, waiting = fetch(rows.state.done), iter(table.queue())
            for row in taken:
                identity, age = int(table.identity[row]), start - table.start_step[row]
                end = age + int(active[:, row].sum())
                for name, values in found.items():
                    traces[name][age:end, identity] = values[: end - age, row]
                own = {name: values[:end, identity] for name, values in traces.items()}
                error = _not_finite(own, age, end, identity, names)
                if not (error or done[row] or end == num_steps):
                    continue
                variables = None if error else rows.read_row(row)
                finish(Finished(identity, variables, own, float(table.seconds[row]), error))
                table.finished[identity] = True
                table.identity[row], table.start_step[row] = next(waiting, EMPTY), rows.step
                table.seconds[row] = 0
                if table.identity[row] != EMPTY:
                    rows.assign_row(row, table.identity[row], rows.step)
            rows.mask_rows(table.identity == EMPTY)
            saved.save(rows.state, traces, table._asdict())
            if on_chunk is not None:
                on_chunk(rows.step, table, traces)
    return traces


def _not_finite(traces, start: int, stop: int, identity: int, names) -> optimize.NotFinite | None:
    for name, values in traces.items():
        if not np.isfinite(values[start:]).all():
            label = str(names[identity]) if names else str(identity)
            return optimize.NotFinite(name, start, stop, [identity], [label])
    return None


class _Rows:
    """A loop's state and arguments in place, and how rows of them change hands."""

    def __init__(self, loop, sharding, prepare, slots, count):
        first = np.minimum(np.arange(slots), count - 1)

        def prepare_first(which, shard):
            return prepare(first[which], shard)

        self._sharding, self._prepare = sharding, prepare
        self._loop, self.state, self._args = sharding.start(loop, slots, prepare_first)
        self._put, self._take = _operations(sharding.mesh)

    @property
    def step(self) -> int:
        return int(self.state.step)

    def chunk(self, key, num_steps: int):
        """Runs the steps: ({name: [steps, rows]}, [steps, rows] whether the row was not done)."""
        start = self.step
        self.state, found, active = self._loop.chunk(self.state, self._args, key, num_steps)
        ran = slice(self.step - start)
        return {name: fetch(values)[ran] for name, values in found.items()}, fetch(active)[ran]

    def assign_row(self, row: int, identity: int, start_step: int, fresh: bool = True) -> None:
        """Gives a row to an identity; fresh: with the state it starts from, else it has its own."""
        state, args = self._prepare(np.array([identity]), 0)
        examples = args['examples'] | {'start_step': jnp.full(1, start_step, jnp.int32)}
        kept, moving = {'examples': self._args['examples']}, {'examples': examples}
        if fresh:
            for name in ('done', 'variables', 'opt_state'):
                kept[name], moving[name] = getattr(self.state, name), getattr(state, name)
        moving = jax.tree.map(self._sharding.replicate, moving)
        kept = self._put(kept, moving, np.int32(row))
        self._args = self._args | {'examples': kept.pop('examples')}
        self.state = self.state._replace(**kept)

    def read_row(self, row: int):
        """The variables of a row, without its axis."""
        return self._take(self.state.variables, np.int32(row))

    def mask_rows(self, empty: np.ndarray) -> None:
        """Marks the empty ones of the slots as done, and what fills up devices beyond them."""
        done = self.state.done
        frozen = np.ones(len(done), bool)
        frozen[: len(empty)] = empty
        mark = jax.jit(jnp.logical_or, out_shardings=done.sharding)
        self.state = self.state._replace(done=mark(done, frozen))


@functools.cache
def _operations(mesh):
    """put(rows, one, index) -> rows, in place; read_row(rows, index) -> one, on every device."""

    def put(rows, one, index):
        return jax.tree.map(lambda x, y: x.at[index].set(y[0]), rows, one)

    def read_row(rows, index):
        return jax.tree.map(lambda x: x[index], rows)

    if mesh is None:
        return jax.jit(put, donate_argnums=0), jax.jit(read_row)

    # Said for one device's rows, since a partitioner that meets a moving index gathers all rows.
    spec, everywhere = sharded_step.row_spec(0), sharded_step.P()

    def own_row(x, index):
        """Where the row is in the device's own ones, and whether it is there."""
        own = index - jax.lax.axis_index(AXES) * len(x)
        return jnp.clip(own, 0, len(x) - 1), (own >= 0) & (own < len(x))

    def put_own(rows, one, index):
        def set_row(x, y):
            own, here = own_row(x, index)
            return x.at[own].set(jnp.where(here, y[0], x[own]))

        return jax.tree.map(set_row, rows, one)

    def take_own(rows, index):
        def get_row(x):
            own, here = own_row(x, index)
            return jax.lax.psum(jnp.where(here, x[own], 0), AXES)

        return jax.tree.map(get_row, rows)

    on_mesh = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)
    put_on = on_mesh(put_own, in_specs=(spec, everywhere, everywhere), out_specs=spec)
    take_on = on_mesh(take_own, in_specs=(spec, everywhere), out_specs=everywhere)
    return jax.jit(put_on, donate_argnums=0), jax.jit(take_on)
