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
    try:
        _check(pathlib.Path(os.path.abspath(path)), name, remedy)
    except (OSError, ValueError) as error:  # a name that is too long, a null byte
        if isinstance(error, JaxinvError):
            raise
        reason = getattr(error, 'strerror', None) or str(error)
        raise JaxinvError(f'{name} {path} cannot be used ({reason}); {remedy}.') from None


def _check(path, name, remedy):
    if '\0' in str(path):
        raise ValueError('a null byte in the name')
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
    """Raises JaxinvError unless the cache folder can be written (jaxinv.io.cache_dir).

    For what is about to write to it: a cache that is complete may be read-only.
    """
    check_folder(
        cache_dir(), 'The cache folder', 'set JAXINV_CACHE to a folder that can be written'
    )


def check_new_cache() -> None:
    """The same at the start of a run, where nothing is in the cache folder yet."""
    folder = cache_dir()
    if not (_exists(folder) and folder.is_dir() and any(folder.iterdir())):
        check_cache()


def _exists(path: pathlib.Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a folder above cannot be entered
        return False
