"""What goes wrong in the middle of a run: kills, damaged checkpoints, a full disk, a second run."""

import json
import random
import resource
import shutil
import signal
import time

import jax.numpy as jnp
import limits
import numpy as np
import optax
import pytest
from test_distributed import launched, said, wait_for

from jaxinv.optimize import LoopState, checkpoints
from jaxinv.runtime import distributed, workdir

SETTINGS = ('--config.data.align=none', '--config.pivot.num_steps=20', '--config.tune.num_steps=20')


def state_at(step):
    w = jnp.arange(2000.0) + step
    return LoopState(jnp.int32(step), jnp.zeros(1, bool), w, optax.sgd(0.1).init(w))


# A writer of Orbax's that comes too late; the error itself is raised, and looked at.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_a_full_disk_is_recognised_and_the_last_checkpoint_stays(tmp_path):
    saved = checkpoints.LoopCheckpoints(tmp_path, 4)
    saved.save(state_at(2), {'loss': np.ones((2, 1))})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        # A limit of file size is met in the very calls that a full disk is.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(Exception) as failed:
            saved.save(state_at(4), {'loss': np.ones((4, 1))})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert workdir.no_room(failed.value)
    assert not workdir.no_room(ValueError('shapes differ')) and not workdir.no_room(OSError(2, ''))
    again = checkpoints.LoopCheckpoints(tmp_path, 4)
    state, traces, _ = again.restore(state_at(0), ('loss',))
    assert int(state.step) == 2 and traces['loss'].shape == (2, 1)
    np.testing.assert_array_equal(state.variables, state_at(2).variables)
    again.save(state_at(4), {'loss': np.ones((4, 1))})
    assert int(again.restore(state_at(0), ('loss',))[0].step) == 4


@pytest.mark.exhaustive
def test_a_run_killed_at_ten_random_moments_ends_as_if_it_had_not_been(tmp_path):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'b').mkdir()
    whole, killed = tmp_path / 'a' / 'work', tmp_path / 'b' / 'work'
    start = time.time()
    with launched(2, whole, *SETTINGS) as running:
        assert [p.wait(timeout=limits.SECONDS) for p in running] == [0, 0], said(whole)
    seconds, chance, reached = time.time() - start, random.Random(0), []
    for _ in range(40):
        with launched(2, killed, *SETTINGS) as running:
            victim = chance.randrange(2)
            time.sleep(chance.uniform(0.2, 1.0) * seconds)
            late = all(p.poll() is not None for p in running)
            running[victim].send_signal(signal.SIGKILL)
            other = running[1 - victim].wait(timeout=limits.SECONDS)
            # It may have ended before; alone it must not go on, nor end without a sentence.
            assert other in (0, distributed.PEER_LOST), said(killed)
        if late:  # to be killed: from the start again, and sooner
            shutil.rmtree(killed)
            seconds *= 0.7
            continue
        reached.append(sorted(p.name for p in killed.glob('state/*/[0-9]*')))
        if len(reached) == 10:
            break
    assert len(reached) == 10
    with launched(2, killed, *SETTINGS) as running:
        assert [p.wait(timeout=limits.SECONDS) for p in running] == [0, 0], said(killed)
    assert len({tuple(r) for r in reached}) > 1, reached  # they were indeed in the middle
    one, two = (json.loads((w / 'metrics.json').read_text())['mean'] for w in (whole, killed))
    for stage in one:
        assert two[stage] == pytest.approx(one[stage], rel=1e-5), stage
    lines = [json.loads(line) for line in (killed / 'metrics.jsonl').read_text().splitlines()]
    steps = [(line['stage'], line['step']) for line in lines]
    assert steps == [(stage, i) for stage in ('project', 'tune') for i in range(20)]


@pytest.mark.exhaustive
def test_what_one_process_cannot_read_all_leave_out(tmp_path):
    work = tmp_path / 'work'
    with launched(2, work, *SETTINGS) as running:
        wait_for(work, 'project    6/20', running)
        running[0].send_signal(signal.SIGTERM)
        assert [p.wait(timeout=limits.SECONDS) for p in running] == [distributed.PREEMPTED] * 2, (
            said(work)
        )
    steps = sorted((int(p.name) for p in (work / 'state' / 'project').iterdir()), reverse=True)
    newest = work / 'state' / 'project' / str(steps[0])
    own = [p for p in newest.glob('**/ocdbt.process_1/d/*') if p.is_file()]
    own = own or [p for p in newest.glob('default/d/*') if p.is_file()]
    for path in own:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with launched(2, work, *SETTINGS) as running:
        assert [p.wait(timeout=limits.SECONDS) for p in running] == [0, 0], said(work)
    log = (tmp_path / 'log0').read_text()
    assert f'Checkpoint {steps[0]} is damaged' in log, log
    assert f'going on after step {steps[1]}' in log


@pytest.mark.exhaustive
def test_a_second_run_in_the_same_folder_refuses(tmp_path):
    work, second = tmp_path / 'work', tmp_path / 'second'
    second.mkdir()
    with launched(2, work, *SETTINGS) as running:
        wait_for(work, 'project    2/20', running)
        (second / 'link').symlink_to(work)  # the same folder by another name, logs of their own
        with launched(2, second / 'link', *SETTINGS) as others:
            assert [p.wait(timeout=limits.SECONDS) for p in others] == [1, 1]
        assert 'another run is at work in' in (second / 'log0').read_text()
        assert 'Traceback' not in (second / 'log0').read_text() + (second / 'log1').read_text()
        assert [p.wait(timeout=limits.SECONDS) for p in running] == [0, 0], said(work)
