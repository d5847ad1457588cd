"""StyleSpace: an offset of a style is a change of the affine layer's bias, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinv import generators, rendering
from jaxinv.errors import JaxinvError
from jaxinv.generators import style_space, with_computing
from jaxinv.generators.stylegan2 import stylegan2

ARCHITECTURES = ('mobile_stylegan', 'skip', pytest.param('resnet', marks=pytest.mark.long))


@pytest.fixture(scope='module', params=ARCHITECTURES)
def small(request, tiny):
    """A small random generator of each kind, its weights, and codes in W+."""
    generator, weights = tiny
    if request.param != 'mobile_stylegan':
        sizes = {'z_dim': 8, 'w_dim': 8, 'mapping_layers': 1, 'channels': (8, 6, 4)}
        generator = stylegan2(16, **sizes, architecture=request.param)
        rng = np.random.default_rng(0)
        shapes = jax.eval_shape(generator.init, jax.random.key(0))
        weights = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), shapes)
    spec = generator.spec
    w = np.random.default_rng(1).normal(size=(2, spec.num_ws, spec.w_dim)).astype('f4')
    return generator, weights, w


@pytest.fixture(scope='module')
def images_of(small):
    """images_of(weights, w, {layer: offset}), one program for all."""
    generator, _, w = small
    zero = {layer: np.zeros((2, count), 'f4') for layer, _, count in generator.spec.style_layers}
    run = jax.jit(lambda weights, w, moved: generator.synthesize(weights, w, 'const', None, moved))

    def images(weights, w, offsets=()):
        moved = {k: np.broadcast_to(v, zero[k].shape) for k, v in dict(offsets).items()}
        return np.asarray(run(weights, w, zero | moved)[0])

    return images


def with_affine(weights, layer, change):
    """The weights with `change` applied to the affine layer's {'kernel', 'bias'}."""
    block, name = layer.split('_', 1)
    params = jax.tree.map(lambda x: x, weights['params'])
    dense = params['synthesis'][block][name]['modulation']
    params['synthesis'][block][name]['modulation'] = change(dense)
    return {**weights, 'params': params}


def test_an_offset_is_a_change_of_the_affine_bias(small, images_of):
    generator, weights, w = small
    plain = images_of(weights, w)
    np.testing.assert_allclose(rendering.render(generator, weights, w), plain, atol=1e-4, rtol=1e-4)
    for i, (layer, _, count) in enumerate(generator.spec.style_layers):
        delta = np.zeros((1, count), 'f4')
        delta[0, i % count] = 3.0
        found = images_of(weights, w, {layer: delta})
        changed = with_affine(weights, layer, lambda d, x=delta: d | {'bias': d['bias'] + x[0]})
        np.testing.assert_allclose(found, images_of(changed, w), atol=1e-4, rtol=1e-4)
        assert np.abs(found - plain).max() > 1e-4, layer


def test_styles_are_what_the_layers_get(small, images_of):
    """With constant affine layers of these styles, the images are the same."""
    generator, weights, w = small
    own = style_space.styles(generator, weights, w)
    assert {k: v.shape for k, v in own.items()} == {
        layer: (2, count) for layer, _, count in generator.spec.style_layers
    }
    constant = weights
    for layer, style in own.items():
        fixed = {'kernel': lambda d: 0 * d['kernel'], 'bias': lambda d, s=style: s[0]}
        constant = with_affine(constant, layer, lambda d, f=fixed: {k: f[k](d) for k in d})
    found = images_of(constant, jnp.zeros_like(w))
    np.testing.assert_allclose(found[0], images_of(weights, w)[0], atol=1e-4, rtol=1e-4)


@pytest.mark.long
def test_offsets_of_each_image_and_of_all_and_none(tiny):
    generator, weights = tiny
    w = np.random.default_rng(1).normal(size=(2, 1, generator.spec.w_dim)).astype('f4')
    layer, _, count = generator.spec.style_layers[2]
    rng = np.random.default_rng(3)
    each = rng.normal(size=(2, count)).astype('f4')
    found = rendering.render(generator, weights, w, {layer: each})
    for i in range(2):
        alone = rendering.render(generator, weights, w[i : i + 1], {layer: each[i : i + 1]})
        np.testing.assert_allclose(found[i], alone[0], atol=1e-5)
    plain = rendering.render(generator, weights, w)
    np.testing.assert_allclose(rendering.render(generator, weights, w, {}), plain, atol=1e-6)
    assert np.abs(found - plain).max() > 1e-3


def test_no_offsets_cost_nothing(small):
    generator, weights, w = small
    plain = str(jax.make_jaxpr(generator.synthesize)(weights, w))
    none = jax.make_jaxpr(lambda a, b: generator.synthesize(a, b, style_offsets=None))(weights, w)
    assert str(none) == plain


@pytest.mark.long
def test_gradients_by_offsets_with_rematerialisation(tiny):
    generator, weights = tiny
    w = np.ones((1, 1, generator.spec.w_dim), 'f4')
    zero = {layer: jnp.zeros((1, count)) for layer, _, count in generator.spec.style_layers[:3]}

    def gradient(generator):
        def loss(offsets):
            return jnp.sum(generator.synthesize(weights, w, style_offsets=offsets)[0] ** 2)

        return jax.jit(jax.grad(loss))(zero)

    plain, again = gradient(generator), gradient(with_computing(generator, remat=True))
    for layer in zero:
        assert np.abs(plain[layer]).max() > 0
        np.testing.assert_allclose(plain[layer], again[layer], rtol=1e-3, atol=1e-4)


def test_layers_and_channels_that_are_not_there(tiny):
    generator, weights = tiny
    spec = generator.spec
    assert style_space.layer_name(spec, '0') == 'b4_conv1'
    assert style_space.offsets(spec, {'b8_up': {3: 2.0}})['b8_up'][0, 3] == 2
    with pytest.raises(JaxinvError, match="Did you mean 'b8_conv1'"):
        style_space.layer_name(spec, 'b8_conv11')
    with pytest.raises(JaxinvError, match='channels 0 ... 31, not 32'):
        style_space.offsets(spec, {'b8_up': {32: 1.0}})
    w = np.zeros((2, 1, spec.w_dim), 'f4')
    for offsets, words in (
        ({'b8_con': np.zeros((1, 8))}, 'Did you mean'),
        ({'b8_up': np.zeros((3, 32))}, r'allowed: \[1, 32\] or \[2, 32\]'),
    ):
        with pytest.raises(JaxinvError, match=words):
            generator.synthesize(weights, w, style_offsets=offsets)
    other = generators.make('tiny_biggan').spec
    with pytest.raises(JaxinvError, match='no layers with styles'):
        style_space.layer_name(other, 'b8_conv1')
