"""A parent process for each of several processes.

JAX aborts when a peer is lost; a parent process turns that into one line and an exit code. The
parent never imports JAX, forwards signals and has the exit code of its child.
"""

import contextlib
import ctypes
import os
import signal
import sys

from jaxinv.runtime import console, distributed
from jaxinv.runtime.cluster import Process
from jaxinv.runtime.distributed import HEARTBEAT, PEER_LOST, TIMEOUT


def supervise(process: Process, timeout: int = TIMEOUT, heartbeat: int = HEARTBEAT) -> None:
    """Forks and returns in the child. The parent waits for it and exits with its exit code.

    Prints one line and exits with PEER_LOST if JAX aborted the child. Raises RuntimeError if jax is
    imported already, whose threads do not survive a fork. Returns at once on systems without fork.
    """
    if 'jax' in sys.modules:
        raise RuntimeError('supervise() must be called before jax is imported.')
    if not hasattr(os, 'fork'):
        return
    sys.stdout.flush()
    parent = os.getpid()
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        distributed.report_connection_to(write_end)
        os.setpgid(0, 0)  # Ctrl-C arrives once, from the parent
        _die_with(parent)
        return

    os.close(write_end)

    def forward(signum, frame):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signum)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, forward)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGABRT:
        if os.read(read_end, 3):
            message = distributed.peer_lost(process.index, heartbeat)
        else:
            where = process.coordinator or 'the coordinator of the cluster'
            message = distributed.not_connected(where, timeout, process.why)
        console.complain(f'jaxinv: {message}')
        code = PEER_LOST
    os._exit(128 - code if code < 0 else code)


def _die_with(parent: int) -> None:
    """Asks the kernel to kill this process when its parent dies (Linux)."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
