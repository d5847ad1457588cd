"""Which picture files a user means, in which order, and what their targets are called."""

import glob
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from jaxinv.io import safe_name

# In a folder these are passed over in silence: surely not pictures, and often beside them.
_OTHER_SUFFIXES = frozenset(
    '.csv .tsv .txt .md .rst .json .jsonl .yaml .yml .toml .ini .cfg .log .xml .html .css .js .py '
    '.ipynb .sh .npy .npz .pt .pth .pkl .ckpt .safetensors .onnx .h5 .zip .gz .tar .7z .rar .pdf '
    '.doc .docx .xls .xlsx .db .sqlite .lnk .xmp .aae .thm .sha256 .md5 .mp3 .wav'.split()
)
_OTHER_NAMES = frozenset(
    ('thumbs.db', 'desktop.ini', 'license', 'readme', 'makefile', 'sha256sums')
)
_OTHER_FOLDERS = frozenset(('__macosx', '__pycache__', 'node_modules'))
NOTHING_ASKED = "none were asked for; give 'demo', a folder, or files"


class Found(NamedTuple):
    files: list[tuple[str, pathlib.Path]]  # (name wanted, path)
    skipped: list[dict]  # {'file', 'reason'}


def find(images: str | os.PathLike | Sequence[str | os.PathLike]) -> Found:
    """Picture files of a path, folder, pattern, comma-separated string, or list of these.

    Folders are searched with their subfolders, in natural order (img2 before img10), hidden files
    and plainly other ones (.txt, .json, ...) left out; links are followed, each folder once.
    """
    found = Found([], [])
    seen = set()
    for item in _items(images):
        path = pathlib.Path(item).expanduser()
        if os.path.isdir(path):
            members = list(_walk(path))
            if not members:
                reason = f'The folder {path} holds no image files.'
                found.skipped.append({'file': str(path), 'reason': reason})
        elif os.path.lexists(path):
            members = [path]
        elif matches := sorted(glob.glob(str(path), recursive=True), key=_natural):
            members = [p for match in matches for p in _members(pathlib.Path(match))]
        else:
            reason = f'{path} does not exist.'
            if re.match(r'[a-z]+://', str(item)):
                reason = f'{item} is an address; download it and give the file.'
            found.skipped.append({'file': str(path), 'reason': reason})
            continue
        for member in members:
            key = os.path.abspath(member)
            if key not in seen:
                seen.add(key)
                found.files.append((member.stem, member))
    return found


def _members(path: pathlib.Path) -> list[pathlib.Path]:
    return list(_walk(path)) if path.is_dir() else [path]


def _items(images) -> list:
    if isinstance(images, os.PathLike):
        return [images]
    if isinstance(images, str):
        if not images.strip():
            return []
        # A name may hold a comma itself.
        if os.path.lexists(os.path.expanduser(images)):
            return [images]
        return [part.strip() for part in images.split(',') if part.strip()]
    return [item for entry in images or () for item in _items(entry)]


def describe(images) -> str:
    """The request in words for an error message."""
    items = [str(item) for item in _items(images)]
    more = f' and {len(items) - 3} more' if len(items) > 3 else ''
    return ', '.join(items[:3]) + more


def _walk(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    visited = set()

    def visit(current: pathlib.Path) -> Iterator[pathlib.Path]:
        real = os.path.realpath(current)
        if real in visited:  # a link back to a folder above, or to one seen before
            return
        visited.add(real)
        try:
            entries = sorted(current.iterdir(), key=lambda entry: _natural(entry.name))
        except OSError:
            return
        for entry in entries:
            name = entry.name.lower()
            if name.startswith('.'):
                continue
            if entry.is_dir():
                if name not in _OTHER_FOLDERS:
                    yield from visit(entry)
            elif not (name in _OTHER_NAMES or entry.suffix.lower() in _OTHER_SUFFIXES):
                yield entry

    yield from visit(folder)


def _natural(name: str) -> tuple:
    """img2 before img10, capitals no matter; the plain name last, to settle ties."""
    parts = re.split(r'(\d+)', unicodedata.normalize('NFC', name).casefold())
    return ([(0, int(p), '') if p.isdigit() else (1, 0, p) for p in parts if p], name)


def unique_names(stems: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """Safe names, distinct and none of `taken`: 'a', 'a_2', ... Letters of any script and dots
    stay as they are."""
    names, taken = [], {name.casefold() for name in taken}
    for stem in stems:
        base = safe_name(stem)
        name, count = base, 1
        while name.casefold() in taken:  # some file systems take A and a for one name
            count += 1
            name = f'{base}_{count}'
        taken.add(name.casefold())
        names.append(name)
    return names
