"""Folders and files that a user names: expanded, and checked before the work begins."""

import os
import pathlib
import re
import tempfile

from jaxinv.errors import JaxinvError
from jaxinv.io import cache_dir


def expand(text: str | os.PathLike, name: str) -> pathlib.Path:
    """A path with ~ and environment variables replaced.

    name: what the user gave it by, for the message. Raises JaxinvError for an address such as
    gs://, and for a ~USER or variable that is not known.
    """
    text = os.fspath(text)
    scheme = re.match(r'([A-Za-z][A-Za-z0-9+.-]+):/', text)
    if scheme and not (os.name == 'nt' and len(scheme[1]) == 1):
        raise JaxinvError(
            f'{name} is {text!r}, an address; results are written to folders of this machine, so '
            'name one, e.g. where the bucket is mounted.'
        )
    expanded = os.path.expandvars(os.path.expanduser(text))
    if expanded.startswith('~') or re.match(r'\$(\w+|\{\w+\})', expanded):
        raise JaxinvError(
            f'{name} is {text!r}, whose {re.split(r"[/]", expanded)[0]} is not known here; name '
            'the folder itself.'
        )
    return pathlib.Path(expanded)


def check_folder(path: pathlib.Path, name: str, remedy: str) -> None:
    """Raises JaxinvError unless the folder exists and can be written, or can be made.

    name: what the user gave it by; remedy: the end of the message, e.g. 'name another folder'.
    Nothing that stays is written.
    """
    path = pathlib.Path(os.path.abspath(path))
    for place in (*reversed(path.parents), path):
        if place.is_symlink() and not place.exists():
            raise JaxinvError(
                f'{name} {path} cannot be made: {place} is a link to {os.readlink(place)}, which '
                f'does not exist; {remedy}.'
            )
        if _exists(place) and not place.is_dir():
            raise JaxinvError(f'{name} {path} cannot be made: {place} is a file; {remedy}.')
    deepest = next((p for p in (path, *path.parents) if _exists(p)), path)
    try:
        with tempfile.TemporaryFile(dir=deepest):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise JaxinvError(
            f'{name} {path} cannot be written: {deepest}: {reason}; {remedy}.'
        ) from None


def check_cache() -> None:
    """Raises JaxinvError unless the cache folder can be written (jaxinv.io.cache_dir)."""
    check_folder(
        cache_dir(), 'The cache folder', 'set JAXINV_CACHE to a folder that can be written'
    )


def _exists(path: pathlib.Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a folder above cannot be entered
        return False
