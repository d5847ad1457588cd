"""Several processes on this machine: the same numbers, one voice, and an end with a sentence."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import limits
import numpy as np
import pytest
from test_sharding import CASES_FILE, environment, largest_difference

from jaxinv.errors import JaxinvError
from jaxinv.runtime import cluster, distributed

pytestmark = pytest.mark.first

ROOT = pathlib.Path(__file__).parent.parent


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def together(count, *arguments, devices=2, dtype='float64', script=CASES_FILE):
    """Starts so many processes of a script, sharding_cases.py, and waits for them."""
    port, running = free_port(), []
    for index in range(count):
        own = environment(devices, dtype) | {
            'JAXINV_COORDINATOR': f'127.0.0.1:{port}',
            'JAXINV_NUM_PROCESSES': str(count),
            'JAXINV_PROCESS_ID': str(index),
        }
        command = [sys.executable, str(script), *map(str, arguments)]
        running.append(
            subprocess.Popen(
                command, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        )
    try:
        errors = [process.communicate(timeout=limits.SECONDS)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    for process, error in zip(running, errors, strict=True):
        assert process.returncode == 0, error[-3000:]


@pytest.mark.long
def test_two_processes_give_the_numbers_of_one(tmp_path):
    together(2, tmp_path / 'two.npz', 'shared:2,2')
    together(1, tmp_path / 'one.npz', 'shared:1')
    found = dict(np.load(tmp_path / 'one.npz')) | dict(np.load(tmp_path / 'two.npz'))
    assert largest_difference(found, 'shared:2,2') < 1e-12
    assert largest_difference(found, 'shared:2,2', 'result') < 1e-12


@pytest.mark.exhaustive
def test_two_processes_are_fed_their_own_pictures(tmp_path):
    together(2, tmp_path / 'two.npz', 'fed:2', devices=1)
    together(1, tmp_path / 'one.npz', 'shared:1')
    found = dict(np.load(tmp_path / 'one.npz')) | dict(np.load(tmp_path / 'two.npz'))
    assert largest_difference(found, 'fed:2', plain='shared:1') < 1e-12
    assert largest_difference(found, 'fed:2', 'result', plain='shared:1') < 1e-12


@pytest.mark.exhaustive
def test_any_number_of_processes_goes_on_with_what_others_saved(tmp_path):
    together(2, tmp_path / 'a.npz', 'each:4', 'shared:4>', 'sam:4')
    together(1, tmp_path / 'b.npz', 'shared:1', 'each:1', 'sam:1', 'shared:>1', 'each:2>')
    together(2, tmp_path / 'c.npz', 'each:>2,2')
    found = {}
    for part in 'abc':
        found |= dict(np.load(tmp_path / f'{part}.npz'))
    for case in ('each:4', 'sam:4'):
        assert largest_difference(found, case) < 1e-12, case
    for case in ('each:4', 'sam:4', 'shared:>1', 'each:>2,2'):
        assert largest_difference(found, case, 'result') < 1e-11, case


# --- The command ---

# Scores that compile quickly.
QUICK = ('--config.scores=psnr', '--config.edits=()')


@contextlib.contextmanager
def launched(count, work, *options, config='pti_multi_id:test', program=('-m', 'jaxinv.launch')):
    """The command in `count` processes, which are killed at the end."""
    port, running = free_port(), []
    for index in range(count):
        command = [sys.executable, *program, f'--config={config}']
        command += [f'--workdir={work}', *options]
        if count > 1:
            command += [f'--coordinator=127.0.0.1:{port}', f'--num_processes={count}']
            command += [f'--process_id={index}', '--heartbeat=10']
        own = environment(1, 'float32')
        with open(work.parent / f'log{index}', 'w') as log:
            running.append(
                subprocess.Popen(command, cwd=ROOT, env=own, stdout=log, stderr=subprocess.STDOUT)
            )
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


def wait_for(work, text, running):
    """Waits until process 0 has said so."""
    end = time.time() + limits.SECONDS
    while text not in (work.parent / 'log0').read_text():
        assert time.time() < end and all(p.poll() is None for p in running), said(work)
        time.sleep(0.05)


def said(work):
    return {path.name: path.read_text()[-2000:] for path in work.parent.glob('log*')}


@pytest.mark.long
def test_sigterm_to_one_saves_on_all_and_one_alone_goes_on(tmp_path):
    work = tmp_path / 'work'
    with launched(2, work, *QUICK) as running:
        wait_for(work, 'project    2/4', running)
        running[1].send_signal(signal.SIGTERM)
        assert [p.wait(timeout=limits.SECONDS) for p in running] == [distributed.PREEMPTED] * 2, (
            said(work)
        )
    assert 'stopped by SIGTERM' in said(work)['log0'] and (work / 'state' / 'project').is_dir()
    assert 'project' not in said(work)['log1']  # process 0 speaks for all
    with launched(1, work, *QUICK) as running:
        assert running[0].wait(timeout=limits.SECONDS) == 0, said(work)
    assert 'going on after step' in said(work)['log0']
    assert (work / 'report.html').is_file()


@pytest.mark.long
def test_a_killed_process_ends_the_other_with_a_sentence(tmp_path):
    work = tmp_path / 'work'
    with launched(2, work, *QUICK) as running:
        wait_for(work, 'project    2/4', running)
        running[1].send_signal(signal.SIGKILL)
        start = time.time()
        assert running[0].wait(timeout=limits.SECONDS) == distributed.PEER_LOST, said(work)
        assert time.time() - start < 60  # of a heartbeat of 10
    # That the same command goes on is shown by an exhaustive test of test_failures.py.
    assert 'run the same command again' in said(work)['log0']


@pytest.mark.exhaustive
def test_sigterm_to_a_single_process_saves(tmp_path):
    work = tmp_path / 'work'
    with launched(1, work) as running:
        wait_for(work, 'project    2/4', running)
        running[0].send_signal(signal.SIGTERM)
        assert running[0].wait(timeout=limits.SECONDS) == distributed.PREEMPTED, said(work)
    assert 'stopped by SIGTERM' in said(work)['log0']


@pytest.mark.long
def test_processes_that_do_not_meet_say_so(tmp_path):
    with launched(2, tmp_path / 'work', '--timeout=5') as running:
        running[0].kill()
        assert running[1].wait(timeout=limits.SECONDS) == distributed.PEER_LOST
    assert 'within 5 s' in said(tmp_path / 'work')['log1']
    assert 'did not meet at 127.0.0.1' in said(tmp_path / 'work')['log1']


FAILING = """
import sys, types
from jaxinv import launch, settings
from jaxinv.runtime import distributed

def run(config, path, *, overwrite, log):
    path.parent.joinpath(f'met{len(distributed.allgather_int(1))}').touch()
    raise ConnectionResetError(104, 'Connection reset by peer')

sys.modules['failing'] = types.SimpleNamespace(run=run)
settings.METHODS['invert'] = settings.METHODS['invert']._replace(module='failing')
launch.run()
"""


@pytest.mark.long
def test_a_connection_error_of_the_program_keeps_its_traceback(tmp_path):
    work = tmp_path / 'work'
    with launched(2, work, program=('-c', FAILING)) as running:
        assert [p.wait(timeout=limits.SECONDS) for p in running] == [1, 1], said(work)
    assert (tmp_path / 'met2').exists()
    for text in said(work).values():
        assert 'ConnectionResetError: [Errno 104] Connection reset by peer' in text
        assert 'Traceback' in text and 'another one ended' not in text


# --- Addresses ---


def test_flags_come_first_then_variables_then_the_cluster():
    ours = {
        'JAXINV_COORDINATOR': 'b:2',
        'JAXINV_NUM_PROCESSES': '4',
        'JAXINV_PROCESS_ID': '3',
        'SLURM_STEP_NUM_TASKS': '8',
    }
    assert cluster.process_from('a:1', 2, 0, ours)[:3] == ('a:1', 2, 0)
    assert cluster.process_from(None, None, None, ours)[:3] == ('b:2', 4, 3)
    for several in ({'SLURM_STEP_NUM_TASKS': '8'}, {'TPU_WORKER_HOSTNAMES': 'a,b'}):
        found = cluster.process_from(None, None, None, several)
        assert found[:3] == (None, None, None)
        (name,) = several
        assert name in cluster.announcement(found) and '--num_processes=1' in cluster.announcement(
            found
        )
        assert cluster.process_from(None, 1, None, several) is None
    for alone in ({}, {'SLURM_STEP_NUM_TASKS': '1'}, {'TPU_WORKER_HOSTNAMES': 'localhost'}):
        assert cluster.process_from(None, None, None, alone) is None
    assert cluster.process_from('cluster', None, None, {})[:3] == (None, None, None)
    assert not cluster.announcement(cluster.Process('a:1', 2, 0))
    assert cluster.process_from('a:1', 1, 0, {}) is None


@pytest.mark.parametrize(
    'given,expected',
    [
        (('a:1', None, None), '--num_processes and --process_id are missing'),
        ((None, 2, 0), '--coordinator is missing'),
        (('a', 2, 0), 'HOST:PORT'),
        (('a:70000', 2, 0), 'HOST:PORT'),
        (('a:1', 2, 2), 'from 0 to 1'),
        (('a:1', 0, 0), 'from 0 to 0'),
    ],
)
def test_half_a_wish_gets_a_sentence(given, expected):
    with pytest.raises(JaxinvError, match=expected) as error:
        cluster.process_from(*given, {})
    assert '\n' not in str(error.value)
    with pytest.raises(JaxinvError, match='whole numbers'):
        cluster.process_from(None, None, None, {'JAXINV_PROCESS_ID': 'two'})


def test_alone_one_agrees_with_oneself():
    assert distributed.allgather_int(3) == [3] and distributed.broadcast_str('ä') == 'ä'

    @contextlib.contextmanager
    def manager():
        yield {'a': 1}

    with distributed.entered_by_primary(manager()) as value:
        assert value == {'a': 1}

    @contextlib.contextmanager
    def refusing():
        raise JaxinvError('no')
        yield

    with pytest.raises(JaxinvError, match='no'):
        with distributed.entered_by_primary(refusing()):
            pass


def test_sigterm_is_kept_until_it_may_stop():
    before = signal.getsignal(signal.SIGTERM)
    try:
        distributed.handle_sigterm()
        with distributed.defer_sigterm():
            distributed.raise_if_preempted()
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(distributed.Preempted):
                distributed.raise_if_preempted()
        with pytest.raises(distributed.Preempted):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
    finally:
        distributed._received = False
        signal.signal(signal.SIGTERM, before)
