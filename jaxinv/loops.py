"""A job's loops: from their last checkpoint on, with status lines, curves and checkpoints."""

import contextlib
import time

from jaxinv import checkpoints, distributed, report, slots
from jaxinv.inversion import pti
from jaxinv.jobs import Job
from jaxinv.optimize import run as run_loop
from jaxinv.progress import Progress, SlotProgress


def with_checkpoints(
    job: Job,
    stage,
    loop,
    prepare,  # see Placement.start
    key,
    num_steps,
    metric_names,
    names=None,  # of the batch's rows; None = the targets
    members=None,  # see Placement.start
    feed=None,  # see optimize.run
    start=None,  # when the stage began, in perf_counter's seconds; None = now
):
    """Runs a loop from its last checkpoint, with a status line and a checkpoint every chunk.

    Returns the variables, without padding, and the traces.
    """
    names = tuple(job.targets.names) if names is None else names
    loop, state, args = job.place.start(loop, len(names), prepare, members)
    key = job.place.replicate(key)
    saved = checkpoints.LoopCheckpoints(job.path / 'state' / stage, num_steps)
    progress = Progress(stage, num_steps, job.log)
    traces, start = None, start or time.perf_counter()
    restored = saved.restore(state, metric_names, job.log, len(names))
    if restored is not None:
        state, traces = restored
        job.log(f'{stage}: going on after step {int(state.step)}.')
    with contextlib.ExitStack() as stack:
        stack.enter_context(distributed.sigterm_waits())
        writer = None
        if distributed.is_first():
            writer = stack.enter_context(report.MetricsWriter(job.path, names))

        def on_chunk(state, traces):
            progress(int(state.step), traces)
            if writer is not None:
                writer.traces(stage, traces)
            saved.save(state, traces)
            job.watch.lap(stage.partition('/')[0], start)
            distributed.stop_if_asked()

        state, traces = run_loop(
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
    saved.close()
    return job.place.collect(loop, state.variables, len(names)), traces


def in_slots(job: Job, tuner: pti.Tuner, prepare, key, rows: int, count: int, keep):
    """Tunes the first `count` identities, `rows` at a time, and returns the traces."""
    settings, names, start = tuner.settings, job.targets.names[:count], time.perf_counter()
    progress = SlotProgress('tune', len(names), job.log)
    with contextlib.ExitStack() as stack:
        stack.enter_context(distributed.sigterm_waits())
        writer = None
        if distributed.is_first():
            writer = stack.enter_context(report.MetricsWriter(job.path))

        def finish(one: slots.Finished):
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
            distributed.stop_if_asked()

        return slots.run(
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
