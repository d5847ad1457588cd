"""FID's Inception at random weights equals an ONNX graph of it; its file is checked."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recipe

from jaxinv.converters import inception as converter
from jaxinv.converters import tables
from jaxinv.networks import inception

SIZE = 107  # pixels of the test pictures; 299 takes ten times as long


def state_dict():
    """Seeded weights in pytorch-fid's layout."""
    arrays = {'fc.weight': np.zeros((1008, 2048), np.float32), 'fc.bias': np.zeros(1008)}
    for layer in inception.layers():
        shape = (layer.outputs, layer.inputs, *layer.window)
        name = f'{layer.name}.conv.weight'
        arrays[name] = recipe.normal(name, shape) * np.sqrt(2 / np.prod(shape[1:]))
        bn = f'{layer.name}.bn.'
        arrays[f'{bn}weight'] = 1 + 0.1 * recipe.normal(f'{bn}weight', (layer.outputs,))
        for part in ('bias', 'running_mean'):
            arrays[bn + part] = 0.1 * recipe.normal(bn + part, (layer.outputs,))
        arrays[f'{bn}running_var'] = 1 + 0.1 * np.abs(recipe.normal(f'{bn}var', (layer.outputs,)))
        arrays[f'{bn}num_batches_tracked'] = np.array(3)
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()}


def onnx_features(arrays, images):
    """The network written out as ONNX operators, by hand from torchvision and pytorch-fid."""
    import onnx
    import onnxruntime
    from onnx import helper

    nodes, constants = [], {}

    def add(kind, inputs, **attributes):
        nodes.append(helper.make_node(kind, inputs, [f't{len(nodes)}'], **attributes))
        return f't{len(nodes) - 1}'

    def conv(x, name, stride=1, pad=(0, 0)):
        weight = f'{name}.conv.weight'
        names = [f'{name}.bn.{p}' for p in ('weight', 'bias', 'running_mean', 'running_var')]
        constants.update({n: arrays[n] for n in (weight, *names)})
        x = add('Conv', [x, weight], strides=[stride] * 2, pads=[*pad, *pad])
        return add('Relu', [add('BatchNormalization', [x, *names], epsilon=1e-3)])

    def reduce(x):
        return add('MaxPool', [x], kernel_shape=[3, 3], strides=[2, 2])

    def average(x):
        return add('AveragePool', [x], kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=0)

    def joined(*parts):
        return add('Concat', list(parts), axis=1)

    def chain(x, block, *steps):
        for name, stride, pad in steps:
            x = conv(x, f'{block}.{name}', stride, pad)
        return x

    one, wide, tall, three = (0, 0), (0, 3), (3, 0), (1, 1)
    x = conv('images', 'Conv2d_1a_3x3', 2)
    x = reduce(conv(conv(x, 'Conv2d_2a_3x3'), 'Conv2d_2b_3x3', 1, three))
    x = reduce(conv(conv(x, 'Conv2d_3b_1x1'), 'Conv2d_4a_3x3'))
    for b in ('Mixed_5b', 'Mixed_5c', 'Mixed_5d'):
        x = joined(
            chain(x, b, ('branch1x1', 1, one)),
            chain(x, b, ('branch5x5_1', 1, one), ('branch5x5_2', 1, (2, 2))),
            chain(x, b, ('branch3x3dbl_1', 1, one), ('branch3x3dbl_2', 1, three),
                  ('branch3x3dbl_3', 1, three)),
            chain(average(x), b, ('branch_pool', 1, one)),
        )  # fmt: skip
    b = 'Mixed_6a'
    x = joined(
        chain(x, b, ('branch3x3', 2, one)),
        chain(x, b, ('branch3x3dbl_1', 1, one), ('branch3x3dbl_2', 1, three),
              ('branch3x3dbl_3', 2, one)),
        reduce(x),
    )  # fmt: skip
    for b in ('Mixed_6b', 'Mixed_6c', 'Mixed_6d', 'Mixed_6e'):
        x = joined(
            chain(x, b, ('branch1x1', 1, one)),
            chain(x, b, ('branch7x7_1', 1, one), ('branch7x7_2', 1, wide),
                  ('branch7x7_3', 1, tall)),
            chain(x, b, ('branch7x7dbl_1', 1, one), ('branch7x7dbl_2', 1, tall),
                  ('branch7x7dbl_3', 1, wide), ('branch7x7dbl_4', 1, tall),
                  ('branch7x7dbl_5', 1, wide)),
            chain(average(x), b, ('branch_pool', 1, one)),
        )  # fmt: skip
    b = 'Mixed_7a'
    x = joined(
        chain(x, b, ('branch3x3_1', 1, one), ('branch3x3_2', 2, one)),
        chain(x, b, ('branch7x7x3_1', 1, one), ('branch7x7x3_2', 1, wide),
              ('branch7x7x3_3', 1, tall), ('branch7x7x3_4', 2, one)),
        reduce(x),
    )  # fmt: skip
    for b in ('Mixed_7b', 'Mixed_7c'):
        first = chain(x, b, ('branch3x3_1', 1, one))
        second = chain(x, b, ('branch3x3dbl_1', 1, one), ('branch3x3dbl_2', 1, three))
        if b == 'Mixed_7b':
            pool = average(x)
        else:
            pool = add('MaxPool', [x], kernel_shape=[3, 3], pads=[1] * 4)
        x = joined(
            chain(x, b, ('branch1x1', 1, one)),
            chain(first, b, ('branch3x3_2a', 1, (0, 1))),
            chain(first, b, ('branch3x3_2b', 1, (1, 0))),
            chain(second, b, ('branch3x3dbl_3a', 1, (0, 1))),
            chain(second, b, ('branch3x3dbl_3b', 1, (1, 0))),
            chain(pool, b, ('branch_pool', 1, one)),
        )
    add('GlobalAveragePool', [x])
    shape = [len(images), 3, SIZE, SIZE]
    graph = helper.make_graph(
        nodes,
        'inception',
        [helper.make_tensor_value_info('images', 1, shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], 1, [len(images), 2048, 1, 1])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {'images': images.transpose(0, 3, 1, 2)})[0][..., 0, 0]


@pytest.mark.long
def test_features_equal_the_onnx_graph():
    arrays = state_dict()
    images = np.random.RandomState(0).uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(np.float32)
    weights = jax.tree.map(jnp.asarray, converter.convert(arrays))
    found = np.asarray(jax.jit(inception.features)(weights, images))
    expected = onnx_features(arrays, images)
    assert expected.std() > 0.01
    np.testing.assert_allclose(found, expected, atol=2e-5 * abs(expected).max())


def test_pictures_are_resized_as_pytorch_does(monkeypatch):
    """Bilinear, half-pixel centres, clamped at the edges, not smoothed: by hand in one axis."""
    size, target = 40, 299
    image = np.random.RandomState(1).uniform(-1, 1, (size, size)).astype(np.float32)
    monkeypatch.setattr(inception, 'features', lambda weights, images: images)
    found = np.asarray(
        inception.pooled({}, jnp.broadcast_to(image[None, ..., None], (1, size, size, 3)))
    )

    def axis(values):
        places = np.maximum((np.arange(target) + 0.5) * size / target - 0.5, 0)
        low = np.minimum(places.astype(int), size - 1)
        high = np.minimum(low + 1, size - 1)
        share = (places - low)[:, None]
        return values[low] * (1 - share) + values[high] * share

    expected = axis(axis(image).T).T
    np.testing.assert_allclose(found[0, ..., 0], expected, atol=1e-5)


def test_the_file_is_checked():
    arrays = state_dict()
    assert set(converter.convert(arrays)) == set(inception.shapes())
    assert len(inception.layers()) == 94
    cases = {
        'It holds no Conv2d_1a_3x3': {'a': 1},
        r'Missing array: Mixed_7c.branch1x1.bn.bias \(1': {
            k: v for k, v in arrays.items() if k != 'Mixed_7c.branch1x1.bn.bias'
        },
        'Unexpected array: extra': arrays | {'extra': np.zeros(1, np.float32)},
        r'has the shape \[32, 3, 3\]': arrays
        | {'Conv2d_1a_3x3.conv.weight': np.zeros((32, 3, 3), np.float32)},
        'has negative numbers': arrays
        | {'Conv2d_1a_3x3.bn.running_var': np.full(32, -1, np.float32)},
        'not finite': arrays | {'Conv2d_1a_3x3.bn.bias': np.full(32, np.nan, np.float32)},
    }
    for message, content in cases.items():
        with pytest.raises(tables.ConversionError) as error:
            converter.convert(content)
        assert re.search(message, str(error.value)), (message, str(error.value))
