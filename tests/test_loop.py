"""The loop: resume equals straight through, stopping, donation, NaN reports, one compilation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxinv import errors, optimize

KEY = jax.random.key(0)


def objective(variables, args, step, key):
    noise = jax.random.normal(jax.random.fold_in(key, step), (3,))
    distance = jnp.sum((variables['x'] - args['target']) ** 2, axis=1)
    loss = distance + 1e-3 * noise * variables['x'].sum(axis=1)
    return loss.sum(), {'loss': loss, 'distance': distance}


def make(**kwargs):
    optimizer = optax.adam(0.1)
    update = optimize.gradient_update(objective, optimizer)
    return optimize.make_loop(update, optimizer, ('loss', 'distance'), chunk_steps=4, **kwargs)


def problem():
    rng = np.random.RandomState(0)
    return {'x': jnp.zeros([3, 2])}, {'target': jnp.array(rng.randn(3, 2), jnp.float32)}


def test_matches_a_plain_python_loop():
    variables, args = problem()
    loop = make()
    state, traces = optimize.run(loop, loop.init(variables, 3), args, KEY, 10)
    optimizer = optax.adam(0.1)
    opt_state = optimizer.init(variables)
    for step in range(10):
        (_, metrics), gradients = jax.value_and_grad(objective, has_aux=True)(
            variables, args, step, KEY
        )
        np.testing.assert_allclose(traces['loss'][step], metrics['loss'], rtol=1e-5)
        changes, opt_state = optimizer.update(gradients, opt_state)
        variables = optax.apply_updates(variables, changes)
    np.testing.assert_allclose(state.variables['x'], variables['x'], rtol=1e-5)
    assert traces['loss'].shape == (10, 3)


def test_resumed_run_is_bitwise_the_straight_one():
    variables, args = problem()
    loop = make()
    straight, rows = optimize.run(loop, loop.init(variables, 3), args, KEY, 10)
    half, first = optimize.run(loop, loop.init(variables, 3), args, KEY, 4)
    resumed, joined = optimize.run(loop, half, args, KEY, 10, traces=first)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), straight, resumed))
    np.testing.assert_array_equal(rows['loss'], joined['loss'])


def test_example_freezes_at_its_threshold_before_the_update():
    variables, args = problem()
    rule = optimize.StoppingRule('distance', 0.05, per_example=True)
    loop = make(stopping=rule)
    state, traces = optimize.run(loop, loop.init(variables, 3), args, KEY, 200)
    assert np.asarray(state.done).all() and int(state.step) < 200
    final = ((np.asarray(state.variables['x']) - args['target']) ** 2).sum(axis=1)
    for i in range(3):
        rows = traces['distance'][:, i]
        last = np.flatnonzero(np.isfinite(rows))[-1]
        assert rows[last] <= 0.05 and (rows[:last] > 0.05).all()
        assert np.isnan(rows[last + 1 :]).all()
        # Tested before the update: the value that met the threshold is the value returned.
        np.testing.assert_allclose(final[i], rows[last], rtol=1e-5)


def test_shared_variables_stop_when_all_are_below():
    variables, args = problem()
    loop = make(stopping=optimize.StoppingRule('distance', 0.05, per_example=False))
    state, traces = optimize.run(loop, loop.init(variables, 3), args, KEY, 200)
    assert (traces['distance'][-1] <= 0.05).all() and not (traces['distance'][-2] <= 0.05).all()


def test_next_problem_and_short_chunks_reuse_the_program():
    loop = make()
    for seed in range(3):
        variables, _ = problem()
        args = {'target': jnp.array(np.random.RandomState(seed).randn(3, 2), jnp.float32)}
        optimize.run(loop, loop.init(variables, 3), args, KEY, 7)
    assert len(loop.compiled) == 1


def test_callers_buffers_survive_donation():
    variables, args = problem()
    args['frozen'] = variables['x']  # as pivotal tuning keeps the weights it starts from
    loop = make()
    optimize.run(loop, loop.init(variables, 3), args, KEY, 5)
    np.testing.assert_array_equal(variables['x'], np.zeros([3, 2]))


def test_nan_stops_the_run_and_names_steps_and_identities():
    variables, args = problem()
    args['target'] = args['target'].at[1].set(jnp.nan)
    loop = make()
    with pytest.raises(errors.JaxinvError, match=r'steps \[0, 4\) for ada'):
        optimize.run(loop, loop.init(variables, 3), args, KEY, 8, names=('bob', 'ada', 'eve'))


@pytest.mark.parametrize('backend', ['cpu', 'gpu'])
def test_args_that_are_fed_part_by_part_are_asked_for_once_each(monkeypatch, backend):
    monkeypatch.setattr(jax, 'default_backend', lambda: backend)
    variables, args = problem()
    loop, asked = make(), []

    def host_batches(part):
        asked.append(part)
        return jax.device_put({'target': np.asarray(args['target'])})

    fed = optimize.run(loop, loop.init(variables, 3), {}, KEY, 10, host_batches=host_batches)
    loop = make()
    plain = optimize.run(loop, loop.init(variables, 3), args, KEY, 10)
    assert asked == [0] * 10
    np.testing.assert_allclose(fed[0].variables['x'], plain[0].variables['x'], atol=1e-6)
    np.testing.assert_allclose(fed[1]['loss'], plain[1]['loss'], rtol=1e-5)


def test_projection_applies_after_every_step():
    variables, args = problem()
    optimizer = optax.adam(0.1)
    update = optimize.gradient_update(
        objective, optimizer, project=lambda v: {'x': jnp.clip(v['x'], -0.15, 0.15)}
    )
    loop = optimize.make_loop(update, optimizer, ('loss', 'distance'), chunk_steps=4)
    state, _ = optimize.run(loop, loop.init(variables, 3), args, KEY, 6)
    assert np.abs(state.variables['x']).max() <= 0.15 + 1e-7


def test_the_accelerators_single_program_gives_the_same(monkeypatch):
    variables, args = problem()
    rule = optimize.StoppingRule('distance', 0.3, per_example=True)
    runs = []
    for backend in ('cpu', 'gpu'):
        # Only the choice of program looks at it: the loop itself runs on the CPU both times.
        monkeypatch.setattr(jax, 'default_backend', lambda backend=backend: backend)
        loop = make(stopping=rule)
        state, traces = optimize.run(loop, loop.init(variables, 3), args, KEY, 30)
        runs.append((int(state.step), state.variables['x'], traces['loss']))
    assert runs[0][0] == runs[1][0] < 30
    np.testing.assert_allclose(runs[0][1], runs[1][1], atol=1e-6)
    np.testing.assert_allclose(runs[0][2], runs[1][2], rtol=1e-5)
