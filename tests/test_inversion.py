"""Projection and pivotal tuning against slow versions written step by step, on a toy generator."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from jaxinv import latents, optimize
from jaxinv.inversion import losses, project, pti
from jaxinv.networks import lpips
from jaxinv.optimize import schedules
from jaxinv.settings import Locality, Projection, Tuning
from jaxinv.weights.networks import load_lpips

pytestmark = pytest.mark.first

KEY = jax.random.key(3)
GENERATOR = toy.GENERATOR
LOCALITY = Locality(alpha=2.0, num_samples=2, norm='w')


@functools.cache
def nets():
    return {net: load_lpips(net) for net in ('alex', 'vgg')}


@functools.cache
def problem(n=3):
    weights = GENERATOR.init(jax.random.key(0))
    z = latents.sample_z(1, n, 6)
    w = GENERATOR.map(weights, z)[:, None]
    targets = jnp.clip(GENERATOR.synthesize(weights, w + 0.3)[0] + 0.1, -1, 1)
    ids = np.array([11, 22, 33], np.uint32)[:n]
    statistics = latents.w_statistics(GENERATOR, weights, 50)
    return weights, targets, w, ids, statistics


def test_w_statistics_match_slow_version():
    weights = problem()[0]
    z = np.random.RandomState(123).standard_normal((50, 6))
    w = np.tanh(z @ np.asarray(weights['buffers']['mapping']))
    mean = sum(w) / 50
    statistics = problem()[4]
    np.testing.assert_allclose(statistics.mean, mean, atol=1e-5)
    spread = np.sqrt(sum(((row - mean) ** 2).sum() for row in w) / 50)
    np.testing.assert_allclose(statistics.std, spread, rtol=1e-5)


# --- Projection ---

PROJECTION = Projection(num_steps=5, learning_rate=0.1, chunk_steps=5)


def run_projection(settings, select=slice(None)):
    weights, targets, _, ids, statistics = problem()
    projector = project.make_projector(GENERATOR, settings)
    state, args = projector.prepare(
        weights,
        {net: nets()[net] for net in settings.nets},
        targets[select],
        ids[select],
        statistics,
        KEY,
    )
    return optimize.run(projector.loop, state, args, KEY, settings.num_steps)


# Weights of nets are arguments: as constants they make compilation a third longer.
@jax.jit
@functools.partial(jax.value_and_grad, has_aux=True)
def slow_projection_gradient(variables, shift, target, net):
    """Equation 1 for one identity."""
    w, noise = variables['w'] + shift, variables['noise']
    image, _ = GENERATOR.synthesize(problem()[0], w, noise)
    distance = lpips.distance(lpips.features(net, image), target)[0]
    return distance + 1e5 * losses.noise_regularization(noise)[0], distance


def slow_projection(i, num_steps, alex_steps=0):
    """One identity at a time, Adam by hand, equation by equation."""
    weights, targets, _, ids, statistics = problem()
    one = ids[i : i + 1]
    noise = {
        name: latents.identity_normals(jax.random.fold_in(KEY, j), one, project.START, shape)
        for j, (name, shape) in enumerate(toy.SPEC.noise_shapes)
    }
    variables = {'w': statistics.mean[None, None], 'noise': noise}
    first = jax.tree.map(jnp.zeros_like, variables)
    second = jax.tree.map(jnp.zeros_like, variables)
    rows = []
    for step in range(num_steps):
        t, net = step / num_steps, nets()['alex' if step < alex_steps else 'vgg']
        target = lpips.features(net, targets[i : i + 1])
        sigma = statistics.std * 0.05 * max(0, 1 - t / 0.75) ** 2
        shift = sigma * latents.identity_normals(KEY, one, step, (1, 6))

        (loss, distance), g = slow_projection_gradient(variables, shift, target, net)
        rows.append([loss, distance])
        lr = 0.1 * float(schedules.learning_rate_ramp(t))
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, g)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, second, g)

        def adam(x, m, v, step=step, lr=lr):
            m, v = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
            return x - lr * m / (jnp.sqrt(v) + 1e-8)

        variables = jax.tree.map(adam, variables, first, second)
        for name, maps in variables['noise'].items():
            maps = maps - maps.mean()
            variables['noise'][name] = maps / jnp.sqrt((maps**2).mean())
    return variables, np.array(rows)


@pytest.mark.long
def test_projection_matches_slow_version_and_treats_identities_apart():
    state, traces = run_projection(PROJECTION)
    for i in (0, 2):
        variables, rows = slow_projection(i, 5)
        np.testing.assert_allclose(traces['loss'][:, i], rows[:, 0], rtol=2e-3)
        np.testing.assert_allclose(traces['lpips_vgg'][:, i], rows[:, 1], rtol=2e-3)
        np.testing.assert_allclose(state.variables['w'][i], variables['w'][0], atol=2e-3)


@pytest.mark.long
def test_the_first_steps_of_a_projection_compare_by_alexnet():
    state, traces = run_projection(PROJECTION.replace(alex_fraction=0.6))
    variables, rows = slow_projection(1, 5, alex_steps=3)
    np.testing.assert_allclose(traces['lpips'][:, 1], rows[:, 1], rtol=2e-3)
    np.testing.assert_allclose(state.variables['w'][1], variables['w'][0], atol=2e-3)


@pytest.mark.exhaustive
def test_projection_of_one_equals_its_place_in_a_batch():
    together, _ = run_projection(PROJECTION)
    alone, _ = run_projection(PROJECTION, slice(1, 2))
    np.testing.assert_allclose(alone.variables['w'][0], together.variables['w'][1], atol=1e-4)


@pytest.mark.exhaustive
def test_projection_lowers_the_distance_and_w_plus_has_all_rows():
    settings = PROJECTION.replace(num_steps=25, space='w_plus')
    state, traces = run_projection(settings)
    assert state.variables['w'].shape == (3, 3, 6)
    assert (traces['lpips_vgg'][-1] < traces['lpips_vgg'][0]).all()


# --- Pivotal tuning ---


def run_tuning(settings, select=slice(None)):
    weights, targets, pivots, ids, statistics = problem()
    tuner = pti.make_tuner(GENERATOR, settings, len(ids[select]))
    state, args = tuner.prepare(
        weights,
        nets()['alex'],
        targets[select],
        pivots[select],
        ids[select],
        statistics.mean,
    )
    return optimize.run(tuner.loop, state, args, KEY, settings.num_steps)


@jax.jit
@functools.partial(jax.grad, has_aux=True)
def slow_gradient(params, pivot, target, z, net):
    """Equations 2 to 7 for one identity: pivot [6], target [h, w, 3], regulariser's z [2, 6]."""
    weights = problem()[0]

    def difference(image, other):
        perceptual = lpips.distance(lpips.features(net, image), lpips.features(net, other))[0]
        return perceptual + jnp.mean((image - other) ** 2)

    def picture(params, w):
        weights_ = {'params': params, 'buffers': weights['buffers']}
        return GENERATOR.synthesize(weights_, w[None, None])[0]

    loss = difference(picture(params, pivot), target[None])
    drift = 0.0
    for sample in z:
        w_z = GENERATOR.map(weights, sample[None])[0]
        w_r = pivot + LOCALITY.alpha * (w_z - pivot) / jnp.sqrt(((w_z - pivot) ** 2).sum())
        before = jax.lax.stop_gradient(picture(weights['params'], w_r))
        drift += difference(picture(params, w_r), before) / LOCALITY.num_samples
    total = loss + LOCALITY.weight * drift
    return total, (total, drift)


def slow_shared_tuning(num_steps, batches):
    weights, targets, pivots, ids, _ = problem()
    params = weights['params']
    optimizer = optax.adam(3e-3)
    opt_state = optimizer.init(params)
    rows = np.zeros([num_steps, 3, 2])
    for step in range(num_steps):
        for batch in batches:
            total = jax.tree.map(jnp.zeros_like, params)
            for i in batch:
                z = latents.identity_normals(KEY, ids[i : i + 1], step, (2, 6))[0]
                gradient, rows[step, i] = slow_gradient(
                    params, pivots[i, 0], targets[i], z, nets()['alex']
                )
                share = 1 / len(batch)
                total = jax.tree.map(lambda a, b, s=share: a + s * b, total, gradient)
            changes, opt_state = optimizer.update(total, opt_state, params)
            params = optax.apply_updates(params, changes)
    return params, rows


SHARED = Tuning(num_steps=4, learning_rate=3e-3, locality=LOCALITY, microbatch=0, chunk_steps=4)


@pytest.mark.parametrize(
    'batch_size,microbatch,batches',
    [
        pytest.param(0, 2, [[0, 1, 2]], marks=pytest.mark.long, id='accumulated'),
        pytest.param(2, 0, [[0, 1], [2]], marks=pytest.mark.long, id='minibatches'),
    ],
)
def test_shared_tuning_matches_slow_version(batch_size, microbatch, batches):
    settings = SHARED.replace(batch_size=batch_size, microbatch=microbatch)
    state, traces = run_tuning(settings)
    params, rows = slow_shared_tuning(4, batches)
    np.testing.assert_allclose(traces['loss'], rows[..., 0], rtol=1e-3)
    np.testing.assert_allclose(traces['locality'], rows[..., 1], rtol=1e-2, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-3), state.variables, params)


def test_locality_is_zero_at_the_start_and_then_counts():
    _, traces = run_tuning(SHARED.replace(microbatch=2))
    np.testing.assert_allclose(traces['locality'][0], 0, atol=1e-6)
    assert (traces['locality'][1:] > 0).all()


def test_buffers_and_the_callers_weights_stay():
    before = jax.tree.map(np.array, problem()[0])
    run_tuning(SHARED.replace(microbatch=2))
    jax.tree.map(np.testing.assert_array_equal, before, problem()[0])


SINGLE = SHARED.replace(shared=False, num_steps=6, chunk_steps=6)


@pytest.mark.long
def test_vmapped_single_tuning_equals_each_alone_also_when_they_stop_apart():
    settings = SINGLE.replace(stop_lpips=0.003)
    together, traces = run_tuning(settings)
    lengths = np.isfinite(traces['lpips_alex']).sum(axis=0)
    assert len(set(lengths)) > 1 and lengths.min() < 6, traces['lpips_alex']
    for i in (0, 2):
        alone, own = run_tuning(settings, slice(i, i + 1))
        assert np.isfinite(own['lpips_alex']).sum() == lengths[i]
        np.testing.assert_allclose(
            own['loss'][: lengths[i], 0], traces['loss'][: lengths[i], i], rtol=1e-4
        )
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[0], b[i], atol=2e-5),
            alone.variables,
            together.variables,
        )


@pytest.mark.exhaustive
def test_regularised_tuning_drifts_less_than_unregularised():
    def drift(weight):
        settings = SHARED.replace(
            num_steps=40, microbatch=2, chunk_steps=40, locality=LOCALITY.replace(weight=weight)
        )
        state, _ = run_tuning(settings)
        weights, _, pivots, _, _ = problem()
        w = GENERATOR.map(weights, latents.sample_z(9, 32, 6))[:, None]
        tuned = {'params': state.variables, 'buffers': weights['buffers']}
        before, after = (GENERATOR.synthesize(x, w)[0] for x in (weights, tuned))
        return float(jnp.mean((before - after) ** 2))

    assert drift(3.0) < 0.7 * drift(0.0)
