"""The numbers, what is sent and what is saved are the same on any number of devices."""

import collections
import os
import pathlib
import subprocess
import sys

import jax
import limits
import numpy as np
import pytest

from benchmarks import collectives
from jaxinv import errors
from jaxinv.inversion import pti
from jaxinv.optimize import sharding

pytestmark = pytest.mark.first

TESTS = pathlib.Path(__file__).parent
CASES_FILE = TESTS / 'sharding_cases.py'


def environment(devices, dtype):
    """Of a process with so many virtual devices."""
    return os.environ | {
        'JAX_PLATFORMS': 'cpu',
        'JAX_NUM_CPU_DEVICES': str(devices),
        'JAX_ENABLE_X64': '1' if dtype == 'float64' else '0',
        'PYTHONPATH': os.pathsep.join([str(TESTS.parent), str(TESTS)]),
    }


def run(folder, devices, dtype, cases):
    """What sharding_cases.py says about the cases, on so many virtual devices."""
    out = folder / 'cases.npz'
    done = subprocess.run(
        [sys.executable, str(CASES_FILE), str(out), *cases],
        env=environment(devices, dtype),
        capture_output=True,
        text=True,
        timeout=limits.SECONDS,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(np.load(out))


def leaves(found, case, group):
    start = f'{case}/{group}/'
    return {name.removeprefix(start): x for name, x in found.items() if name.startswith(start)}


def largest_difference(found, case, group='trace', plain=''):
    """The largest difference from one device's figures, relative to the largest figure of a leaf.

    Of figures that are 0 but for rounding (the locality term at the start), relative to 1e-10.
    """
    plain = leaves(found, plain or case.partition(':')[0] + ':1', group)
    others, worst = leaves(found, case, group), 0.0
    assert plain.keys() == others.keys() and plain
    for name, x in plain.items():
        y = others[name]
        assert x.shape == y.shape and (np.isnan(x) == np.isnan(y)).all(), (name, x, y)
        worst = max(worst, np.nanmax(np.abs(x - y)) / max(np.nanmax(np.abs(x)), 1e-10))
    return worst


def messages(text):
    """[(kind, [shape, ...])] of what a compiled step sends."""
    return [(sent.kind, sent.shapes) for sent in collectives.read(text)]


def bytes_sent(text, **sizes):
    """{(kind, axis of the mesh): bytes} of what a compiled step sends."""
    found = collections.Counter()
    for sent in collectives.read(text):
        found[sent.kind, collectives.axis(sent, sizes)] += sent.bytes
    return found


CASES = (
    'shared:1', 'shared:4', 'shared:2,2', 'shared:4>2,2', 'regrouped:1>2', 'fed:2', 'each:1',
    'each:4',
)  # fmt: skip
WEAK = ('weak:2', 'weak:8', 'weak:4,2')


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    return run(tmp_path_factory.mktemp('cases'), 8, 'float64', (*CASES, *WEAK))


@pytest.mark.long
@pytest.mark.parametrize('case', ['shared:4', 'shared:2,2', 'each:4'])
def test_devices_do_not_change_the_numbers(found, case):
    assert largest_difference(found, case) < 1e-12
    assert largest_difference(found, case, 'result') < 1e-12


@pytest.mark.long
def test_identities_stop_apart_on_their_devices(found):
    rows = found['each:4/trace/lpips_alex']
    lengths = np.isfinite(rows).sum(axis=0)
    assert rows.shape[1] == 3 and len(set(lengths)) > 1, rows


@pytest.mark.long
def test_a_run_goes_on_on_other_devices(found):
    # Saved traces are of float32.
    assert largest_difference(found, 'shared:4>2,2') < 1e-6
    assert largest_difference(found, 'shared:4>2,2', 'result') < 1e-12


@pytest.mark.long
def test_microbatches_and_resident_targets_may_change_on_resume(found):
    assert largest_difference(found, 'regrouped:1>2', plain='shared:1') < 1e-6
    assert largest_difference(found, 'regrouped:1>2', 'result', plain='shared:1') < 1e-12


@pytest.mark.long
def test_targets_that_come_from_the_host_do_not_change_the_numbers(found):
    assert largest_difference(found, 'fed:2', plain='shared:1') < 1e-12
    assert largest_difference(found, 'fed:2', 'result', plain='shared:1') < 1e-12


@pytest.mark.long
@pytest.mark.parametrize(
    'case',
    [
        'shared:2,2',
        'each:4',
        *(pytest.param(case, marks=pytest.mark.exhaustive) for case in ('shared:4', 'fed:2')),
    ],
)
def test_one_program_overwrites_its_state(found, case):
    alone = 'each:1' if case == 'each:4' else 'shared:1'
    assert found[f'{case}/programs'] == 1
    assert found[f'{case}/donated'] >= found[f'{alone}/donated'] > 0.5


@pytest.mark.long
def test_tuning_together_sends_gradients_and_a_few_numbers_only(found):
    shapes = {x.shape for x in leaves(found, 'shared:1', 'result').values()}
    sent = messages(str(found['shared:4/text']))
    assert sent and {kind for kind, _ in sent} == {'all-reduce'}
    gradients = [shape for _, parts in sent for shape in parts if shape != (4, 3)]
    assert set(gradients) <= shapes  # (4, 3): metrics of three identities
    assert len(gradients) == len(leaves(found, 'shared:1', 'result'))


@pytest.mark.long
def test_divided_parameters_are_gathered_once_and_nothing_else(found):
    params = [x.shape for x in leaves(found, 'shared:1', 'result').values()]
    gathered = [
        shape
        for kind, parts in messages(str(found['shared:2,2/text']))
        for shape in parts
        if kind == 'all-gather'
    ]
    divisible = [shape for shape in params if any(size % 2 == 0 for size in shape)]
    assert sorted(gathered) == sorted(divisible)


@pytest.mark.long
def test_more_devices_with_an_identity_each_send_no_more(found):
    metrics = 4 * 8  # bytes an identity, four numbers
    params = sum(x.nbytes for x in leaves(found, 'shared:1', 'result').values())
    for devices in (2, 8):
        sent = bytes_sent(str(found[f'weak:{devices}/text']), data=devices)
        assert sent == {('all-reduce', 'data'): params + devices * metrics}
    few = bytes_sent(str(found['shared:2,2/text']), data=2, fsdp=2)
    many = bytes_sent(str(found['weak:4,2/text']), data=4, fsdp=2)
    assert few.pop(('all-reduce', 'data, fsdp')) == 3 * metrics
    assert many.pop(('all-reduce', 'data, fsdp')) == 8 * metrics
    assert many == few
    whole, part = many['all-gather', 'fsdp'], many['all-reduce', 'data']
    assert whole == many['reduce-scatter', 'fsdp'] and params / 2 <= part < 0.6 * params < whole


@pytest.mark.long
def test_a_generator_each_sends_nothing_but_whether_all_are_done(found):
    assert messages(str(found['each:4/text'])) == []


@pytest.mark.exhaustive
def test_projection_and_search_on_any_number_of_devices(tmp_path):
    meshes = ('2', '4,2')
    methods = ('projection', 'sam')
    cases = [f'{method}:{mesh}' for method in methods for mesh in ('1', *meshes, '2>8')]
    found = run(tmp_path, 8, 'float64', cases)
    for method in methods:
        for mesh in meshes:
            case = f'{method}:{mesh}'
            assert largest_difference(found, case) < 1e-12, case
            assert largest_difference(found, case, 'result') < 1e-11, case
            assert messages(str(found[f'{case}/text'])) == [], case
        assert largest_difference(found, f'{method}:2>8', 'result') < 1e-11


@pytest.mark.exhaustive
def test_tuning_on_any_number_of_devices_in_float32(tmp_path):
    """Adam turns a rounding error of a small gradient into a whole step, so that only few steps
    stay within 1e-5; float64 above shows that it is rounding."""
    methods = ('shared', 'minibatches', 'each')
    meshes = ('2', '8', '1,4')
    cases = [f'{method}:{mesh}' for method in methods for mesh in ('1', *meshes)]
    found = run(tmp_path, 8, 'float32', cases)
    for case in cases:
        assert largest_difference(found, case) < 1e-5, case


# --- Meshes and layouts ---


def test_meshes_are_read_and_wrong_ones_get_a_sentence():
    devices = jax.devices()
    assert sharding.make('', devices[:1]).mesh is None
    assert sharding.make('1,1').num_shards == 1
    for text in ('0', '2x2', '1,2,3', 'data=1,data=1', 'rows=2', '-1'):
        with pytest.raises(errors.JaxinvError, match="'D,F'"):
            sharding.make(text)
    with pytest.raises(errors.JaxinvError, match=r'takes 900 devices and there are \d'):
        sharding.make('data=300,fsdp=3')


def test_shard_indices_repeat_the_last_row():
    np.testing.assert_array_equal(sharding.shard_indices(3, 4), [[0], [1], [2], [2]])
    np.testing.assert_array_equal(sharding.shard_indices(5, 2), [[0, 1, 2], [3, 4, 4]])


@pytest.mark.parametrize('n', [1, 3, 8, 9])
@pytest.mark.parametrize(
    'batch_size,microbatch,num_shards', [(0, 1, 4), (2, 0, 2), (3, 2, 4), (0, 0, 1)]
)
def test_shares_hold_every_identity_once_a_step_with_its_weight(
    n, batch_size, microbatch, num_shards
):
    layout = pti._layout(n, batch_size, microbatch, num_shards)
    size = min(batch_size or n, n)
    parts = [pti._shard(layout, n, num_shards, i) for i in range(num_shards)]
    for start in range(0, len(layout.index), layout.accumulate_steps):
        rows = slice(start, start + layout.accumulate_steps)
        weights = np.zeros(n)
        for own in parts:
            identities = own.members[own.index[rows]]
            np.add.at(weights, identities, own.weight[rows])
            real = own.weight[rows] > 0
            np.testing.assert_array_equal(identities[real], own.example_index[rows][real])
        batch = np.arange(n)[start // layout.accumulate_steps * size :][:size]
        np.testing.assert_allclose(weights[batch], 1 / len(batch))
        assert np.isclose(weights.sum(), 1)
