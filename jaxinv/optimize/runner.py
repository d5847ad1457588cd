"""Runs the loop of a stage over its examples: batches, checkpoints, curves, status lines.

    runner = Runner(names, sharding.make(), folder)
    codes, traces = runner.run('project', make_task, batch_per_device=8)

A method describes its loop for some of the examples as a `LoopTask`; the runner decides how many of
them are computed together, keeps the results on the host, and goes on from the last checkpoint.
"""

import contextlib
import dataclasses
import json
import pathlib
import re
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxinv.optimize import checkpoints, continuous_batching
from jaxinv.optimize import loop as loops
from jaxinv.optimize.sharding import Sharding
from jaxinv.runtime import distributed
from jaxinv.runtime.metrics_log import MetricsWriter
from jaxinv.runtime.progress import Progress, SlotProgress, Stopwatch, silent


@dataclasses.dataclass(frozen=True)
class LoopTask:
    """A loop over some examples, and how its state and arguments are made."""

    loop: loops.Loop
    prepare: Callable  # (which, shard) -> (state, args) of the examples `which`, see Sharding.start
    key: jax.Array
    num_steps: int
    metric_names: tuple[str, ...]
    # (variables) -> tree of arrays [examples, ...] on the host; of a loop whose examples share the
    # variables, anything.
    result: Callable[[Any], Any] = lambda variables: variables
    # Each example occurs once per kind, ordered by kind (SAM measures every space at once).
    kinds: tuple[str, ...] = ('',)
    members: list | None = None  # [num_shards] of the examples of each shard, see Sharding.start
    host_batches: Callable | None = None  # (shard, microbatch) -> args, where they do not all fit


@dataclasses.dataclass(frozen=True)
class Runner:
    """Where and how the loops of a run are computed; the same for all of its stages."""

    names: tuple[str, ...]  # of the examples
    sharding: Sharding = Sharding()
    folder: pathlib.Path | None = None  # gets state/ and metrics.jsonl; None = nothing is written
    log: Callable = silent  # as print
    # (stage, step, num_steps, {metric: [examples]}), after every chunk of steps; what it raises
    # ends the run.
    callback: Callable | None = None
    # (rows of the examples, the loop's result so far), after every chunk; not of `slots`.
    watch: Callable | None = None
    stopwatch: Stopwatch = dataclasses.field(default_factory=lambda: Stopwatch(None))

    def run(
        self,
        stage: str,
        make_task: Callable[[np.ndarray], LoopTask],
        *,
        batch_per_device: int = 0,
        slots: int = 0,
        on_finished: Callable | None = None,
    ) -> tuple[Any, dict[str, np.ndarray]]:
        """Runs a stage and returns (result, traces {metric: [steps, kinds * examples]}).

        make_task(rows): the loop of the examples `rows` [m].
        batch_per_device: examples computed together on a device, which bounds its memory; 0 = all.
          The results are those of all at once. The last batch may be smaller and then compiles once
          more: on CPUs a padded row costs as much as any other.
        slots: rows of continuous batching (`continuous_batching.run`), for loops whose examples are
          independent; 0 = off. Then the result is None, and on_finished(Finished) receives each
          example: in every process, since all must call it.

        A value of a trace is NaN after its example has stopped. Raises NotFinite.
        """
        with self.stopwatch.stage(stage), self._curves() as writer:
            if slots:
                task = make_task(np.arange(len(self.names)))
                return None, self._run_slots(stage, task, writer, slots, on_finished)
            return self._run_batches(stage, make_task, writer, batch_per_device)

    def _run_batches(self, stage, make_task, writer, batch_per_device):
        count, start = len(self.names), time.perf_counter()
        size = batch_per_device * self.sharding.num_shards or count
        begun = {} if self.folder is None else _begun(self.folder / 'state' / stage)
        batches = split(count, size, begun)
        if len(batches) == 1:
            task = make_task(np.arange(count))
            result, traces = self._run_batch(task, writer, range(count), stage, stage, start)
            if task.loop.axes.variables:
                result = jax.tree.map(np.asarray, result)
            return result, traces
        results, traces = None, []
        for i, rows in enumerate(batches):
            task = make_task(np.array(rows))
            if not task.loop.axes.variables:
                raise ValueError('examples that share variables cannot be split into batches')
            label, folder = f'{stage}/{rows.start}', f'{stage}/{rows.start}-{rows.stop}'
            later = len(batches) - 1 - i
            own, own_traces = self._run_batch(task, writer, rows, label, folder, start, later)
            own = jax.tree.map(np.asarray, own)
            traces.append(own_traces)
            if results is None:
                results = jax.tree.map(lambda x: np.empty((count, *x.shape[1:]), x.dtype), own)
            for whole, x in zip(jax.tree.leaves(results), jax.tree.leaves(own), strict=True):
                whole[rows.start : rows.stop] = x
        return results, {name: _join([t[name] for t in traces], batches) for name in traces[0]}

    def _run_batch(self, task, writer, rows, label, folder, start, later: int = 0):
        """One batch. folder: below state/; later: batches that follow, for the time left."""
        names = tuple(
            f'{self.names[row]} {kind}' if kind else self.names[row]
            for kind in task.kinds
            for row in rows
        )
        sharding = self.sharding
        loop, state, args = sharding.start(task.loop, len(names), task.prepare, task.members)
        key, num_steps = sharding.replicate(task.key), task.num_steps
        progress = Progress(label, num_steps, self.log, later=later * num_steps)
        traces = None
        if writer is not None:
            writer.names = names
        with contextlib.closing(self._checkpoints(folder, num_steps)) as saved:
            restored = saved.restore(state, task.metric_names, self.log, len(names))
            if restored is not None:
                state, traces = restored.state, restored.traces
                self.log(f'{label}: going on after step {int(state.step)}.')

            def on_chunk(state, traces):
                step = int(state.step)
                progress(step, traces)
                if writer is not None:
                    writer.traces(label, traces)
                saved.save(state, traces)
                self.stopwatch.lap(label.partition('/')[0], start)
                self._call_back(label, step, num_steps, {k: v[-1] for k, v in traces.items()})
                if self.watch is not None:
                    self.watch(rows, self._result(task, loop, state, len(names)))
                distributed.raise_if_preempted()

            with distributed.defer_sigterm():
                try:
                    state, traces = loops.run(
                        loop,
                        state,
                        args,
                        key,
                        num_steps,
                        traces=traces,
                        on_chunk=on_chunk,
                        host_batches=task.host_batches and sharding.host_batches(task.host_batches),
                        names=names,
                        count=len(names),
                    )
                except loops.NotFinite as error:
                    error.examples = sorted({rows[i % len(rows)] for i in error.examples})
                    raise
        return self._result(task, loop, state, len(names)), traces or {}

    def _result(self, task, loop, state, count):
        return task.result(self.sharding.collect(loop, state.variables, count))

    def _run_slots(self, stage, task, writer, slots, on_finished):
        start, num_steps = time.perf_counter(), task.num_steps
        progress = SlotProgress(stage, len(self.names), self.log)

        def finish(example: continuous_batching.Finished):
            if writer is not None and example.error is None:
                writer.names = (self.names[example.identity],)
                writer.traces(f'{stage}/{self.names[example.identity]}', example.traces)
            on_finished(example)

        def on_chunk(step, table, traces):
            progress(step, table, traces)
            self.stopwatch.lap(stage, start)
            self._call_back(stage, step, num_steps, _last(traces))
            distributed.raise_if_preempted()

        with distributed.defer_sigterm():
            return continuous_batching.run(
                task.loop,
                self.sharding,
                task.prepare,
                task.key,
                num_steps,
                task.metric_names,
                count=len(self.names),
                slots=min(slots, len(self.names)),
                saved=self._checkpoints(stage, num_steps),
                finish=finish,
                on_chunk=on_chunk,
                names=self.names,
                log=self.log,
            )

    def _checkpoints(self, folder, num_steps):
        if self.folder is None:
            return checkpoints.NoCheckpoints()
        return checkpoints.LoopCheckpoints(self.folder / 'state' / folder, num_steps)

    def _call_back(self, stage, step, num_steps, metrics) -> None:
        if self.callback is not None:
            self.callback(stage, step, num_steps, metrics)

    @contextlib.contextmanager
    def _curves(self):
        """The writer of metrics.jsonl; None without a folder and in processes that do not write."""
        if self.folder is None or not distributed.is_primary():
            yield None
            return
        with MetricsWriter(self.folder) as writer:
            yield writer


def split(count: int, size: int, begun: dict[int, int] | None = None) -> list[range]:
    """0 ... count - 1 in batches of `size`; those of `begun`, {start: stop}, stay if no larger."""
    batches, start = [], 0
    while start < count:
        stop = (begun or {}).get(start, count)
        stop = stop if stop - start <= size else start + size
        batches.append(range(start, min(stop, count)))
        start = batches[-1].stop
    return batches


def _begun(folder: pathlib.Path) -> dict[int, int]:
    """{start: stop} of the batches that have checkpoints, as process 0 lists them.

    An interrupted run may go on with more devices, and so with larger batches; a checkpoint fits
    only the examples that it was made of.
    """
    matches = (re.fullmatch(r'(\d+)-(\d+)', path.name) for path in folder.glob('*-*'))
    pairs = sorted((int(m[1]), int(m[2])) for m in matches if m)
    return dict(json.loads(distributed.broadcast_str(json.dumps(pairs))))


def _join(traces, batches) -> np.ndarray:
    """Traces [steps, kinds * rows] of batches as one, ordered by kind."""
    by_kind = [x.reshape(len(x), -1, len(rows)) for x, rows in zip(traces, batches, strict=True)]
    return np.concatenate(by_kind, axis=2).reshape(len(traces[0]), -1)


def _last(traces) -> dict[str, np.ndarray]:
    """The last finite value of each column of traces {metric: [steps, n]}; NaN where none is."""
    result = {}
    for name, values in traces.items():
        known = np.isfinite(values)
        index = len(values) - 1 - known[::-1].argmax(axis=0)
        last = values[index, np.arange(values.shape[1])]
        result[name] = np.where(known.any(axis=0), last, np.nan)
    return result
