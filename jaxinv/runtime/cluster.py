"""The address of this process among several: from flags, variables or the cluster."""

import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

from jaxinv.errors import JaxinvError


class Process(NamedTuple):
    coordinator: str | None  # HOST:PORT of process 0; None = all as the cluster's environment says
    count: int | None = None
    index: int | None = None
    why: str = ''  # the variable that says so, in words; '' = flags of the user


def process_from(
    coordinator: str | None,
    count: int | None,
    index: int | None,
    environment: Mapping[str, str] | None = None,
) -> Process | None:
    """The address of this process, or None if it is the only one.

    Taken from the three flags; else from the variables JAXINV_COORDINATOR, JAXINV_NUM_PROCESSES and
    JAXINV_PROCESS_ID; else Process(None), detected by jax.distributed, if SLURM (srun), Cloud TPU
    or GKE variables name several processes. coordinator='cluster' always means detection by jax.
    count=1 alone means one process, whatever the environment says.
    Raises JaxinvError if only some of the three are given, or if they are out of range.
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
    if count == 1 and coordinator is None and index in (None, 0):
        return None
    if coordinator == 'cluster' and count is None and index is None:
        return Process(None)
    if all(x is None for x in given):
        hosts = environment.get('TPU_WORKER_HOSTNAMES', '').split(',')
        if len(hosts) > 1:
            return Process(None, why=f'TPU_WORKER_HOSTNAMES names {len(hosts)} hosts')
        tasks = environment.get('SLURM_STEP_NUM_TASKS', '1')
        if tasks not in ('', '1'):
            return Process(None, why=f'SLURM_STEP_NUM_TASKS={tasks}')
        return None
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


def check_terminal(process: Process) -> None:
    """Raises JaxinvError for one process of several that has a terminal, as by `srun --pty`."""
    if 'SLURM' in process.why and sys.stdin is not None and sys.stdin.isatty():
        raise JaxinvError(
            f'{process.why}, but this is an interactive step, where one process alone has the '
            'terminal; give --num_processes=1 to run alone, or start all of them by srun.'
        )


def announcement(process: Process) -> str:
    """What the environment decided, and how to run alone; '' if the user's flags did."""
    if not process.why:
        return ''
    return (
        f'{process.why}, so this is one of several processes, and all of them must be started; to '
        'run alone, e.g. in an interactive step (srun --pty), give --num_processes=1.'
    )
