"""What compiled programs on CPUs ask of the C library's memory.

XLA:CPU asks for fresh memory at every call, gigabytes for one step, and the kernel hands it out in
pages of 4 kB, a fault each: with two images of 512 pixels that is 40 % of a forward pass and of a
tuning step (measured: 0.39 to 0.24 s, 1.56 to 0.97 s). glibc can ask for pages of 2 MB instead, but
reads that wish only when a process starts.
"""

import ctypes
import os
import sys

SETTING = 'glibc.malloc.hugetlb'
VARIABLE = 'GLIBC_TUNABLES'


def restart_with_large_pages() -> None:
    """Starts this very command again in place, same process id, with large pages; once, on Linux.

    Call it first thing in a program, before anything is computed or printed. Where the C library
    or kernel has no such pages the setting is ignored. A user's own setting is left alone.
    """
    given = os.environ.get(VARIABLE, '')
    if not sys.platform.startswith('linux') or SETTING in given:
        return
    os.environ[VARIABLE] = ':'.join(filter(None, [given, f'{SETTING}=1']))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def return_freed() -> None:
    """Gives memory that was freed but kept by the C library back to the system, where it can.

    Compiling a step leaves about 0.6 GB of it (config-f, 256 pixels), as much as the step needs.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # not glibc
        pass
