"""The address of this process among several: from flags, variables or the cluster."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from jaxinv.errors import JaxinvError


class Process(NamedTuple):
    coordinator: str | None  # HOST:PORT of process 0; None = all as the cluster's environment says
    count: int | None = None
    index: int | None = None


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
