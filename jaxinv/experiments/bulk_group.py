"""A group of pictures at work: a Job of constant size, and what becomes of each identity."""

import json
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxinv import data, optimize, report
from jaxinv.io import write_atomically
from jaxinv.report import schema
from jaxinv.runtime import distributed
from jaxinv.runtime.manifest import Manifest
from jaxinv.runtime.progress import Stopwatch, silent

FOLDER, IDENTITIES = 'groups', 'identities'
MEMBERS, READ = 'members.json', 'read.json'


class Read(NamedTuple):
    """A group's pictures as they were read."""

    number: int
    rows: list[data.Target]  # of those that can be used
    skipped: list[dict]  # lines for the manifest


def folder_of(path: pathlib.Path, number: int) -> pathlib.Path:
    return path / FOLDER / f'{number:05}'


def write_members(path: pathlib.Path, number: int, members: list) -> None:
    """members: [[name, file], ...]"""
    text = json.dumps(members, ensure_ascii=False, indent=0)
    write_atomically(folder_of(path, number) / MEMBERS, text.encode())


def read_members(path: pathlib.Path, number: int) -> list:
    return json.loads((folder_of(path, number) / MEMBERS).read_text(encoding='utf-8'))


def open_groups(path: pathlib.Path) -> list[int]:
    """The numbers of those that are not finished."""
    return sorted(int(file.parent.name) for file in path.glob(f'{FOLDER}/*/{MEMBERS}'))


def next_number(path: pathlib.Path) -> int:
    return 1 + max((int(file.name) for file in path.glob(f'{FOLDER}/*')), default=-1)


class Group:
    """Takes what was read; `invert` calls finish or fail for each of the first `count` targets.

    job: its targets are those that can be used, filled up to the size with the last one.
    """

    def __init__(self, base, manifest: Manifest, choose: Callable, read: Read):
        """base: a Job of all groups, without targets. choose(targets): their Classes, or None."""
        self._base, self._manifest, self.number = base, manifest, read.number
        self._choose = choose
        self._folder = folder_of(base.path, read.number)
        self._rows = list(read.rows)
        for record in read.skipped:
            self._skip(record)
        self._fill()

    def work(self, invert) -> None:
        """Calls invert(self); whoever's numbers become infinite is left out, and the rest anew."""
        while self.count:
            try:
                invert(self)
                break
            except optimize.NotFinite as error:
                self._leave_out(error)
        shutil.rmtree(self._folder / 'state', ignore_errors=True)
        (self._folder / READ).unlink(missing_ok=True)
        (self._folder / MEMBERS).unlink()  # last: without it the group is finished

    def one(self, i: int) -> Any:
        """A Job of identity i alone, in its own folder; None if it is finished already."""
        distributed.raise_if_preempted()
        row = self._rows[i]
        if self._manifest.records.get(row.stem, {}).get('sha256') == row.source['sha256']:
            return None
        self._clock = time.perf_counter()
        folder = self._base.path / IDENTITIES / row.stem
        folder.mkdir(parents=True, exist_ok=True)
        return self.session._replace(
            path=folder,
            targets=self.session.targets.select([i]),
            classes=self.session.classes and self.session.classes.rows([i]),
            stopwatch=Stopwatch(None),
            log=silent,
        )

    def finish(self, i: int, result: schema.Run, facts: dict, stages: tuple[str, ...]) -> None:
        """Writes what was found of identity i.

        facts: more for its line, with its own 'seconds' {stage: s}; stages: those of the group's
        job in whose time it has an equal share.
        """
        row = self._rows[i]
        report.write_one(self._base.path / IDENTITIES / row.stem, result)
        spent = self.session.stopwatch.seconds
        seconds = {stage: spent[stage] / self.count for stage in stages if stage in spent}
        seconds |= facts.get('seconds', {}) | {'score': time.perf_counter() - self._clock}
        found = schema.metrics(result)
        record = self._line(row) | {'folder': f'{IDENTITIES}/{row.stem}', 'group': self.number}
        record |= facts | {'seconds': {stage: round(s, 3) for stage, s in seconds.items()}}
        record['metrics'] = found['identities'][row.stem]
        if found['drift']:
            record['drift'] = found['drift']
        if row.source.get('warning'):
            record['warning'] = row.source['warning']
        self._manifest.add(record)

    def fail(self, i: int, reason: str) -> None:
        """Leaves identity i out, for this reason."""
        self._skip(self._line(self._rows[i]) | {'skipped': reason})

    def _line(self, row: data.Target) -> dict:
        return {'name': row.stem, 'file': row.source['file'], 'sha256': row.source['sha256']}

    def _skip(self, record: dict) -> None:
        self._base.log(f'Skipped {record["file"]}: {record["skipped"]}')
        # Of an earlier picture of this name.
        shutil.rmtree(self._base.path / IDENTITIES / record['name'], ignore_errors=True)
        self._manifest.add(record)

    def _leave_out(self, error: optimize.NotFinite) -> None:
        bad = {min(example, self.count - 1) for example in error.examples}
        for i in bad:
            self.fail(i, str(error))
        self._rows = [row for i, row in enumerate(self._rows) if i not in bad]
        members = [[row.stem, row.source['file']] for row in self._rows]
        write_members(self._base.path, self.number, members)
        self._fill()

    def _fill(self) -> None:
        """Makes the job of what rows there are; what was computed of other ones is dropped."""
        self.count = len(self._rows)
        if not self.count:
            return
        read = [[row.stem, row.source['sha256']] for row in self._rows]
        file = self._folder / READ
        if not file.is_file() or json.loads(file.read_text(encoding='utf-8')) != read:
            shutil.rmtree(self._folder / 'state', ignore_errors=True)
            write_atomically(file, json.dumps(read, ensure_ascii=False).encode())
        size = self._base.config.group
        names = [row.stem for row in self._rows]
        names += [f'{names[-1]}~{i}' for i in range(size - self.count)]
        targets, rows = data.collect(self._rows, []), np.minimum(np.arange(size), self.count - 1)
        chosen = self._choose(targets)
        self.session = self._base._replace(
            path=self._folder,
            targets=targets.select(rows, names),
            classes=chosen and chosen.rows(rows),
            stopwatch=Stopwatch(self._folder / 'state' / 'seconds.json'),
        )
