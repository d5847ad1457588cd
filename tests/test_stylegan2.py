"""StyleGAN2 against recorded figures of the official implementations, and its contract.

The figures' weights are rebuilt from their names (recipe.py). Their per-parameter gradients hold
two losses added up: the one of the W+ codes and the one that goes through the mapping network.
"""

import functools
import json
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recipe

from converters import stylegan2 as converter
from converters import tables
from jaxinv import latents
from jaxinv.generators import resample
from jaxinv.generators.stylegan2 import stylegan2
from jaxinv.types import Affine

FIGURES = pathlib.Path(__file__).parent / 'data' / 'stylegan2.npz'
NVIDIA = ('ada32', 'ada32c', 'ada32res', 'ada32orig', 'ada32clamp')
ROSINALITY = ('ros16', 'ros32')
FORWARD, GRADIENT = 2e-5, 5e-3  # limits of the relative L2 distance, as the figures' notes advise
KEY = jax.random.key(1)


# The plain architecture always; the others with `-m long`, for the tests' time.
MOST_LATER = [n if n == 'ada32' else pytest.param(n, marks=pytest.mark.long) for n in NVIDIA]


@functools.cache
def figures():
    with np.load(FIGURES) as file:
        return dict(file)


@functools.cache
def load(name):
    """The generator, its weights and its functions, compiled once."""
    source = recipe.state_dict(json.loads(str(figures()[f'{name}/entries'])))
    if name in ROSINALITY:
        source['latent_avg'] = figures()[f'{name}/in/latent_avg']
        arguments, convert = converter.rosinality_arguments, converter.convert_rosinality
    else:
        arguments, convert = converter.nvidia_arguments, converter.convert_nvidia
    clamp = 0.75 if name == 'ada32clamp' else None
    generator = stylegan2(name=name, conv_clamp=clamp, **arguments(source))
    like = tables.flatten(jax.eval_shape(generator.init, KEY))
    flat = convert(source, like)
    return types.SimpleNamespace(
        generator=generator,
        weights=jax.tree.map(jnp.asarray, tables.unflatten(flat)),
        paths=flat,
        synthesize=jax.jit(generator.synthesize, static_argnames='noise'),
        source=source,
    )


def given(name, what, shape):
    return recipe.normal(f'input/{name}/{what}', shape)


def w_plus(name):
    spec = load(name).generator.spec
    return given(name, 'wplus', [2 if name in NVIDIA else 1, spec.num_ws, spec.w_dim])


def z_and_label(name):
    n = 3 if name in NVIDIA else 2
    return given(name, 'z', [n, load(name).generator.spec.z_dim]), figures().get(f'{name}/in/c')


def nchw(x):
    return np.asarray(x).transpose(0, 3, 1, 2)


def distance(array, name):
    """Relative L2 distance from a figure, by its sample where only that is kept."""
    array = np.asarray(array, np.float64)
    if name not in figures():
        array, name = recipe.sampled(array, 512), f'{name}/sample'
    figure = figures()[name]
    assert array.shape == figure.shape
    return np.linalg.norm(array - figure) / np.linalg.norm(figure)


def assert_equal(array, name, limit=FORWARD):
    assert distance(array, name) < limit, (name, distance(array, name))


# --- Parity with NVIDIA's code ---


@pytest.mark.parametrize('name', NVIDIA)
def test_mapping_and_truncation_equal_nvidias(name):
    model = load(name)
    z, label = z_and_label(name)
    w = model.generator.map(model.weights, z, label)
    assert_equal(w, f'{name}/map/psi1')
    w_avg = model.weights['buffers']['w_avg']
    assert_equal(latents.truncate(w, w_avg, 0.7), f'{name}/map/psi0.7')
    rows = jnp.broadcast_to(w[:, None], (3, model.generator.spec.num_ws, w.shape[1]))
    assert_equal(latents.truncate(rows, w_avg, 0.7, cutoff=4), f'{name}/map/psi0.7_cutoff4')
    image = model.synthesize(model.weights, latents.truncate(rows, w_avg, 0.5, cutoff=4)[:1])[0]
    assert_equal(nchw(image), f'{name}/full/cutoff_psi0.5_const')


@pytest.mark.parametrize('name', MOST_LATER)
def test_images_and_features_equal_nvidias(name):
    model = load(name)
    images, features = model.synthesize(model.weights, w_plus(name))
    assert_equal(nchw(images), f'{name}/syn/wplus_const')
    for size, feature in zip((4, 8, 16), ('F0', 'F2', 'F4'), strict=True):
        assert_equal(nchw(features[feature]), f'{name}/block/b{size}_x')
    z, label = z_and_label(name)
    w = model.generator.map(model.weights, z, label)
    w = latents.truncate(w, model.weights['buffers']['w_avg'], 0.7)[:2, None]
    for noise in ('const', 'none'):
        images = model.synthesize(model.weights, w, noise=noise)[0]
        assert_equal(nchw(images), f'{name}/syn/psi0.7_{noise}')


@pytest.mark.parametrize('name', MOST_LATER)
def test_gradients_equal_nvidias(name):
    model = load(name)
    r = given(name, 'r', [2, 3, 32, 32]).transpose(0, 2, 3, 1)
    z, label = z_and_label(name)
    label = None if label is None else label[:1]
    w_avg = model.weights['buffers']['w_avg']

    def loss(params, w, z, with_z):
        weights = {**model.weights, 'params': params}
        w_z = latents.truncate(model.generator.map(weights, z, label), w_avg, 0.7)[:, None]
        w_z = jnp.broadcast_to(w_z, (1, *w.shape[1:]))
        images = model.generator.synthesize(weights, jnp.concatenate([w, w_z]))[0]
        return jnp.mean(images[:2] * r) + with_z * jnp.mean(images[2:] * r[:1])

    gradient = jax.jit(jax.grad(loss, (0, 1, 2)))
    of_w, g_w, _ = gradient(model.weights['params'], w_plus(name), z[:1], 0.0)
    of_both, _, g_z = gradient(model.weights['params'], w_plus(name), z[:1], 1.0)
    assert_equal(g_w, f'{name}/grad/wplus', GRADIENT)
    assert_equal(g_z, f'{name}/grad/z_psi0.7', GRADIENT)

    path_of = {entry: path for path, (entry, _) in converter.nvidia_table(model.paths).items()}
    of_w, of_both = tables.flatten({'params': of_w}), tables.flatten({'params': of_both})
    rows = zip(
        figures()[f'{name}/grad/all_names'],
        figures()[f'{name}/grad/all_mean_rms_maxabs'],
        strict=True,
    )
    seen = set()
    for entry, (_, rms, largest) in rows:
        seen.add(path_of[str(entry)])
        g = np.asarray(of_w[path_of[str(entry)]])
        np.testing.assert_allclose(np.sqrt(np.mean(g**2)), rms, rtol=GRADIENT)
        np.testing.assert_allclose(np.abs(g).max(), largest, rtol=GRADIENT)
    assert seen == set(of_w)  # no parameter of ours without a figure

    kept = [key for key in figures() if key.startswith(f'{name}/grad/param/')]
    assert kept
    for key in kept:
        key = key.removesuffix('/sample')
        path = path_of[key.split('/')[-1]]
        assert_equal(to_nvidia(of_both[path], path), key, GRADIENT)


def to_nvidia(array, path):
    """Back to PyTorch's layout."""
    array = np.asarray(array)
    if path.endswith('const'):
        return array.transpose(2, 0, 1)
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.T[..., None, None] if '/skip/' in path or '/torgb/kernel' in path else array.T


# --- Parity with rosinality's code ---


@pytest.mark.parametrize(
    ('name', 'inject'), [('ros16', 4), pytest.param('ros32', 3, marks=pytest.mark.long)]
)
def test_images_equal_rosinalitys(name, inject):
    model = load(name)
    spec = model.generator.spec
    w = model.generator.map(model.weights, z_and_label(name)[0])
    assert_equal(w, f'{name}/map/w')
    truncated = latents.truncate(w, model.weights['buffers']['w_avg'], 0.7)[:, None]
    mixed = jnp.where(jnp.arange(spec.num_ws)[:, None] < inject, w[:1, None], w[1:, None])
    codes = {
        'z_psi0.7': truncated,
        'w_input_is_latent': w[:1, None],
        'wplus': w_plus(name),
        f'mix_inject{inject}': mixed,
    }
    for figure, code in codes.items():
        assert_equal(nchw(model.synthesize(model.weights, code)[0]), f'{name}/img/{figure}')
    maps = {
        layer: given(name, f'noise_{i}', [1, 1, *shape[:2]]).transpose(0, 2, 3, 1)
        for i, (layer, shape) in enumerate(spec.noise_shapes)
    }
    images = jax.jit(model.generator.synthesize)(model.weights, w_plus(name), maps)[0]
    assert_equal(nchw(images), f'{name}/img/wplus_given_noise')


@pytest.mark.parametrize('scaled', [False, True], ids=['nvidia', 'rosinality'])
def test_demodulation_has_its_epsilon_where_each_code_has_it(scaled):
    """Seen only where styles are tiny: a layer with a modulation of 1e-3."""
    c = 8
    generator = stylegan2(
        8, z_dim=4, w_dim=4, mapping_layers=1, channels=(c, c), scaled_epsilon=scaled
    )
    weights = jax.jit(generator.init)(KEY)
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


# --- The operators ---


def normal(i, *shape):
    return np.random.default_rng(i).standard_normal(shape, dtype=np.float32)


def test_up_conv_is_its_definition_pixel_by_pixel():
    x, kernel = normal(0, 1, 3, 4, 2), normal(1, 3, 3, 2, 5)
    y = np.zeros([7 + 2, 9 + 2, 5])  # with the filter's padding of 1
    for i in range(3):
        for j in range(4):
            for a in range(3):
                for b in range(3):
                    y[1 + 2 * i + a, 1 + 2 * j + b] += x[0, i, j] @ kernel[a, b]
    fir = recipe.FIR / 16
    slow = np.array(
        [
            [np.tensordot(fir, y[i : i + 4, j : j + 4], 2) for j in range(2 * 4)]
            for i in range(2 * 3)
        ]
    )
    np.testing.assert_allclose(resample.up_conv(x, kernel)[0], slow, rtol=1e-4, atol=1e-4)


def test_up_is_zeros_between_pixels_and_the_filter():
    x = normal(0, 1, 3, 4, 2)
    y = np.zeros([2 * 3 + 3, 2 * 4 + 3, 2])
    y[2 : 2 + 6 : 2, 2 : 2 + 8 : 2] = x[0]
    slow = [
        [np.tensordot(recipe.FIR / 16, y[i : i + 4, j : j + 4], 2) for j in range(8)]
        for i in range(6)
    ]
    np.testing.assert_allclose(resample.up(x)[0], slow, rtol=1e-4, atol=1e-5)


def test_up_conv_on_cpus_equals_its_stock_form_with_gradients_also_vmapped():
    x, kernel, g = normal(0, 2, 1, 3, 4, 2), normal(1, 2, 3, 3, 2, 5), normal(2, 2, 1, 6, 8, 5)

    def value_and_gradients(f):
        def both(x, kernel, g):
            y, pull = jax.vjp(lambda *args: resample._filter(f(*args), (1, 0)), x, kernel)
            return y, *pull(g)

        return jax.jit(jax.vmap(both))(x, kernel, g)

    ours = value_and_gradients(resample._transposed)
    stock = value_and_gradients(resample._transposed_stock)
    for a, b in zip(ours, stock, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_no_up_conv_on_cpus_is_a_dilated_convolution():
    x, kernel = normal(0, 1, 8, 8, 4), normal(1, 3, 3, 4, 4)
    gradient = jax.jit(jax.grad(lambda *args: resample.up_conv(*args).sum(), (0, 1)))
    assert 'convolution' not in gradient.lower(x, kernel).as_text()
    other = gradient.trace(x, kernel).lower(lowering_platforms=('cuda',))
    assert 'convolution' in other.as_text()


# --- The contract of every generator ---


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
        sizes = [leaf.size for leaf in jax.tree.leaves(weights['params'])]
        mapping = [leaf.size for leaf in jax.tree.leaves(weights['buffers']['mapping'])]
        assert sum(sizes) + sum(mapping) == 30_370_060  # the paper's 30 million
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


def test_features_have_sams_names():
    shapes = dict(stylegan2(256).spec.feature_shapes)
    sizes = {name: shapes[name][0] for name in ('F4', 'F6', 'F8', 'F10')}
    assert sizes == {'F4': 16, 'F6': 32, 'F8': 64, 'F10': 128}


def test_w_is_w_plus_with_equal_rows():
    model = load('ada32')
    w = w_plus('ada32')[:, :1]
    one = model.synthesize(model.weights, w)[0]
    all_rows = model.synthesize(model.weights, np.repeat(w, 8, 1))[0]
    np.testing.assert_allclose(one, all_rows, atol=1e-5)


def test_const_noise_is_the_noise_of_the_buffers():
    model = load('ada32')
    maps = {name: value[None] for name, value in model.weights['buffers']['noise'].items()}
    maps = jax.tree.map(lambda m: jnp.concatenate([m, jnp.zeros_like(m)]), maps)
    w = w_plus('ada32')
    mixed = jax.jit(model.generator.synthesize)(model.weights, w, maps)[0]
    for i, noise in enumerate(('const', 'none')):
        same = model.synthesize(model.weights, w, noise=noise)[0][i]
        np.testing.assert_allclose(mixed[i], same, atol=1e-5)


@pytest.mark.parametrize('name', ['ada32', 'ada32res'])
def test_a_tap_changes_what_the_next_block_reads_and_not_its_own_torgb(name):
    model = load(name)
    w = w_plus(name)
    images, features = model.synthesize(model.weights, w)
    tap = jax.jit(model.generator.synthesize)
    identity = {k: Affine(jnp.ones([]), jnp.zeros([1, 1, 1, 1])) for k in features}
    np.testing.assert_allclose(tap(model.weights, w, taps=identity)[0], images, atol=1e-6)
    swap = {'F4': Affine(jnp.zeros([]), features['F4'][::-1])}
    swapped, tapped = tap(model.weights, w, taps=swap)
    np.testing.assert_allclose(tapped['F4'], features['F4'][::-1])
    assert np.abs(swapped - images).max() > 0.01
    # With all weights after the feature at zero, only what torgb blocks up to it made is left.
    rest = model.weights['params']['synthesis'] | {
        'b32': jax.tree.map(jnp.zeros_like, model.weights['params']['synthesis']['b32'])
    }
    weights = {**model.weights, 'params': {'synthesis': rest}}
    left = [tap(weights, w, taps=taps)[0] for taps in (swap, identity)]
    np.testing.assert_allclose(*left, atol=1e-5)


def test_vmapped_weights_equal_one_by_one():
    model = load('ada32')
    w = w_plus('ada32')
    params = [model.weights['params'], jax.tree.map(lambda p: 0.9 * p, model.weights['params'])]
    stacked = jax.tree.map(lambda *p: jnp.stack(p), *params)

    def value_and_gradient(params, w):
        def loss(params):
            weights = {**model.weights, 'params': params}
            return jnp.mean(model.generator.synthesize(weights, w[None])[0] ** 2)

        return jax.value_and_grad(loss)(params)

    values, gradients = jax.jit(jax.vmap(value_and_gradient))(stacked, w)
    alone = jax.jit(value_and_gradient)
    for i in range(2):
        value, gradient = alone(params[i], w[i])
        np.testing.assert_allclose(values[i], value, rtol=1e-5)
        for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(gradient), strict=True):
            scale = np.abs(other).max()
            np.testing.assert_allclose(one[i], other, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.long
def test_random_weights_make_images_and_reach_every_gradient():
    generator = stylegan2(
        16, z_dim=8, w_dim=8, c_dim=3, mapping_layers=2, channels=(8, 8, 4), architecture='resnet'
    )
    weights = jax.jit(generator.init)(KEY)
    w = generator.map(weights, normal(0, 2, 8), jnp.eye(3)[:2])[:, None]
    noise = {name: value[None] for name, value in weights['buffers']['noise'].items()}

    def loss(params, w, noise):
        return jnp.sum(generator.synthesize({**weights, 'params': params}, w, noise)[0] ** 2)

    gradients = jax.jit(jax.grad(loss, (0, 1, 2)))(weights['params'], w, noise)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path


# --- Errors ---


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
    plain, classes = load('ada32'), load('ada32c')
    z, label = z_and_label('ada32c')
    with pytest.raises(ValueError, match=r'label is None; ada32c takes \[3, 10\]'):
        classes.generator.map(classes.weights, z)
    with pytest.raises(ValueError, match=r'of shape \[3, 10\]; ada32 takes None'):
        plain.generator.map(plain.weights, z_and_label('ada32')[0], label)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s: s.pop('synthesis.b8.conv0.weight'), 'Missing array: synthesis.b8.conv0.weight'),
        (lambda s: s.update(extra=np.zeros(3)), 'Unexpected array: extra'),
        (
            lambda s: s.update({'synthesis.b8.conv0.bias': np.zeros(3)}),
            "'synthesis.b8.conv0.bias' gives params/synthesis/b8/conv0/bias the shape",
        ),
        (
            lambda s: s.update({'synthesis.b8.resample_filter': np.full([4, 4], 1 / 16)}),
            "'synthesis.b8.resample_filter' is not the filter",
        ),
    ],
)
def test_wrong_checkpoints_are_refused_by_name(change, message):
    model = load('ada32')
    source = dict(model.source)
    change(source)
    with pytest.raises(tables.ConversionError, match=message):
        converter.convert_nvidia(source, model.paths)


def test_other_state_dicts_are_not_taken_for_a_generator():
    for arguments in (converter.nvidia_arguments, converter.rosinality_arguments):
        with pytest.raises(tables.ConversionError, match='this is not a StyleGAN2 generator'):
            arguments({'conv1.weight': np.zeros([3, 3])})
