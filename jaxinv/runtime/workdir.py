"""The work folder: its lock, and the choice between starting, resuming and refusing a run.

run.json       settings and inputs of the run; a rerun goes on only if they are the same
state/         checkpoints between chunks
metrics.json   written last: a folder that has it is finished
"""

import contextlib
import errno
import hashlib
import json
import pathlib
import shutil

from jaxinv import io
from jaxinv.errors import JaxinvError
from jaxinv.runtime import locks, places

RECORD = 'run.json'
FINISHED = 'metrics.json'
LOCK = '.lock'


def default_path(config_name: str, settings: dict) -> pathlib.Path:
    """runs/NAME-HASH: the same command finds its folder again, other settings get another one."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return pathlib.Path('runs', f'{config_name.replace(":", "-").replace(",", "-")}-{digest[:8]}')


@contextlib.contextmanager
def claim(path: pathlib.Path, record: dict, overwrite: bool = False):
    """Locks the folder while the run lasts. Yields True if a finished run is already there.

    record: settings and inputs of the run, JSON types. Raises JaxinvError if another process has
    the lock, or if the folder holds a run with another record, or files that are not a run's;
    `overwrite` clears an earlier run, but never such files.
    """
    record = json.loads(json.dumps(record))
    places.check_folder(path, '--workdir', 'choose another --workdir')
    others = {p.name for p in path.iterdir()} - {LOCK} if path.exists() else set()
    others = {name for name in others if not io.is_partial(name)}
    if others and RECORD not in others:
        raise JaxinvError(
            f'--workdir {path} holds files that are not a jaxinv run ({sorted(others)[0]}, ...); '
            'name a new or empty folder.'
        )
    path.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        io.remove_partial(path)
        if others and overwrite:
            # The record goes last, replaced below: after a kill the folder is still a run's.
            for entry in path.iterdir():
                if entry.name not in (LOCK, RECORD):
                    _clear(entry)
            others = set()
        if others:
            earlier = io.read_json(path / RECORD)
            if earlier != record:
                raise JaxinvError(
                    f'{path} holds a run with other settings or images '
                    f'({_first_difference(earlier, record)}); choose another --workdir, or '
                    '--overwrite to start it anew.'
                )
        else:
            io.write_atomically(path / RECORD, json.dumps(record, indent=1))
        yield (path / FINISHED).exists()


def _clear(entry: pathlib.Path) -> None:
    """Removes a file or folder. Of a link to a folder, e.g. on a larger disk, the content goes."""
    if entry.is_symlink() and entry.is_dir():
        for inner in entry.iterdir():
            _clear(inner)
    elif entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()


@contextlib.contextmanager
def _locked(path: pathlib.Path):
    """Holds the folder's lock. Raises JaxinvError if another process holds it."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locks.locked(path / LOCK, timeout=0))
        except locks.Timeout:
            raise JaxinvError(
                f'another run is at work in {path}; wait for it, or choose another --workdir.'
            ) from None
        yield


def no_room(error: BaseException) -> bool:
    """True if the error, or one that caused it, is a full disk, quota or file size limit.

    Orbax raises a ValueError whose text holds the error code.
    """
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    while error is not None:
        if isinstance(error, OSError) and error.errno in codes:
            return True
        if any(f"os_error_code='{code}'" in str(error) for code in codes):
            return True
        error = error.__cause__ or error.__context__
    return False


def _first_difference(old, new, name: str = '') -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                return _first_difference(old.get(key), new.get(key), f'{name}.{key}'.lstrip('.'))
    return f'{name}: {_short(old)} then, {_short(new)} now'


def _short(value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + '...'
