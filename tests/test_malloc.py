"""glibc's setting for runs on CPUs alone, set by one restart with the same arguments."""

import os
import subprocess
import sys

import pytest

from jaxinv.runtime import malloc

PROGRAM = """
import os, sys
from jaxinv.runtime import malloc
malloc.find_accelerator = lambda: False
print('start', os.getpid(), flush=True)
malloc.restart_with_large_pages()
print(os.environ.get('GLIBC_TUNABLES'), sys.argv[1:])
"""


def run(**environment):
    command = [sys.executable, '-c', PROGRAM, 'a b', '--c=d']
    environment = {**os.environ, **environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    *starts, last = done.stdout.splitlines()
    return starts, last


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='only Linux restarts')
@pytest.mark.parametrize('given', ['', 'glibc.malloc.tcache_count=0'])
def test_restarts_once_in_the_same_process_with_the_same_arguments(given):
    starts, last = run(GLIBC_TUNABLES=given)
    assert len(starts) == 2 and len(set(starts)) == 1
    setting = ':'.join(filter(None, [given, f'{malloc.SETTING}=1']))
    assert last == f"{setting} ['a b', '--c=d']"


def test_a_users_own_setting_stays():
    starts, last = run(GLIBC_TUNABLES='glibc.malloc.hugetlb=0')
    assert len(starts) == 1 and last.startswith('glibc.malloc.hugetlb=0 ')


def test_no_restart_for_accelerators():
    starts, last = run(GLIBC_TUNABLES='', JAX_PLATFORMS='cuda')
    assert len(starts) == 1 and last.startswith(' [')


@pytest.mark.parametrize(
    'environment,has_accelerator,expected',
    [
        ({}, False, True),
        ({}, True, False),
        ({'JAX_PLATFORMS': 'cpu'}, True, True),
        ({'JAX_PLATFORMS': 'cpu,cuda'}, True, True),
        ({'JAX_PLATFORMS': 'cuda,cpu'}, True, False),
        ({'JAX_PLATFORMS': 'tpu'}, False, False),
        ({'JAX_PLATFORMS': ''}, True, False),
        ({'JAX_PLATFORM_NAME': 'cpu'}, True, True),
        ({'TPU_WORKER_HOSTNAMES': 'localhost'}, False, False),
        ({'TPU_NAME': 'pod', 'JAX_PLATFORMS': 'cpu'}, True, True),
    ],
)
def test_cpus_are_used_where_jax_is_told_so_or_finds_nothing_else(
    environment, has_accelerator, expected
):
    assert malloc.uses_cpus(environment, has_accelerator) is expected


@pytest.mark.parametrize('file', ['/dev/nvidia0', '/dev/accel0', '/dev/vfio/3', '/dev/kfd'])
def test_accelerators_are_found_by_their_device_files(file, monkeypatch):
    def find(pattern):
        return [file] if malloc.glob.fnmatch.fnmatch(file, pattern) else []

    monkeypatch.setattr(malloc.glob, 'glob', find)
    monkeypatch.setattr(malloc.importlib.util, 'find_spec', lambda name: None)
    assert malloc.find_accelerator()
    file = '/dev/nvidiactl'  # of a driver without a card
    assert not malloc.find_accelerator()
