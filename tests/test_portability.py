"""Windows and macOS, simulated: nothing at import needs fcntl, resource, fork, signals or glibc."""

import pathlib
import subprocess
import sys

import limits

ROOT = pathlib.Path(__file__).parents[1]

# Everything is imported once, for the packages below jaxinv, whose own imports follow the system.
# Then jaxinv's modules are imported again without what other systems lack.
PROGRAM = r"""
import builtins, ctypes, importlib, os, signal, sys

ABSENT = {'fcntl', 'resource', 'pwd', 'grp', 'termios', 'pty', 'tty', 'posix', 'syslog', 'readline'}
names = sys.argv[1].split()
for name in names:
    importlib.import_module(name)
for name in [name for name in sys.modules if name.partition('.')[0] == 'jaxinv']:
    del sys.modules[name]

known = builtins.__import__


def absent(name, globals=None, locals=None, fromlist=(), level=0):
    asking = (globals or {}).get('__name__', '')
    if name in ABSENT and asking.startswith('jaxinv'):
        raise ModuleNotFoundError(f'No module named {name!r}', name=name)
    return known(name, globals, locals, fromlist, level)


def no_library(name=None, *args, **options):
    raise OSError('no C library by this name')


builtins.__import__ = absent
ctypes.CDLL = no_library
for owner, attributes in (
    (os, ('fork', 'setpgid', 'getppid', 'waitpid', 'sysconf', 'uname', 'O_DIRECTORY', 'geteuid')),
    (signal, ('SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGALRM', 'SIGKILL', 'setitimer')),
):
    for attribute in attributes:
        if hasattr(owner, attribute):
            delattr(owner, attribute)
count = 0
for name in names:
    importlib.import_module(name)
    count += 1
from jaxinv.runtime import malloc, memory, supervisor
from jaxinv.runtime.cluster import Process

malloc.restart_with_large_pages()
memory.describe(memory.peak_bytes())
del sys.modules['jax']
supervisor.supervise(Process('localhost:1', 2, 0))  # returns: there is no fork
print(count)
"""


def test_every_module_imports_without_what_other_systems_lack():
    names = []
    for folder in ('jaxinv', 'converters', 'configs'):
        for path in sorted((ROOT / folder).rglob('*.py')):
            parts = path.relative_to(ROOT).with_suffix('').parts
            parts = parts if folder == 'jaxinv' else ('jaxinv', *parts)
            if parts[-1] not in ('__main__', 'torch_models'):
                names.append('.'.join(parts).removesuffix('.__init__'))
    command = [sys.executable, '-c', PROGRAM, ' '.join(names)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limits.SECONDS)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 150
