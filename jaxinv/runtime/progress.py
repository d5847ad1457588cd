"""Status lines of long work: step, losses, pace and time left."""

import contextlib
import json
import pathlib
import time
from collections.abc import Mapping

import numpy as np

from jaxinv.io import read_json, write_atomically


class _Pace:
    """Seconds a step and the time left, without the first chunk of steps, which compiles."""

    def __init__(self):
        self._start = time.perf_counter()
        self._first = None  # (time, step) after the first chunk

    def describe(self, step: int, left: int | None, left_text: str = '{} left') -> list[str]:
        """Parts of a status line after `step`. left: steps to come; None = left out."""
        now = time.perf_counter()
        if self._first is None:
            self._first = (now, step)
            return [f'{now - self._start:.0f} s with compilation']
        if step <= self._first[1]:
            return []
        pace = (now - self._first[0]) / (step - self._first[1])
        parts = [f'{pace:.2f} s/step']
        return parts if left is None else [*parts, left_text.format(duration(pace * left))]


class Progress:
    """Prints `tune    40/80  loss 0.2113  l2 0.0412 ...  2.31 s/step  1m32s left`."""

    def __init__(self, stage: str, num_steps: int, log=print, later: int = 0):
        """later: steps of the same stage after these, included in the time left."""
        self._stage, self._num_steps, self._log, self._later = stage, num_steps, log, later
        self._pace = _Pace()

    def __call__(self, step: int, traces: Mapping[str, np.ndarray]) -> None:
        parts = [f'{self._stage:<7} {step:>4}/{self._num_steps}']
        for name, rows in traces.items():
            if len(rows) and np.isfinite(rows[-1]).any():
                parts.append(f'{name} {np.nanmean(rows[-1]):.4f}')
        parts += self._pace.describe(step, self._num_steps - step + self._later)
        self._log('  '.join(parts), flush=True)


class SlotProgress:
    """Prints `tune    12/128 finished  4 at steps 10 to 40 of 80  loss 0.21 ...  1m32s left`."""

    def __init__(self, stage: str, count: int, log=print):
        self._stage, self._count, self._log = stage, count, log
        self._pace = _Pace()

    def __call__(self, step: int, table, traces: Mapping[str, np.ndarray]) -> None:
        """table: continuous_batching.RowTable; traces {name: [num_steps, count]}."""
        active = table.identity[table.occupied()]
        parts = [f'{self._stage:<7} {table.finished.sum():>4}/{self._count} finished']
        num_steps = len(next(iter(traces.values())))
        steps = np.isfinite(next(iter(traces.values()))).sum(axis=0)  # of each identity
        if len(active):
            low, high = steps[active].min(), steps[active].max()
            which = f'step {low}' if low == high else f'steps {low} to {high}'
            parts.append(f'{len(active)} at {which} of {num_steps}')
        for name, values in traces.items():
            known = [own[np.isfinite(own)] for own in values[:, active].T]
            last = [own[-1] for own in known if len(own)]
            if last:
                parts.append(f'{name} {np.mean(last):.4f}')
        left = None
        if len(active):
            # An upper bound: an identity may stop before its last step.
            left = np.where(table.finished, 0, num_steps - steps)
            left = max(-(-left.sum() // len(active)), left[active].max())
        parts += self._pace.describe(step, left, 'at most {} left')
        self._log('  '.join(parts), flush=True)


def silent(*args, **kwargs) -> None:
    """A log that drops its messages."""


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f'{hours}h{minutes:02}m'
    return f'{minutes}m{seconds:02}s' if minutes else f'{seconds}s'


class Stopwatch:
    """Seconds of each stage, {stage: s}, summed over the interruptions of a run."""

    def __init__(self, file: pathlib.Path | None):
        """file: JSON file of earlier seconds, rewritten at every lap; None = no file."""
        self._file = file
        self._earlier = _read_seconds(file) if file else {}
        self.seconds: dict[str, float] = dict(self._earlier)

    @contextlib.contextmanager
    def stage(self, name: str):
        start = time.perf_counter()
        try:
            yield
        finally:
            self.lap(name, start)

    def lap(self, name: str, start: float) -> None:
        """Records the time since `start`. Between chunks, too: a kill then loses little."""
        self.seconds[name] = self._earlier.get(name, 0.0) + time.perf_counter() - start
        if self._file is not None:
            write_atomically(self._file, json.dumps(self.seconds))


def _read_seconds(file: pathlib.Path) -> dict[str, float]:
    """The content of seconds.json; {} of a missing or damaged file."""
    found = read_json(file)
    if not isinstance(found, dict) or not all(isinstance(x, (int, float)) for x in found.values()):
        return {}
    return found
