"""The restart keeps command, arguments and process, happens once; a user's setting stays."""

import os
import subprocess
import sys

import pytest

from jaxinv.runtime import malloc

PROGRAM = """
import os, sys
from jaxinv.runtime import malloc
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
