"""The parent process of one of several: waits for it, passes signals on, explains its end.

JAX aborts a process whose peer is lost (SIGABRT, with messages of C++). A parent process that never
imports JAX turns that into one line and an exit code.
"""

import contextlib
import ctypes
import os
import signal
import sys

from jaxinv.runtime import distributed
from jaxinv.runtime.distributed import HEARTBEAT, PEER_LOST, TIMEOUT, Process, not_met


def supervise(process: Process, timeout: int = TIMEOUT, heartbeat: int = HEARTBEAT) -> None:
    """Goes on in a child; the parent waits and exits as it does, with a sentence if it was killed.

    Call it before jax is imported: threads do not survive a fork. Does nothing where there is no
    fork.
    """
    if not hasattr(os, 'fork'):
        return
    sys.stdout.flush()
    parent = os.getpid()
    news, written = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(news)
        distributed.announce_to(written)
        os.setpgid(0, 0)  # Ctrl-C comes from the parent, and only once
        _die_with(parent)
        return

    os.close(written)

    def pass_on(signum, frame):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signum)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, pass_on)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGABRT:
        who = 'a process' if process.index is None else f'process {process.index}'
        what = (
            f'{who} of several stops, since another one ended or was not heard of for '
            f'{heartbeat} s; run the same command again to go on from the last checkpoint.'
        )
        if not os.read(news, 3):
            what = not_met(process.coordinator or 'the coordinator of the cluster', timeout)
        print(f'jaxinv: {what}', file=sys.stderr, flush=True)
        code = PEER_LOST
    os._exit(128 - code if code < 0 else code)


def _die_with(parent: int) -> None:
    """Has the kernel kill this process if its parent is killed (Linux)."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
