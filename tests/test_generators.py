"""The contract of every generator, on tiny ones; the real one against the OpenVINO runtime."""

import pathlib

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxinv import generators
from jaxinv.generators import checks
from jaxinv.generators.stylegan2 import stylegan2
from jaxinv.io import cache_dir
from jaxinv.types import Affine
from jaxinv.weights import zoo
from jaxinv.weights.zoo import load_named

pytestmark = pytest.mark.first

KEY = jax.random.key(1)
FIGURES = pathlib.Path(__file__).parent / 'data' / 'openvino_mobile_stylegan.npz'
REAL = [('mobile_stylegan_ffhq', 512), ('mobile_stylegan_ffhq', 1024)]
MAKEABLE = [('tiny', 32), ('tiny', 64), *REAL]


@pytest.fixture(scope='module', params=['mobile_stylegan', 'stylegan2'])
def small(request, tiny):
    """A small random generator of each kind, and its weights."""
    if request.param == 'mobile_stylegan':
        return tiny
    generator = stylegan2(16, z_dim=8, w_dim=8, mapping_layers=2, channels=(8, 8, 4))
    return generator, jax.jit(generator.init)(
        jax.random.key(1, impl='unsafe_rbg')
    )  # compiles sooner


@pytest.fixture(scope='module')
def w(small):
    generator, weights = small
    return generator.map(weights, jax.random.normal(KEY, [2, generator.spec.z_dim]))[:, None]


@pytest.fixture(scope='module')
def synthesize(small):
    """Compiled; for noise 'const' and 'none'."""
    return jax.jit(small[0].synthesize, static_argnames='noise')


def synthesize_with(generator, noise=None, taps=None):
    return jax.jit(lambda weights, w: generator.synthesize(weights, w, noise or 'const', taps)[0])


@pytest.mark.parametrize(('name', 'resolution'), MAKEABLE)
@pytest.mark.parametrize('space', ['w', 'w_plus'])
def test_shapes_are_those_of_the_spec(name, resolution, space):
    generator = generators.make(name, resolution)
    spec = generator.spec
    assert spec.resolution == resolution
    weights = jax.eval_shape(generator.init, KEY)
    z = jax.ShapeDtypeStruct([3, spec.z_dim], jnp.float32)
    w = jax.eval_shape(generator.map, weights, z)
    assert w.shape == (3, spec.w_dim)
    rows = spec.num_ws if space == 'w_plus' else 1
    w = jax.ShapeDtypeStruct([3, rows, spec.w_dim], jnp.float32)
    images, features = jax.eval_shape(generator.synthesize, weights, w)
    assert images.shape == (3, resolution, resolution, 3) and images.dtype == jnp.float32
    assert {k: v.shape for k, v in features.items()} == {
        k: (3, *shape) for k, shape in spec.feature_shapes
    }
    noise = weights['buffers']['noise']
    assert {k: v.shape for k, v in noise.items()} == dict(spec.noise_shapes)
    assert weights['buffers']['w_avg'].shape == (spec.w_dim,)
    assert set(weights['params']) == {'synthesis'}


def test_names_of_weights_contain_no_slash(small):
    # Files join the names with it.
    weights = jax.eval_shape(small[0].init, KEY)
    assert not [name for path in flatten_dict(weights) for name in path if '/' in name]


def test_w_is_w_plus_with_equal_rows(small, synthesize, w):
    generator, weights = small
    w_plus = jnp.broadcast_to(w, (2, generator.spec.num_ws, generator.spec.w_dim))
    np.testing.assert_allclose(synthesize(weights, w)[0], synthesize(weights, w_plus)[0], atol=1e-5)


@pytest.mark.exhaustive
def test_jit_equals_eager(small, synthesize, w):
    generator, weights = small
    eager, features = generator.synthesize(weights, w)
    jitted, jitted_features = synthesize(weights, w)
    np.testing.assert_allclose(jitted, eager, atol=1e-5)
    for name, feature in features.items():
        np.testing.assert_allclose(jitted_features[name], feature, atol=1e-4)


def test_half_size_is_the_2x2_mean_of_full_size():
    full, weights = load_named('tiny', 64)
    w = full.map(weights, jax.random.normal(KEY, [2, full.spec.z_dim]))[:, None]
    images = jax.jit(full.synthesize)(weights, w)[0]
    half = jax.jit(generators.make('tiny', 32).synthesize)(weights, w)[0]
    np.testing.assert_allclose(half, images.reshape(2, 32, 2, 32, 2, 3).mean((2, 4)), atol=1e-5)


def test_const_noise_is_the_noise_of_the_buffers(small, synthesize, w):
    generator, weights = small
    const = synthesize(weights, w)[0]
    maps = {name: value[None] for name, value in weights['buffers']['noise'].items()}
    np.testing.assert_allclose(synthesize_with(generator, maps)(weights, w), const, atol=1e-6)
    batch = jax.tree.map(lambda m: jnp.concatenate([m, jnp.zeros_like(m)]), maps)
    mixed = synthesize_with(generator, batch)(weights, w)
    none = synthesize(weights, w, noise='none')[0]
    np.testing.assert_allclose(mixed[0], const[0], atol=1e-5)
    np.testing.assert_allclose(mixed[1], none[1], atol=1e-5)
    assert np.abs(const - none).max() > 0.01


@pytest.mark.exhaustive
def test_a_key_draws_other_noise_for_every_layer_and_image(small, w):
    generator, weights = small
    maps = checks.noise_maps(KEY, weights, generator.spec, batch=2)
    assert {k: v.shape for k, v in maps.items()} == {
        k: (2, *shape) for k, shape in generator.spec.noise_shapes
    }
    drawn = np.concatenate([np.asarray(m).reshape(-1, 16) for m in maps.values()])
    assert len(np.unique(drawn, axis=0)) == len(drawn)  # no 16 values twice: layers of equal size
    np.testing.assert_allclose([drawn.mean(), drawn.std()], [0, 1], atol=0.1)
    synthesize = jax.jit(lambda w, noise: generator.synthesize(weights, w, noise)[0])
    twice = jnp.repeat(w[:1], 2, 0)
    images = synthesize(twice, KEY)
    np.testing.assert_array_equal(images, synthesize(twice, KEY))
    assert np.abs(images[0] - images[1]).max() > 0.01
    assert np.abs(images - synthesize(twice, jax.random.key(2))).max() > 0.01


@pytest.mark.long
def test_identity_taps_change_nothing_and_others_do(small, synthesize, w):
    generator, weights = small
    images, features = synthesize(weights, w)
    shapes = dict(generator.spec.feature_shapes)
    identity = {
        name: Affine(jnp.ones([]), jnp.zeros([1, *shape])) for name, shape in shapes.items()
    }
    same = synthesize_with(generator, taps=identity)(weights, w)
    np.testing.assert_allclose(same, images, atol=1e-6)
    swapping = jax.jit(generator.synthesize, static_argnames='noise')
    for name in shapes:
        # A tap that puts the other image's feature in place gives the features it asks for.
        swap = {name: Affine(jnp.zeros([]), features[name][::-1])}
        swapped, tapped = swapping(weights, w, taps=swap)
        np.testing.assert_allclose(tapped[name], features[name][::-1])
        assert np.abs(swapped - images).max() > 0.01


def test_gradients_are_finite_and_reach_every_parameter(small, w):
    generator, weights = small
    noise = {name: value[None] for name, value in weights['buffers']['noise'].items()}

    @jax.jit
    @jax.grad
    def gradient(variables):
        full = {'params': variables['params'], 'buffers': weights['buffers']}
        images, features = generator.synthesize(full, variables['w'], variables['noise'])
        return jnp.sum(images**2) + sum(jnp.sum(f**2) for f in features.values())

    gradients = gradient({'params': weights['params'], 'w': w, 'noise': noise})
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path


@pytest.mark.parametrize(
    'moving',
    [
        pytest.param('w', marks=pytest.mark.long),
        pytest.param('noise', marks=pytest.mark.exhaustive),
    ],
)
def test_gradient_is_the_slope(small, w, moving):
    """In float64, where a difference of losses keeps its digits."""
    generator, weights = small
    maps = {name: value[None] for name, value in weights['buffers']['noise'].items()}
    with jax.enable_x64(True):
        weights, w, maps = jax.tree.map(
            lambda x: jnp.asarray(np.asarray(x), jnp.float64), (weights, w, maps)
        )
        variables = {'w': w, 'noise': maps}
        start, unravel = jax.flatten_util.ravel_pytree(variables[moving])

        @jax.jit
        def loss(flat):
            given = variables | {moving: unravel(flat)}
            return jnp.mean(generator.synthesize(weights, given['w'], given['noise'])[0] ** 2)

        direction = jnp.asarray(np.random.RandomState(0).standard_normal(start.shape))
        step = 1e-6
        slope = (loss(start + step * direction) - loss(start - step * direction)) / (2 * step)
        np.testing.assert_allclose(jnp.vdot(jax.grad(loss)(start), direction), slope, rtol=1e-5)


@pytest.mark.long
def test_vmapped_weights_equal_one_by_one(small, w):
    generator, weights = small
    params = [weights['params'], jax.tree.map(lambda p: 0.9 * p, weights['params'])]
    stacked = jax.tree.map(lambda *p: jnp.stack(p), *params)

    def value_and_gradient(params, w):
        def loss(params):
            images = generator.synthesize({**weights, 'params': params}, w[None])[0]
            return jnp.mean(images**2)

        return jax.value_and_grad(loss)(params)

    values, gradients = jax.jit(jax.vmap(value_and_gradient))(stacked, w)
    alone = jax.jit(value_and_gradient)
    for i in range(2):
        value, gradient = alone(params[i], w[i])
        np.testing.assert_allclose(values[i], value, rtol=1e-5)
        for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(gradient), strict=True):
            atol = max(1e-5, 1e-4 * np.abs(other).max())
            np.testing.assert_allclose(one[i], other, rtol=1e-3, atol=atol)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'w': [2, 16]}, r'w has shape \[2, 16\]; tiny takes \[b, 1, 16\]'),
        ({'w': [2, 5, 16]}, r'\[b, 11, 16\] \(W\+\)'),
        ({'noise': 'random'}, "noise is 'random'; allowed: 'const', 'none', a key"),
        ({'noise': np.zeros(3)}, 'noise is of type ndarray; allowed'),
        ({'noise': jax.random.split(KEY)}, r'noise is an array of keys \[2\]; one key is allowed'),
        ({'noise': {}}, "'b16_conv1' is missing"),
        ({'taps': {'F12': None}}, "No feature 'F12' to tap; tiny has F4, F6"),
    ],
)
def test_wrong_arguments_are_named(tiny, arguments, message):
    generator, weights = tiny
    arguments = dict(arguments)
    w = jnp.zeros(arguments.pop('w', [2, 1, 16]))
    with pytest.raises(ValueError, match=message):
        generator.synthesize(weights, w, **arguments)


def test_unknown_names_and_sizes_say_what_exists():
    with pytest.raises(ValueError, match='known: mobile_stylegan_ffhq, tiny'):
        generators.make('stylegan9')
    with pytest.raises(ValueError, match='1024 or 512 pixels, not 256'):
        generators.make('mobile_stylegan_ffhq', 256)


def test_cached_weights_are_verified(tmp_path, monkeypatch):
    monkeypatch.setenv('JAXINV_CACHE', str(tmp_path))
    flat = {'params/a': np.arange(3, dtype=np.float32), 'params/b': np.float32([[2.0]])}
    made = []

    def cached():
        tree = zoo._cached('some', {'file': 'hash'}, flat, lambda: made.append(1) or flat)
        np.testing.assert_array_equal(tree['params']['a'], flat['params/a'])

    cached()
    cached()
    assert len(made) == 1  # the second came from the file
    (path,) = (cache_dir() / 'converted').iterdir()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    cached()
    assert len(made) == 2  # a flipped bit is noticed, and mended
    path.write_bytes(data[:40])
    cached()
    cached()
    assert len(made) == 3


@pytest.fixture(scope='module')
def figures():
    with np.load(FIGURES) as file:
        return dict(file)


@pytest.fixture(scope='module')
def real():
    return load_named('mobile_stylegan_ffhq', 1024)


def test_mapping_equals_openvino(real, figures):
    generator, weights = real
    np.testing.assert_allclose(generator.map(weights, figures['z']), figures['w'], atol=2e-5)


def test_images_equal_openvino_and_half_size_is_their_mean(real, figures):
    generator, weights = real
    full = jax.jit(lambda weights, w: generator.synthesize(weights, w)[0])
    small = generators.make('mobile_stylegan_ffhq')
    half = jax.jit(lambda weights, w: small.synthesize(weights, w)[0])
    for i, w in enumerate(figures['w']):
        image = np.asarray(full(weights, w[None, None])[0])
        pixels = image[figures['rows'], figures['columns']]
        # 2e-5 is our distance from the same network in float64, 4e-5 the runtime's.
        np.testing.assert_allclose(pixels, figures['pixels'][i], rtol=0, atol=1e-4)
        image = image.astype(np.float64)
        statistics = [f(image, axis=(0, 1)) for f in (np.mean, np.std, np.min, np.max)]
        np.testing.assert_allclose(statistics, figures['statistics'][:, i], rtol=0, atol=1e-4)
        mean = image.reshape(512, 2, 512, 2, 3).mean((1, 3))
        np.testing.assert_allclose(half(weights, w[None, None])[0], mean, rtol=0, atol=1e-5)


def test_real_noise_has_unit_rms_and_w_avg_is_a_mean_of_samples(real):
    generator, weights = real
    for noise in weights['buffers']['noise'].values():
        np.testing.assert_allclose(np.sqrt(np.mean(np.square(noise))), 1, rtol=1e-4)
    z = jax.random.normal(KEY, [2000, generator.spec.z_dim])
    w = generator.map(weights, z)
    spread = jnp.std(w, 0) / jnp.sqrt(2000)
    assert jnp.mean(jnp.abs(w.mean(0) - weights['buffers']['w_avg']) < 4 * spread) > 0.99
