"""The runner: the numbers of all at once, and after any interruption, with and without a folder."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxinv import optimize
from jaxinv.optimize import runner
from jaxinv.optimize.runner import LoopTask, Runner

KEY, STEPS = jax.random.key(0), 6
NAMES = ('ada', 'bob', 'cyd', 'dot', 'eve')
TARGETS = np.random.RandomState(0).randn(len(NAMES), 2).astype(np.float32)
KINDS = {'near': 1.0, 'far': 10.0}
METRICS = ('loss',)


def objective(variables, args, step, key):
    def noise(identity):
        return jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, identity), step))

    loss = jnp.sum((variables['x'] - args['target']) ** 2, axis=1)
    loss = loss + 1e-2 * jax.vmap(noise)(args['ids']) * variables['x'].sum(axis=1)
    return loss.sum(), {'loss': loss}


@functools.cache
def make_loop():
    optimizer = optax.adam(0.1)
    update = optimize.gradient_update(objective, optimizer)
    axes = optimize.BatchAxes(variables=True, args={'target': 0, 'ids': 0})
    return optimize.make_loop(update, optimizer, METRICS, chunk_steps=2, axes=axes)


def run(folder, batch_per_device, targets=TARGETS, stop_at=''):
    """({kind: [n, 2]}, traces, lines), or up to where a line begins like `stop_at`."""
    lines = []

    def log(text, **_):
        lines.append(text)
        if stop_at and text.startswith(stop_at):
            raise KeyboardInterrupt

    def make_task(rows):
        assert len(rows) <= (batch_per_device or len(NAMES))
        scales = np.repeat(list(KINDS.values()), len(rows))[:, None]
        rows = np.tile(rows, len(KINDS))

        def prepare(which, shard):
            args = {'target': jnp.asarray((targets[rows] * scales)[which], jnp.float32)}
            x = jnp.zeros([len(rows), 2])[which]
            return make_loop().init({'x': x}, len(x)), args | {'ids': jnp.asarray(rows[which])}

        def result(variables):
            return dict(zip(KINDS, jnp.split(variables['x'], len(KINDS)), strict=True))

        return LoopTask(make_loop(), prepare, KEY, STEPS, METRICS, result, kinds=tuple(KINDS))

    own = Runner(NAMES, folder=folder, log=log)
    found, traces = own.run('search', make_task, batch_per_device=batch_per_device)
    assert all(type(x) is np.ndarray for x in found.values())
    return found, traces['loss'], lines


@pytest.fixture(scope='module')
def together(tmp_path_factory):
    return run(tmp_path_factory.mktemp('together'), 0)


def test_batches_end_as_all_at_once(together, tmp_path):
    before = len(make_loop().compiled)
    found, losses, lines = run(tmp_path, 2)
    assert len(make_loop().compiled) == before + 2  # of two rows and of the last one
    for kind, expected in together[0].items():
        np.testing.assert_allclose(found[kind], expected, rtol=1e-5)
    np.testing.assert_allclose(losses, together[1], rtol=1e-5)
    assert losses.shape == (STEPS, len(KINDS) * len(NAMES))
    assert 'search/4    2/6' in lines[6] and lines[6].endswith('compilation')
    # Each step of each batch is there once, with the names of its own.
    lines_of_file = (tmp_path / 'metrics.jsonl').read_text().splitlines()
    records = [json.loads(line) for line in lines_of_file]
    steps = [(f'search/{start}', step) for start in (0, 2, 4) for step in range(STEPS)]
    assert [(r['stage'], r['step']) for r in records] == steps
    assert {'loss/cyd near', 'loss/dot far'} <= set(records[STEPS]) and len(records[STEPS]) == 7
    np.testing.assert_allclose(records[-1]['loss/eve far'], losses[-1, -1], rtol=1e-6)


@pytest.mark.parametrize('stop_at', ['search/0    4/6', 'search/2    4/6'])
def test_an_interrupted_batch_goes_on_to_the_same_numbers(stop_at, tmp_path):
    straight = run(tmp_path / 'straight', 2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / 'work', 2, stop_at=stop_at)
    found, losses, lines = run(tmp_path / 'work', 2)
    assert f'{stop_at[:8]}: going on after step 2.' in lines
    for kind, expected in straight[0].items():
        np.testing.assert_array_equal(found[kind], expected)
    np.testing.assert_array_equal(losses, straight[1])
    records = [(tmp_path / work / 'metrics.jsonl').read_text() for work in ('straight', 'work')]
    assert records[0] == records[1]


@pytest.mark.parametrize('batch_per_device', [0, 3, 1])
def test_it_goes_on_with_larger_and_smaller_batches(together, batch_per_device, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 2, stop_at='search/2    6/6')
    found, losses, lines = run(tmp_path, batch_per_device)
    # Larger batches would need rows that are not in the checkpoints, and so these keep their size.
    assert ('search/2: going on after step 4.' in lines) == (batch_per_device != 1)
    for kind, expected in together[0].items():
        np.testing.assert_allclose(found[kind], expected, rtol=1e-5)
    np.testing.assert_allclose(losses, together[1], rtol=1e-5)


def test_batches_that_are_begun_stay_where_they_are_no_larger():
    assert runner.split(5, 2) == [range(2), range(2, 4), range(4, 5)]
    assert runner.split(4, 9) == [range(4)]
    assert runner.split(9, 4, {0: 2, 2: 4}) == [range(2), range(2, 4), range(4, 8), range(8, 9)]
    assert runner.split(9, 4, {0: 8}) == [range(4), range(4, 8), range(8, 9)]


def test_whose_numbers_become_infinite_is_named_by_the_number_of_all(tmp_path):
    targets = TARGETS.copy()
    targets[3] = np.nan
    with pytest.raises(optimize.NotFinite, match='dot near, dot far') as caught:
        run(tmp_path, 2, targets)
    assert caught.value.examples == [3]


def test_without_a_folder_nothing_is_written_and_the_callback_sees_every_chunk(together, tmp_path):
    calls = []

    def callback(stage, step, num_steps, metrics):
        calls.append((stage, step, num_steps, metrics['loss'].shape))

    def make_task(rows):
        def prepare(which, shard):
            own = rows[which]
            args = {'target': jnp.asarray(TARGETS[own]), 'ids': jnp.asarray(own)}
            return make_loop().init({'x': jnp.zeros([len(own), 2])}, len(own)), args

        return LoopTask(make_loop(), prepare, KEY, STEPS, METRICS, lambda v: v['x'])

    x, traces = Runner(NAMES, callback=callback).run('search', make_task)
    np.testing.assert_allclose(x, together[0]['near'], rtol=1e-5)
    assert calls == [('search', step, STEPS, (5,)) for step in (2, 4, 6)]
    assert traces['loss'].shape == (STEPS, 5) and not list(tmp_path.iterdir())
