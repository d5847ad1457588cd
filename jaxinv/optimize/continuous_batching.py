"""A bounded number of identities at a time: whoever is finished makes room for the next.

For loops whose rows share nothing and count their own steps from args['examples']['begun'] (tuning
with a generator each, inversion/pti.py): an identity's numbers do not depend on the row it has, on
when it gets it, nor on who has the others. So memory is that of `slots` rows, whatever the number
of identities is.

A chunk ends where the first of the rows does. Then results are handed out, the next identities
take the rows in place, and a checkpoint says who sits where.
"""

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv.errors import JaxinvError
from jaxinv.optimize import checkpoints, sharded_step
from jaxinv.optimize import loop as optimize
from jaxinv.optimize.sharded_step import AXES, fetch
from jaxinv.optimize.sharding import Sharding

NOBODY = -1
MANY = 8  # generators on a device without a word


def check(slots: int, shared: bool) -> None:
    """Raises JaxinvError for config.tune.slots that cannot be. shared: one generator for all."""
    if slots < 0:
        raise JaxinvError(f'tune.slots is {slots}; it must be at least 0, which is all at once.')
    if slots and shared:
        raise JaxinvError(
            f'tune.slots={slots} is for a generator for each identity, and one for all is asked '
            'for, which every identity moves in every step; use pti_single_id, or tune.slots=0.'
        )


def advice(each: int, params) -> str | None:
    """A sentence where so many generators with these parameters are too many for a device."""
    if each <= MANY:
        return None
    size = 3 * each * sum(x.nbytes for x in jax.tree.leaves(params)) / 1e9  # Adam has two moments
    return (
        f'{each} generators at once on a device take {size:.1f} GB with their moments, feature '
        'maps not counted; --config.tune.slots=S tunes S at a time, in the memory of S.'
    )


class Seats(NamedTuple):
    """Who sits where, arrays [slots]; and who has left, [count]."""

    who: np.ndarray  # int32: the identity in the row, or NOBODY
    begun: np.ndarray  # int32: the loop's step at which it sat down
    seconds: np.ndarray  # float32: its share of the time since
    finished: np.ndarray  # bool

    @classmethod
    def at_start(cls, slots: int, count: int) -> 'Seats':
        rows = np.arange(slots, dtype=np.int32)
        who = np.where(rows < count, rows, np.int32(NOBODY))
        return cls(who, np.zeros_like(rows), np.zeros(slots, np.float32), np.zeros(count, bool))

    def taken(self) -> np.ndarray:
        return np.flatnonzero(self.who != NOBODY)

    def waiting(self) -> list[int]:
        return np.setdiff1d(np.flatnonzero(~self.finished), self.who).tolist()


class Finished(NamedTuple):
    """What an identity leaves with."""

    identity: int  # its number
    variables: Any  # without the axis of rows, on every device; None if it failed
    traces: dict[str, np.ndarray]  # {name: [steps]}
    seconds: float  # its share of the time: a chunk's is divided among those who sit
    error: optimize.NotFinite | None  # None = all is well


def run(
    loop: optimize.Loop,
    place: Sharding,
    prepare: Callable,  # (which, share) -> (state, args) of the identities with these numbers
    key: jax.Array,
    num_steps: int,
    metric_names: tuple[str, ...],
    *,
    count: int,  # identities, numbered 0 ...
    slots: int,  # rows for them
    folder: pathlib.Path,  # of checkpoints
    finish: Callable[[Finished], None],  # may be called again with the same, after an interruption
    on_chunk: Callable[[int, Seats, dict[str, np.ndarray]], None] | None = None,
    names: tuple[str, ...] = (),  # of the identities, for error messages
    log=print,
) -> dict[str, np.ndarray]:
    """Runs the loop for every identity and returns the traces {name: [num_steps, count]}.

    Values of an identity after it stopped are NaN. `on_chunk(step, seats, traces)` runs between
    chunks. The same call goes on from the last checkpoint, also on other devices.
    """
    seats = Seats.at_start(slots, count)
    traces = {name: np.full((num_steps, count), np.nan, np.float32) for name in metric_names}
    rows = _Rows(loop, place, prepare, slots, count)
    key = place.replicate(key)
    saved = checkpoints.LoopCheckpoints(folder, num_steps)
    with contextlib.closing(saved):
        restored = saved.restore(rows.state, metric_names, log, count, seats._asdict())
        if restored is not None:
            rows.state, earlier, found = restored
            seats = Seats(**{name: np.array(x) for name, x in found.items()})
            for name, values in earlier.items():
                traces[name][: len(values)] = values
            for row in seats.taken():
                rows.seat(row, seats.who[row], seats.begun[row], fresh=False)
            log(
                f'{seats.finished.sum()} of {count} were finished; going on after step {rows.step}.'
            )
        rows.freeze(seats.who == NOBODY)
        while len(taken := seats.taken()):
            start, clock = rows.step, time.perf_counter()
            left = num_steps - (start - seats.begun[taken])
            found, active = rows.chunk(key, min(loop.chunk_steps, int(left.min())))
            seats.seconds[taken] += (time.perf_counter() - clock) / len(taken)
            done, waiting = fetch(rows.state.done), iter(seats.waiting())
            for row in taken:
                identity, age = int(seats.who[row]), start - seats.begun[row]
                end = age + int(active[:, row].sum())
                for name, values in found.items():
                    traces[name][age:end, identity] = values[: end - age, row]
                own = {name: values[:end, identity] for name, values in traces.items()}
                error = _not_finite(own, age, end, identity, names)
                if not (error or done[row] or end == num_steps):
                    continue
                variables = None if error else rows.take(row)
                finish(Finished(identity, variables, own, float(seats.seconds[row]), error))
                seats.finished[identity] = True
                seats.who[row], seats.begun[row] = next(waiting, NOBODY), rows.step
                seats.seconds[row] = 0
                if seats.who[row] != NOBODY:
                    rows.seat(row, seats.who[row], rows.step)
            rows.freeze(seats.who == NOBODY)
            saved.save(rows.state, traces, seats._asdict())
            if on_chunk is not None:
                on_chunk(rows.step, seats, traces)
    return traces


def _not_finite(traces, start: int, stop: int, identity: int, names) -> optimize.NotFinite | None:
    for name, values in traces.items():
        if not np.isfinite(values[start:]).all():
            label = str(names[identity]) if names else str(identity)
            return optimize.NotFinite(name, start, stop, [identity], [label])
    return None


class _Rows:
    """A loop's state and arguments in place, and how rows of them change hands."""

    def __init__(self, loop, place, prepare, slots, count):
        first = np.minimum(np.arange(slots), count - 1)

        def prepare_first(which, share):
            return prepare(first[which], share)

        self._place, self._prepare = place, prepare
        self._loop, self.state, self._args = place.start(loop, slots, prepare_first)
        self._put, self._take = _operations(place.mesh)

    @property
    def step(self) -> int:
        return int(self.state.step)

    def chunk(self, key, num_steps: int):
        """Runs the steps: ({name: [steps, rows]}, [steps, rows] whether the row was not done)."""
        start = self.step
        self.state, found, active = self._loop.chunk(self.state, self._args, key, num_steps)
        ran = slice(self.step - start)
        return {name: fetch(values)[ran] for name, values in found.items()}, fetch(active)[ran]

    def seat(self, row: int, identity: int, begun: int, fresh: bool = True) -> None:
        """Gives a row to an identity; fresh: with the state it starts from, else it has its own."""
        state, args = self._prepare(np.array([identity]), 0)
        examples = args['examples'] | {'begun': jnp.full(1, begun, jnp.int32)}
        kept, moving = {'examples': self._args['examples']}, {'examples': examples}
        if fresh:
            for name in ('done', 'variables', 'opt_state'):
                kept[name], moving[name] = getattr(self.state, name), getattr(state, name)
        moving = jax.tree.map(self._place.replicate, moving)
        kept = self._put(kept, moving, np.int32(row))
        self._args = self._args | {'examples': kept.pop('examples')}
        self.state = self.state._replace(**kept)

    def take(self, row: int):
        """The variables of a row, without its axis."""
        return self._take(self.state.variables, np.int32(row))

    def freeze(self, empty: np.ndarray) -> None:
        """Marks the empty ones of the slots as done, and what fills up devices beyond them."""
        done = self.state.done
        frozen = np.ones(len(done), bool)
        frozen[: len(empty)] = empty
        mark = jax.jit(jnp.logical_or, out_shardings=done.sharding)
        self.state = self.state._replace(done=mark(done, frozen))


@functools.cache
def _operations(mesh):
    """put(rows, one, index) -> rows, in place; take(rows, index) -> one, on every device."""

    def put(rows, one, index):
        return jax.tree.map(lambda x, y: x.at[index].set(y[0]), rows, one)

    def take(rows, index):
        return jax.tree.map(lambda x: x[index], rows)

    if mesh is None:
        return jax.jit(put, donate_argnums=0), jax.jit(take)

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
