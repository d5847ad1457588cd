"""The methods' plain functions under a clock that stands still while their state is measured.

    clock = Clock()
    runner = TimedRunner(names, clock=clock, checkpoints=8, observe=observe)
    with clock:
        project(generator, weights, targets, runner=runner)
    runner.stages       # [{'stage', 'steps', 'begin', 'end', 'step_seconds', ...}]

Every loop of the methods goes through `Runner.run`, so a runner in its place sees every state. A
rehearsal, the same call with a runner that takes one step of each loop, compiles all programs.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxinv.errors import JaxinvError
from jaxinv.optimize import loop as loops
from jaxinv.optimize.continuous_batching import Finished
from jaxinv.optimize.runner import Runner

COMPILED = '/jax/core/compile/backend_compile_duration'  # an event of jax.monitoring


class Seconds(NamedTuple):
    wall: float
    processor: float  # of all threads, which other work on the machine affects less

    def plus(self, other: 'Seconds') -> 'Seconds':
        return Seconds(self.wall + other.wall, self.processor + other.processor)

    def minus(self, other: 'Seconds') -> 'Seconds':
        return Seconds(self.wall - other.wall, self.processor - other.processor)


NONE = Seconds(0.0, 0.0)


class Clock:
    """Counts within `with clock:`, but not within `with clock.paused():`."""

    def __init__(self):
        self.compilation = 0.0  # seconds of compilation that were counted; 0 after a rehearsal
        self._before, self._since = NONE, None

    def __enter__(self):
        jax.monitoring.register_event_duration_secs_listener(self._on_event)
        self._since = _now()
        return self

    def __exit__(self, *error):
        self._before, self._since = self.read(), None
        jax.monitoring.unregister_event_duration_listener(self._on_event)

    def read(self) -> Seconds:
        if self._since is None:
            return self._before
        return self._before.plus(_now().minus(self._since))

    @contextlib.contextmanager
    def paused(self):
        self._before, self._since = self.read(), None
        try:
            yield
        finally:
            self._since = _now()

    def _on_event(self, event: str, seconds: float, **kwargs) -> None:
        if event == COMPILED and self._since is not None:
            self.compilation += seconds


def _now() -> Seconds:
    return Seconds(time.perf_counter(), time.process_time())


def marks(num_steps: int, count: int) -> list[int]:
    """Steps after which the state is measured, `count` at most, the last one among them.

    As squares: most changes in the first steps, and figures have a logarithmic axis.
    """
    return sorted({math.ceil(num_steps * (i / count) ** 2) for i in range(1, count + 1)} - {0})


@dataclasses.dataclass(frozen=True)
class TimedRunner(Runner):
    """A Runner without files, on one device, with all examples in one program.

    observe(stage, task, args, variables, step): called with the clock paused, before the first step
    and at the marks. What it sees must be used before it returns: the next step donates it.
    """

    clock: Clock = dataclasses.field(default_factory=Clock)
    checkpoints: int = 8
    observe: Callable | None = None  # None = a rehearsal
    stages: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def run(
        self,
        stage: str,
        make_task: Callable,
        *,
        batch_per_device: int = 0,
        slots: int = 0,
        on_finished: Callable | None = None,
    ):
        """As Runner.run; the numbers are the same whatever batch_per_device is."""
        count = len(self.names)
        if slots and slots < count:
            raise JaxinvError(
                f'tune.slots is {slots} and there are {count} pictures, whose times would not be '
                'those of one program; use tune.slots=0.'
            )
        with self.stopwatch.stage(stage):
            task = make_task(np.arange(count))
            state, args = jax.block_until_ready(task.prepare(slice(None), 0))
            begin = self.clock.read()
            state, traces, spent = self._steps(stage, task, state, args)
            if slots:
                result = None
                for i in range(count):
                    own = jax.tree.map(lambda x, i=i: x[i], state.variables)
                    rows = {name: values[:, i] for name, values in traces.items()}
                    on_finished(Finished(i, own, rows, spent.wall / count, None))
            else:
                result = jax.block_until_ready(task.result(state.variables))
                if task.loop.axes.variables:
                    result = jax.tree.map(np.asarray, result)
        self.stages.append(record(stage, int(state.step), begin, self.clock.read(), spent))
        return result, traces

    def _steps(self, stage, task, state, args):
        """(state, traces {metric: [steps, rows]}, Seconds of the steps)."""
        loop, traces, spent = task.loop, {}, NONE

        def look():
            if self.observe is not None:
                with self.clock.paused():
                    self.observe(stage, task, args, state.variables, int(state.step))

        look()
        rehearsal = self.observe is None
        for mark in [1] if rehearsal else marks(task.num_steps, self.checkpoints):
            while (step := int(state.step)) < min(mark, task.num_steps) and not _done(state):
                start = self.clock.read()
                steps = min(loop.chunk_steps, mark - step)
                state, rows, active = jax.block_until_ready(
                    loop.chunk(state, args, task.key, steps)
                )
                spent = spent.plus(self.clock.read().minus(start))
                traces = loops.append_traces(traces, rows, active, step, int(state.step))
            look()
            if _done(state):
                break
        return state, traces, spent


def record(stage: str, steps: int, begin: Seconds, end: Seconds, spent: Seconds) -> dict[str, Any]:
    """A stage as it is written. begin: of its steps; end: with what its result takes."""
    return {
        'stage': stage,
        'steps': steps,
        'begin': begin.wall,
        'end': end.wall,
        'processor_end': end.processor,
        'step_seconds': spent.wall,
        'step_processor_seconds': spent.processor,
    }


def _done(state) -> bool:
    return bool(np.all(state.done))
