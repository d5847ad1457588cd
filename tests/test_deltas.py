"""Deltas: restored to the error they state, only onto their own base; low rank against an SVD."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict
from test_experiment import load_config

import jaxinv
from jaxinv.errors import JaxinvError
from jaxinv.experiments import pti
from jaxinv.settings import Saving, Tuning
from jaxinv.weights import deltas
from jaxinv.weights.deltas import Base
from jaxinv.weights.load import save_generator

BFLOAT16 = Saving(save='bfloat16')


def moved(weights, size=1e-3, seed=0):
    """Every parameter moved by numbers of about `size`, as Adam moves them; buffers as they are."""
    rng = np.random.RandomState(seed)
    return {
        'params': jax.tree.map(
            lambda x: x + np.float32(size) * rng.standard_normal(x.shape).astype(np.float32),
            weights['params'],
        ),
        'buffers': weights['buffers'],
    }


def flat_of(weights):
    return {name: np.asarray(x) for name, x in flatten_dict(weights, sep='/').items()}


def largest_difference(a, b):
    a, b = flat_of(a), flat_of(b)
    return max(float(np.abs(a[name] - b[name].astype(np.float64)).max()) for name in a)


@pytest.fixture
def saved(tiny, tmp_path):
    def save(settings, weights=None, source='tiny'):
        tuned = moved(tiny[1]) if weights is None else weights
        base = Base.of(source, 32, tiny[1])
        facts, _ = deltas.write(tmp_path / 'one', base, tuned, settings)
        return tuned, facts, tmp_path / 'one'

    return save


@pytest.mark.parametrize(
    'settings', [BFLOAT16, Saving(save='low_rank', rank=2), Saving(save='low_rank', rank=8)]
)
def test_loaded_generator_has_exactly_the_stated_error(tiny, saved, settings):
    tuned, facts, folder = saved(settings)
    generator, weights = jaxinv.load_generator(folder)
    assert generator.spec == tiny[0].spec
    assert largest_difference(tuned, weights) == facts['largest_error'] > 0
    file = folder / deltas.DELTA_FILE
    assert facts['bytes'] == file.stat().st_size
    assert 0 < facts['rms_error'] < facts['rms_moved'] < 1.1e-3
    header = json.loads((folder / deltas.SIDECAR).read_text())
    assert header == deltas.read(file).header
    assert header['base']['generator'] == 'tiny'
    assert header['largest_error'] == facts['largest_error']


def test_bfloat16_is_off_by_a_part_in_256_of_each_difference(tiny, saved):
    tuned, facts, folder = saved(BFLOAT16)
    _, weights = jaxinv.load_generator(folder / deltas.DELTA_FILE)
    base, tuned, restored = flat_of(tiny[1]), flat_of(tuned), flat_of(weights)
    for name, before in base.items():
        bound = 2.0**-8 * np.abs(tuned[name] - before) + 2.0**-23 * np.abs(tuned[name])
        assert (np.abs(restored[name] - tuned[name]) <= bound).all(), name
    assert facts['share'] < 0.55


@pytest.mark.parametrize('shape', [(40, 24), (3, 3, 8, 16), (6, 50)])
def test_low_rank_is_as_near_as_any_matrix_of_its_rank(shape):
    rng = np.random.RandomState(1)
    before = rng.standard_normal(shape).astype(np.float32)
    step = rng.standard_normal(shape) * 1e-3
    after = (before + step).astype(np.float32)
    arrays = deltas.encode({'x': before}, {'x': after}, Saving(save='low_rank', rank=3))
    assert set(arrays) == {'x:left', 'x:right'}
    restored = deltas.decode({'x': before}, arrays)['x']
    matrix = (after - before).reshape(-1, shape[-1]).astype(np.float64)
    values = np.linalg.svd(matrix, compute_uv=False)
    best = np.sqrt((values[3:] ** 2).sum())
    error = np.linalg.norm(restored.astype(np.float64) - after)
    assert best * 0.999 <= error <= best * 1.005 + 1e-6


def test_what_has_a_low_rank_is_kept_nearly_whole():
    rng = np.random.RandomState(2)
    step = rng.standard_normal((64, 2)) @ rng.standard_normal((2, 48))
    after = {'x': step.astype(np.float32)}
    base = {'x': np.zeros_like(after['x'])}
    restored = deltas.decode(base, deltas.encode(base, after, Saving(save='low_rank', rank=2)))['x']
    assert np.abs(restored - after['x']).max() < 2.0**-7 * np.abs(step).max()


def test_arrays_that_did_not_move_take_no_room(tiny, saved):
    same, facts, folder = saved(BFLOAT16, weights=tiny[1])
    assert not deltas.read(folder / deltas.DELTA_FILE).arrays and facts['largest_error'] == 0
    assert largest_difference(jaxinv.load_generator(folder)[1], same) == 0


def test_another_base_is_refused_and_the_right_one_can_be_named(tiny, tmp_path, saved):
    other = tmp_path / 'base'
    save_generator(other, *tiny)
    tuned, facts, folder = saved(BFLOAT16, source=str(other))
    save_generator(other, tiny[0], moved(tiny[1], seed=5))
    with pytest.raises(JaxinvError, match='another generator') as error:
        jaxinv.load_generator(folder)
    assert '\n' not in str(error.value) and 'base=' in str(error.value)
    _, weights = jaxinv.load_generator(folder, base='tiny')
    assert largest_difference(tuned, weights) == facts['largest_error']


def test_the_last_bits_of_the_computed_average_do_not_matter(tiny, saved):
    tuned, facts, folder = saved(BFLOAT16)
    delta = deltas.read(folder / deltas.DELTA_FILE)
    buffers = tiny[1]['buffers'] | {'w_avg': tiny[1]['buffers']['w_avg'] * (1 + 1e-6)}
    deltas.restore(delta, tiny[1] | {'buffers': buffers})


def test_a_base_that_is_gone_and_endless_bases_get_a_sentence(tmp_path, saved):
    _, _, folder = saved(BFLOAT16, source=str(tmp_path / 'gone'))
    with pytest.raises(JaxinvError, match='gone.*could not be opened.*base=FILE'):
        jaxinv.load_generator(folder)
    _, _, folder = saved(BFLOAT16, source=str(folder))
    with pytest.raises(JaxinvError, match='more than 8 deltas in a chain'):
        jaxinv.load_generator(folder)


def rewritten(file, change):
    """The file with its header and arrays changed by change(header, arrays), its hash renewed."""
    delta = deltas.read(file)
    header, arrays = dict(delta.header), dict(delta.arrays)
    change(header, arrays)
    arrays = {name: np.array(x, order='C') for name, x in arrays.items()}
    metadata = {deltas.HEADER: json.dumps(header), 'sha256': deltas._digest(arrays)}
    file.write_bytes(safetensors.numpy.save(arrays, metadata))


@pytest.mark.parametrize(
    'change,expected',
    [
        (lambda h, a: h.update(base='tiny'), 'sound header'),
        (lambda h, a: h['base'].update(generator=3), 'sound header'),
        (lambda h, a: h['base'].update(options={'layers': []}), 'sound header'),
        (lambda h, a: h['base'].update(options={'truncation': 'x'}), 'sound header'),
        (lambda h, a: h['base'].update(options=[]), 'sound header'),
        (lambda h, a: a.update(extra=np.zeros(3, jnp.bfloat16)), 'no array for extra'),
        (
            lambda h, a: a.update({k: np.zeros([7, 7], jnp.bfloat16) for k in a if ':' not in k}),
            r'\[7, 7\]',
        ),
        (
            lambda h, a: a.update({k: v[..., :1] for k, v in a.items() if k.endswith(':left')}),
            'fit each other',
        ),
        (
            lambda h, a: a.update({k: v[..., 1:] for k, v in a.items() if k.endswith(':right')}),
            'do not fit',
        ),
    ],
)
def test_files_that_do_not_fit_get_a_sentence(saved, change, expected):
    _, _, folder = saved(Saving(save='low_rank', rank=2))
    rewritten(folder / deltas.DELTA_FILE, change)
    with pytest.raises(JaxinvError, match=expected) as error:
        jaxinv.load_generator(folder)
    assert '\n' not in str(error.value)


def test_damaged_bytes_are_noticed(saved):
    _, _, folder = saved(BFLOAT16)
    file = folder / deltas.DELTA_FILE
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    with pytest.raises(JaxinvError, match='damaged'):
        jaxinv.load_generator(folder)
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(JaxinvError, match='or is damaged'):
        jaxinv.load_generator(folder)


@pytest.mark.parametrize(
    'settings,expected',
    [
        (Saving(save='float16'), "'float16'; it can be 'full', 'bfloat16' or 'low_rank'"),
        (Saving(save='low_rank', rank=0), 'rank is 0'),
        (Tuning(save='bfloat16'), 'pti_single_id'),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings, expected):
    with pytest.raises(JaxinvError, match=expected):
        settings.check()


def test_a_delta_of_a_delta_loads(tiny, tmp_path, saved):
    first, _, folder = saved(BFLOAT16)
    _, start = jaxinv.load_generator(folder)
    second = moved(start, seed=3)
    base = Base.of(str(folder), None, start)
    facts, _ = deltas.write(tmp_path / 'two', base, second, BFLOAT16)
    assert (
        largest_difference(jaxinv.load_generator(tmp_path / 'two')[1], second)
        == (facts['largest_error'])
    )


@pytest.mark.exhaustive
def test_a_run_keeps_deltas_and_says_what_they_cost(tmp_path):
    config = load_config('pti_single_id')
    config.tune.save, config.tune.rank = 'low_rank', 4
    path = tmp_path / 'work'
    pti.run(config, path, log=lambda *_, **__: None)
    result = json.loads((path / 'metrics.json').read_text())
    assert set(result['deltas']) == set(result['identities'])
    pivots = np.load(path / 'pivots.npz')
    for i, (name, found) in enumerate(result['deltas'].items()):
        folder = path / 'generators' / name
        assert {p.name for p in folder.iterdir()} == {deltas.DELTA_FILE, deltas.SIDECAR}
        assert pathlib.Path(folder, deltas.DELTA_FILE).stat().st_size == found['bytes']
        generator, weights = jaxinv.load_generator(folder)
        pictures, _ = generator.synthesize(weights, pivots['w'][i : i + 1])
        assert np.isfinite(pictures).all() and 20 < found['psnr']
        tuned = result['identities'][name]['tuned']['lpips_alex']
        assert found['to_target']['full'] == pytest.approx(tuned, rel=1e-4)
    with pytest.raises(JaxinvError, match='one generator per identity'):
        jaxinv.load_generator(path)
    assert 'Generators kept as differences (low_rank, rank 4)' in (path / 'report.html').read_text()
