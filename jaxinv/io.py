"""The cache folder, hashes, safe file names, and the one atomic writer."""

import hashlib
import os
import pathlib
import re
import tempfile
import unicodedata


def cache_dir() -> pathlib.Path:
    """Folder for weights and compiled programs: $JAXINV_CACHE, else ~/.cache/jaxinv."""
    base = os.environ.get('JAXINV_CACHE')
    if base:
        return pathlib.Path(base)
    return (
        pathlib.Path(os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache') / 'jaxinv'
    )


def sha256(path: pathlib.Path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def write_atomically(path: pathlib.Path, data: bytes) -> None:
    """Writes a whole file or nothing, also when two processes write the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    os.chmod(file.name, 0o644)  # a temporary file is its owner's alone
    os.replace(file.name, path)


_RESERVED = re.compile(r'(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)  # on Windows
_MAX_NAME = 80


def safe_name(stem: str) -> str:
    """A stem that can be a file name on any system."""
    name = unicodedata.normalize('NFC', stem.encode('utf-8', 'replace').decode('utf-8'))
    name = re.sub(r'[^\w.\-+]+', '_', name).strip('._-')[:_MAX_NAME].rstrip('._-') or 'image'
    return f'_{name}' if _RESERVED.match(name) else name
