"""A lock file between processes, on any system."""

import contextlib
import os
from collections.abc import Iterator

import filelock

Timeout = filelock.Timeout


@contextlib.contextmanager
def locked(file: str | os.PathLike, timeout: float = -1) -> Iterator[None]:
    """Holds the lock of `file`, which is created and stays.

    timeout: seconds to wait for another process; -1 = no limit. Raises Timeout after them. On a
    file system without locks the context is entered without one.
    """
    try:
        # A marker in place of a lock would stay behind a killed process.
        lock = filelock.FileLock(file, fallback_to_soft=False)
    except TypeError:  # before filelock 4
        lock = filelock.FileLock(file)
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        raise
    except (OSError, NotImplementedError):  # ENOLCK, EOPNOTSUPP ..., of some network file systems
        pass
    try:
        yield
    finally:
        lock.release()
