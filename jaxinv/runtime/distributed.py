"""Several processes, as on several machines: who they are, what they agree on, how they end.

Each process runs the same command; jax.distributed brings them together. Everything is computed
everywhere, on the devices of all; process 0 alone writes and speaks (`is_primary`), except for
checkpoints, of which each process writes what it has.

JAX aborts a process that loses a peer; runtime/supervisor.py turns that into a sentence.
"""

import contextlib
import hashlib
import json
import os
import signal
import sys
import time
from typing import NamedTuple

from jaxinv.errors import JaxinvError

PREEMPTED = 75  # exit code: SIGTERM, everything is saved, the same command goes on (EX_TEMPFAIL)
PEER_LOST = 76  # exit code: another process ended or was not heard of; the same command goes on
TIMEOUT, HEARTBEAT = 300, 60  # seconds
PARTING = 10  # seconds to wait for others that end too

_met = False  # there are several processes, and they have met
_apart = None  # while the processes work apart: the file that tells all to stop
_news = None  # where the process that waits reads that they have


class Process(NamedTuple):
    coordinator: str | None  # HOST:PORT of process 0; None = all as the cluster's environment says
    count: int | None = None
    index: int | None = None


def process_from(coordinator, count, index, environment=None) -> Process | None:
    """Which process this is, None if it is the only one.

    By the three flags; else by the variables JAXINV_COORDINATOR, JAXINV_NUM_PROCESSES and
    JAXINV_PROCESS_ID; else by what SLURM (srun) and Cloud TPU or GKE set where there are several
    processes, of which jax knows the details; coordinator 'cluster' asks jax whatever is set.
    Raises JaxinvError for parts of it only, or numbers that do not fit.
    """
    environment = os.environ if environment is None else environment
    given, names = (coordinator, count, index), ('coordinator', 'num_processes', 'process_id')
    if given == (None, None, None):
        given = [environment.get(f'JAXINV_{name.upper()}') for name in names]
        try:
            given = [given[0], *(None if x is None else int(x) for x in given[1:])]
        except ValueError:
            raise JaxinvError(
                f'JAXINV_NUM_PROCESSES and JAXINV_PROCESS_ID are {given[1]!r} and {given[2]!r}; '
                'they must be whole numbers.'
            ) from None
    coordinator, count, index = given
    if coordinator == 'cluster' and count is None and index is None:
        return Process(None)
    if all(x is None for x in given):
        hosts = environment.get('TPU_WORKER_HOSTNAMES', '').split(',')
        tasks = environment.get('SLURM_STEP_NUM_TASKS', '1')
        return Process(None) if len(hosts) > 1 or tasks not in ('', '1') else None
    missing = [f'--{name}' for name, x in zip(names, given, strict=True) if x is None]
    if missing:
        raise JaxinvError(
            f'{" and ".join(missing)} {"is" if len(missing) == 1 else "are"} missing; several '
            'processes need --coordinator=HOST:PORT, --num_processes and --process_id, or '
            '--coordinator=cluster.'
        )
    host, _, port = coordinator.rpartition(':')
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise JaxinvError(f'--coordinator is {coordinator!r}; it must be HOST:PORT of process 0.')
    if count < 1 or not 0 <= index < count:
        raise JaxinvError(
            f'--process_id is {index} of --num_processes={count}; it must be from 0 to '
            f'{max(count - 1, 0)}.'
        )
    return Process(coordinator, count, index) if count > 1 else None


def initialize(process: Process, timeout: int = TIMEOUT, heartbeat: int = HEARTBEAT) -> None:
    """Meets the other processes. Call it before anything is computed. Raises JaxinvError.

    timeout: seconds to wait for them; heartbeat: seconds of silence after which one counts as dead,
    upon which all end.
    """
    import jax

    global _met
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
        raise JaxinvError(f'{not_met(where, timeout)} ({reason[:200]})') from None
    _met = jax.process_count() > 1
    if _news is not None:
        os.write(_news, b'met')


def announce_to(descriptor: int) -> None:
    """`initialize` writes 'met' to this file descriptor, which the supervisor reads."""
    global _news
    _news = descriptor


def not_met(where, timeout) -> str:
    return (
        f'the processes did not meet at {where} within {timeout} s; start all of them with the '
        'same coordinator, whose port must be free on the first host.'
    )


# --- What they agree on ---------------------------------------------------------------------------


def is_primary() -> bool:
    import jax

    return _apart is not None or jax.process_index() == 0


def is_multiprocess() -> bool:
    import jax

    return _apart is None and jax.process_count() > 1


def is_independent() -> bool:
    return _apart is not None


@contextlib.contextmanager
def independent_processes(stop):
    """Within, each process works as if it were the only one: on its own devices, in folders of its
    own, saying nothing to the others. stop: a file by which one that was told to stop tells all.
    """
    global _apart
    _apart = stop
    try:
        yield
    finally:
        _apart = None


def allgather_int(value: int) -> list[int]:
    """The value that each process has. All must call it."""
    if not is_multiprocess():
        return [value]
    import numpy as np
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(np.array([value])).reshape(-1).tolist()


def allgather_bytes(value: bytes) -> list[bytes]:
    """The same for bytes. They lie on every device meanwhile."""
    if not is_multiprocess():
        return [value]
    import numpy as np
    from jax.experimental import multihost_utils

    lengths = allgather_int(len(value))
    buffer = np.zeros(1 << max(lengths).bit_length(), np.uint8)  # few sizes, hence few programs
    buffer[: len(value)] = np.frombuffer(value, np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(buffer))
    return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]


def broadcast_str(text: str) -> str:
    """The text that process 0 has. All must call it."""
    if not is_multiprocess():
        return text
    import numpy as np
    from jax.experimental import multihost_utils

    data = np.frombuffer(text.encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.array(len(data))))
    buffer = np.zeros(length, np.uint8)
    if is_primary():
        buffer[:] = data
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(buffer))).decode()


@contextlib.contextmanager
def entered_by_primary(manager):
    """A context manager that process 0 alone enters; its value or JaxinvError is everybody's.

    The value must be of JSON's types.
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
    """Raises JaxinvError on all processes if the record (JSON's types) is not the same on all."""
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).digest()
    found = allgather_int(int.from_bytes(digest[:3]))
    others = [str(i) for i, x in enumerate(found) if x != found[0]]
    if others:
        raise JaxinvError(
            f'process {", ".join(others)} has other settings or images than process 0; give all '
            'the same command and the same files.'
        )


def wait_for_all(name: str) -> None:
    """Returns when all processes have come here, however long it takes."""
    if is_multiprocess():
        from orbax.checkpoint import multihost

        multihost.sync_global_processes(name, timeout=7 * 24 * 3600)


def exit_together(code: int) -> None:
    """Ends this process with the exit code if there are others, which may know nothing of it yet.

    Where they come to their end too, as they do on a mistake that all have made, all wait for that,
    so that none takes the others' leave for a failure.
    """
    if not _met:
        return
    from orbax.checkpoint import multihost

    with contextlib.suppress(Exception):  # there is nobody left
        multihost.sync_global_processes(f'part_{code}', timeout=PARTING)
        if is_primary():
            time.sleep(1)  # with process 0 goes the service, which the others must not miss
    sys.stdout.flush()
    os._exit(code)


def lost_peer(error: Exception) -> bool:
    """Whether an error of jax's says that another process is gone."""
    return is_multiprocess() and any(word in str(error).lower() for word in _SIGNS)


_SIGNS = ('gloo', 'connection', 'peer', 'heartbeat', 'unavailable', 'coordination service')


def abort_without_peers() -> None:
    """Ends this process as jax would a little later; the one that waits says why."""
    sys.stdout.flush()
    os.abort()


# --- SIGTERM --------------------------------------------------------------------------------------


class Preempted(BaseException):  # as KeyboardInterrupt: no handler of mistakes is to catch it
    """SIGTERM came, and everything is saved that can be."""


_asked = False  # a process has one SIGTERM, as it has one handler
_waits = False


def _on_sigterm(signum, frame):
    global _asked
    _asked = True
    if not _waits and not _met:
        raise Preempted


def handle_sigterm() -> None:
    """From now on SIGTERM raises Preempted; after `initialize`, since jax has a handler too."""
    signal.signal(signal.SIGTERM, _on_sigterm)


@contextlib.contextmanager
def defer_sigterm():
    """Within, and everywhere in several processes, SIGTERM is only noted, for `raise_if_preempted`."""
    global _waits
    _waits = True
    try:
        yield
    finally:
        _waits = False


def raise_if_preempted() -> None:
    """Raises Preempted on all processes if SIGTERM came to any; all must call it.

    Processes that work apart find out when they call it next.
    """
    if any(allgather_int(int(_asked))):
        if _apart is not None:
            _apart.touch()
        raise Preempted
    if _apart is not None and _apart.exists():
        raise Preempted
