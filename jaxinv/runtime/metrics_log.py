"""Metrics while a run goes: metrics.jsonl, and TensorBoard derived from it.

metrics.jsonl is the record: one line per (stage, step), e.g. for pandas.read_json(lines=True),

    {"stage": "tune", "step": 12, "lpips_alex": 0.21, "lpips_alex/Grace Hopper": 0.19, ...}

A half-written last line is cut off and damaged lines are ignored. A step that is already there is
not written again, so a resumed run neither repeats nor loses steps (log a chunk before saving the
checkpoint that skips it). TensorBoard's event files are written anew from the record whenever a
work folder is opened.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxinv.io import json_text

FILE = 'metrics.jsonl'
FOLDER = 'tensorboard'


class MetricsWriter:
    """Appends to workdir/metrics.jsonl and workdir/tensorboard. Also a context manager."""

    def __init__(self, workdir: str | os.PathLike, names: tuple[str, ...] = ()):
        """names: of the identities, for values that are given as [b]."""
        self.workdir = pathlib.Path(workdir)
        self.names = tuple(names)
        self.workdir.mkdir(parents=True, exist_ok=True)
        path = self.workdir / FILE
        records = _mend(path)
        self._seen = {(r['stage'], r['step']) for r in records}
        self._file = open(path, 'ab')
        self._board = _new_board(self.workdir / FOLDER)
        for record in records:
            self._to_board(record)

    def scalars(self, step: int, stage: str, values: Mapping[str, Any]) -> None:
        """Logs {name: number or [b]}; of a [b] the mean over finite ones and each by its name.

        Not finite becomes null. Does nothing for a step of this stage that is already there.
        """
        self._write([_record(step, stage, values, self.names)])

    def traces(self, stage: str, traces: Mapping[str, Any], first_step: int = 0) -> None:
        """Logs all rows of {name: [steps] or [steps, b]} that are not there yet.

        So the whole trace so far can be given after every chunk. Rows of NaN alone, after all
        identities have stopped, are left out.
        """
        traces = {name: np.asarray(rows, np.float64) for name, rows in traces.items()}
        steps = max((len(rows) for rows in traces.values()), default=0)
        new = []
        for i in range(steps):
            if (stage, first_step + i) in self._seen:
                continue
            values = {name: rows[i] for name, rows in traces.items() if i < len(rows)}
            if any(np.isfinite(v).any() for v in values.values()):
                new.append(_record(first_step + i, stage, values, self.names))
        self._write(new)

    def last_step(self, stage: str) -> int | None:
        """The largest step of a stage in the record, None if it has none."""
        return max((step for s, step in self._seen if s == stage), default=None)

    def close(self) -> None:
        self._file.close()
        self._board.close()

    def __enter__(self) -> 'MetricsWriter':
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _write(self, records: list[dict[str, Any]]) -> None:
        records = [r for r in records if (r['stage'], r['step']) not in self._seen]
        if not records:
            return
        self._file.write(b''.join(json_text(record) + b'\n' for record in records))
        self._file.flush()
        os.fsync(self._file.fileno())
        for record in records:
            self._seen.add((record['stage'], record['step']))
            self._to_board(record)
        self._board.flush()

    def _to_board(self, record: dict[str, Any]) -> None:
        for name, value in record.items():
            if name not in ('stage', 'step') and isinstance(value, (int, float)):
                self._board.add_scalar(f'{record["stage"]}/{name}', value, record['step'])


def read(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """The records of a work folder in the order they were written."""
    path = pathlib.Path(workdir) / FILE
    if not path.is_file():
        return []
    return [r for line in path.read_bytes().split(b'\n') if (r := _parse(line)) is not None]


def _record(step: int, stage: str, values: Mapping[str, Any], names: tuple[str, ...]) -> dict:
    record: dict[str, Any] = {'stage': str(stage), 'step': int(step)}
    for name, value in values.items():
        array = np.asarray(value, np.float64)
        if array.ndim == 0:
            record[name] = _finite(array)
            continue
        known = array[np.isfinite(array)]
        record[name] = _finite(known.mean()) if known.size else None
        for i, item in enumerate(array.reshape(-1)):
            record[f'{name}/{names[i] if i < len(names) else i}'] = _finite(item)
    return record


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    known = isinstance(record, dict) and isinstance(record.get('stage'), str)
    return record if known and isinstance(record.get('step'), int) else None


def _mend(path: pathlib.Path) -> list[dict[str, Any]]:
    """Cuts off a last line that a kill left unfinished, and returns the records."""
    if not path.is_file():
        return []
    data = path.read_bytes()
    whole = data.rfind(b'\n') + 1
    if whole < len(data):
        os.truncate(path, whole)
    return read(path.parent)


def _new_board(folder: pathlib.Path) -> Any:
    # tensorboardX takes a moment to import, which programs that only read should not pay.
    import tensorboardX

    for old in folder.glob('events.out.tfevents.*'):
        old.unlink()
    return tensorboardX.SummaryWriter(str(folder))
