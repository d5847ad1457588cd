"""A group of bulk mode: a Session of constant size, and the results of each identity."""

import pathlib
import shutil
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from jaxinv import data, optimize, report
from jaxinv.experiments.session import Session
from jaxinv.io import json_text, read_json, write_atomically
from jaxinv.report import schema
from jaxinv.runtime import distributed
from jaxinv.runtime.manifest import Manifest
from jaxinv.runtime.progress import Stopwatch, silent

FOLDER, IDENTITIES = 'groups', 'identities'
MEMBERS, READ = 'members.json', 'read.json'


class Batch(NamedTuple):
    """A group's pictures, read."""

    number: int
    targets: list[data.Target]  # of the usable pictures
    skipped: list[dict]  # lines of the manifest for the others


def folder_of(path: pathlib.Path, number: int) -> pathlib.Path:
    return path / FOLDER / f'{number:05}'


def write_members(path: pathlib.Path, number: int, members: list) -> None:
    """members: [[name, file], ...]"""
    text = json_text(members, indent=0)
    write_atomically(folder_of(path, number) / MEMBERS, text)


def read_members(path: pathlib.Path, number: int) -> list | None:
    """What `write_members` wrote; None if the file is damaged."""
    members = read_json(folder_of(path, number) / MEMBERS)
    pairs = isinstance(members, list) and all(isinstance(m, list) and len(m) == 2 for m in members)
    return members if pairs else None


def open_groups(path: pathlib.Path) -> list[int]:
    """The numbers of the unfinished groups."""
    return sorted(int(file.parent.name) for file in path.glob(f'{FOLDER}/*/{MEMBERS}'))


def next_number(path: pathlib.Path) -> int:
    return 1 + max((int(file.name) for file in path.glob(f'{FOLDER}/*')), default=-1)


def line_of(target: data.Target) -> dict:
    """The beginning of a target's line in the manifest."""
    return {
        'name': target.stem,
        'file': target.source['file'],
        'sha256': target.source['sha256'],
    }


class Group:
    """The inversion of a group: `invert` calls finish or fail for each of the `count` identities.

    session: its targets are the usable ones, padded to the size of a group with the last one.
    """

    def __init__(self, base: Session, manifest: Manifest, choose: Callable, batch: Batch):
        """base: a Session without targets. choose(targets): their Classes, or None."""
        self._base, self._manifest, self.number = base, manifest, batch.number
        self._choose = choose
        self._folder = folder_of(base.path, batch.number)
        self._targets = list(batch.targets)
        for record in batch.skipped:
            self._skip(record)
        self._make_session()

    def run(self, invert: Callable) -> None:
        """Calls invert(self); on NotFinite, drops those identities and inverts the rest anew."""
        while self.count:
            try:
                invert(self)
                break
            except optimize.NotFinite as error:
                self.drop(dict.fromkeys(error.examples, str(error)))
        shutil.rmtree(self._folder / 'state', ignore_errors=True)
        (self._folder / READ).unlink(missing_ok=True)
        (self._folder / MEMBERS).unlink()  # last: without it the group is finished

    def one(self, i: int) -> Session | None:
        """A Session of identity i alone, in its own folder; None if it is finished already."""
        distributed.raise_if_preempted()
        target = self._targets[i]
        known = self._manifest.records.get(target.stem, {})
        if known.get('sha256') == target.source['sha256']:
            return None
        self._clock = time.perf_counter()
        folder = self._base.path / IDENTITIES / target.stem
        folder.mkdir(parents=True, exist_ok=True)
        return self.session._replace(
            path=folder,
            targets=self.session.targets.select([i]),
            classes=self.session.classes and self.session.classes.rows([i]),
            stopwatch=Stopwatch(None),
            log=silent,
        )

    def finish(self, i: int, result: schema.Run, facts: dict, stages: tuple[str, ...]) -> None:
        """Writes the results of identity i, and its line.

        facts: more for its line, with its own 'seconds' {stage: s}; stages: those whose time is
        divided equally among the group's identities.
        """
        target = self._targets[i]
        pictures = report.write_identity(self._base.path / IDENTITIES / target.stem, result)
        spent = self.session.stopwatch.seconds
        seconds = {stage: spent[stage] / self.count for stage in stages if stage in spent}
        seconds |= facts.get('seconds', {}) | {'score': time.perf_counter() - self._clock}
        found = schema.metrics(result)
        record = line_of(target) | {'folder': f'{IDENTITIES}/{target.stem}', 'group': self.number}
        record |= facts | {'seconds': {stage: round(s, 3) for stage, s in seconds.items()}}
        record |= {'metrics': found['identities'][target.stem], 'pictures': pictures}
        if found['drift']:
            record['drift'] = found['drift']
        if target.source.get('warning'):
            record['warning'] = target.source['warning']
        self._manifest.add(record)

    def fail(self, i: int, reason: str) -> None:
        """Skips identity i, for this reason."""
        self._skip(line_of(self._targets[i]) | {'skipped': reason})

    def _skip(self, record: dict) -> None:
        self._base.log(f'Skipped {record["file"]}: {record["skipped"]}')
        # Of an earlier picture of this name.
        shutil.rmtree(self._base.path / IDENTITIES / record['name'], ignore_errors=True)
        self._manifest.add(record)

    def drop(self, reasons: Mapping[int, str]) -> None:
        """Skips the identities {i: reason}; session and count are then those of the others."""
        bad = {min(i, self.count - 1): reason for i, reason in reasons.items()}
        for i, reason in bad.items():
            self.fail(i, reason)
        self._targets = [target for i, target in enumerate(self._targets) if i not in bad]
        members = [[target.stem, target.source['file']] for target in self._targets]
        write_members(self._base.path, self.number, members)
        self._make_session()

    def _make_session(self) -> None:
        """The session of the targets that are left; state of other targets is deleted."""
        self.count = len(self._targets)
        if not self.count:
            return
        read = [[target.stem, target.source['sha256']] for target in self._targets]
        file = self._folder / READ
        if read_json(file) != read:
            shutil.rmtree(self._folder / 'state', ignore_errors=True)
            write_atomically(file, json_text(read))
        size = self._base.config.group
        names = [target.stem for target in self._targets]
        names += [f'{names[-1]}~{i}' for i in range(size - self.count)]
        targets, rows = data.collect(self._targets, []), np.minimum(np.arange(size), self.count - 1)
        chosen = self._choose(targets)
        self.session = self._base._replace(
            path=self._folder,
            targets=targets.select(rows, names),
            classes=chosen and chosen.rows(rows),
            stopwatch=Stopwatch(self._folder / 'state' / 'seconds.json'),
        )
