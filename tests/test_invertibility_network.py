"""The invertibility network: the released architecture against a slow version, files, use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recipe
import safetensors.numpy

from jaxinv.converters import invertibility as converter
from jaxinv.converters import tables
from jaxinv.errors import JaxinvError
from jaxinv.networks import deeplab, invertibility
from jaxinv.weights.networks import load_invertibility, save_invertibility

BLOCKS = (1, 2, 1, 3)
WIDTH, PYRAMID, SHORTCUT = 4, 6, 5
SPACES = ('W+', 'F4', 'F10')


# --- The released code's layout, and what it computes, in float64 and without any library ---------


def released():
    """A small file in the released layout, with weights from their names."""
    base = {}

    def conv(name, o, i, k, bias=False):
        base[f'{name}.weight'] = recipe.normal(name, (o, i, k, k)) / np.sqrt(i * k * k)
        if bias:
            base[f'{name}.bias'] = recipe.normal(f'{name}.bias', (o,))

    def norm(name, n, into=base):
        into[f'{name}.weight'] = 1 + 0.2 * recipe.normal(f'{name}.weight', (n,))
        into[f'{name}.bias'] = 0.2 * recipe.normal(f'{name}.bias', (n,))
        into[f'{name}.running_mean'] = 0.2 * recipe.normal(f'{name}.mean', (n,))
        into[f'{name}.running_var'] = 0.5 + np.abs(recipe.normal(f'{name}.var', (n,)))
        into[f'{name}.num_batches_tracked'] = np.array(7)

    conv('backbone.conv1', WIDTH, 3, 7)
    norm('backbone.bn1', WIDTH)
    inputs = WIDTH
    for stage, count in enumerate(BLOCKS, 1):
        n = WIDTH * 2 ** (stage - 1)
        for i in range(count):
            name = f'backbone.layer{stage}.{i}'
            conv(f'{name}.conv1', n, inputs, 1)
            conv(f'{name}.conv2', n, n, 3)
            conv(f'{name}.conv3', 4 * n, n, 1)
            for k, size in ((1, n), (2, n), (3, 4 * n)):
                norm(f'{name}.bn{k}', size)
            if i == 0:
                conv(f'{name}.downsample.0', 4 * n, inputs, 1)
                norm(f'{name}.downsample.1', 4 * n)
            inputs = 4 * n
    for i, k in enumerate((1, 3, 3, 3), 1):
        conv(f'aspp.aspp{i}.atrous_conv', PYRAMID, inputs, k)
        norm(f'aspp.aspp{i}.bn', PYRAMID)
    conv('aspp.global_avg_pool.1', PYRAMID, inputs, 1)
    norm('aspp.global_avg_pool.2', PYRAMID)
    conv('aspp.conv1', PYRAMID, 5 * PYRAMID, 1)
    norm('aspp.bn1', PYRAMID)
    conv('decoder.conv1', SHORTCUT, 4 * WIDTH, 1)
    norm('decoder.bn1', SHORTCUT)
    for i, size in ((0, PYRAMID + SHORTCUT), (4, PYRAMID)):
        conv(f'decoder.last_conv.{i}', PYRAMID, size, 3)
        norm(f'decoder.last_conv.{i + 1}', PYRAMID)
    conv('decoder.last_conv.8', 8, PYRAMID, 1, bias=True)
    content = {'sd_base': {f'module.{name}': value for name, value in base.items()}}
    for space in SPACES:
        head = {
            'm.0.weight': recipe.normal(f'{space}0', (8, 4, 3, 3)) / 8,
            'm.0.bias': recipe.normal(f'{space}0b', (4,)),
            'm.3.weight': recipe.normal(f'{space}3', (4, 1, 1, 1)),
            'm.3.bias': recipe.normal(f'{space}3b', (1,)) + 1,
        }
        norm('m.1', 4, head)
        content[space] = head
    return content


def conv(x, w, stride=1, padding=0, dilation=1):
    """x [c, h, w], w [o, c, k, k]: the definition, window position by window position."""
    x = np.pad(x, ((0, 0), (padding,) * 2, (padding,) * 2))
    reach = dilation * (w.shape[2] - 1)
    rows, columns = ((n - reach - 1) // stride + 1 for n in x.shape[1:])
    y = np.zeros((len(w), rows, columns))
    for a in range(w.shape[2]):
        for b in range(w.shape[3]):
            at = x[:, a * dilation :, b * dilation :][:, ::stride, ::stride][:, :rows, :columns]
            y += np.einsum('oc,chw->ohw', w[:, :, a, b], at)
    return y


def transposed_conv(x, w, b):
    """x [c, h, w], w [c, o, k, k]: every input pixel lays down its window; padding (k - 1) / 2."""
    k = w.shape[2]
    y = np.zeros((w.shape[1], x.shape[1] + k - 1, x.shape[2] + k - 1))
    for i in range(k):
        for j in range(k):
            y[:, i : i + x.shape[1], j : j + x.shape[2]] += np.einsum(
                'co,chw->ohw', w[:, :, i, j], x
            )
    p = (k - 1) // 2
    return y[:, p : y.shape[1] - p, p : y.shape[2] - p] + b[:, None, None]


def slow_base(sd, x):
    sd = {name.removeprefix('module.'): np.asarray(a, np.float64) for name, a in sd.items()}

    def norm(name, x):
        kinds = ('running_mean', 'running_var', 'weight', 'bias')
        mean, var, gain, bias = (sd[f'{name}.{kind}'][:, None, None] for kind in kinds)
        return (x - mean) / np.sqrt(var + 1e-5) * gain + bias

    def apply(name, x, norm_name=None, **options):
        x = conv(x, sd[f'{name}.weight'], **options)
        return norm(norm_name, x) if norm_name else x

    def relu(x):
        return np.maximum(x, 0)

    x = relu(apply('backbone.conv1', x, 'backbone.bn1', stride=2, padding=3))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    rows, columns = ((n - 1) // 2 + 1 for n in x.shape[1:])
    windows = [padded[:, a : a + 2 * rows - 1 : 2, b : b + 2 * columns - 1 : 2]
               for a in range(3) for b in range(3)]  # fmt: skip
    x = np.max(windows, 0)
    for stage, count in enumerate(BLOCKS, 1):
        for i in range(count):
            name = f'backbone.layer{stage}.{i}'
            stride = 2 if stage in (2, 3) and i == 0 else 1
            dilation = 2 * (1, 2, 4)[i] if stage == 4 else 1
            y = relu(apply(f'{name}.conv1', x, f'{name}.bn1'))
            y = apply(f'{name}.conv2', y, f'{name}.bn2', stride=stride, padding=dilation, dilation=dilation)  # noqa: E501 # fmt: skip
            y = apply(f'{name}.conv3', relu(y), f'{name}.bn3')
            if i == 0:
                x = apply(f'{name}.downsample.0', x, f'{name}.downsample.1', stride=stride)
            x = relu(x + y)
        if stage == 1:
            low = x
    arms = []
    for i, d in enumerate((1, 6, 12, 18), 1):
        options = {} if i == 1 else {'padding': d, 'dilation': d}
        arms.append(relu(apply(f'aspp.aspp{i}.atrous_conv', x, f'aspp.aspp{i}.bn', **options)))
    mean = x.mean((1, 2), keepdims=True)
    mean = relu(apply('aspp.global_avg_pool.1', mean, 'aspp.global_avg_pool.2'))
    arms.append(np.broadcast_to(mean, arms[0].shape))
    x = relu(apply('aspp.conv1', np.concatenate(arms), 'aspp.bn1'))
    low = relu(apply('decoder.conv1', low, 'decoder.bn1'))
    x = np.concatenate([slow_resize(x, low.shape[1:]), low])
    x = relu(apply('decoder.last_conv.0', x, 'decoder.last_conv.1', padding=1))
    x = relu(apply('decoder.last_conv.4', x, 'decoder.last_conv.5', padding=1))
    return apply('decoder.last_conv.8', x) + sd['decoder.last_conv.8.bias'][:, None, None]


def slow_resize(x, size):
    """Bilinear with aligned corners."""
    for axis, s in zip((1, 2), size, strict=True):
        n = x.shape[axis]
        t = np.arange(s) * (n - 1) / (s - 1)
        low = np.minimum(t.astype(int), n - 2)
        f = (t - low).reshape([-1 if a == axis else 1 for a in range(3)])
        x = (1 - f) * np.take(x, low, axis) + f * np.take(x, low + 1, axis)
    return x


def slow_head(head, x):
    y = transposed_conv(x, head['m.0.weight'], head['m.0.bias'])
    mean, var, gain, bias = (
        np.asarray(head[f'm.1.{k}'])[:, None, None]
        for k in ('running_mean', 'running_var', 'weight', 'bias')
    )
    y = (y - mean) / np.sqrt(var + 1e-5) * gain + bias
    y = transposed_conv(np.where(y > 0, y, 0.2 * y), head['m.3.weight'], head['m.3.bias'])
    return np.maximum(y, 0)[0]


def test_the_released_architecture_and_layout():
    content = released()
    network, variables = converter.convert(content)
    assert network == invertibility.Network(
        SPACES, deeplab.Sizes('resnet', BLOCKS, WIDTH, PYRAMID, SHORTCUT, 2)
    )
    image = np.random.RandomState(0).uniform(-1, 1, (3, 48, 64))
    x = slow_resize(slow_base(content['sd_base'], image), (48, 64))
    images = jnp.asarray(image.transpose(1, 2, 0), jnp.float32)[None]
    maps = jax.jit(network.apply)(variables, images)
    for space in SPACES:
        expected = slow_head(content[space], x)
        assert (expected > 0).mean() > 0.2
        np.testing.assert_allclose(maps[space][0], expected, atol=2e-5 * expected.max())


def test_the_released_size_has_the_released_shapes():
    network = invertibility.make(('W+',), 'official')
    like = invertibility.shapes(network)
    assert like['params/base/backbone/layer3_22/conv2/kernel'].shape == (3, 3, 256, 256)
    assert like['params/base/decoder0/conv/kernel'].shape == (3, 3, 304, 256)
    # ResNet-101 without its classifier, pyramid, decoder, head: counted by hand from the layers.
    weights = sum(np.prod(x.shape, dtype=int) for n, x in like.items() if n.startswith('params'))
    resnet, pyramid = 42_500_160, 2048 * 256 * (2 + 27) + 1280 * 256 + 6 * 512
    decoder = 256 * 48 + 96 + 304 * 256 * 9 + 256 * 256 * 9 + 2 * 512 + 256 * 8 + 8
    assert weights == resnet + pyramid + decoder + (8 * 4 * 9 + 4 + 8 + 4 + 1)


def test_files_that_are_something_else_are_refused(tmp_path):
    content = released()
    with pytest.raises(tables.ConversionError, match="no 'sd_base'"):
        converter.convert({'state_dict': {}})
    with pytest.raises(tables.ConversionError, match='neither'):
        converter.convert(content | {'optimizer': {}})
    with pytest.raises(tables.ConversionError, match='Unexpected array: F6.extra'):
        converter.convert(content | {'F6': content['F4'] | {'extra': np.zeros(1)}})
    content['sd_base'] = {'backbone.features.0.weight': np.zeros(1)}
    with pytest.raises(tables.ConversionError, match='not a DeepLabV3'):
        converter.convert(content)
    (tmp_path / 'x.safetensors').write_bytes(b'\0' * 40)
    with pytest.raises(JaxinvError, match='x.safetensors is not'):
        load_invertibility(tmp_path / 'x.safetensors')
    with pytest.raises(JaxinvError, match='known: official, paper, small, vgg16'):
        invertibility.make(SPACES, 'large')


@pytest.mark.parametrize(
    'about',
    [
        'null',
        '[]',
        '{"spaces": ["F4"], "sizes": {"trunk": "resnet"}}',
        '{"spaces": ["F4"], "sizes": {"trunk": "resnet", "blocks": [1, 1, 1, 1000000], "width": 8, '
        '"pyramid": 8, "shortcut": 8, "head_layers": 2}}',
        '{"spaces": ["F4"], "sizes": {"trunk": "resnet", "blocks": [1, 1, 1, 1], "width": 1e9, '
        '"pyramid": 8, "shortcut": 8, "head_layers": 2}}',
    ],
)
def test_headers_of_files_are_not_trusted(about, tmp_path):
    path = tmp_path / 'x.safetensors'
    metadata = {'invertibility': about}
    safetensors.numpy.save_file({'a': np.zeros(2, np.float32)}, path, metadata)
    with pytest.raises(JaxinvError, match='x.safetensors is not an invertibility network'):
        load_invertibility(path)


def test_a_saved_network_predicts_the_same(tmp_path):
    network = invertibility.make(SPACES, 'small')
    variables = invertibility.init(network, seed=0)
    save_invertibility(tmp_path / 'network.safetensors', network, variables)
    again, loaded = load_invertibility(tmp_path / 'network.safetensors')
    assert again == network
    for a, b in zip(jax.tree.leaves(variables), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(a, b)
    images = jax.random.uniform(jax.random.key(1), (1, 512, 512, 3), minval=-1)
    maps = invertibility.predict(again, loaded, images)
    assert list(maps) == list(SPACES)
    assert all(m.shape == (1, 256, 256) and (m >= 0).all() for m in maps.values())
    with pytest.raises(JaxinvError, match='LPIPS-vgg'):
        invertibility.predict(invertibility.make(SPACES, 'vgg16'), {}, images)
