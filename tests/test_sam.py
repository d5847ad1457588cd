"""SAM's image formation, edits, prior and search on a tiny generator, against slow references."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinv import optimize
from jaxinv.errors import JaxinvError
from jaxinv.inversion import sam, sam_prior
from jaxinv.networks import lpips
from jaxinv.settings import Prior, Search
from jaxinv.types import Affine
from jaxinv.weights.networks import load_lpips

KEY = jax.random.key(0)


@pytest.fixture(scope='module')
def given(tiny):
    """Codes of two images with soft masks, and two edits."""
    generator, weights = tiny
    random = np.random.RandomState(0)

    def normal(*shape):
        return jnp.asarray(random.standard_normal(shape), jnp.float32)

    spec = generator.spec
    shapes = dict(spec.feature_shapes)
    codes = sam.Codes(
        normal(2, spec.num_ws, spec.w_dim), {s: 0.3 * normal(2, *shapes[s]) for s in shapes}
    )
    masks = {
        s: jnp.asarray(random.uniform(0, 1, (2, *shapes[s][:2], 1)), jnp.float32) for s in shapes
    }
    return codes, masks, normal(2, 1, 1, spec.w_dim)


@pytest.fixture(scope='module')
def synthesize(tiny):
    """synthesize(codes, masks, deltas, mixing) -> [1 + edits, images, h, w, 3], compiled."""
    generator, weights = tiny
    compiled = jax.jit(functools.partial(sam.synthesize_edits, generator), static_argnames='mixing')
    return functools.partial(compiled, weights)


def one_after_another(tiny, given, offsets_in_edits):
    """The same by whole passes and replaced features: the unedited image, then each edit."""
    generator, weights = tiny
    codes, masks, deltas = given
    run = jax.jit(generator.synthesize)
    shift = {s: masks[s] * codes.offsets[s] for s in masks}
    taps = {s: Affine(jnp.ones_like(masks[s]), x) for s, x in shift.items()}
    image, features = run(weights, codes.w_plus, taps=taps)
    images = [image]
    for delta in deltas:
        taps = {
            s: Affine(1 - m, m * features[s] + ((1 - m) * shift[s] if offsets_in_edits else 0))
            for s, m in masks.items()
        }
        images.append(run(weights, codes.w_plus + delta, taps=taps)[0])
    return jnp.stack(images)


@pytest.mark.long
def test_edits_in_one_pass_equal_passes_one_after_another(tiny, given, synthesize):
    images = {mixing: synthesize(*given, mixing=mixing) for mixing in ('with_offsets', 'official')}
    for mixing, offsets_in_edits in (('with_offsets', True), ('official', False)):
        reference = one_after_another(tiny, given, offsets_in_edits)
        np.testing.assert_allclose(images[mixing], reference, atol=2e-5)
    assert np.abs(images['official'] - images['with_offsets']).max() > 1e-3


def test_edit_of_strength_zero_is_the_inversion(given, synthesize):
    codes, masks, deltas = given
    images = synthesize(codes, masks, 0 * deltas, mixing='with_offsets')
    np.testing.assert_allclose(images[1], images[0], atol=1e-5)


def test_region_in_a_feature_space_answers_only_to_the_layers_after_it(tiny, given, synthesize):
    codes, masks, deltas = given
    ones = {s: jnp.full_like(m, float(s == 'F6')) for s, m in masks.items()}
    rows = tiny[0].spec.num_ws
    deltas = jnp.broadcast_to(deltas, (2, 1, rows, deltas.shape[-1]))
    before = deltas * (jnp.arange(rows) < 9)[None, None, :, None]  # then to_img only
    images = synthesize(codes, ones, before, mixing='with_offsets')
    np.testing.assert_allclose(images[1], images[0], atol=1e-5)
    images = synthesize(codes, ones, deltas - before, mixing='with_offsets')
    assert np.abs(images[1] - images[0]).max() > 1e-2


def test_prior_is_the_squared_mahalanobis_distance():
    random = np.random.RandomState(0)
    w = random.standard_normal((400, 6)) @ random.standard_normal((6, 6)) + 0.5
    v = np.where(w >= 0, w, 5 * w)
    covariance = np.cov(v, rowvar=False) + 1e-8 * np.eye(6)
    for matrix, middle in (('inverse', np.linalg.inv(covariance)), ('covariance', covariance)):
        prior = sam_prior.from_samples(w, Prior(matrix=matrix, epsilon=1e-8))
        d = v[:4] - v.mean(0)
        expected = np.einsum('nd,de,ne->n', d, middle, d)
        found = sam_prior.distance(jnp.asarray(w[:4, None], jnp.float32), prior)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    shifted = sam_prior.from_samples(w, Prior(order='map_of_mean'))
    mean = w.mean(0)
    np.testing.assert_allclose(shifted.mean, np.where(mean >= 0, mean, 5 * mean), rtol=1e-5)


@pytest.mark.parametrize('norm', ['squared', 'norm'])
def test_spread_has_a_finite_gradient_where_all_rows_are_equal(norm):
    w_plus = jnp.ones((2, 3, 4)).at[1, 2, 0].set(3.0)
    np.testing.assert_allclose(sam_prior.spread(w_plus, norm), [0, 4 if norm == 'squared' else 2])
    gradient = jax.grad(lambda w: sam_prior.spread(w, norm).sum())(w_plus)
    assert np.isfinite(gradient).all() and not gradient[0].any()


SETTINGS = Search(
    num_steps=8,
    spread='norm',
    spread_weight=1e-3,
    offsets='sum',
    offsets_weight=1e-6,  # light, so that eight steps come closer
    chunk_steps=8,
)


@pytest.fixture(scope='module')
def search(tiny):
    """search(targets, masks, valid, rows) -> codes, traces; all with the same program."""
    generator, weights = tiny
    inverter = sam.make_inverter(generator, SETTINGS)
    prior = sam_prior.statistics(generator, weights, Prior(num_samples=200))
    net = load_lpips('vgg')

    def run(targets, masks, valid):
        start = weights['buffers']['w_avg'][None, None]
        ids = np.arange(len(targets), dtype=np.uint32)
        state, args = inverter.prepare(weights, net, targets, masks, start, ids, prior, valid)
        state, traces = optimize.run(inverter.loop, state, args, KEY, SETTINGS.num_steps)
        return inverter.codes(state.variables), traces

    return run


@pytest.fixture(scope='module')
def case(tiny):
    """Two targets, masks of the right half of each feature space, all pixels but a band valid."""
    spec = tiny[0].spec
    random = np.random.RandomState(1)
    targets = jnp.asarray(random.uniform(-1, 1, (2, 32, 32, 3)), jnp.float32)
    targets = jnp.repeat(jnp.repeat(targets[:, ::8, ::8], 8, 1), 8, 2)
    masks = {
        s: jnp.zeros((2, *shape[:2], 1)).at[:, :, shape[1] // 2 :].set(1)
        for s, shape in spec.feature_shapes
    }
    valid = jnp.ones((2, 32, 32, 1)).at[:, :8].set(0)
    return targets, masks, valid


@pytest.mark.long
def test_search_comes_closer_and_moves_offsets_only_within_their_masks(search, case):
    codes, traces = search(*case)
    assert (traces['loss'][-1] < 0.9 * traces['loss'][0]).all()
    for space, offset in codes.offsets.items():
        half = offset.shape[2] // 2
        assert not np.any(offset[:, :, :half]) and np.any(offset[:, :, half:]), space


@pytest.mark.long
def test_pixels_that_are_not_valid_do_not_count(case):
    targets, _, valid = case
    images = targets.at[:, 8:].add(0.3 * jnp.sin(jnp.arange(32.0))[None, None, :, None])
    net = load_lpips('vgg')
    args = {'lpips': net, 'targets': targets, 'target_features': lpips.features(net, targets)}
    l2, distance = sam.reconstruction(images, {**args, 'valid': valid})
    expected = np.mean((images - targets)[:, 8:] ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(l2, expected, rtol=1e-4)
    again = sam.reconstruction(images.at[:, :8].set(0.7), {**args, 'valid': valid})
    np.testing.assert_allclose(again, (l2, distance), rtol=1e-5)
    assert (sam.reconstruction(images.at[:, :8].set(0.7), args)[0] > l2).all()


@pytest.mark.parametrize('kind', ['mean', pytest.param('sum', marks=pytest.mark.exhaustive)])
def test_offsets_are_penalised_by_space(tiny, case, kind):
    generator, weights = tiny
    targets, masks, _ = case
    settings = Search(num_steps=1, offsets=kind, offsets_weight=5.0, chunk_steps=1)
    inverter = sam.make_inverter(generator, settings)
    prior = sam_prior.statistics(generator, weights, Prior(num_samples=200))
    start = weights['buffers']['w_avg'][None, None]
    nowhere = {space: jnp.zeros_like(mask) for space, mask in masks.items()}
    ids = np.arange(2, dtype=np.uint32)
    args = load_lpips('vgg'), targets, nowhere, start, ids, prior
    state, args = inverter.prepare(weights, *args)
    offsets = jax.tree.map(lambda x: x + 0.3, state.variables['offsets'])
    variables = state.variables | {'offsets': offsets}
    gradient = jax.jit(inverter.loop.update.gradient)
    gradients, terms, _ = gradient(variables, args, jnp.int32(0), None, KEY)
    # Masks of zeros leave the penalty as the only term with a gradient.
    for space, shape in generator.spec.feature_shapes:
        size = np.prod(shape) if kind == 'mean' else 1
        np.testing.assert_allclose(gradients['offsets'][space], 5 * 2 * 0.3 / size, rtol=1e-5)
    sizes = [1 if kind == 'mean' else np.prod(s) for _, s in generator.spec.feature_shapes]
    np.testing.assert_allclose(terms['offsets'], 0.09 * sum(sizes), rtol=1e-5)


@pytest.fixture(scope='module')
def wide(tiny):
    """Targets in rows 4 to 28 of 32, and where they are valid: pictures of 4:3."""
    random = np.random.RandomState(2)
    targets = np.full((2, 32, 32, 3), -1, np.float32)
    targets[:, 4:28] = random.uniform(-1, 1, (2, 24, 32, 3))
    valid = np.zeros((2, 32, 32, 1), np.float32)
    valid[:, 4:28] = 1
    return targets, valid


def official_distances(images, targets, rows):
    """MSE and LPIPS as in SAM's code for cars: the rows of padding are cut off both images."""
    net, cut = load_lpips('vgg'), slice(rows, -rows)
    features = [lpips.features(net, jnp.asarray(x[:, cut])) for x in (images, targets)]
    mse = [np.mean((i[cut] - t[cut]) ** 2) for i, t in zip(images, targets, strict=True)]
    return mse, lpips.distance(*features)


@pytest.mark.long
def test_cropped_padding_gives_the_distances_of_sams_code(tiny, wide):
    generator, weights = tiny
    targets, valid = wide
    traces = {}
    for padding in ('crop', 'fill'):
        settings = Search(num_steps=1, padding=padding, chunk_steps=1)
        inverter = sam.make_inverter(generator, settings)
        prior = sam_prior.statistics(generator, weights, Prior(num_samples=200))
        start, ids = weights['buffers']['w_avg'][None, None], np.arange(2, dtype=np.uint32)
        args = load_lpips('vgg'), targets, {}, start, ids, prior, valid
        state, args = inverter.prepare(weights, *args)
        _, traces[padding] = optimize.run(inverter.loop, state, args, KEY, 1)
    images = np.asarray(
        sam.synthesize(
            generator,
            weights,
            sam.Codes(
                jnp.broadcast_to(start, (2, generator.spec.num_ws, generator.spec.w_dim)), {}
            ),
            {},
        )
    )
    mse, distance = official_distances(images, targets, 4)
    np.testing.assert_allclose(traces['crop']['l2'][0], mse, rtol=1e-5)
    np.testing.assert_allclose(traces['crop']['lpips_vgg'][0], distance, rtol=1e-4)
    np.testing.assert_allclose(traces['fill']['l2'][0], mse, rtol=1e-5)
    assert (np.abs(traces['fill']['lpips_vgg'][0] / distance - 1) > 1e-3).all()


def test_padding_that_cannot_be_cropped_is_named(wide):
    _, valid = wide
    assert sam.padded_rows(valid, 32) == 4 and sam.padded_rows(valid, 16) == 2
    assert sam.padded_rows(np.ones_like(valid), 32) == 0
    uneven, other, columns = (valid.copy() for _ in range(3))
    uneven[:, :8] = 0
    other[1, :8], other[1, 24:] = 0, 0
    columns[:, :, 30:] = 0
    for wrong, size in ((uneven, 32), (other, 32), (columns, 32), (valid, 4)):
        with pytest.raises(JaxinvError, match="use sam.padding='fill'"):
            sam.padded_rows(wrong, size)


@pytest.mark.long
def test_examples_of_a_batch_do_not_see_each_other(search, case):
    targets, masks, valid = case
    codes, traces = search(targets, masks, valid)
    swapped = jax.tree.map(lambda x: x[::-1], (targets, masks, valid))
    again, rows = search(*swapped)
    np.testing.assert_allclose(rows['loss'], traces['loss'][:, ::-1], rtol=1e-4)
    np.testing.assert_allclose(again.w_plus[::-1], codes.w_plus, atol=1e-3)


def test_masks_of_images_that_lie_in_one_space_each(tiny):
    masks = sam.full_masks(tiny[0].spec, ['W+', 'F6', 'F4'])
    assert {s: m[:, 0, 0, 0].tolist() for s, m in masks.items()} == {
        'F4': [0, 0, 1],
        'F6': [0, 1, 0],
    }


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'spread': 'cubic'}, "sam.spread is 'cubic'"),
        ({'noise': 'loud'}, "'const', 'none' or 'random'"),
        ({'loss_size': 0}, 'at least 1'),
        ({'num_steps': -1}, 'at least 0'),
    ],
)
def test_settings_that_cannot_be_used_are_named(change, words):
    with pytest.raises(JaxinvError, match=words):
        Search(**change).check()
