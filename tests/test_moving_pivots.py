"""Pivots that are optimised along with the generator, against a plain loop, and in whole runs."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import toy
from sharding_cases import STEPS, TUNING, problem
from test_experiment import load_config
from test_sharding import largest_difference
from test_sharding import run as run_cases

import jaxinv
from jaxinv import latents, optimize, settings
from jaxinv.errors import JaxinvError
from jaxinv.experiments import pti as experiment
from jaxinv.inversion import code_files, pti
from jaxinv.networks import lpips
from jaxinv.runtime import distributed
from jaxinv.weights.networks import load_lpips

KEY, RATE = jax.random.key(3), 0.02


# --- A plain loop ---


def difference(net, image, other):
    images = [lpips.features(net, x[None]) for x in (image, other)]
    return lpips.distance(*images)[0] + jnp.mean((image - other) ** 2)


def slow_loss(params, pivot, target, z, weights, net):
    """Equations 2 to 7 for one identity: pivot [6], target [h, w, 3], the regulariser's z [1, 6].

    The random code is at the present pivot, but the regulariser's gradient does not reach it.
    """

    def picture(params, w):
        own = {'params': params, 'buffers': weights['buffers']}
        return toy.GENERATOR.synthesize(own, w[None, None])[0][0]

    (w_z,) = toy.GENERATOR.map(weights, z)
    constant = jax.lax.stop_gradient(pivot)
    w_r = constant + 2.0 * (w_z - constant) / jnp.sqrt(jnp.sum((w_z - constant) ** 2))
    drift = difference(net, picture(params, w_r), picture(weights['params'], w_r))
    return difference(net, picture(params, pivot), target) + 0.1 * drift


def slow_adam(x, moments, gradient, count, rate):
    """(x, (m, v)) after step `count` = 1, 2, ..."""
    m, v = moments
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, gradient)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, gradient)

    def step(x, m, v):
        return x - rate * m / (1 - 0.9**count) / (jnp.sqrt(v / (1 - 0.999**count)) + 1e-8)

    return jax.tree.map(step, x, m, v), (m, v)


def slow_tuning(batches, rate=RATE):
    """(params, pivots [n, 6], losses [steps, n]) of one generator; each pivot has its own Adam."""
    weights, nets, targets, pivots, ids, _ = problem(toy.GENERATOR, np.float64)
    params, pivots = weights['params'], list(jnp.asarray(pivots[:, 0]))
    gradient = jax.jit(
        jax.value_and_grad(
            functools.partial(slow_loss, weights=weights, net=nets['alex']), argnums=(0, 1)
        )
    )
    zeros = jax.tree.map(jnp.zeros_like, params)
    of_params, of_pivots = (zeros, zeros), [(jnp.zeros(6), jnp.zeros(6)) for _ in pivots]
    count, rows = 0, np.full((STEPS, len(pivots)), np.nan)
    for step in range(STEPS):
        for batch in batches:
            total, own, share = zeros, {}, 1 / len(batch)
            for i in batch:
                z = latents.identity_normals(KEY, ids[i : i + 1], step, (1, 6))[0]
                rows[step, i], (g, own[i]) = gradient(params, pivots[i], targets[i], z)
                total = jax.tree.map(lambda a, b, s=share: a + s * b, total, g)
                own[i] = share * own[i]
            count += 1
            params, of_params = slow_adam(params, of_params, total, count, TUNING.learning_rate)
            for i in batch:
                pivots[i], of_pivots[i] = slow_adam(pivots[i], of_pivots[i], own[i], step + 1, rate)
    return params, np.array(pivots), rows


def run_tuning(select=slice(None), generator=toy.GENERATOR, **changes):
    """(variables, traces, the Tuner), in float64 where JAX has it."""
    dtype = np.float64 if jax.config.jax_enable_x64 else np.float32
    weights, nets, targets, pivots, ids, statistics = problem(toy.GENERATOR, dtype)
    own = TUNING.replace(**{'pivot_learning_rate': RATE, 'chunk_steps': STEPS} | changes)
    tuner = pti.make_tuner(generator, own, len(ids[select]))
    state, args = tuner.prepare(
        weights, nets['alex'], targets[select], pivots[select], ids[select], statistics.mean
    )
    state, traces = optimize.run(tuner.loop, state, args, KEY, STEPS)
    return state.variables, traces, tuner


def assert_close(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ('batch_size', 'microbatch', 'batches'),
    [
        pytest.param(2, 0, [[0, 1], [2]], marks=pytest.mark.long),
        pytest.param(0, 2, [[0, 1, 2]], marks=pytest.mark.exhaustive),
    ],
)
def test_one_generator_and_its_pivots_match_a_plain_loop(batch_size, microbatch, batches):
    with jax.enable_x64(True):
        found, traces, _ = run_tuning(batch_size=batch_size, microbatch=microbatch)
        params, pivots, rows = slow_tuning(batches)
        assert_close(found['params'], params)
        assert_close(found['pivots'][:, 0], pivots)
        np.testing.assert_allclose(traces['loss'], rows, rtol=1e-6)
        start = problem(toy.GENERATOR, np.float64)[3][:, 0]
        assert (np.abs(pivots - start).max(axis=1) > RATE).all()


@pytest.mark.long
def test_a_generator_and_a_pivot_each_match_a_plain_loop():
    with jax.enable_x64(True):
        found, traces, _ = run_tuning(shared=False)
        for i in range(3):
            params, pivots, rows = slow_tuning([[i]])
            assert_close(jax.tree.map(lambda x, i=i: x[i], found['params']), params)
            assert_close(found['pivots'][i, 0], pivots[i])
            np.testing.assert_allclose(traces['loss'][:, i], rows[:, i], rtol=1e-6)


@pytest.mark.long
def test_without_a_rate_the_variables_are_the_weights_alone():
    assert settings.Tuning().pivot_learning_rate == 0
    with jax.enable_x64(True):
        found, _, tuner = run_tuning(pivot_learning_rate=0.0, num_steps=1)
        weights, _, _, pivots, *_ = problem(toy.GENERATOR, np.float64)
        assert jax.tree.structure(found) == jax.tree.structure(weights['params'])
        assert tuner.pivots(pivots, found) is pivots


@pytest.mark.long
def test_the_class_in_a_code_stays():
    spec = dataclasses.replace(toy.SPEC, moving_dims=4)
    generator = toy.GENERATOR._replace(spec=spec)
    start = problem(toy.GENERATOR, np.float32)[3]
    found = run_tuning(generator=generator, num_steps=2)[0]
    np.testing.assert_array_equal(found['pivots'][..., 4:], start[..., 4:])
    assert (found['pivots'][..., :4] != start[..., :4]).all()


@pytest.mark.exhaustive
def test_devices_slots_and_interruptions_do_not_change_the_numbers(tmp_path):
    cases = ('moving:1', 'moving:2,2', 'moving:4>2,2', 'moving_fed:2', 'moving_each:1')
    cases += ('moving_each:4', 'moving_slots:1', 'moving_slots:2>1')
    found = run_cases(tmp_path, 4, 'float64', cases)
    for case, plain in (
        ('moving:2,2', 'moving:1'),
        ('moving:4>2,2', 'moving:1'),
        ('moving_fed:2', 'moving:1'),
        ('moving_each:4', 'moving_each:1'),
        ('moving_slots:1', 'moving_each:1'),
        ('moving_slots:2>1', 'moving_each:1'),
    ):
        assert largest_difference(found, case, 'result', plain) < 1e-11, case
        assert f'{case}/result/pivots' in found
    assert found['moving:2,2/donated'] > 0.5


# --- Whole runs ---


def config_of(name, **changes):
    config = load_config(name)
    config.tune.pivot_learning_rate, config.pivot.num_steps = 0.05, 2
    config.update_from_flattened_dict(changes)
    return config


def run(config, path):
    experiment.run(config, path, log=lambda *_, **__: None)
    return json.loads((path / 'metrics.json').read_text())


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
    path = tmp_path_factory.mktemp('shared') / 'work'
    return path, run(config_of('pti_multi_id'), path)


def stages_of(path, name):
    """The numbers of a picture of an ordinary run, or of bulk mode."""
    own = path / 'identities' / name
    found = json.loads(((own if own.is_dir() else path) / 'metrics.json').read_text())
    return found['identities'][name]


@pytest.mark.long
def test_pivots_where_they_end_are_saved_scored_and_compared_with_their_start(shared, tiny):
    path, result = shared
    names, w = code_files.load_pivots(path)
    start = code_files.pivots_for(path, names, 'start')
    assert w.shape == start.shape and (np.abs(w - start).max((1, 2)) > 0.05).all()
    original, (generator, tuned) = tiny[1], jaxinv.load_generator(path)
    for name, own, first in zip(names, w, start, strict=True):
        with PIL.Image.open(path / 'images' / name / 'tuned.png') as saved:
            image = np.clip((generator.synthesize(tuned, own[None])[0][0] + 1) * 127.5, 0, 255)
            np.testing.assert_allclose(image, np.asarray(saved, np.float32), atol=1)
        before, after = (generator.synthesize(original, x[None])[0] for x in (first, own))
        found = result['identities'][name]
        assert list(found) == ['pivot', 'moved', 'tuned']
        features = [lpips.features(load_lpips('alex'), x) for x in (before, after)]
        expected = float(lpips.distance(*features)[0])
        assert found['moved']['moved_lpips_alex'] == pytest.approx(expected, rel=1e-3)
        expected = float(np.mean((np.asarray(before) - np.asarray(after)) ** 2))
        assert found['moved']['moved_mse'] == pytest.approx(expected, rel=1e-3)
    page = (path / 'report.html').read_text()
    assert 'Pivot moved, LPIPS alex' in page and 'moved' in page


@pytest.mark.long
def test_edits_move_the_pivot_where_it_ends(shared, tmp_path):
    np.save(tmp_path / 'd.npy', np.ones(16, np.float32))
    path = tmp_path / 'work'
    run(config_of('pti_multi_id', edits=(f'{tmp_path}/d.npy=1',)), path)
    names, w = code_files.load_pivots(path)
    np.testing.assert_array_equal(w, code_files.load_pivots(shared[0])[1])
    generator, tuned = jaxinv.load_generator(path)
    (file,) = {*(path / 'images' / names[0]).glob('*.png')} - {
        path / 'images' / names[0] / f'{name}.png' for name in ('target', 'pivot', 'moved', 'tuned')
    }
    image = np.clip((generator.synthesize(tuned, w[:1] + 1)[0][0] + 1) * 127.5, 0, 255)
    with PIL.Image.open(file) as saved:
        np.testing.assert_allclose(image, np.asarray(saved, np.float32), atol=1)


def interrupted(monkeypatch, config, path, times):
    """Runs a config that is interrupted after so many chunks of steps, and again to its end."""
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == times:
            raise distributed.Preempted

    monkeypatch.setattr(distributed, 'raise_if_preempted', stop)
    with pytest.raises(distributed.Preempted):
        run(config, path)
    monkeypatch.undo()
    return run(config, path)


def assert_same_run(path, other, rtol=1e-4):
    names, w = code_files.load_pivots(other)
    for name, code in zip(names, w, strict=True):
        own = path / 'identities' / name
        source = own if (own / code_files.PIVOTS).is_file() else path
        np.testing.assert_allclose(code_files.pivots_for(source, [name])[0], code, atol=rtol)
        ours, theirs = stages_of(path, name), stages_of(other, name)
        for stage, values in theirs.items():
            for metric, value in values.items():
                mine = ours[stage][metric]
                assert mine is value is None or mine == pytest.approx(value, rel=max(1e-3, rtol)), (
                    metric
                )


@pytest.mark.long
def test_an_interrupted_run_ends_in_the_same_pivots(shared, tmp_path, monkeypatch):
    interrupted(monkeypatch, config_of('pti_multi_id'), tmp_path / 'work', 2)
    for key in ('w', 'start'):
        found, expected = (
            code_files.load_pivots(p, key)[1] for p in (tmp_path / 'work', shared[0])
        )
        np.testing.assert_array_equal(found, expected)


@pytest.mark.exhaustive
def test_bulk_mode_has_the_numbers_of_an_ordinary_run(shared, tmp_path, monkeypatch):
    path, result = shared
    found = interrupted(monkeypatch, config_of('pti_multi_id', group=1), tmp_path / 'work', 4)
    np.testing.assert_allclose(
        code_files.load_pivots(tmp_path / 'work', 'start')[1],
        code_files.load_pivots(path, 'start')[1],
        atol=1e-4,
    )
    assert_same_run(tmp_path / 'work', path)
    own, other = (x['mean']['moved']['moved_lpips_alex'] for x in (found, result))
    assert own == pytest.approx(other, rel=1e-3)


@pytest.mark.exhaustive
def test_a_generator_and_a_pivot_each_in_slots_and_in_groups(tmp_path, monkeypatch):
    config = config_of('pti_single_id')
    result = run(config, tmp_path / 'whole')
    w, start = (code_files.load_pivots(tmp_path / 'whole', key)[1] for key in ('w', 'start'))
    assert (np.abs(w - start).max((1, 2)) > 0.05).all()
    # One after the other; the first is finished when the run is interrupted.
    config.tune.slots = 1
    again = interrupted(monkeypatch, config, tmp_path / 'slots', 4)
    # Another program, and Adam's first step moves every weight by the full rate, those without a
    # gradient by the sign of rounding: codes that moved by 0.2 differed by 0.006 on one CPU.
    assert_same_run(tmp_path / 'slots', tmp_path / 'whole', 0.02)
    assert again['mean']['moved'].keys() == result['mean']['moved'].keys()
    config.group = 1
    run(config, tmp_path / 'groups')
    assert_same_run(tmp_path / 'groups', tmp_path / 'whole', 0.02)
    name = code_files.load_pivots(tmp_path / 'whole')[0][0]
    own = tmp_path / 'groups' / 'identities' / name
    np.testing.assert_allclose(code_files.load_pivots(own, 'start')[1], start[:1], atol=1e-4)


@pytest.mark.long
def test_the_function_returns_the_pivots(tiny):
    generator, weights = tiny
    w = np.asarray(generator.map(weights, latents.sample_z(1, 2, generator.spec.z_dim)))[:, None]
    images = np.random.RandomState(0).randint(0, 255, (2, 32, 32, 3)).astype(np.uint8)
    changes = {'num_steps': 2, 'verbose': False, 'pivot_learning_rate': 0.01}
    both = jaxinv.tune(generator, weights, images, w, **changes)
    each = jaxinv.tune(generator, weights, images, w, shared=False, **changes)
    for tuned in (both, each):
        assert tuned.pivots.shape == w.shape and (tuned.pivots != w).any((1, 2)).all()
    changes['pivot_learning_rate'] = 0.0
    np.testing.assert_array_equal(jaxinv.tune(generator, weights, images, w, **changes).pivots, w)


def test_methods_that_do_not_optimise_pivots_along_have_no_such_setting():
    for name in ('sam', 'pti_video'):
        assert 'pivot_learning_rate' not in load_config(name).tune
    config = config_of('pti_multi_id')
    config.tune.pivot_learning_rate = -0.1
    with pytest.raises(JaxinvError, match='tune.pivot_learning_rate is -0.1; it must be at least'):
        settings.check(config)
