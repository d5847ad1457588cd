"""Sessions: what one browser has uploaded and computed, in a folder of its own.

FOLDER/SESSION/photographs/ID/   an upload, its record, the pictures that the page shows
FOLDER/SESSION/inversions/ID/    photographs/, faces.json and run/, the work folder of a run

Ids are random and looked up; nothing that a browser sends becomes a path. The folder's name is a
hash of the session's id, so a session goes on after a restart of the studio.
"""

import contextlib
import os
import pathlib
import secrets
import shutil
import time
from collections.abc import Mapping
from typing import Any

from jaxinv.errors import JaxinvError
from jaxinv.io import json_text, write_atomically
from jaxinv.studio import inversions, photographs
from jaxinv.studio.inversions import Inversion
from jaxinv.studio.photographs import Photograph
from jaxinv.text import printable

MAX_SESSIONS = 200  # with a folder
MAX_BYTES = 2**30  # of the photographs of a session
MAX_RUNS = 64  # of a session
MAX_FACES = 16  # of a run


class Session:
    """Photographs and runs of one browser, in the order in which they came."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.photographs: dict[str, Photograph] = {}
        self.runs: dict[str, Inversion] = {}
        for own in _in_order(folder / 'photographs'):
            found = photographs.load(own)
            if found is not None and found.id == own.name:
                if found.state == 'reading':
                    found.state = 'unusable'
                    found.error = 'The studio was closed while it was read; upload it again.'
                self.photographs[found.id] = found
        for own in _in_order(folder / 'inversions'):
            run = inversions.load(own)
            if run is not None and run.id == own.name:
                self.runs[run.id] = run

    def photograph_folder(self, photograph: str) -> pathlib.Path:
        return self.folder / 'photographs' / photograph

    def run_folder(self, run: str) -> pathlib.Path:
        return self.folder / 'inversions' / run

    def new_photograph(self, name: str) -> tuple[Photograph, pathlib.Path]:
        """A record and the file that the upload goes to. Raises JaxinvError if there are many."""
        if len(self.photographs) >= photographs.MAX_COUNT:
            raise JaxinvError(
                f'There are {len(self.photographs)} photographs, as many as are kept; remove some.'
            )
        size = sum(
            (self.photograph_folder(p.id) / p.file).stat().st_size
            for p in self.photographs.values()
            if (self.photograph_folder(p.id) / p.file).is_file()
        )
        if size > MAX_BYTES:
            raise JaxinvError('The photographs take more than 1 GB; remove some.')
        taken = [pathlib.PurePath(p.file).stem for p in self.photographs.values()]
        file = photographs.stored_name(name, taken)
        record = Photograph(_new_id(), printable(name, 120) or 'unnamed', file)
        folder = self.photograph_folder(record.id)
        folder.mkdir(parents=True, mode=0o700)
        self.photographs[record.id] = record
        return record, folder / file

    def remove_photograph(self, photograph: str) -> None:
        del self.photographs[photograph]
        shutil.rmtree(self.photograph_folder(photograph), ignore_errors=True)

    def new_run(self, chosen: Mapping[str, Any], budget: str) -> tuple[Inversion, pathlib.Path]:
        """A run of the faces {photograph's id: [indices]}, its folder ready. Raises JaxinvError."""
        if budget not in inversions.BUDGETS:
            raise JaxinvError(f'The budget can be {" or ".join(inversions.BUDGETS)}.')
        if len(self.runs) >= MAX_RUNS:
            raise JaxinvError(f'There are {MAX_RUNS} inversions, as many as are kept; delete some.')
        members = {}
        for key, indices in chosen.items():
            own = self.photographs.get(key)
            known = {face['index'] for face in own.faces} if own else set()
            if (
                own is None
                or not isinstance(indices, list)
                or not set(map(str, indices)) <= set(map(str, known))
            ):
                raise JaxinvError('One of the faces is not there any more; reload the page.')
            if indices:
                members[key] = sorted({int(index) for index in indices})
        count = sum(map(len, members.values()))
        if not 0 < count <= MAX_FACES:
            raise JaxinvError(f'Choose 1 to {MAX_FACES} faces; {count} are chosen.')
        names = [self.photographs[key].name for key in members]
        title = ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')
        run = Inversion(_new_id(), title, budget, list(members), count)
        folder = self.run_folder(run.id)
        inputs = folder / 'photographs'
        inputs.mkdir(parents=True, mode=0o700)
        for key in members:
            source = self.photograph_folder(key) / self.photographs[key].file
            try:
                os.link(source, inputs / source.name)
            except OSError:  # a file system without links
                shutil.copyfile(source, inputs / source.name)
        faces = {self.photographs[key].file: indices for key, indices in members.items()}
        write_atomically(folder / 'faces.json', json_text(faces))
        inversions.save(folder, run)
        self.runs[run.id] = run
        return run, folder


class Sessions:
    """The sessions of a folder, by the names of their folders."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self._open: dict[str, Session] = {}

    def get(self, name: str) -> Session:
        """The session of this name; its folder is made when something is put there."""
        if name not in self._open:
            folder = self.folder / name
            if not folder.is_dir():
                with contextlib.suppress(FileNotFoundError):
                    if len(os.listdir(self.folder)) >= MAX_SESSIONS:
                        raise JaxinvError(
                            f'{MAX_SESSIONS} sessions have folders in the studio; delete some of '
                            'them on its machine.'
                        )
                while len(self._open) >= MAX_SESSIONS:  # of visitors who left nothing
                    idle = next((k for k in self._open if not (self.folder / k).is_dir()), None)
                    if idle is None:
                        break
                    del self._open[idle]
            self._open[name] = Session(folder)
        return self._open[name]


def _new_id() -> str:
    """Random, and later ones sort after earlier ones."""
    return f'{time.time_ns() // 10**6:012x}{secrets.token_hex(6)}'


def _in_order(folder: pathlib.Path) -> list[pathlib.Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except FileNotFoundError:
        return []
