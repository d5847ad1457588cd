"""Runs of a session: jaxinv.launch in a process of its own, followed by the files that it writes.

SIGTERM makes a run save its state and end; the same command goes on from there. A run that crashes
ends its own process only. One run computes at a time, others wait for it.
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from jaxinv.errors import JaxinvError
from jaxinv.io import json_text, read_json, write_atomically
from jaxinv.runtime import distributed, metrics_log
from jaxinv.runtime.workdir import FINISHED
from jaxinv.text import printable

RECORD = 'inversion.json'
BUDGETS = {
    'quick': 'Quick',
    'paper': "The paper's number of steps, about five times as long",
}
STAGES = (('project', 'pivot'), ('tune', 'tune'))  # of metrics.jsonl, and their settings
GONE = 'its process was ended by the system, perhaps because memory was short'


@dataclasses.dataclass
class Inversion:
    """A run and the photographs that it is of."""

    id: str
    title: str
    budget: str
    photographs: list[str]  # ids
    faces: int
    # 'waiting', 'running', 'stopping', 'stopped', 'failed', 'finished'
    state: str = 'waiting'
    error: str = ''


class Inversions:
    """All runs of the studio; one process at a time."""

    def __init__(self, command: list[str]):
        """command: the launcher's, without what differs between runs."""
        self._command = command
        self._lock = threading.Lock()
        self._waiting: list[tuple[pathlib.Path, Inversion]] = []
        self._at_work: tuple[pathlib.Path, Inversion, subprocess.Popen] | None = None
        self._paces: dict[pathlib.Path, _Pace] = {}
        self._closed = False

    def start(self, folder: pathlib.Path, run: Inversion) -> None:
        """Starts or resumes the run of a folder, after those that wait already."""
        with self._lock:
            if any(known == folder for known, _ in self._waiting) or self._is_at_work(folder):
                return
            if self._closed:
                raise JaxinvError('The studio is being closed.')
            run.state, run.error = 'waiting', ''
            save(folder, run)
            self._waiting.append((folder, run))
        self._next()

    def stop(self, folder: pathlib.Path, run: Inversion) -> None:
        """Ends a run with its state saved; asked a second time, at once."""
        with self._lock:
            if self._is_at_work(folder):
                process = self._at_work[2]
                if run.state == 'stopping':
                    process.kill()
                else:
                    run.state = 'stopping'
                    process.terminate()
            elif run.state == 'waiting':
                self._waiting = [item for item in self._waiting if item[0] != folder]
                run.state = 'stopped'
                save(folder, run)

    def remove(self, folder: pathlib.Path, run: Inversion) -> None:
        """Deletes a run and its folder. Raises JaxinvError while it computes."""
        with self._lock:
            if self._is_at_work(folder):
                raise JaxinvError('Stop the inversion before it is deleted.')
            self._waiting = [item for item in self._waiting if item[0] != folder]
            shutil.rmtree(folder, ignore_errors=True)

    def close(self, seconds: float = 120) -> None:
        """Stops the run at work, with its state saved, and waits for it."""
        with self._lock:
            self._closed, self._waiting = True, []
            at_work = self._at_work
        if at_work is None:
            return
        _, run, process = at_work
        run.state = 'stopping'
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()

    def progress(self, folder: pathlib.Path, run: Inversion) -> dict[str, Any]:
        """{'stage', 'step', 'steps', 'fraction', 'seconds_left', 'distance', 'ahead', 'pictures'}.

        fraction: of all steps; seconds_left: about, None until two chunks were timed; distance:
        LPIPS of the last step; ahead: runs before this one; pictures: names of preview/.
        """
        with self._lock:
            folders = [known for known, _ in self._waiting]
            ahead = folders.index(folder) + 1 if folder in folders else 0
        pace = self._paces.setdefault(folder, _Pace())
        found = pace.read(folder / 'run', run.state == 'running')
        names = sorted(p.name for p in (folder / 'run' / 'preview').glob('*.jpg'))
        return found | {'ahead': ahead, 'pictures': names}

    def _is_at_work(self, folder):
        return self._at_work is not None and self._at_work[0] == folder

    def _next(self):
        with self._lock:
            if self._at_work is not None or not self._waiting or self._closed:
                return
            folder, run = self._waiting.pop(0)
            self._paces.pop(folder, None)
            try:
                process = self._open(folder, run)
            except OSError as error:
                run.state, run.error = 'failed', f'The inversion could not be started ({error}).'
                save(folder, run)
                return
            run.state = 'running'
            save(folder, run)
            self._at_work = folder, run, process
        threading.Thread(target=self._wait, args=(folder, run, process), daemon=True).start()

    def _open(self, folder, run):
        command = command_of(self._command, folder, run)
        with open(folder / 'log.txt', 'wb') as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )
        # The page answers while a run computes.
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, process.pid, 5)
        return process

    def _wait(self, folder, run, process):
        code = process.wait()
        with self._lock:
            stopped = run.state == 'stopping' or code == distributed.PREEMPTED
            if (folder / 'run' / FINISHED).is_file():
                run.state = 'finished'
            elif stopped:
                run.state = 'stopped'
            else:
                run.state, run.error = 'failed', reason(folder / 'log.txt', code)
            if folder.is_dir():
                save(folder, run)
            self._at_work = None
        self._next()


def save(folder: pathlib.Path, run: Inversion) -> None:
    write_atomically(folder / RECORD, json_text(dataclasses.asdict(run)))


def load(folder: pathlib.Path) -> Inversion | None:
    """The run of a folder, as after a restart of the studio; None if there is none."""
    found = read_json(folder / RECORD)
    names = [field.name for field in dataclasses.fields(Inversion)]
    if not isinstance(found, dict) or sorted(found) != sorted(names):
        return None
    run = Inversion(**found)
    if (folder / 'run' / FINISHED).is_file():
        run.state = 'finished'
    elif run.state not in ('failed', 'finished'):
        run.state = 'stopped'
    return run


def command_of(base: list[str], folder: pathlib.Path, run: Inversion) -> list[str]:
    """The command of a run, with photographs in FOLDER/photographs and results in FOLDER/run."""
    config = next(arg for arg in base if arg.startswith('--config='))
    rest = [arg for arg in base if arg is not config]
    name, colon, variant = config.partition(':')
    variants = [variant] if colon else []
    if run.budget == 'paper':
        variants.insert(0, 'paper')
    config = f'{name}:{",".join(variants)}' if variants else name
    return [
        sys.executable,
        '-m',
        'jaxinv.launch',
        config,
        f'--workdir={folder / "run"}',
        f'--config.data.images={folder / "photographs"}',
        '--config.data.faces=all',
        f'--config.data.face_list={folder / "faces.json"}',
        '--config.edits=()',
        '--config.preview=True',
        *rest,
    ]


def reason(log: pathlib.Path, code: int) -> str:
    """One sentence on why a run failed: the launcher's own, if it printed one."""
    if code == -signal.SIGKILL:
        return f'The inversion ended: {GONE}.'
    try:
        lines = log.read_bytes()[-(2**16) :].decode('utf-8', 'replace').splitlines()
    except OSError:
        lines = []
    for line in reversed(lines):
        if line.startswith('jaxinv: '):
            text = line.removeprefix('jaxinv: ')
            return printable(text[:1].upper() + text[1:], 600)
    last = printable(next((line for line in reversed(lines) if line.strip()), ''), 200)
    return f'The inversion ended unexpectedly (code {code}){f": {last}" if last else ""}.'


class _Pace:
    """Steps and time of a run, from metrics.jsonl and run.json."""

    def __init__(self):
        self._first: tuple[float, int] | None = None  # (time, steps) when the second chunk was seen
        self._last: tuple[float, int] | None = None
        self._seen = 0  # chunks since this object was made

    def read(self, path: pathlib.Path, running: bool) -> dict[str, Any]:
        totals = _totals(path)
        rows = metrics_log.read(path)
        done = {stage: 0 for stage, _ in STAGES}
        distance = None
        for row in rows:
            stage = row['stage'].partition('/')[0]
            if stage in done:
                done[stage] += 1
                values = [v for k, v in row.items() if k.startswith('lpips') and '/' not in k]
                distance = values[0] if values else distance
        steps, total = sum(done.values()), sum(totals.values())
        now = time.monotonic()
        if self._last is None or steps > self._last[1]:
            self._last = now, steps
            self._seen += 1
            if self._seen == 3:  # the first is what was there, the second compiled
                self._first = now, steps
        left = None
        if running and self._first and self._last[1] > self._first[1]:
            pace = (self._last[0] - self._first[0]) / (self._last[1] - self._first[1])
            left = max(pace * (total - steps) - (now - self._last[0]), 0)
        stage = 'project'
        if totals and all(done[s] >= totals[s] for s in totals):
            stage = 'measure'
        elif totals and done['project'] >= totals['project']:
            stage = 'tune'
        elif not totals:
            stage = 'start'
        if stage == 'measure':
            left = None
        return {
            'stage': stage,
            'step': done.get(stage, 0),
            'steps': totals.get(stage, 0),
            'fraction': steps / total if total else 0.0,
            'seconds_left': left if left is None or math.isfinite(left) else None,
            'distance': distance,
        }


def _totals(path: pathlib.Path) -> dict[str, int]:
    """Steps of each stage by the record of the run; {} before it is written."""
    record = read_json(path / 'run.json')
    try:
        # A projection of more than batch_per_device faces runs in batches, each with all steps.
        config = record['config']
        count = len(record['sources'])
        size = int(config['pivot'].get('batch_per_device', 8)) or count
        batches = -(-count // size)
        return {
            'project': int(config['pivot']['num_steps']) * batches,
            'tune': int(config['tune']['num_steps']),
        }
    except (TypeError, KeyError, ValueError, ZeroDivisionError, json.JSONDecodeError):
        return {}
