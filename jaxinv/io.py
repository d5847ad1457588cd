"""The cache folder, hashes, safe file names, and the one atomic writer."""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import re
import secrets
import shutil
import stat
import unicodedata
from collections.abc import Iterator
from typing import Any

from jaxinv.errors import JaxinvError

MAX_JSON = 2**28  # bytes of a JSON file


def cache_dir() -> pathlib.Path:
    """Folder for weights and compiled programs: $JAXINV_CACHE, else ~/.cache/jaxinv.

    Raises JaxinvError if there is no home folder, or the variable names none.
    """
    base = os.environ.get('JAXINV_CACHE')
    if base and '://' in base:
        raise JaxinvError(f'JAXINV_CACHE is {base!r}, an address; name a folder of this machine.')
    if base:
        return pathlib.Path(os.path.expandvars(os.path.expanduser(base)))
    base = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    if base.startswith('~'):
        raise JaxinvError(
            'There is no home folder for the cache; set JAXINV_CACHE to a folder that can be '
            'written.'
        )
    return pathlib.Path(base) / 'jaxinv'


def expanded(path: str | os.PathLike) -> pathlib.Path:
    """The path with ~ and environment variables replaced, unless it exists as it is written."""
    path = pathlib.Path(path)
    if os.path.lexists(path):
        return path
    return pathlib.Path(os.path.expandvars(os.path.expanduser(path)))


def sha256(path: pathlib.Path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file; None if it is missing or damaged."""
    try:
        with open(path, 'rb') as file:
            data = file.read(MAX_JSON + 1)
        return None if len(data) > MAX_JSON else json.loads(data)
    except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError, MemoryError):
        return None


def json_text(content: Any, indent: int | None = None) -> bytes:
    """UTF-8 of JSON. Bytes of a file's name that are not UTF-8 become escapes, as they were."""
    text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)
    # A lone surrogate becomes the six characters of its JSON escape, and is read back as it was.
    return text.encode('utf-8', 'backslashreplace')


# --- Atomic writes --------------------------------------------------------------------------------


def write_atomically(path: str | os.PathLike, data: bytes | str) -> None:
    """Replaces the file at `path` by `data`, or leaves it as it is on an error.

    Text is written as UTF-8, with escapes for what UTF-8 cannot hold.
    """
    with atomic_path(path) as scratch:
        is_text = isinstance(data, str)
        scratch.write_bytes(data.encode('utf-8', 'backslashreplace') if is_text else data)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a path to write to, of the same name in a scratch folder beside `path`.

    At the end the written file is flushed to disk and renamed to `path`; on an error it is removed.
    Several processes may write the same `path`: the last rename wins. Permissions are those of any
    new file, 0o666 without the umask's bits. Creates the folder of `path` if it is missing.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A folder, so that what a killed process leaves behind matches no glob('*.png') of results.
    folder = path.parent / f'.{secrets.token_hex(4)}.partial'
    folder.mkdir()
    try:
        scratch = folder / path.name
        scratch.touch(0o666)
        mode = stat.S_IMODE(scratch.stat().st_mode)
        yield scratch
        if stat.S_IMODE(scratch.stat().st_mode) != mode:
            scratch.chmod(mode)  # safetensors replaces the file by one that only its owner can read
        commit(scratch, path)
    finally:  # also on KeyboardInterrupt and SIGTERM
        shutil.rmtree(folder, ignore_errors=True)


def commit(scratch: pathlib.Path, path: pathlib.Path) -> None:
    """Flushes a written file to disk and renames it to `path`, on the same file system."""
    _fsync(scratch)
    os.replace(scratch, path)
    _fsync(path.parent)


_PARTIAL = re.compile(r'\.[0-9a-f]{8}\.partial')


def is_partial(name: str) -> bool:
    """True for the name of an `atomic_path` scratch folder. A killed process leaves one behind."""
    return _PARTIAL.fullmatch(name) is not None


def remove_partial(folder: pathlib.Path) -> None:
    """Removes what killed writers left behind in a folder tree that no process writes to now."""
    for root, names, _ in os.walk(folder):
        for name in filter(is_partial, list(names)):
            shutil.rmtree(pathlib.Path(root, name), ignore_errors=True)
            names.remove(name)


def fsync_tree(folder: pathlib.Path, top: pathlib.Path | None = None) -> None:
    """Flushes all files and folders in `folder` to disk, and its parents up to `top`.

    Does nothing if there is no such folder.
    """
    if not folder.is_dir():
        return
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            _fsync(pathlib.Path(root, name))
        _fsync(pathlib.Path(root))
    while top is not None and folder != top and folder != folder.parent:
        folder = folder.parent
        _fsync(folder)


def _fsync(path: pathlib.Path) -> None:
    if os.name == 'nt' and path.is_dir():  # folders cannot be opened there
        return
    descriptor = os.open(path, os.O_RDWR if os.name == 'nt' else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without fsync
            raise
    finally:
        os.close(descriptor)


# --- Names ----------------------------------------------------------------------------------------

_RESERVED = re.compile(r'(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)  # on Windows
_MAX_NAME = 80


def safe_name(stem: str) -> str:
    """A stem that can be a file name on any system."""
    name = unicodedata.normalize('NFC', stem.encode('utf-8', 'replace').decode('utf-8'))
    name = re.sub(r'[^\w.\-+]+', '_', name).strip('._-')[:_MAX_NAME].rstrip('._-') or 'image'
    return f'_{name}' if _RESERVED.match(name) else name
