"""Several processes, on one or more hosts: connection, host collectives, SIGTERM and exit.

Each process runs the same command and jax.distributed connects them. All processes run the same
programs on one mesh of all devices. Process 0 (`is_primary`) writes the results and the log; each
process writes its own shards of a checkpoint. runtime/supervisor.py reports a process that JAX
aborts because a peer is lost.
"""

import contextlib
import hashlib
import itertools
import json
import os
import pathlib
import signal
import sys
import time

from jaxinv.errors import JaxinvError
from jaxinv.runtime import peer_errors
from jaxinv.runtime.cluster import Process

PREEMPTED = 75  # exit code: stopped by SIGTERM after saving; the same command resumes (EX_TEMPFAIL)
PEER_LOST = 76  # exit code: another process ended or sends no heartbeat; the same command resumes
TIMEOUT, HEARTBEAT = 300, 60  # seconds
EXIT_TIMEOUT = 10  # seconds in which all processes must reach the exit
PEER_TIMEOUT = 5  # seconds in which a live peer with the same error must answer
NO_TIMEOUT = 7 * 24 * 3600  # seconds

_connected = False  # jax.distributed is initialised with more than one process
_stop_file = None  # of independent_processes
_supervisor_pipe = None  # file descriptor
_barriers = itertools.count()
_synchronized = False  # before the first collective of the devices


def initialize(process: Process, timeout: int = TIMEOUT, heartbeat: int = HEARTBEAT) -> None:
    """Connects to the other processes, before the first computation. Raises JaxinvError.

    timeout: seconds to wait for them; heartbeat: seconds without a heartbeat after which a process
    counts as lost and JAX aborts the others.
    """
    import jax

    global _connected
    try:
        jax.distributed.initialize(
            process.coordinator,
            process.count,
            process.index,
            initialization_timeout=timeout,
            heartbeat_timeout_seconds=heartbeat,
        )
    except (RuntimeError, ValueError, OSError) as error:
        reason = ' '.join(str(error).split())
        where = process.coordinator or 'the coordinator that the cluster names'
        raise JaxinvError(
            f'{not_connected(where, timeout, process.why).rstrip(".")} ({reason[:200]}).'
        ) from None
    _connected = jax.process_count() > 1
    if _supervisor_pipe is not None:
        os.write(_supervisor_pipe, b'met')


def report_connection_to(descriptor: int) -> None:
    """Makes `initialize` write 'met' to this file descriptor, for the supervisor."""
    global _supervisor_pipe
    _supervisor_pipe = descriptor


def not_connected(where: str, timeout: float, why: str = '') -> str:
    """The sentence; why: the variable that made this one of several processes."""
    if why:
        return (
            f'the processes did not meet at {where} within {timeout} s; {why} makes this one of '
            'several, so start all of them, or give --num_processes=1 to run alone.'
        )
    return (
        f'the processes did not meet at {where} within {timeout} s; start all of them with the '
        'same coordinator, whose port must be free on the first host.'
    )


# --- Collectives on the host ----------------------------------------------------------------------


def is_primary() -> bool:
    import jax

    return _stop_file is not None or jax.process_index() == 0


def is_multiprocess() -> bool:
    import jax

    return _stop_file is None and jax.process_count() > 1


def is_independent() -> bool:
    return _stop_file is not None


@contextlib.contextmanager
def independent_processes(stop):
    """In this context every process runs on its own devices and folders, without collectives.

    stop: path of a file that a process creates when it receives SIGTERM; the others poll it in
    `raise_if_preempted`.
    """
    global _stop_file
    _stop_file = pathlib.Path(stop)
    try:
        yield
    finally:
        _stop_file = None


def _synchronize() -> None:
    """Waits for all processes before the first collective.

    The devices connect in it, for which Gloo has 30 s, and one process may still download weights.
    """
    global _synchronized
    if not _synchronized:
        _synchronized = True
        _barrier('jaxinv first collective', NO_TIMEOUT)


def allgather_int(value: int) -> list[int]:
    """All-gathers an int: one value for each process. Collective."""
    if not is_multiprocess():
        return [value]
    import numpy as np
    from jax.experimental import multihost_utils

    _synchronize()
    return multihost_utils.process_allgather(np.array([value])).reshape(-1).tolist()


def allgather_bytes(value: bytes) -> list[bytes]:
    """All-gathers bytes, through the memory of the devices. Collective."""
    if not is_multiprocess():
        return [value]
    import numpy as np
    from jax.experimental import multihost_utils

    _synchronize()
    lengths = allgather_int(len(value))
    buffer = np.zeros(1 << max(lengths).bit_length(), np.uint8)  # few shapes to compile
    buffer[: len(value)] = np.frombuffer(value, np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(buffer))
    return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]


def broadcast_str(text: str) -> str:
    """Broadcasts the text of process 0. Collective."""
    if not is_multiprocess():
        return text
    import numpy as np
    from jax.experimental import multihost_utils

    _synchronize()
    data = np.frombuffer(text.encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.array(len(data))))
    buffer = np.zeros(length, np.uint8)
    if is_primary():
        buffer[:] = data
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(buffer))).decode()


@contextlib.contextmanager
def entered_by_primary(manager):
    """Enters a context manager on process 0 and broadcasts its value or JaxinvError. Collective.

    The value must consist of JSON types.
    """
    with contextlib.ExitStack() as stack:
        answer = {}
        if is_primary():
            try:
                answer = {'value': stack.enter_context(manager)}
            except JaxinvError as error:
                answer = {'error': str(error)}
        answer = json.loads(broadcast_str(json.dumps(answer)))
        if 'error' in answer:
            raise JaxinvError(answer['error'])
        yield answer['value']


def check_same(record) -> None:
    """Raises JaxinvError on all processes unless all have the same record (JSON types)."""
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).digest()
    found = allgather_int(int.from_bytes(digest[:3]))
    others = [str(i) for i, x in enumerate(found) if x != found[0]]
    if others:
        raise JaxinvError(
            f'process {", ".join(others)} has other settings or images than process 0; give all '
            'the same command and the same files.'
        )


def wait_for_all(name: str) -> None:
    """Returns when all processes have called it. name: for the coordination service's messages."""
    if is_multiprocess():
        _barrier(f'jaxinv {name} {next(_barriers)}', NO_TIMEOUT)


def _barrier(key: str, timeout: float) -> None:
    """Waits in JAX's coordination service, not in a collective of devices, which has no timeout.

    Raises jax.errors.JaxRuntimeError after `timeout` seconds, or if a process is lost.
    """
    from orbax.checkpoint import multihost

    multihost.get_barrier_sync_fn()(key=key, timeout_ms=int(timeout * 1000))


# --- Exit -----------------------------------------------------------------------------------------


def exit_together(code: int) -> None:
    """Exits with the code after the other processes have called it too, or after EXIT_TIMEOUT.

    So that peers that exit for the same reason do not report a lost process. Returns if there is
    only one process.
    """
    if not _connected:
        return
    with contextlib.suppress(Exception):  # a peer is lost, or does not exit
        _barrier(f'jaxinv exit {code}', EXIT_TIMEOUT)
        if is_primary():
            time.sleep(1)  # process 0 runs the coordination service, which the others still use
    sys.stdout.flush()
    os._exit(code)


def lost_peer(error: Exception) -> bool:
    """True if the error is due to a process that has ended (runtime/peer_errors.py).

    False also if all processes have such an error and are alive.
    """
    if not is_multiprocess() or not peer_errors.is_peer_error(error):
        return False
    try:
        _barrier('jaxinv peer error', PEER_TIMEOUT)
    except Exception:  # the coordination service does not reach all processes
        return True
    return False


def peer_lost(index: int | None, heartbeat: float) -> str:
    """The message of a process that ends with PEER_LOST."""
    process = 'a process' if index is None else f'process {index}'
    return (
        f'{process} of several stops, since another one ended or sent no heartbeat for '
        f'{heartbeat} s; run the same command again to resume from the last checkpoint.'
    )


# --- SIGTERM --------------------------------------------------------------------------------------


class Preempted(BaseException):  # like KeyboardInterrupt: not caught by `except Exception`
    """SIGTERM was received, and the state is saved."""


_received = False
_deferred = False


def _on_sigterm(signum, frame):
    global _received
    _received = True
    if not _deferred and not _connected:
        raise Preempted


def handle_sigterm() -> None:
    """Makes SIGTERM raise Preempted. Call it after `initialize`, which installs jax's handler."""
    signal.signal(signal.SIGTERM, _on_sigterm)


@contextlib.contextmanager
def defer_sigterm():
    """In this context SIGTERM is only recorded, for `raise_if_preempted`.

    With several processes it is always deferred.
    """
    global _deferred
    _deferred = True
    try:
        yield
    finally:
        _deferred = False


def raise_if_preempted() -> None:
    """Raises Preempted on all processes if any of them received SIGTERM. Collective.

    Independent processes read the stop file instead.
    """
    if any(allgather_int(int(_received))):
        if _stop_file is not None:
            _stop_file.touch()
        raise Preempted
    if _stop_file is not None and _stop_file.exists():
        raise Preempted
