"""manifest.jsonl: what has become of every picture, a line each, written as it is finished.

    {"name": "ada", "file": "photos/ada.jpg", "sha256": "...", "folder": "generators/ada", ...}
    {"name": "bob", "file": "photos/bob.jpg", "sha256": "...", "skipped": "No face was found ..."}

A later line of a name replaces an earlier one. A last line that a kill cut off is not there.
"""

import json
import os
import pathlib
from collections.abc import Iterable

from jaxinv.io import write_atomically

FILE = 'manifest.jsonl'


class Manifest:
    """The lines of a file by their names, `records`, and a way to add some."""

    def __init__(self, file: pathlib.Path):
        self.file = file
        self.records = {}
        if file.is_file():
            data = file.read_bytes()
            whole = data.rfind(b'\n') + 1
            if whole < len(data):
                os.truncate(file, whole)
            for line in data[:whole].splitlines():
                record = json.loads(line)
                self.records[record['name']] = record

    def add(self, record: dict) -> None:
        """record: of JSON's types, with a 'name'. Does nothing if it is there already."""
        if self.records.get(record['name']) == record:
            return
        self.records[record['name']] = record
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.file, 'a', encoding='utf-8') as file:
            file.write(_line(record))
            file.flush()
            os.fsync(file.fileno())

    def rewrite(self, names: Iterable[str]) -> None:
        """Writes the file anew, one line a name, in this order, and forgets the others."""
        self.records = {name: self.records[name] for name in names if name in self.records}
        text = ''.join(map(_line, self.records.values()))
        write_atomically(self.file, text.encode())


def _line(record: dict) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + '\n'
