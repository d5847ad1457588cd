"""Photographs of a session: uploaded, read by the reader of all runs, their faces found.

Reading happens in a process of its own (`Reader`), so that a file that crashes a decoder, or holds
it for ever, ends that process and not the page. Later only the files written here are shown.
"""

import dataclasses
import multiprocessing
import pathlib
import threading
from typing import Any

from jaxinv.data import discover, images
from jaxinv.data import reader as data_reader
from jaxinv.data.targets import AlignOptions
from jaxinv.errors import JaxinvError
from jaxinv.io import json_text, read_json, safe_name, write_atomically
from jaxinv.text import printable

MAX_BYTES = 64 * 2**20  # of a photograph
MAX_COUNT = 32  # photographs of a session
SHOWN = 1280  # pixels of the longer side of the picture on the page
FACE = 160  # pixels a side of the picture of a face
SECONDS = 240  # for reading one photograph
RECORD = 'photograph.json'
_SUFFIXES = {
    '.avif', '.bmp', '.gif', '.heic', '.heif', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp',
}  # fmt: skip


@dataclasses.dataclass
class Photograph:
    """A photograph and what was found in it."""

    id: str
    name: str  # as uploaded, printable
    file: str  # its name in the folder
    state: str = 'reading'  # then 'ready' or 'unusable'
    error: str = ''  # a sentence, if unusable
    width: int = 0
    height: int = 0
    # {'index', 'box', 'quad', 'side', 'score', 'warning'} of each; index counts from 1
    faces: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)  # faces that are too small

    def save(self, folder: pathlib.Path) -> None:
        write_atomically(folder / RECORD, json_text(dataclasses.asdict(self)))


def stored_name(name: str, taken) -> str:
    """A safe file name for an upload, with a stem that is not in `taken`."""
    path = pathlib.PurePosixPath(name.replace('\\', '/'))
    suffix = path.suffix.lower()
    suffix = suffix if suffix in _SUFFIXES else '.img'
    return discover.unique_names([safe_name(path.stem)], taken)[0] + suffix


def load(folder: pathlib.Path) -> Photograph | None:
    """The photograph of a folder; None if there is none, as after a kill while it was uploaded."""
    found = read_json(folder / RECORD)
    names = [field.name for field in dataclasses.fields(Photograph)]
    if not isinstance(found, dict) or sorted(found) != sorted(names):
        return None
    return Photograph(**found)


def look(folder: pathlib.Path, file: str) -> dict[str, Any]:
    """Reads a photograph and writes shown.jpg and face_INDEX.jpg beside it.

    Returns the fields of Photograph that it finds. Raises JaxinvError for a file that is none.
    """
    picture = images.read(folder / file)
    found = {'width': picture.width, 'height': picture.height}
    skipped: list[dict] = []
    # Everything is found as a run of the launcher will find it again.
    targets = data_reader.read('face', folder / file, AlignOptions(FACE, 'all'), skipped)
    notes = [entry['reason'] for entry in skipped]
    if not targets:
        raise JaxinvError(notes[0] if notes else f'No face was found in {file}.')
    picture.thumbnail((SHOWN, SHOWN))
    images.save(folder / 'shown.jpg', picture)
    faces = []
    for target in targets:
        facts = target.source['face']
        images.save(folder / f'face_{facts["index"]}.jpg', target.image_uint8)
        faces.append(facts)
    return found | {'faces': faces, 'notes': notes}


class Reader:
    """Calls `look` in another process, one photograph at a time."""

    def __init__(self):
        self._lock = threading.Lock()
        self._process = self._pipe = None

    def look(self, folder: pathlib.Path, file: str, name: str) -> dict[str, Any]:
        """As `look`. Raises JaxinvError also if the process crashes or does not end in time."""
        with self._lock:
            if self._process is None or not self._process.is_alive():
                self._start()
            try:
                self._pipe.send((folder, file))
                answered = self._pipe.poll(SECONDS)
                kind, value = self._pipe.recv() if answered else ('slow', None)
            except (EOFError, OSError):
                kind, value = 'crashed', None
            if kind in ('slow', 'crashed'):
                self._end()
                why = {'slow': f'took more than {SECONDS} s', 'crashed': 'ended its decoder'}[kind]
                raise JaxinvError(f'{printable(name, 80)} cannot be used: it {why}.')
        if kind == 'error':
            raise JaxinvError(value)
        return value

    def close(self) -> None:
        # Without the lock: a photograph that is being read is not waited for.
        self._end()

    def _start(self):
        context = multiprocessing.get_context('spawn')
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def _end(self):
        if self._process is not None:
            self._process.kill()
            self._process.join(10)
            self._process = None


def _serve(pipe) -> None:
    while True:
        try:
            folder, file = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            pipe.send(('found', look(folder, file)))
        except JaxinvError as error:
            pipe.send(('error', str(error)))
        except Exception as error:
            reason = ' '.join(str(error).split())[:120] or type(error).__name__
            pipe.send(('error', f'{printable(file, 80)} cannot be used ({reason}).'))
