"""Saved states and generators: exact, safe to damage, refused by name when they do not fit."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

from jaxinv.errors import JaxinvError
from jaxinv.optimize import LoopState, checkpoints
from jaxinv.weights.load import load_generator, save_generator
from jaxinv.weights.store import GENERATOR_FILE


def a_state(step):
    variables = {'w': jnp.arange(6.0).reshape(3, 2) + step}
    opt_state = optax.adam(0.1).init(variables)
    return LoopState(jnp.int32(step), jnp.array([True, False, False]), variables, opt_state)


def equal(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b))


def test_newest_state_and_its_traces_come_back_exactly(tmp_path):
    saved = checkpoints.LoopCheckpoints(tmp_path, 9)
    for step in (2, 4, 6):
        saved.save(a_state(step), {'loss': np.full((step, 3), step, np.float32)})
    saved.close()
    again = checkpoints.LoopCheckpoints(tmp_path, 9)
    state, traces = again.restore(a_state(0), ('loss',))
    assert equal(state, a_state(6)) and isinstance(state, LoopState)
    np.testing.assert_array_equal(traces['loss'], np.full((6, 3), 6.0))


def test_nothing_saved_is_none(tmp_path):
    assert checkpoints.LoopCheckpoints(tmp_path, 9).restore(a_state(0), ('loss',)) is None


def test_damaged_checkpoint_falls_back_to_the_one_before(tmp_path):
    saved = checkpoints.LoopCheckpoints(tmp_path, 9)
    for step in (2, 4):
        saved.save(a_state(step), {'loss': np.zeros((step, 3), np.float32)})
    saved.close()
    for file in (tmp_path / '4').rglob('*'):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    lines = []
    again = checkpoints.LoopCheckpoints(tmp_path, 9)
    state, _ = again.restore(a_state(0), ('loss',), log=lines.append)
    assert equal(state, a_state(2))
    assert any('Checkpoint 4 is damaged' in line for line in lines)


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
        (b'', 'not a readable'),
        (b'{"a": 1}' * 50, 'not a readable'),
        (b'\x80\x04N.', 'not a readable'),
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
