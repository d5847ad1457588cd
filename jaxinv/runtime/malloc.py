"""glibc malloc settings for XLA:CPU.

XLA:CPU allocates gigabytes of fresh memory in every step, which the kernel maps in pages of 4 kB, a
page fault each. With two images of 512 pixels these faults take 40 % of a forward pass and of a
tuning step (measured: 0.39 to 0.24 s, 1.56 to 0.97 s). glibc can request pages of 2 MB instead; the
setting is read when a process starts.
"""

import ctypes
import glob
import importlib.util
import os
import sys
from collections.abc import Mapping

SETTING = 'glibc.malloc.hugetlb'
VARIABLE = 'GLIBC_TUNABLES'
# NVIDIA, NVIDIA under WSL, AMD, TPUs before and since v5e.
ACCELERATORS = ('/dev/nvidia[0-9]*', '/dev/dxg', '/dev/kfd', '/dev/accel*', '/dev/vfio/[0-9]*')
TPU_VARIABLES = ('TPU_NAME', 'TPU_WORKER_ID', 'TPU_WORKER_HOSTNAMES', 'TPU_ACCELERATOR_TYPE')


def uses_cpus(environment: Mapping[str, str], has_accelerator: bool) -> bool:
    """True if JAX will compute on CPUs: JAX_PLATFORMS starts with cpu, or no accelerator is found.

    has_accelerator: of `find_accelerator`.
    """
    platforms = environment.get('JAX_PLATFORMS') or environment.get('JAX_PLATFORM_NAME') or ''
    if platforms:
        return platforms.split(',')[0].strip().lower() == 'cpu'
    return not has_accelerator and not any(environment.get(name) for name in TPU_VARIABLES)


def find_accelerator() -> bool:
    """True if this host has a GPU or TPU, found without importing JAX."""
    return any(map(glob.glob, ACCELERATORS)) or importlib.util.find_spec('libtpu') is not None


def restart_with_large_pages() -> None:
    """Restarts this command in the same process with large pages: once, on Linux, on CPUs.

    Call it first in a program, before anything is computed or printed. A user's own setting stays.
    Without such pages in the C library or kernel the setting has no effect.
    """
    given = os.environ.get(VARIABLE, '')
    if not sys.platform.startswith('linux') or SETTING in given:
        return
    if not uses_cpus(os.environ, find_accelerator()):
        return
    os.environ[VARIABLE] = ':'.join(filter(None, [given, f'{SETTING}=1']))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def return_freed() -> None:
    """Returns freed memory that the C library keeps to the system (glibc only).

    Compiling a step leaves about 0.6 GB of it (config-f, 256 pixels), as much as the step needs.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # not glibc
        pass
