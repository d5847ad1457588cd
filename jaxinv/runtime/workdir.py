"""The work folder: who owns it, whether to start, go on or refuse, and its lock.

run.json       settings and inputs of the run; a rerun goes on only if they are the same
state/         checkpoints between chunks
metrics.json   written last: a folder that has it is finished
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import pathlib
import shutil

from jaxinv.errors import JaxinvError

RECORD = 'run.json'
PARTIAL = RECORD + '.partial'
FINISHED = 'metrics.json'


def settings_of(config) -> dict:
    """The settings of a config that make it this run.

    Devices do not, nor how much they are given at once or keep: results are the same, and a run
    that was out of memory may go on with less.
    """

    def without(settings, *names):
        return {key: value for key, value in settings.items() if key not in names}

    settings = without(config.to_dict(), 'mesh', 'remat')
    for name in settings.keys() & {'pivot', 'sam'}:
        settings[name] = without(settings[name], 'batch_per_device')
    return settings


def default_path(config_name: str, settings: dict) -> pathlib.Path:
    """runs/NAME-HASH: the same command finds its folder again, other settings get another one."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return pathlib.Path('runs', f'{config_name.replace(":", "-").replace(",", "-")}-{digest[:8]}')


@contextlib.contextmanager
def claim(path: pathlib.Path, record: dict, overwrite: bool = False):
    """Owns the folder while the run lasts. Yields True if a finished run is already there.

    Raises JaxinvError if another process is at work in it, if it holds a run with other settings or
    inputs, or files that are not a run's; `overwrite` clears an earlier run, but never such files.
    """
    record = json.loads(json.dumps(record))
    if path.exists() and not path.is_dir():
        raise JaxinvError(f'--workdir {path} is a file; name a folder.')
    ours = {'.lock', PARTIAL}
    others = {p.name for p in path.iterdir()} - ours if path.exists() else set()
    if others and RECORD not in others:
        raise JaxinvError(
            f'--workdir {path} holds files that are not a jaxinv run ({sorted(others)[0]}, ...); '
            'name a new or empty folder.'
        )
    path.mkdir(parents=True, exist_ok=True)
    with open(path / '.lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise JaxinvError(
                f'another run is at work in {path}; wait for it, or choose another --workdir.'
            ) from None
        if others and overwrite:
            # The record goes last, replaced below: killed half-way, the folder is still ours.
            for entry in path.iterdir():
                if entry.name not in ('.lock', RECORD):
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            others = set()
        if others:
            try:
                earlier = json.loads((path / RECORD).read_text())
            except ValueError:
                earlier = {}
            if earlier != record:
                raise JaxinvError(
                    f'{path} holds a run with other settings or images '
                    f'({_first_difference(earlier, record)}); choose another --workdir, or '
                    '--overwrite to start it anew.'
                )
        else:
            partial = path / PARTIAL
            partial.write_text(json.dumps(record, indent=1))
            partial.replace(path / RECORD)
        yield (path / FINISHED).exists()


def no_room(error: BaseException) -> bool:
    """Whether an error, or one that it came from, says that nothing more can be written.

    Orbax's writer raises a ValueError with the system's words in it.
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
