"""Finds picture files, in natural order, and names the targets made of them."""

import errno
import glob
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from jaxinv.io import expanded, safe_name
from jaxinv.text import printable

# Ignored in folders without a message: not pictures, and often beside them.
_OTHER_SUFFIXES = frozenset(
    '.csv .tsv .txt .md .rst .json .jsonl .yaml .yml .toml .ini .cfg .log .xml .html .css .js .py '
    '.ipynb .sh .npy .npz .pt .pth .pkl .ckpt .safetensors .onnx .h5 .zip .gz .tar .7z .rar .pdf '
    '.doc .docx .xls .xlsx .db .sqlite .lnk .xmp .aae .thm .sha256 .md5 .mp3 .wav'.split()
)
_OTHER_NAMES = frozenset(
    ('thumbs.db', 'desktop.ini', 'license', 'readme', 'makefile', 'sha256sums')
)
_OTHER_FOLDERS = frozenset(('__macosx', '__pycache__', 'node_modules'))


class AlignedFile(type(pathlib.Path())):
    """The path of a picture that is an aligned square crop already, as FFHQ's."""


class Listing(NamedTuple):
    """Picture files that were found, not yet opened."""

    files: list[tuple[str, pathlib.Path]]  # (name of the target, path)
    skipped: list[dict]  # {'file', 'reason'}


def find(source: str | os.PathLike | Sequence[str | os.PathLike]) -> Listing:
    """The picture files of a path, folder, pattern, comma-separated string, or list of these.

    Folders are searched with their subfolders, in natural order (img2 before img10). Hidden files
    and files with other suffixes (.txt, .json, ...) are ignored. Links are followed, each folder
    once. A missing file, an empty folder or one that cannot be read is in `skipped`; nothing
    is raised.
    """
    files, skipped, seen = [], [], set()
    for item in _items(source):
        path = expanded(item)
        if _is_dir(path):
            members = list(_walk(path, skipped))
            if not members and not any(entry['file'] == str(path) for entry in skipped):
                reason = f'The folder {path} holds no image files.'
                skipped.append({'file': str(path), 'reason': reason})
        elif os.path.lexists(path):
            members = [path]
        elif matches := sorted(glob.glob(str(path), recursive=True), key=_natural):
            members = [p for match in matches for p in _members(pathlib.Path(match), skipped)]
        else:
            reason = f'{path} does not exist.'
            if re.match(r'[a-z]+://', str(item)):
                reason = f'{item} is an address; download it and give the file.'
            skipped.append({'file': str(path), 'reason': reason})
            continue
        for member in members:
            absolute = os.path.abspath(member)
            if absolute not in seen:
                seen.add(absolute)
                files.append((member.stem, member))
    return Listing(files, skipped)


def _members(path: pathlib.Path, skipped: list) -> list[pathlib.Path]:
    return list(_walk(path, skipped)) if _is_dir(path) else [path]


def _is_dir(path: pathlib.Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # in a folder that cannot be entered
        return False


def _items(source) -> list:
    """A request as a flat list of paths and patterns."""
    if isinstance(source, os.PathLike):
        return [source]
    if isinstance(source, str):
        if not source.strip():
            return []
        # A file name may contain a comma.
        if os.path.lexists(expanded(source)):
            return [source]
        return [item.strip() for item in source.split(',') if item.strip()]
    return [item for entry in source or () for item in _items(entry)]


def describe(source) -> str:
    """The request in words, for error messages."""
    items = [str(item) for item in _items(source)]
    more = f' and {len(items) - 3} more' if len(items) > 3 else ''
    return ', '.join(items[:3]) + more


def _walk(folder: pathlib.Path, skipped: list) -> Iterator[pathlib.Path]:
    visited = set()

    def visit(current: pathlib.Path) -> Iterator[pathlib.Path]:
        real = os.path.realpath(current)
        if real in visited:  # by a link to a folder above, or to one visited before
            return
        visited.add(real)
        try:
            entries = sorted(current.iterdir(), key=lambda entry: _natural(entry.name))
            if entries and not os.access(current, os.X_OK):  # lists, but opens nothing
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            reason = f'The folder {current} cannot be read ({error.strerror}).'
            skipped.append({'file': str(current), 'reason': printable(reason)})
            return
        for entry in entries:
            name = entry.name.lower()
            if name.startswith('.'):
                continue
            if _is_dir(entry):
                if name not in _OTHER_FOLDERS:
                    yield from visit(entry)
            elif not (name in _OTHER_NAMES or entry.suffix.lower() in _OTHER_SUFFIXES):
                yield entry

    yield from visit(folder)


def _natural(name: str) -> tuple:
    """Sort key: img2 before img10, case ignored; ties are broken by the name as it is."""
    pieces = re.split(r'(\d{1,18})', unicodedata.normalize('NFC', name).casefold())
    return ([(0, int(p), '') if p.isdigit() else (1, 0, p) for p in pieces if p], name)


def unique_names(stems: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """Names [n] that are safe as file names, distinct, and not in `taken`: 'a', 'a_2', ...

    Distinct means also without case: some file systems treat A and a as one name. Letters of any
    script and dots are kept.
    """
    names, taken = [], {name.casefold() for name in taken}
    for stem in stems:
        base = safe_name(stem)
        name, count = base, 1
        while name.casefold() in taken:
            count += 1
            name = f'{base}_{count}'
        taken.add(name.casefold())
        names.append(name)
    return names
