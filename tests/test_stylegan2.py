"""The StyleGAN2 generator: shapes, names and what is its own among generators.

test_generators.py holds the contract of every generator, test_stylegan2_parity.py the comparison
with official code.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinv.generators.stylegan2 import stylegan2
from jaxinv.types import Affine

KEY = jax.random.key(1)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def normal_weights(generator):
    """Like init's, all of unit variance, and without a program to compile."""
    rng = np.random.default_rng(0)

    def normal(leaf):
        return jnp.asarray(rng.standard_normal(leaf.shape, np.float32))

    return jax.tree.map(normal, jax.eval_shape(generator.init, KEY))


@pytest.mark.parametrize(
    'arguments',
    [
        {'resolution': 1024},  # config-f
        {'resolution': 256, 'channel_base': 16384, 'mapping_layers': 2, 'c_dim': 10},
        {'resolution': 64, 'architecture': 'resnet'},
    ],
)
@pytest.mark.parametrize('space', ['w', 'w_plus'])
def test_shapes_are_those_of_the_spec(arguments, space):
    generator = stylegan2(**arguments)
    spec = generator.spec
    weights = jax.eval_shape(generator.init, KEY)
    if spec.resolution == 1024:
        # As NVIDIA's code counts them in its own models: 30,370,060 parameters, and 2,797,104
        # numbers in buffers, of which 26 are copies of the filter.
        buffers = dict(weights['buffers'])
        trained = (weights['params'], buffers.pop('mapping'))
        assert count(trained) == 30_370_060
        assert count(buffers) == 2_797_104 - 26 * 16
        assert spec.num_ws == 18
    label = (jax.ShapeDtypeStruct([3, spec.label_dim], jnp.float32),) if spec.label_dim else ()
    z = jax.ShapeDtypeStruct([3, spec.z_dim], jnp.float32)
    assert jax.eval_shape(generator.map, weights, z, *label).shape == (3, spec.w_dim)
    rows = spec.num_ws if space == 'w_plus' else 1
    w = jax.ShapeDtypeStruct([3, rows, spec.w_dim], jnp.float32)
    images, features = jax.eval_shape(generator.synthesize, weights, w)
    assert images.shape == (3, spec.resolution, spec.resolution, 3)
    assert images.dtype == jnp.float32
    assert {k: v.shape for k, v in features.items()} == {
        k: (3, *shape) for k, shape in spec.feature_shapes
    }
    noise = weights['buffers']['noise']
    assert {k: v.shape for k, v in noise.items()} == dict(spec.noise_shapes)
    assert set(weights['params']) == {'synthesis'}


@pytest.mark.exhaustive
def test_a_whole_1024_makes_an_image():
    """config-f, as in NVIDIA's models of faces; also with random noise."""
    generator = stylegan2(1024)
    weights = jax.jit(generator.init)(jax.random.key(1, impl='unsafe_rbg'))  # compiles sooner
    w = generator.map(weights, jax.random.normal(KEY, [1, 512]))[:, None]
    images, features = jax.jit(generator.synthesize)(weights, w, jax.random.key(2))
    assert images.shape == (1, 1024, 1024, 3) and np.isfinite(images).all()
    assert 0.01 < np.std(images) < 100
    assert features['F14'].shape == (1, 512, 512, 64)


def test_features_have_sams_names():
    shapes = dict(stylegan2(256).spec.feature_shapes)
    sizes = {name: shapes[name][0] for name in ('F4', 'F6', 'F8', 'F10')}
    assert sizes == {'F4': 16, 'F6': 32, 'F8': 64, 'F10': 128}


@pytest.mark.parametrize('architecture', ['skip', 'resnet'])
def test_a_tap_changes_what_the_next_block_reads_and_not_its_own_torgb(architecture):
    generator = stylegan2(
        16, z_dim=8, w_dim=8, mapping_layers=1, channels=(8, 8, 4), architecture=architecture
    )
    weights, w = normal_weights(generator), jax.random.normal(KEY, [2, 1, 8])
    synthesize = jax.jit(generator.synthesize)
    keep = {'F2': Affine(jnp.ones([2, 1, 1, 1]), jnp.zeros([2, 8, 8, 8]))}
    images, features = synthesize(weights, w, taps=keep)
    swap = {'F2': Affine(jnp.zeros([2, 1, 1, 1]), features['F2'][::-1])}
    assert np.abs(synthesize(weights, w, taps=swap)[0] - images).max() > 0.01
    # With all weights after the feature at zero, only what torgb blocks up to it made is left.
    last = weights['params']['synthesis']['b16']
    weights['params']['synthesis']['b16'] = jax.tree.map(jnp.zeros_like, last)
    left = [synthesize(weights, w, taps=taps)[0] for taps in (swap, keep)]
    np.testing.assert_allclose(*left, atol=1e-5)
    assert (np.abs(left[0]).max() > 0.01) == (architecture == 'skip')


@pytest.mark.parametrize('scaled', [False, True], ids=['nvidia', 'rosinality'])
def test_demodulation_has_its_epsilon_where_each_code_has_it(scaled):
    """Seen only where styles are tiny: a layer with a modulation of 1e-3."""
    c = 8
    generator = stylegan2(
        8, z_dim=4, w_dim=4, mapping_layers=1, channels=(c, c), scaled_epsilon=scaled
    )
    weights = normal_weights(generator)
    layer = weights['params']['synthesis']['b4']['conv1']
    layer['modulation'] = {'kernel': jnp.zeros([4, c]), 'bias': jnp.full([c], 1e-3)}
    layer['bias'] = jnp.zeros([c])
    synthesize = jax.jit(lambda *args: generator.synthesize(*args, noise='none')[1]['F0'])
    feature = synthesize(weights, jnp.zeros([1, 1, 4]))
    const = np.asarray(weights['params']['synthesis']['b4']['const'])
    kernel = np.asarray(layer['kernel']) * 1e-3 * ((9 * c) ** -0.5 if scaled else 1)
    kernel = kernel / np.sqrt((kernel**2).sum((0, 1, 2)) + 1e-8)
    padded = np.pad(const, ((1, 1), (1, 1), (0, 0)))
    slow = sum(padded[i : i + 4, j : j + 4] @ kernel[i, j] for i in range(3) for j in range(3))
    slow = np.where(slow > 0, slow, 0.2 * slow) * 2**0.5
    np.testing.assert_allclose(feature[0], slow, rtol=1e-4, atol=1e-4)


@pytest.mark.exhaustive
def test_random_weights_make_images_and_reach_every_gradient():
    generator = stylegan2(
        16, z_dim=8, w_dim=8, c_dim=3, mapping_layers=2, channels=(8, 8, 4), architecture='resnet'
    )
    weights = jax.jit(generator.init)(jax.random.key(1, impl='unsafe_rbg'))
    w = generator.map(weights, jax.random.normal(KEY, [2, 8]), jnp.eye(3)[:2])[:, None]
    noise = {name: value[None] for name, value in weights['buffers']['noise'].items()}

    def loss(params, w, noise):
        return jnp.sum(generator.synthesize({**weights, 'params': params}, w, noise)[0] ** 2)

    gradients = jax.jit(jax.grad(loss, (0, 1, 2)))(weights['params'], w, noise)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'resolution': 48}, 'images of 8, 16, 32, ... pixels, not 48'),
        ({'resolution': 32, 'architecture': 'unet'}, "architecture is 'unet'"),
        ({'resolution': 32, 'channels': (8, 8)}, r'2 numbers; 32 pixels need 4'),
    ],
)
def test_impossible_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        stylegan2(**arguments)


def test_labels_are_asked_for_and_refused():
    z, label = jnp.zeros([3, 8]), jnp.eye(3)
    arguments = {'z_dim': 8, 'w_dim': 8, 'mapping_layers': 1, 'channels': (4, 4)}
    classes = stylegan2(8, c_dim=3, name='classes', **arguments)
    with pytest.raises(ValueError, match=r'label is None; classes takes \[3, 3\]'):
        classes.map({}, z)
    with pytest.raises(ValueError, match=r'of shape \[3, 3\]; plain takes None'):
        stylegan2(8, name='plain', **arguments).map({}, z, label)
