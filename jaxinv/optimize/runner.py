"""A job's loops: from their last checkpoint on, with status lines, curves and checkpoints."""

import contextlib
import json
import pathlib
import re
import time
from collections.abc import Callable

import jax
import numpy as np

from jaxinv.experiments.session import Session
from jaxinv.inversion import pti
from jaxinv.optimize import checkpoints, continuous_batching
from jaxinv.optimize import loop as optimize
from jaxinv.runtime import distributed, metrics_log
from jaxinv.runtime.progress import Progress, SlotProgress


def with_checkpoints(
    job: Session,
    stage: str,
    loop,
    prepare,  # see Sharding.start
    key,
    num_steps,
    metric_names,
    members=None,  # see Sharding.start
    feed=None,  # see optimize.run
):
    """Runs a loop of all targets from its last checkpoint, with a status line and a checkpoint
    every chunk.

    Returns the variables, without padding, and the traces.
    """
    with _curves(job) as writer:
        part = _Part(job, writer, range(len(job.targets.names)), stage, stage)
        variables = part.run(
            loop, prepare, key, num_steps, metric_names, members=members, feed=feed
        )
    return variables, part.traces


def in_parts(job: Session, stage: str, batch_per_device: int, find: Callable):
    """What `find` makes of all targets, `batch_per_device` a device at a time (0 = all), and the traces.

    For what shares nothing but the program and a device's memory, which is that of one part,
    whatever the number of targets is: what was found is kept on the host. The last part may be
    smaller and then compiles its program once more; to fill it up would cost more on CPUs, where
    a row that nobody needs takes as long as any other.

    find(rows, run) -> a tree of arrays [rows, ...] of the targets with these numbers;
    run(loop, prepare, key, num_steps, metric_names, kinds=('',)) -> the variables, of a loop that
    has every row once for each of the kinds, by kind; `prepare` is asked for places among those.
    Traces are by kind, too. Of several parts each is called STAGE/START.
    """
    count, start = len(job.targets.names), time.perf_counter()
    size = batch_per_device * job.place.shares or count
    parts = divided(count, size, _begun(job.path / 'state' / stage))
    found, traces = None, []
    with _curves(job) as writer:
        for i, rows in enumerate(parts):
            label = folder = stage
            if len(parts) > 1:
                label, folder = f'{stage}/{rows.start}', f'{stage}/{rows.start}-{rows.stop}'
            part = _Part(job, writer, rows, label, folder, start, later=len(parts) - 1 - i)
            own = jax.tree.map(np.asarray, find(np.array(rows), part.run))
            traces.append(part.traces)
            if found is None:
                found = jax.tree.map(lambda x: np.empty((count, *x.shape[1:]), x.dtype), own)
            for whole, x in zip(jax.tree.leaves(found), jax.tree.leaves(own), strict=True):
                whole[rows.start : rows.stop] = x
    return found, {name: _joined([t[name] for t in traces], parts) for name in traces[0]}


def divided(count: int, size: int, begun: dict[int, int] | None = None) -> list[range]:
    """0 ... count - 1 in parts of `size`; those of `begun`, {start: stop}, stay if no larger."""
    parts, start = [], 0
    while start < count:
        stop = (begun or {}).get(start, count)
        stop = stop if stop - start <= size else start + size
        parts.append(range(start, min(stop, count)))
        start = parts[-1].stop
    return parts


def _begun(folder: pathlib.Path) -> dict[int, int]:
    """{start: stop} of the parts that have checkpoints, as process 0 sees them.

    An interrupted run may go on with more devices, and so with larger parts; checkpoints are of the
    rows that they were made of.
    """
    found = (re.fullmatch(r'(\d+)-(\d+)', path.name) for path in folder.glob('*-*'))
    pairs = sorted((int(m[1]), int(m[2])) for m in found if m)
    return dict(json.loads(distributed.broadcast_str(json.dumps(pairs))))


def _joined(traces, parts) -> np.ndarray:
    """Traces [steps, kinds * rows] of parts as one, again by kind."""
    by_kind = [x.reshape(len(x), -1, len(rows)) for x, rows in zip(traces, parts, strict=True)]
    return np.concatenate(by_kind, axis=2).reshape(len(traces[0]), -1)


@contextlib.contextmanager
def _curves(job: Session):
    """Where curves are written; None in processes that write nothing."""
    if not distributed.is_primary():
        yield None
        return
    with metrics_log.MetricsWriter(job.path) as writer:
        yield writer


class _Part:
    """Some of a job's targets, or all, in a stage."""

    def __init__(self, job, writer, rows, stage: str, folder: str, start=None, later: int = 0):
        """folder: under state/. start: when the stage began, in perf_counter's seconds; None = now.
        later: parts to come, which take as many steps."""
        self._job, self._writer, self._rows = job, writer, rows
        self._stage, self._folder = stage, folder
        self._start, self._later = start or time.perf_counter(), later
        self.traces = {}

    def run(
        self, loop, prepare, key, num_steps, metric_names, kinds=('',), members=None, feed=None
    ):
        """The variables without padding; see with_checkpoints and in_parts. Leaves the traces."""
        job, stage, targets = self._job, self._stage, self._job.targets.names
        names = tuple(
            f'{targets[row]} {kind}' if kind else targets[row]
            for kind in kinds
            for row in self._rows
        )
        loop, state, args = job.place.start(loop, len(names), prepare, members)
        key = job.place.replicate(key)
        saved = checkpoints.LoopCheckpoints(job.path / 'state' / self._folder, num_steps)
        progress = Progress(stage, num_steps, job.log, later=self._later * num_steps)
        traces = None
        if self._writer is not None:
            self._writer.names = names
        restored = saved.restore(state, metric_names, job.log, len(names))
        if restored is not None:
            state, traces = restored
            job.log(f'{stage}: going on after step {int(state.step)}.')
        with distributed.defer_sigterm():

            def on_chunk(state, traces):
                progress(int(state.step), traces)
                if self._writer is not None:
                    self._writer.traces(stage, traces)
                saved.save(state, traces)
                job.watch.lap(stage.partition('/')[0], self._start)
                distributed.raise_if_preempted()

            try:
                state, self.traces = optimize.run(
                    loop,
                    state,
                    args,
                    key,
                    num_steps,
                    traces=traces,
                    on_chunk=on_chunk,
                    feed=feed,
                    names=names,
                    count=len(names),
                )
            except optimize.NotFinite as error:
                rows = self._rows
                error.examples = sorted({rows[i % len(rows)] for i in error.examples})
                raise
        saved.close()
        return job.place.collect(loop, state.variables, len(names))


def in_slots(job: Session, tuner: pti.Tuner, prepare, key, rows: int, count: int, keep):
    """Tunes the first `count` identities, `rows` at a time, and returns the traces."""
    settings, names, start = tuner.settings, job.targets.names[:count], time.perf_counter()
    progress = SlotProgress('tune', len(names), job.log)
    with contextlib.ExitStack() as stack:
        stack.enter_context(distributed.defer_sigterm())
        writer = stack.enter_context(_curves(job))

        def finish(one: continuous_batching.Finished):
            if one.error is not None:
                keep(one.identity, None, {}, one.error)
                return
            if writer is None:
                return
            writer.traces(f'tune/{names[one.identity]}', one.traces)
            facts = {'steps': len(one.traces['loss']), 'seconds': {'tune': round(one.seconds, 3)}}
            keep(one.identity, tuner.weights(job.weights, one.variables), facts)

        def on_chunk(step, seats, traces):
            progress(step, seats, traces)
            job.watch.lap('tune', start)
            distributed.raise_if_preempted()

        return continuous_batching.run(
            tuner.loop,
            job.place,
            prepare,
            key,
            settings.num_steps,
            settings.metrics,
            count=count,
            slots=rows,
            folder=job.path / 'state' / 'tune',
            finish=finish,
            on_chunk=on_chunk,
            names=names,
            log=job.log,
        )
