"""A few rows for many identities: the results of all at once, also after interruptions."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import PIL.Image
import pytest
from test_experiment import load_config
from test_sharding import largest_difference
from test_sharding import run as run_cases

import jaxinv
from jaxinv import optimize
from jaxinv.errors import JaxinvError
from jaxinv.experiments import pti
from jaxinv.optimize import checkpoints, continuous_batching
from jaxinv.optimize.sharding import Sharding
from jaxinv.runtime import metrics_log

KEY, STEPS, COUNT = jax.random.key(0), 15, 7
TARGETS = np.random.RandomState(0).randn(COUNT, 2).astype(np.float32)
METRICS = ('loss', 'distance')


def objective(variables, args, step, key):
    examples = args['examples']
    steps = step - examples['start_step']

    def noise(identity, step):
        return jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, identity), step))

    distance = jnp.sum((variables['x'] - examples['target']) ** 2, axis=1)
    loss = distance + 1e-2 * jax.vmap(noise)(examples['ids'], steps) * variables['x'].sum(axis=1)
    return loss.sum(), {'loss': loss, 'distance': distance}


@functools.cache
def make_loop():
    optimizer = optimize.vmap_optimizer(optax.adam(0.1))
    update = optimize.gradient_update(objective, optimizer)
    rule = optimize.StoppingRule('distance', 0.3, per_example=True)
    axes = optimize.BatchAxes(variables=True, args={'examples': 0})
    return optimize.make_loop(update, optimizer, METRICS, chunk_steps=4, stopping=rule, axes=axes)


def prepare(which, shard, targets=TARGETS):
    examples = {
        'target': jnp.asarray(targets[which], float),
        'ids': jnp.arange(COUNT)[which],
        'start_step': jnp.zeros(len(which), jnp.int32),
    }
    loop = make_loop()
    return loop.init({'x': jnp.zeros([len(which), 2])}, len(which)), {'examples': examples}


def run(folder, rows=4, prepare=prepare, stop_after=None, on_table=None):
    """({identity: Finished}, traces), or up to an interruption after some chunks."""
    finished, chunks = {}, []

    def finish(one):
        variables = one.variables and np.array(one.variables['x'])
        finished[one.identity] = one._replace(variables=variables)

    def on_chunk(step, table, traces):
        chunks.append(step)
        if on_table is not None:
            on_table(jax.tree.map(np.copy, table))
        assert len(table.occupied()) <= rows
        if len(chunks) == stop_after:
            raise KeyboardInterrupt

    traces = continuous_batching.run(
        make_loop(),
        Sharding(),
        prepare,
        KEY,
        STEPS,
        METRICS,
        count=COUNT,
        slots=rows,
        saved=checkpoints.LoopCheckpoints(pathlib.Path(folder), STEPS),
        finish=finish,
        on_chunk=on_chunk,
    )
    return finished, traces


@pytest.fixture(scope='module')
def together():
    """All at once: the final variables, and the traces."""
    state, args = prepare(np.arange(COUNT), 0)
    state, traces = optimize.run(make_loop(), state, args, KEY, STEPS)
    return np.array(state.variables['x']), traces


@pytest.mark.parametrize(
    'rows',
    [3, pytest.param(1, marks=pytest.mark.long), pytest.param(9, marks=pytest.mark.exhaustive)],
)
def test_any_number_of_rows_gives_the_numbers_of_all_at_once(together, rows, tmp_path):
    before = len(make_loop().compiled)
    left, traces = run(tmp_path, rows=rows)
    assert len(make_loop().compiled) == before + 1
    x, expected = together
    lengths = np.isfinite(expected['loss']).sum(axis=0)
    assert len(set(lengths)) > 2 and lengths.max() == STEPS > lengths.min(), lengths
    # In float32 programs for more or fewer rows round differently; see float64 below.
    for i in range(COUNT):
        np.testing.assert_allclose(left[i].variables, x[i], rtol=1e-5)
        for name in METRICS:
            own = expected[name][:, i]
            np.testing.assert_allclose(left[i].traces[name], own[: lengths[i]], rtol=1e-5)
            np.testing.assert_allclose(traces[name][:, i], own, rtol=1e-5)


@pytest.fixture(scope='module')
def straight(tmp_path_factory):
    return run(tmp_path_factory.mktemp('straight'))


@pytest.mark.parametrize(
    'stop_after',
    [4, pytest.param(1, marks=pytest.mark.long), pytest.param(6, marks=pytest.mark.exhaustive)],
)
def test_an_interrupted_run_goes_on_to_the_same_numbers(straight, stop_after, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stop_after=stop_after)
    left, traces = run(tmp_path)
    for i, one in left.items():
        np.testing.assert_array_equal(one.variables, straight[0][i].variables)
    np.testing.assert_array_equal(traces['loss'], straight[1]['loss'])
    assert not run(tmp_path)[0]  # all are finished


@pytest.mark.parametrize(
    'before,after',
    [
        (2, 3),
        pytest.param(2, 1, marks=pytest.mark.long),
        *(pytest.param(*sizes, marks=pytest.mark.exhaustive) for sizes in ((COUNT, 2), (2, COUNT))),
    ],
)
def test_an_interrupted_run_resumes_with_more_and_fewer_slots(before, after, tmp_path):
    with jax.enable_x64(True):
        straight, traces = run(tmp_path / 'straight', before)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / 'work', before, stop_after=3)
        resumed, resumed_traces = run(tmp_path / 'work', after)
    finished_before = set(straight) - set(resumed)
    assert len(finished_before) < COUNT
    for i, one in resumed.items():
        np.testing.assert_allclose(one.variables, straight[i].variables, rtol=1e-12)
    # Checkpoints hold float32 traces.
    np.testing.assert_allclose(resumed_traces['loss'], traces['loss'], rtol=1e-6)


def test_with_more_slots_rows_go_on_where_they_were(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 2, stop_after=1)
    tables = []
    run(tmp_path, 3, on_table=tables.append)
    assert tables[0].identity[:2].tolist() == [0, 1]  # after 8 of at most 15 steps
    assert tables[0].start_step.tolist() == [0, 0, 4]


def test_who_fails_leaves_and_the_others_do_not_notice(straight, tmp_path):
    targets = TARGETS.copy()
    targets[2] = np.nan
    left, _ = run(tmp_path, prepare=lambda which, shard: prepare(which, shard, targets))
    assert left[2].variables is None and left[2].error.examples == [2]
    for i in set(range(COUNT)) - {2}:
        np.testing.assert_array_equal(left[i].variables, straight[0][i].variables)


CASES = ('each:1', 'slots:1', 'slots:2,2', 'slots:1>2')


@pytest.mark.exhaustive
def test_tuning_in_slots_equals_tuning_all_at_once_on_any_devices(tmp_path):
    found = run_cases(tmp_path, 4, 'float64', CASES)
    for case in CASES[1:]:
        # Saved traces are of float32.
        assert largest_difference(found, case, plain='each:1') < 1e-6, case
        assert largest_difference(found, case, 'result', plain='each:1') < 1e-12, case


# --- The command ---


def invert(work, **tune):
    """pti_single_id of two portraits."""
    config = load_config('pti_single_id')
    config.tune.update(tune)
    pti.run(config, work, log=lambda *_, **__: None)


@pytest.mark.exhaustive
def test_a_run_in_slots_writes_each_generator_as_it_is_finished(tmp_path):
    invert(tmp_path, slots=1, save='bfloat16')
    lines = (tmp_path / metrics_log.FILE).read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record['name'] for record in records] == ['grace_hopper', 'eileen_collins']
    pivots = np.load(tmp_path / 'pivots.npz')['w']
    for i, record in enumerate(records):
        assert (
            record['steps'] == 4 and record['seconds']['tune'] > 0 and len(record['sha256']) == 64
        )
        generator, weights = jaxinv.load_generator(tmp_path / record['folder'])
        picture = generator.synthesize(weights, pivots[i : i + 1])[0]
        saved = PIL.Image.open(tmp_path / 'images' / record['name'] / 'tuned.png')
        expected = np.clip((picture[0] + 1) * 127.5, 0, 255)
        np.testing.assert_allclose(expected, np.asarray(saved, np.float32), atol=1)
    rows = [json.loads(row) for row in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    steps = [row['step'] for row in rows if row['stage'] == 'tune/eileen_collins']
    assert steps == list(range(4))
    assert set(json.loads((tmp_path / 'metrics.json').read_text())['deltas']) == {
        'grace_hopper',
        'eileen_collins',
    }


def test_slots_that_cannot_be_get_a_sentence(tmp_path):
    for settings, expected in (
        ({'slots': -1}, 'at least 0'),
        ({'slots': 2, 'shared': True}, 'use pti_single_id'),
    ):
        with pytest.raises(JaxinvError, match=expected):
            invert(tmp_path / 'none', **settings)
