"""Folders of users: expanded, checked before work, cleared with care; locks; JAX's devices."""

import errno
import os
import pathlib
import sys

import filelock
import jax
import pytest

from jaxinv import io, launch
from jaxinv.errors import JaxinvError
from jaxinv.runtime import cluster, locks, places, workdir

RECORD = {'config': {'seed': 0}}


def test_home_and_variables_are_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.setenv('SCRATCH', '/scratch')
    assert places.expand('~/run', '--workdir') == tmp_path / 'run'
    assert places.expand('$SCRATCH/run', '--workdir') == pathlib.Path('/scratch/run')
    assert places.expand('runs/a=b', '--workdir') == pathlib.Path('runs/a=b')
    monkeypatch.setenv('JAXINV_CACHE', '~/cache')
    assert io.cache_dir() == tmp_path / 'cache'


@pytest.mark.parametrize(
    ('given', 'reason'),
    [
        ('gs://bucket/run', 'an address'),
        ('s3://bucket/run', 'an address'),
        ('gs:/bucket/run', 'an address'),
        ('~nobody-of-this-name/run', 'is not known here'),
        ('$NOT_SET_ANYWHERE/run', 'is not known here'),
    ],
)
def test_places_that_are_none_are_refused(given, reason):
    with pytest.raises(JaxinvError, match=reason):
        places.expand(given, '--workdir')


def test_folders_that_cannot_be_written_are_named_before_work(tmp_path):
    places.check_folder(tmp_path / 'a' / 'b', '--workdir', 'name another')
    assert not list(tmp_path.iterdir())  # nothing is left
    (tmp_path / 'link').symlink_to(tmp_path / 'gone')
    (tmp_path / 'file').write_text('')
    for path, reason in (
        (tmp_path / 'link', 'is a link to .*gone, which does not exist'),
        (tmp_path / 'link' / 'run', 'is a link to'),
        (tmp_path / 'file', 'is a file; name another'),
        (tmp_path / 'file' / 'run', 'is a file'),
        (pathlib.Path('/proc/1/run'), 'cannot be written'),
        (tmp_path / ('a' * 300), 'cannot be used .File name too long'),
        (pathlib.Path('a\0b'), 'cannot be used'),
    ):
        with pytest.raises(JaxinvError, match=reason):
            places.check_folder(path, '--workdir', 'name another')


def test_a_missing_home_names_the_variable(monkeypatch):
    for name in ('JAXINV_CACHE', 'XDG_CACHE_HOME', 'HOME'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, 'expanduser', lambda path: path)  # no entry for the user either
    with pytest.raises(JaxinvError, match='set JAXINV_CACHE'):
        io.cache_dir()


def test_overwrite_clears_what_a_linked_folder_holds(tmp_path):
    run, big = tmp_path / 'run', tmp_path / 'big'
    with workdir.claim(run, RECORD):
        pass
    (big / '10').mkdir(parents=True)
    (big / '10' / 'arrays').write_text('1')
    (big / 'seconds.json').write_text('{}')
    (run / 'state').symlink_to(big)
    (run / 'report.html').symlink_to(tmp_path / 'gone')
    with workdir.claim(run, RECORD, overwrite=True) as finished:
        assert not finished
    assert (run / 'state').is_symlink() and not list(big.iterdir())
    assert not (run / 'report.html').is_symlink()


@pytest.mark.parametrize('code', [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_file_systems_without_locks_do_not_look_like_another_run(code, tmp_path, monkeypatch):
    fcntl = pytest.importorskip('fcntl')

    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, 'flock', flock)
    with workdir.claim(tmp_path, RECORD) as finished:
        assert not finished


def test_only_a_lock_of_another_process_means_another_run(tmp_path):
    with filelock.FileLock(tmp_path / workdir.LOCK, is_singleton=False):
        with pytest.raises(JaxinvError, match='another run is at work'):
            with workdir.claim(tmp_path, RECORD):
                pass
    with locks.locked(tmp_path / workdir.LOCK, timeout=0):
        pass


@pytest.mark.parametrize('error', [AssertionError(), RuntimeError("Unable to initialize 'cuda'")])
def test_a_platform_that_jax_lacks_is_one_sentence(error, monkeypatch):
    def devices():
        raise error

    monkeypatch.setattr(jax, 'devices', devices)
    with pytest.raises(JaxinvError, match=r'JAX_PLATFORMS is cuda.*pip install.*or unset'):
        launch.check_devices({'JAX_PLATFORMS': 'cuda'})


def test_one_process_of_several_with_a_terminal_is_told_so(monkeypatch):
    process = cluster.Process(None, why='SLURM_STEP_NUM_TASKS=4')
    cluster.check_terminal(process)

    class Terminal:
        def isatty(self):
            return True

    monkeypatch.setattr('sys.stdin', Terminal())
    with pytest.raises(JaxinvError, match='SLURM_STEP_NUM_TASKS=4.*--num_processes=1'):
        cluster.check_terminal(process)
    cluster.check_terminal(cluster.Process('a:1', 2, 0))


def test_a_complete_cache_may_be_read_only(tmp_path, monkeypatch):
    def refuse():
        raise JaxinvError('cannot be written')

    monkeypatch.setattr(places, 'check_cache', refuse)
    monkeypatch.setenv('JAXINV_CACHE', str(tmp_path / 'cache'))
    with pytest.raises(JaxinvError):
        places.check_new_cache()
    (tmp_path / 'cache' / 'packages').mkdir(parents=True)
    places.check_new_cache()
    monkeypatch.setattr(os, 'access', lambda path, mode: False)
    launch.setup_jax({})  # leaves JAX's own cache off


def test_variables_that_jax_cannot_read_are_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, 'jax', None)  # importing it raises ImportError
    with pytest.raises(JaxinvError, match='JAX could not be imported.*JAX_NUM_CPU_DEVICES'):
        launch.setup_jax({'JAX_NUM_CPU_DEVICES': 'many'})
