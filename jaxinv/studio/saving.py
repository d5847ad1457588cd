"""What leaves the studio: pictures, edits as JSON, a run's folder as ZIP, exports."""

import io
import os
import pathlib
import re
import unicodedata
import zipfile
from collections.abc import Iterator
from urllib.parse import quote

import numpy as np
import PIL.Image

from jaxinv.errors import JaxinvError
from jaxinv.io import is_partial

MAX_ZIP_BYTES = 8 * 2**30
MAX_ZIP_FILES = 20_000
PIECE = 2**20  # bytes
PICTURES = {'png': 'image/png', 'jpeg': 'image/jpeg', 'webp': 'image/webp'}
_LEFT_OUT = {'state', '.lock'}  # checkpoints between steps, larger than the result


def encode(picture, kind: str, quality: int = 95, longest: int | None = None) -> bytes:
    """A picture (PIL, or uint8 [h, w, 3]) as a file. kind: of PICTURES. Raises JaxinvError."""
    if kind not in PICTURES:
        raise JaxinvError(f'A picture can be saved as {", ".join(PICTURES)}.')
    if not isinstance(picture, PIL.Image.Image):
        picture = PIL.Image.fromarray(np.ascontiguousarray(picture))
    if longest is not None and max(picture.size) > longest:
        picture = picture.copy()
        picture.thumbnail((longest, longest), PIL.Image.Resampling.LANCZOS)
    file = io.BytesIO()
    options = {} if kind == 'png' else {'quality': quality}
    picture.save(file, kind.upper(), **options)
    return file.getvalue()


def disposition(name: str) -> str:
    """The header that saves a file under `name`, whatever characters that has."""
    plain = unicodedata.normalize('NFKD', name).encode('ascii', 'ignore').decode()
    plain = re.sub(r'[^A-Za-z0-9._-]+', '_', plain).strip('._') or 'file'
    return f'attachment; filename="{plain}"; filename*=UTF-8\'\'{quote(name, safe="")}'


def files_of(folder: pathlib.Path) -> list[tuple[pathlib.Path, str]]:
    """(file, name in the archive) of a run's folder, without its checkpoints and without links.

    Raises JaxinvError if there is too much.
    """
    found, size = [], 0
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(n for n in folders if n not in _LEFT_OUT and not is_partial(n))
        for name in sorted(names):
            path = pathlib.Path(root, name)
            if name in _LEFT_OUT or path.is_symlink() or not path.is_file():
                continue
            size += path.stat().st_size
            found.append((path, path.relative_to(folder).as_posix()))
    if size > MAX_ZIP_BYTES or len(found) > MAX_ZIP_FILES:
        raise JaxinvError('The folder is too large for one file; copy it on its machine.')
    return found


def zipped(files: list[tuple[pathlib.Path, str]], top: str) -> Iterator[bytes]:
    """The pieces of a ZIP file, made while it is sent; memory holds a piece."""
    sink = _Sink()
    with zipfile.ZipFile(sink, 'w', zipfile.ZIP_STORED, allowZip64=True) as archive:
        for path, name in files:
            try:
                source = open(path, 'rb')
            except OSError:  # removed since it was listed
                continue
            info = zipfile.ZipInfo.from_file(path, f'{top}/{name}', strict_timestamps=False)
            with source, archive.open(info, 'w', force_zip64=True) as target:
                while piece := source.read(PIECE):
                    target.write(piece)
                    yield sink.take()
    yield sink.take()


class _Sink(io.RawIOBase):
    """A file that is written once, forwards, and emptied on the way."""

    def __init__(self):
        super().__init__()
        self._pieces: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self._pieces.append(bytes(data))
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position

    def take(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b''.join(pieces)
