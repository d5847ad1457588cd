"""BigGAN-deep: official figures (data/biggan.npz), and what every generator must do."""

import dataclasses
import functools
import json
import pathlib

import biggan_figures
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recipe

from jaxinv import generators, latents, pixels
from jaxinv.generators import biggan_deep as biggan
from jaxinv.generators.biggan_deep import biggan_deep
from jaxinv.types import Affine

FIGURES = pathlib.Path(__file__).parent / 'data' / 'biggan.npz'
NAME = biggan_figures.NAME
FORWARD, GRADIENT, FLOAT64 = 2e-5, 5e-3, 1e-5  # as the figures' notes advise
KEY = jax.random.key(1)
LAYERS = ((True, 16, 8), (False, 8, 4), (True, 4, 2), (False, 2, 1))
SMALL = {
    'resolution': 16,
    'layers': LAYERS,
    'channel_width': 16,
    'num_classes': 5,
    'z_dim': 6,
    'class_embed_dim': 4,
    'attention_position': 2,
    'num_statistics': 5,
}


@functools.cache
def figures():
    with np.load(FIGURES) as file:
        return dict(file)


@functools.cache
def model(dtype='float32'):
    with jax.enable_x64(dtype == 'float64'):
        entries = json.loads(str(figures()[f'{NAME}/entries']))
        return biggan_figures.load(entries, figures(), jnp.dtype(dtype))


def assert_equal(arrays, limit, prefix=''):
    """Every figure of these kinds is there and within the limit."""
    kinds = tuple({f'{prefix}{NAME}/{name.split("/")[0]}/' for name in arrays})
    found = recipe.distances({f'{NAME}/{k}': a for k, a in arrays.items()}, figures(), prefix)
    assert set(found) == {name for name in figures() if name.startswith(kinds)} and found
    assert not {name: error for name, error in found.items() if not error < limit}


# --- Official figures ---


@pytest.mark.parametrize(
    'truncation',
    [
        t if t == 0.735 else pytest.param(t, marks=pytest.mark.exhaustive)
        for t in biggan_figures.TRUNCATIONS
    ],
)
def test_images_and_every_layer_equal_the_official_ones(truncation):
    """0.735 is between two rows of statistics, 0.14 and 0.58 miss theirs by rounding."""
    assert_equal(biggan_figures.forward(model(), truncation), FORWARD)


@functools.cache
def gradients():
    return biggan_figures.gradients(model())


@pytest.mark.exhaustive
def test_gradients_equal_the_official_ones():
    assert_equal(gradients(), GRADIENT)


@pytest.mark.exhaustive
def test_embedding_soft_classes_and_truncated_codes_equal_the_official_ones():
    arrays = biggan_figures.rest(model())
    for name in ('embed', 'truncated_noise_t0.4_seed0', 'truncated_noise_t0.4_seed7'):
        assert recipe.distance(arrays[name], figures()[f'{NAME}/{name}']) < 1e-6
    assert_equal({name: a for name, a in arrays.items() if '/' in name}, FORWARD)


def test_spectral_norms_are_the_official_ones():
    names = [str(name) for name in figures()[f'{NAME}/sigma/names']]
    found = biggan_figures.divisors(model(), names)
    np.testing.assert_allclose(found, figures()[f'{NAME}/sigma/value'], rtol=1e-12)


@pytest.mark.exhaustive
def test_pixels_are_within_one_of_the_official_image_writers():
    """It multiplies (image + 1) / 2 by 256, jaxinv by 255."""
    image = gradients()['grad/img']
    rows = pixels.to_uint8(image.transpose(0, 2, 3, 1))[0, :4].astype(int)
    assert np.abs(rows - figures()[f'{NAME}/uint8_first_rows']).max() <= 1


@pytest.mark.parametrize(
    'truncation',
    [
        pytest.param(0.735, marks=pytest.mark.exhaustive),
        *(pytest.param(t, marks=pytest.mark.exhaustive) for t in (0.14, 0.58)),
    ],
)
def test_correct_interpolation_differs_where_the_official_one_is_wrong(truncation):
    """And is the image of linearly interpolated statistics."""
    m = model()
    found = biggan_figures.images(m, truncation, 'correct')
    official = figures()[f'{NAME}/t{truncation}/img/sample']
    assert recipe.distance(recipe.sampled(found, len(official)), official) > 0.1
    place = truncation * 50
    rows = np.arange(51)

    def at(table):
        mixed = [np.interp(place, rows, column) for column in np.asarray(table).T]
        return jnp.tile(jnp.float32(mixed), (51, 1))

    mixed = jax.tree.map(at, m.weights['buffers']['statistics'])
    weights = {**m.weights, 'buffers': {**m.weights['buffers'], 'statistics': mixed}}
    w = m.generator.map(weights, m.z * truncation, m.label)[:, None]
    expected = recipe.nchw(jax.jit(m.generator.synthesize)(weights, w)[0])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.exhaustive
def test_everything_equals_the_official_float64_runs():
    """As near as kernels divided by their spectral norms and kept in float32 come."""
    with jax.enable_x64(True):
        m = model('float64')
        arrays = biggan_figures.gradients(m) | biggan_figures.forward(m, 0.735)
        found = recipe.distances({f'{NAME}/{k}': a for k, a in arrays.items()}, figures(), 'f64/')
    assert len(found) > 10 and max(found.values()) < FLOAT64


# --- Truncation ---


def test_rows_on_the_grid_are_themselves_and_between_it_is_linear():
    for i in range(1, 51):
        assert biggan.statistics_rows(i / 50, 51, 'correct') == ((i, 1.0),)
    ((low, share), (high, rest)) = biggan.statistics_rows(0.735, 51, 'correct')
    assert (low, high) == (36, 37)
    np.testing.assert_allclose([share, rest], [0.25, 0.75], atol=1e-6)


def test_official_rows_are_exchanged_and_miss_the_grid():
    def nearest(t):
        return max(biggan.statistics_rows(t, 51, 'official'), key=lambda pair: pair[1])[0]

    np.testing.assert_allclose(dict(biggan.statistics_rows(0.735, 51, 'official'))[36], 0.75)
    missed = {i / 50: nearest(i / 50) - i for i in range(1, 50) if nearest(i / 50) != i}
    assert missed == {0.14: 1, 0.28: 1, 0.56: 1, 0.58: -1, 0.94: -1}


def test_truncated_codes_are_cut_normals():
    z = latents.sample_z(3, 400, 50, truncation=0.5)
    assert np.abs(z).max() <= 1 and z.dtype == np.float32
    # The deviation of a normal within 2 deviations.
    np.testing.assert_allclose(z.std(), 0.5 * 0.8796, rtol=0.02)
    np.testing.assert_array_equal(z[:10], latents.sample_z(3, 10, 50, truncation=0.5))


# --- The contract of generators ---


@pytest.fixture(scope='module')
def small():
    """A generator and normal weights of its own scale; statistics differ from row to row."""
    generator = biggan_deep(**SMALL, truncation=0.7)
    rng = np.random.default_rng(0)

    def normal(path, leaf):
        values = rng.standard_normal(leaf.shape)
        if 'statistics' in str(path):
            values = 1 + 0.3 * np.abs(values)
        elif leaf.ndim > 1 and 'embeddings' not in str(path):
            values /= np.sqrt(np.prod(leaf.shape[:-1]))
        return jnp.float32(values)

    shapes = jax.eval_shape(generator.init, KEY)
    return generator, jax.tree_util.tree_map_with_path(normal, shapes)


@pytest.fixture(scope='module')
def w(small):
    generator, weights = small
    z = jax.random.normal(KEY, [2, 6])
    return generator.map(weights, z, jax.nn.one_hot(jnp.array([1, 3]), 5))[:, None]


@pytest.fixture(scope='module')
def synthesize(small):
    return jax.jit(small[0].synthesize, static_argnames='noise')


@pytest.mark.parametrize(
    ('resolution', 'millions', 'features'), [(128, 50.4, 4), (256, 55.9, 5), (512, 56.2, 6)]
)
def test_official_sizes_have_the_official_number_of_parameters(resolution, millions, features):
    generator = biggan_deep(resolution)
    spec = generator.spec
    weights = jax.eval_shape(generator.init, KEY)
    counted = weights['params'], weights['buffers']['mapping']
    count = sum(leaf.size for leaf in jax.tree.leaves(counted))
    count += 125 * (9 * 128 + 1)  # of the last convolution jaxinv keeps three channels of 128
    assert round(count / 1e6, 1) == millions
    assert count == {128: 50_388_609, 256: 55_880_833, 512: 56_163_905}[resolution]
    shapes = dict(spec.feature_shapes)
    assert shapes['F2'] == (8, 8, 2048) and shapes['F4'] == (16, 16, 1024)
    assert len(shapes) == features
    w = jax.ShapeDtypeStruct([2, spec.num_ws, spec.w_dim], jnp.float32)
    found, taken = jax.eval_shape(generator.synthesize, weights, w)
    assert found.shape == (2, resolution, resolution, 3) and found.dtype == jnp.float32
    assert {k: v.shape[1:] for k, v in taken.items()} == shapes


def test_w_is_the_code_and_the_class_and_w_plus_has_equal_rows(small, synthesize, w):
    generator, weights = small
    embeddings = weights['buffers']['mapping']['embeddings']
    np.testing.assert_array_equal(w[:, 0, 6:], embeddings[jnp.array([1, 3])])
    soft = generator.map(weights, jnp.zeros([1, 6]), jnp.array([[0.5, 0.5, 0, 0, 0]]))
    np.testing.assert_allclose(soft[0, 6:], embeddings[:2].mean(0), rtol=1e-6)
    w_plus = jnp.broadcast_to(w, (2, 5, 10))
    plain = synthesize(weights, w)[0]
    np.testing.assert_allclose(synthesize(weights, w_plus)[0], plain, atol=1e-6)
    for noise in ('none', 'const'):
        np.testing.assert_array_equal(synthesize(weights, w, noise=noise)[0], plain)


def test_each_row_conditions_its_own_layer(small, synthesize, w):
    _, weights = small
    w_plus = jnp.broadcast_to(w, (2, 5, 10))
    features = synthesize(weights, w_plus)[1]
    for row in range(5):
        for part in (slice(0, 6), slice(6, 10)):  # the code and the class
            moved = w_plus.at[:, row, part].add(1.0)
            pictures, moved_features = synthesize(weights, moved)
            changed = np.abs(moved_features['F2'] - features['F2']).max() > 1e-3
            assert changed == (row < 3)  # rows 0 to 2: the first feature and two blocks
            assert np.abs(pictures - synthesize(weights, w_plus)[0]).max() > 1e-3


def test_one_class_makes_a_generator_without_labels(small):
    generator, weights = small
    one = generators.with_label(generator, 3)
    z = jax.random.normal(KEY, [2, 6])
    expected = generator.map(weights, z, jnp.eye(5)[jnp.array([3, 3])])
    np.testing.assert_allclose(one.map(weights, z), expected)
    assert one.spec.label_dim == 0 and one.spec.z_truncation == 0.7
    with pytest.raises(ValueError, match='takes .2, 5.'):
        generator.map(weights, z)


def test_taps_change_what_comes_after(small, synthesize, w):
    generator, weights = small
    assert dict(generator.spec.feature_shapes) == {'F2': (8, 8, 64)}
    pictures, features = synthesize(weights, w)
    keep = {'F2': Affine(jnp.ones([]), jnp.zeros([2, 8, 8, 64]))}
    np.testing.assert_allclose(synthesize(weights, w, taps=keep)[0], pictures, atol=1e-6)
    swap = {'F2': Affine(jnp.zeros([]), features['F2'][::-1])}
    swapped, tapped = synthesize(weights, w, taps=swap)
    np.testing.assert_allclose(tapped['F2'], features['F2'][::-1])
    assert np.abs(swapped - pictures).max() > 0.01


@pytest.mark.long
def test_gradients_reach_every_parameter_and_are_the_slope(small, w):
    generator, weights = small

    @jax.jit
    def loss(params, w):
        return jnp.mean(generator.synthesize({**weights, 'params': params}, w)[0] ** 2)

    g_params, g_w = jax.jit(jax.grad(loss, (0, 1)))(weights['params'], w)
    for path, leaf in jax.tree_util.tree_leaves_with_path(g_params):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path
    length = jnp.linalg.norm(g_w)
    ends = [loss(weights['params'], w + step * g_w / length) for step in (2e-3, -2e-3)]
    np.testing.assert_allclose(length, (ends[0] - ends[1]) / 4e-3, rtol=2e-2)


@pytest.mark.exhaustive
def test_vmapped_weights_equal_one_by_one(small, w):
    generator, weights = small
    both = [weights['params'], jax.tree.map(lambda p: 0.9 * p, weights['params'])]
    stacked = jax.tree.map(lambda *p: jnp.stack(p), *both)

    def value_and_gradient(params, w):
        def loss(params):
            pictures = generator.synthesize({**weights, 'params': params}, w[None])[0]
            return jnp.mean(pictures**2)

        return jax.value_and_grad(loss)(params)

    values, gradients = jax.jit(jax.vmap(value_and_gradient))(stacked, w)
    alone = jax.jit(value_and_gradient)
    for i in range(2):
        value, gradient = alone(both[i], w[i])
        np.testing.assert_allclose(values[i], value, rtol=1e-5)
        for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(gradient), strict=True):
            atol = max(1e-6, 1e-4 * np.abs(other).max())
            np.testing.assert_allclose(one[i], other, rtol=1e-3, atol=atol)


@pytest.mark.long
def test_bfloat16_features_make_almost_the_same_float32_image(small, synthesize, w):
    generator, weights = small
    half = generators.with_computing(generator, 'bfloat16')
    assert half.spec == dataclasses.replace(generator.spec, compute_dtype='bfloat16')
    pictures, features = jax.jit(half.synthesize)(weights, w)
    assert pictures.dtype == jnp.float32 and features['F2'].dtype == jnp.bfloat16
    plain = synthesize(weights, w)[0]
    assert 0 < recipe.distance(pictures, plain) < 0.1


# --- Records and mistakes ---


def test_options_change_the_generator_and_not_its_weights(small):
    generator, weights = small
    other = generators.with_options(generator, truncation=0.3, truncation_mode='official')
    assert other is generators.with_options(generator, truncation=0.3, truncation_mode='official')
    assert other.spec.z_truncation == 0.3 and generator.spec.z_truncation == 0.7
    shapes = jax.eval_shape(other.init, KEY)
    assert jax.tree.all(jax.tree.map(lambda a, b: a.shape == b.shape, weights, shapes))
    with pytest.raises(ValueError, match='has no psi; it has resolution'):
        generators.with_options(generator, psi=0.5)


def test_a_record_makes_the_same_generator():
    for arguments in ({'resolution': 256}, SMALL | {'truncation': 0.4, 'epsilon': 1e-3}):
        generator = biggan_deep(**arguments, truncation_mode='official', name='x')
        record = json.loads(json.dumps(generators.record(generator.spec)))
        assert generators.remake(record).spec == generator.spec
        hash(generator.spec)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'layers': None}, 'of 16 pixels needs `layers`'),
        ({'layers': LAYERS[1:]}, 'Block 0 of .* goes from 8 to 4'),
        ({'layers': LAYERS[:3]}, 'end with 2 times'),
        ({'resolution': 32}, 'make 16 pixels, not 32'),
        ({'truncation': 0.0}, 'above 0 and at most 1'),
        ({'truncation': 1.5}, 'above 0 and at most 1'),
        ({'truncation_mode': 'swapped'}, 'correct or official'),
        ({'channel_width': 4}, 'channel_width of .* is 4'),
        ({'num_statistics': 1}, 'num_statistics of .* is 1'),
    ],
)
def test_what_cannot_be_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        biggan_deep(**SMALL | change)


@pytest.mark.parametrize(
    'change',
    [
        {'layers': 'all'},
        {'layers': [[True, 16]]},
        {'layers': [[True, 16, 8]] * 100},
        {'channel_width': 1 << 40},
        {'num_classes': None},
        {'truncation': 'half'},
        {'surprise': 1},
        {'resolution': 1 << 20},
    ],
)
def test_records_of_files_are_not_trusted(change):
    record = generators.record(biggan_deep(**SMALL).spec)
    record['arguments'] |= change
    with pytest.raises(ValueError, match='The record of the generator has'):
        generators.remake(record)
