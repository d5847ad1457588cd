"""manifest.jsonl: one line for each picture, appended when its result is on disk.

    {"name": "ada", "file": "photos/ada.jpg", "sha256": "...", "folder": "generators/ada", ...}
    {"name": "bob", "file": "photos/bob.jpg", "sha256": "...", "skipped": "No face was found ..."}

A later line of a name replaces an earlier one. A last line that a kill cut off is ignored. Any
other line that cannot be read is moved to manifest.jsonl.damaged, so that its picture is inverted
again.
"""

import json
import os
import pathlib
from collections.abc import Iterable

from jaxinv import io

FILE = 'manifest.jsonl'
DAMAGED = '.damaged'  # suffix of the file of damaged lines
KEYS = ('name', 'file', 'sha256')  # of every line


class Manifest:
    """The last line of each name, in `records`. Reading changes no file; `add` mends it first.

    damaged: True if lines were lost, so that checkpoints newer than what is left must not be used.
    """

    def __init__(self, file: pathlib.Path, log=print):
        self.file, self._log = file, log
        self.records: dict[str, dict] = {}
        data = file.read_bytes() if file.is_file() else b''
        self._end = data.rfind(b'\n') + 1  # of the last whole line
        self._cut = self._end < len(data)
        self._damaged: list[tuple[int, bytes]] = []  # line number, line
        for number, line in enumerate(data[: self._end].split(b'\n')[:-1], start=1):
            record = _parse(line)
            if record is None:
                self._damaged.append((number, line))
            else:
                self.records[record['name']] = record
        self.damaged = bool(self._damaged)
        if self._damaged:
            numbers = ', '.join(str(number) for number, _ in self._damaged)
            log(
                f'{file}: damaged lines are set aside in {file.name}{DAMAGED} ({numbers}); results '
                'without a line are computed again.'
            )

    def add(self, record: dict) -> None:
        """Appends a record (JSON types) after its 'folder', if it has one, is flushed to disk.

        Does nothing if the same record is there already.
        """
        if self.records.get(record['name']) == record:
            return
        self._mend()
        if 'folder' in record:
            io.fsync_tree(self.file.parent / record['folder'], self.file.parent)
        self.records[record['name']] = record
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.file, 'ab') as file:
            file.write(_line(record))
            file.flush()
            os.fsync(file.fileno())

    def rewrite(self, names: Iterable[str]) -> None:
        """Replaces the file by one line for each of the names, in this order; drops the others."""
        self.set_aside()
        self.records = {name: self.records[name] for name in names if name in self.records}
        io.write_atomically(self.file, b''.join(map(_line, self.records.values())))
        self._cut = False

    def _mend(self) -> None:
        if self._damaged:
            self.rewrite(list(self.records))
        elif self._cut:
            os.truncate(self.file, self._end)
            self._cut = False

    def set_aside(self) -> None:
        """Appends the damaged lines to manifest.jsonl.damaged."""
        if self._damaged:
            with open(self.file.with_name(self.file.name + DAMAGED), 'ab') as file:
                file.writelines(line + b'\n' for _, line in self._damaged)
            self._damaged = []


def _line(record: dict) -> bytes:
    return io.json_text(record) + b'\n'


def _parse(line: bytes) -> dict | None:
    """The record of a line; None if it is damaged."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(record, dict) and all(key in record for key in KEYS)
    whole = whole and isinstance(record['name'], str) and isinstance(record['file'], str)
    return record if whole and ('folder' in record or 'skipped' in record) else None
