"""Saved states and generators: exact, safe to damage, refused by name when they do not fit."""

import contextlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

from jaxinv.errors import JaxinvError
from jaxinv.optimize import LoopState, checkpoints
from jaxinv.runtime import distributed
from jaxinv.weights.load import load_generator, save_generator
from jaxinv.weights.store import GENERATOR_FILE


def a_state(step, shape=(3, 2)):
    variables = {'w': jnp.arange(float(np.prod(shape))).reshape(shape) + step}
    opt_state = optax.adam(0.1).init(variables)
    done = jnp.arange(shape[0]) == 0
    return LoopState(jnp.int32(step), done, variables, opt_state)


def equal(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b))


def traces_at(step, count=3):
    return {'loss': np.full((step, count), step, np.float32)}


@pytest.fixture(params=['orbax', 'independent'])
def manager(request, monkeypatch):
    """Makes LoopCheckpoints: of one process, or of one of several independent ones."""
    monkeypatch.setattr(distributed, 'is_independent', lambda: request.param == 'independent')
    return checkpoints.LoopCheckpoints


def save(manager, folder, steps, num_steps=40):
    with contextlib.closing(manager(folder, num_steps)) as saved:
        for step in steps:
            saved.save(a_state(step), traces_at(step))


def cut(folder, step):
    """Cuts every file of a checkpoint to a third."""
    paths = [folder / str(step), *(folder / str(step)).rglob('*'), folder / f'{step}.safetensors']
    files = [path for path in paths if path.is_file()]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])


def restore(manager, folder, state=None, metrics=('loss',), num_steps=40, log=print, **options):
    with contextlib.closing(manager(folder, num_steps)) as saved:
        return saved.restore(a_state(0) if state is None else state, metrics, log, **options)


def test_newest_state_and_its_traces_come_back_exactly(manager, tmp_path):
    save(manager, tmp_path, (2, 4, 6))
    found = restore(manager, tmp_path)
    assert equal(found.state, a_state(6)) and isinstance(found.state, LoopState)
    np.testing.assert_array_equal(found.traces['loss'], np.full((6, 3), 6.0))
    names = {path.name.partition('.')[0] for path in tmp_path.iterdir()}
    assert names == {'4', '6'}  # the newest two


def test_nothing_saved_is_none(manager, tmp_path):
    assert restore(manager, tmp_path) is None


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(manager, tmp_path):
    save(manager, tmp_path, (20, 30))
    cut(tmp_path, 30)
    lines = []
    found = restore(manager, tmp_path, log=lines.append)
    assert equal(found.state, a_state(20))
    assert 'Checkpoint 30 is damaged' in lines[0] and '.damaged' in lines[0]
    save(manager, tmp_path, (30,))
    assert equal(restore(manager, tmp_path, log=lines.append).state, a_state(30))
    assert len(lines) == 1


def test_after_damaged_checkpoints_alone_a_run_saves_from_the_start(manager, tmp_path):
    save(manager, tmp_path, (30, 40))
    cut(tmp_path, 30)
    cut(tmp_path, 40)
    with contextlib.closing(manager(tmp_path, 40)) as saved:
        assert saved.restore(a_state(0), ('loss',), lambda _: None) is None
        for step in (10, 20, 30, 40):
            saved.save(a_state(step), traces_at(step))
            assert equal(restore(manager, tmp_path).state, a_state(step))


def test_arrays_that_are_damaged_behind_sound_metadata_are_found(tmp_path):
    save(checkpoints.LoopCheckpoints, tmp_path, (20, 30))
    for file in (tmp_path / '30').rglob('d/*'):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    found = restore(checkpoints.LoopCheckpoints, tmp_path)
    assert equal(found.state, a_state(20))


@pytest.mark.parametrize(
    'change,expected',
    [
        ({'state': a_state(0, (3, 5))}, r'state.variables.w is \[3, 2\] in it and \[3, 5\] here'),
        ({'metrics': ('loss', 'l2')}, 'lacks traces.l2'),
        ({'metrics': ()}, 'has traces.loss'),
        ({'num_steps': 50}, r'traces.loss is \[40, 3\] in it and \[50, 3\] here'),
        ({'state': a_state(0, (4, 2))}, r'traces.loss is \[40, 3\] in it and \[40, 4\] here'),
        ({'table': {'identity': np.zeros(3, np.int32)}}, 'lacks table.identity'),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_stays(manager, tmp_path, change, expected):
    save(manager, tmp_path, (20, 30))
    with pytest.raises(JaxinvError, match=f'checkpoint 30 .* of another run: .*{expected}'):
        restore(manager, tmp_path, **change)
    assert equal(restore(manager, tmp_path).state, a_state(30))


def test_other_dtypes_are_of_another_run(manager, tmp_path):
    save(manager, tmp_path, (20,))
    state = a_state(0)
    state = state._replace(variables=jax.tree.map(lambda x: x.astype('bfloat16'), state.variables))
    with pytest.raises(JaxinvError, match='float32 in it and bfloat16 here'):
        restore(manager, tmp_path, state)


@pytest.mark.parametrize('rows', [2, 5])
def test_a_batch_axis_may_change_by_its_padding(manager, tmp_path, rows):
    """Two examples in three rows; then in as many rows as other devices need."""
    with contextlib.closing(manager(tmp_path, 9)) as saved:
        saved.save(a_state(4), traces_at(4, count=2))
    state, traces, _ = restore(manager, tmp_path, a_state(0, (rows, 2)), num_steps=9, count=2)
    np.testing.assert_array_equal(state.variables['w'][:2], a_state(4).variables['w'][:2])
    np.testing.assert_array_equal(state.opt_state[0].mu['w'], np.zeros((rows, 2)))
    assert state.done.tolist() == [True, False, True, True, True][:rows]
    assert traces['loss'].shape == (4, 2)


def test_a_save_that_is_refused_is_an_error(manager, tmp_path):
    save(manager, tmp_path, (20, 30))
    with contextlib.closing(manager(tmp_path, 40)) as saved:
        for step in (10, 30):
            with pytest.raises(JaxinvError, match=f'{step} was not written .* holds step 30'):
                saved.save(a_state(step), traces_at(step))


def test_memory_that_does_not_suffice_is_no_damage(manager, tmp_path, monkeypatch):
    save(manager, tmp_path, (20,))

    def fail(*_):
        raise ValueError('RESOURCE_EXHAUSTED: Out of memory')

    with monkeypatch.context() as patch:
        patch.setattr(jnp, 'asarray', fail)
        with pytest.raises(ValueError, match='Out of memory'):
            restore(manager, tmp_path)
    assert equal(restore(manager, tmp_path).state, a_state(20))


@pytest.fixture
def saved(tiny, tmp_path):
    save_generator(tmp_path / 'generator', *tiny)
    return tmp_path / 'generator' / GENERATOR_FILE


def test_generator_comes_back_exactly(tiny, saved):
    generator, weights = load_generator(saved)
    assert generator.spec == tiny[0].spec and equal(weights, tiny[1])


@pytest.mark.parametrize('damage', ['missing', 'unexpected', 'instead of'])
def test_every_key_that_does_not_fit_is_named(saved, damage):
    flat = safetensors.numpy.load_file(saved)
    key = next(k for k in flat if k.endswith('const'))
    if damage == 'missing':
        flat.pop(key)
    elif damage == 'unexpected':
        key = 'params/extra'
        flat[key] = np.zeros(3, np.float32)
    else:
        flat[key] = flat[key][:-1].copy()
    header = {'jaxinv': '{"generator": "tiny", "resolution": 32}'}
    safetensors.numpy.save_file(flat, saved, metadata=header)
    with pytest.raises(JaxinvError, match=damage) as error:
        load_generator(saved)
    assert key in str(error.value)


@pytest.mark.parametrize(
    'content,expected',
    [
        (b'', 'is not a .safetensors file'),
        (b'{"a": 1}' * 50, 'is not a .safetensors file'),
        (b'\x80\x04N.', 'is not a .safetensors file'),
    ],
)
def test_files_that_are_no_generator_get_a_sentence(tmp_path, content, expected):
    path = tmp_path / 'g.safetensors'
    path.write_bytes(content)
    with pytest.raises(JaxinvError, match=expected):
        load_generator(path)


def test_safetensors_that_hold_no_generator_are_refused(tmp_path):
    path = tmp_path / 'g.safetensors'
    safetensors.numpy.save_file({'a': np.zeros(2, np.float32)}, path)
    with pytest.raises(JaxinvError, match='not a'):
        load_generator(path)


def test_changed_arrays_and_hostile_headers_are_refused(tiny, saved):
    with safetensors.safe_open(saved, 'numpy') as file:
        header = file.metadata()
    flat = safetensors.numpy.load_file(saved)
    flat['buffers/w_avg'] = flat['buffers/w_avg'] + 1
    safetensors.numpy.save_file(flat, saved, metadata=header)
    with pytest.raises(JaxinvError, match='damaged'):
        load_generator(saved)
    family = {'family': 'stylegan2', 'arguments': {'resolution': 32, 'channels': [1] * 4}}
    for record in (
        'null',
        '[' * 100_000,
        '{"generator": "os.system"}',
        '{"family": "os.system"}',
        json.dumps(family | {'arguments': {'resolution': 2**40, 'channels': [1] * 39}}),
        json.dumps(family | {'arguments': family['arguments'] | {'name': 'twice'}}),
        json.dumps(family | {'arguments': family['arguments'] | {'z_dim': 'many'}}),
    ):
        safetensors.numpy.save_file(flat, saved, metadata={'jaxinv': record})
        with pytest.raises(JaxinvError) as error:
            load_generator(saved)
        assert '\n' not in str(error.value)


def test_unknown_names_say_what_exists(tmp_path):
    with pytest.raises(JaxinvError, match='mobile_stylegan_ffhq'):
        load_generator(str(tmp_path / 'nope'))
