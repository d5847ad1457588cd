"""Networks in ONNX and TFLite files as JAX functions: parity with other runtimes, and bad files."""

import functools
import pathlib
import zipfile

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from record_tflite import inputs_of, kept

from jaxinv.converters import onnx_file, tflite_file
from jaxinv.converters.file_view import UnreadableFile
from jaxinv.networks import graph
from jaxinv.weights import assets, graphs

RECORDED = pathlib.Path(__file__).parent / 'data' / 'tflite_outputs.npz'
run = jax.jit(lambda network, x: graph.apply(network.graph, network.weights, x))


@pytest.mark.parametrize(
    'name',
    [
        'blendshapes',
        pytest.param('landmarks478', marks=pytest.mark.long),
        pytest.param('deeplab', marks=pytest.mark.long),
        pytest.param('mobilefacenet', marks=pytest.mark.exhaustive),  # fetched by npm
    ],
)
def test_tflite_networks_give_what_litert_recorded(name):
    network = graphs.find(name)
    outputs = run(network, inputs_of(name, network.graph.input_shape))
    with np.load(RECORDED) as recorded:
        for i, output in enumerate(outputs):
            expected = recorded[f'{name}/{i}']
            error = np.abs(kept(output) - expected).max()
            assert error <= 1e-4 * np.abs(expected).max(), (name, i, error)


@pytest.mark.long
def test_sface_gives_what_onnxruntime_does_and_has_gradients():
    """onnxruntime refuses the block-quantised file, so it gets the weights that were read."""
    network = graphs.find('sface')
    x = np.random.RandomState(0).uniform(0, 255, (1, 112, 112, 3)).astype(np.float32)
    path = assets.get(*graphs.GRAPHS['sface'][:2])
    expected = through_onnxruntime(unquantised(path), x)[0]
    (found,) = run(network, x)
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())
    gradient = jax.jit(jax.grad(lambda x: run(network, x)[0].sum()))(x)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def unquantised(path) -> bytes:
    """The file with its constants in float32: an obvious loop over blocks, for onnxruntime."""
    model = onnx.load(path)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type == 'DequantizeLinear':
            options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            values, scales, zeros = (constants[name].astype(np.float32) for name in node.input)
            axis, block = options.get('axis', 1), options.get('block_size', 0)
            result = np.zeros_like(values)
            for index in np.ndindex(values.shape):
                place = list(index)
                if block:
                    place[axis] //= block
                    key = tuple(place)
                else:
                    key = () if scales.size == 1 else (index[axis],)
                scale = scales.reshape(-1)[0] if key == () else scales[key]
                zero = zeros.reshape(-1)[0] if key == () else zeros[key]
                result[index] = (values[index] - zero) * scale
                if result.size > 20000:  # the loop is for a few; large ones by whole blocks
                    where = np.arange(values.shape[axis]) // block if block else None
                    spread = scales.take(where, axis) if block else scales
                    minus = zeros.take(where, axis) if block else zeros
                    result = (values - minus) * spread
                    break
            constants[node.output[0]] = result
        elif node.op_type == 'Reshape' and node.input[0] in constants:
            shape = constants[node.input[1]]
            constants[node.output[0]] = constants[node.input[0]].reshape(shape)
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    inputs = [one for one in model.graph.input if one.name in used - constants.keys()]
    tensors = [numpy_helper.from_array(constants[name], name) for name in used & constants.keys()]
    made = helper.make_graph(nodes, 'g', inputs, model.graph.output, tensors)
    return helper.make_model(
        made, opset_imports=model.opset_import, ir_version=8
    ).SerializeToString()


def through_onnxruntime(data: bytes, x):
    """Outputs for x [1, h, w, c], feature maps as [1, h, w, c]."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=['CPUExecutionProvider'])
    (given,) = session.get_inputs()
    outputs = session.run(None, {given.name: x.transpose(0, 3, 1, 2)})
    return [y.transpose(0, 2, 3, 1) if y.ndim == 4 else y for y in outputs]


# --- A small network of many operations -----------------------------------------------------------


def model_of(nodes, constants, outputs, shape=(1, 4, 12, 10), opset=17) -> bytes:
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    made = helper.make_graph(
        [helper.make_node(*node[:3], **(node[3] if len(node) > 3 else {})) for node in nodes],
        'g',
        [helper.make_tensor_value_info('x', TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        tensors,
    )
    imports = [helper.make_opsetid('', opset)]
    return helper.make_model(made, opset_imports=imports, ir_version=8).SerializeToString()


@functools.cache
def many_operations() -> bytes:
    random = np.random.RandomState(0)

    def array(*shape):
        return random.normal(size=shape).astype(np.float32)

    ints = functools.partial(np.array, dtype=np.int64)
    constants = {
        'k1': array(6, 2, 3, 3), 'b1': array(6), 'k2': array(6, 1, 3, 3), 'k3': array(4, 6, 2, 2),
        's': array(6), 'm': array(6), 'v': np.abs(array(6)) + 1, 'p': array(6, 1, 1),
        'shuffle': ints([1, 2, 3, -1, 4]), 'back': ints([0, 6, -1, 4]), 'plane': array(1, 6, 1, 1),
        'pads': ints([0, 0, 1, 0, 0, 0, 0, 2]), 'none': np.zeros(0, np.float32),
        'starts': ints([1, -4]), 'ends': ints([99, 99]), 'axes': ints([1, 3]),
        'steps': ints([1, 2]),
        'flat': array(7, 5), 'first': ints(0), 'third': ints([3]), 'one': ints([0]),
        'sizes': ints([1, 6, 9, 7]),
    }  # fmt: skip
    nodes = [
        ('Conv', ['x', 'k1', 'b1'], ['c1'],
         {'group': 2, 'strides': [2, 1], 'pads': [1, 0, 1, 2], 'dilations': [1, 2]}),
        ('BatchNormalization', ['c1', 's', 'b1', 'm', 'v'], ['n1']),
        ('PRelu', ['n1', 'p'], ['r1']),
        ('Conv', ['r1', 'k2'], ['d1'],
         {'group': 6, 'strides': [1, 2], 'pads': [2, 2, 2, 2], 'dilations': [2, 2]}),
        ('Sigmoid', ['d1'], ['d2']),
        ('Reshape', ['d2', 'shuffle'], ['f1']),
        ('Transpose', ['f1'], ['f2'], {'perm': [0, 2, 1, 3, 4]}),
        ('Reshape', ['f2', 'back'], ['f3']),
        ('Mul', ['f3', 'plane'], ['f4']),
        ('MaxPool', ['f4'], ['p1'], {'kernel_shape': [3, 2], 'strides': [2, 2], 'ceil_mode': 1}),
        ('AveragePool', ['f4'], ['p2'],
         {'kernel_shape': [3, 3], 'strides': [2, 2], 'pads': [1, 1, 1, 1]}),
        ('Resize', ['f4', 'none', 'none', 'sizes'], ['z1'],
         {'mode': 'linear', 'coordinate_transformation_mode': 'align_corners'}),
        ('Pad', ['z1', 'pads'], ['z2']),
        ('Slice', ['z2', 'starts', 'ends', 'axes', 'steps'], ['z3']),
        ('Split', ['f4'], ['h1', 'h2'], {'axis': 1}),
        ('Concat', ['h2', 'h1'], ['h3'], {'axis': 1}),
        ('Shape', ['h3'], ['h4']),
        ('Gather', ['h4', 'third'], ['h5'], {'axis': 0}),
        ('Concat', ['one', 'h5'], ['h6'], {'axis': 0}),
        ('ReduceMean', ['h3'], ['h7'], {'axes': [1, 2], 'keepdims': 1}),
        ('Reshape', ['h7', 'h6'], ['h8']),
        ('Softmax', ['h8'], ['h9'], {'axis': 1}),
        ('GlobalAveragePool', ['z3'], ['g1']),
        ('Flatten', ['g1'], ['g2']),
        ('Gemm', ['g2', 'flat'], ['g3'], {'alpha': 0.5, 'transB': 1}),
    ]  # fmt: skip
    return model_of(nodes, constants, ['p1', 'p2', 'z3', 'h9', 'g3'])


def test_operations_are_those_of_onnxruntime():
    data = many_operations()
    found, weights = onnx_file.read(data, 'many.onnx')
    x = np.random.RandomState(1).normal(size=found.input_shape).astype(np.float32)
    network = graph.Network(weights, found)
    expected = through_onnxruntime(data, x)
    outputs = run(network, x)
    assert len(outputs) == len(expected) == 5
    for output, wanted in zip(outputs, expected, strict=True):
        assert output.shape == wanted.shape
        np.testing.assert_allclose(output, wanted, rtol=1e-4, atol=2e-6)


def test_a_depthwise_convolution_is_the_stock_one_with_gradients():
    x, kernel = (
        np.random.RandomState(i).normal(size=s).astype('f4')
        for i, s in ((0, (1, 9, 8, 3)), (1, (3, 2, 3)))
    )  # noqa: E501
    options = {'strides': (2, 1), 'padding': ((1, 0), (2, 1)), 'dilation': (2, 3)}

    def stock(x, kernel):
        return graph.OPERATIONS['conv'](x, kernel[:, :, None], **options, groups=3)

    np.testing.assert_allclose(graph._depthwise(x, kernel, **options), stock(x, kernel), atol=1e-5)
    loss = lambda f: lambda x: (f(x) ** 2).sum()  # noqa: E731
    own = jax.grad(loss(lambda x: graph._depthwise(x, kernel, **options)))(x)
    np.testing.assert_allclose(own, jax.grad(loss(lambda x: stock(x, kernel)))(x), atol=1e-4)


# --- Bad files ------------------------------------------------------------------------------------


def external() -> bytes:
    model = onnx.ModelProto()
    model.ParseFromString(many_operations())
    tensor = model.graph.initializer[0]
    tensor.ClearField('raw_data')
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key='location', value='/etc/passwd')
    return model.SerializeToString()


def doubling() -> bytes:
    """A constant that doubles 60 times while it is folded."""
    nodes = [('Concat', [f'c{i}', f'c{i}'], [f'c{i + 1}'], {'axis': 0}) for i in range(60)]
    return model_of([*nodes, ('Relu', ['x'], ['y'])], {'c0': np.zeros(64, np.int64)}, ['y'])


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        (lambda: b'', 'operations; 1 to 5000 are allowed'),
        (lambda: b'\x93NUMPY' * 40, 'is not an ONNX network, or is damaged'),
        (lambda: many_operations()[:900], 'is not an ONNX network, or is damaged'),
        (lambda: model_of([('Erf', ['x'], ['y'])], {}, ['y']), 'operation Erf, which is not known'),
        (lambda: model_of([('Relu', ['x'], ['y'])] * 5001, {}, ['y']), '5001 operations'),
        (lambda: model_of([('Relu', ['q'], ['y'])], {}, ['y']), 'has 0 inputs'),
        (lambda: model_of([('Add', ['x', 'q'], ['y'])], {}, ['y']), 'damaged'),
        (lambda: model_of([('Relu', ['x'], ['y'])], {}, ['y'], (1, 4, 2**20, 2**20)), 'of shape'),
        (lambda: model_of([('Relu', ['x'], ['y'])], {'c': [np.nan]}, ['c']), 'depends on no input'),
        (lambda: model_of([('Add', ['x', 'c'], ['y'])], {'c': [np.inf]}, ['y']), 'finite'),
        (external, 'has weights in another file'),
        (doubling, 'constants that are too large'),
    ],
)  # fmt: skip
def test_a_bad_onnx_file_is_one_sentence(data, message):
    with pytest.raises(UnreadableFile, match=message) as error:
        onnx_file.read(data(), 'bad.onnx')
    assert str(error.value).startswith('bad.onnx') and '\n' not in str(error.value)


@functools.cache
def blendshapes() -> bytes:
    source = graphs.GRAPHS['blendshapes']
    with zipfile.ZipFile(assets.get(source.package, source.member)) as file:
        return file.read(source.inner)


def test_a_damaged_tflite_file_is_one_sentence():
    good = blendshapes()
    for data in (b'', b'TFL3' * 9, good[:5000], good[:4] + b'TFL9' + good[8:]):
        with pytest.raises(UnreadableFile, match='TensorFlow Lite network, or is damaged') as error:
            tflite_file.read(data, 'bad.tflite')
        assert '\n' not in str(error.value)


@pytest.mark.long
def test_random_damage_never_ends_in_another_error():
    """120 files with changed bytes, most of them in the tables, which are at the end."""
    random = np.random.default_rng(0)
    refused = 0
    for reader, good in ((tflite_file.read, blendshapes()), (onnx_file.read, many_operations())):
        for _ in range(60):
            data = bytearray(good)
            start = len(data) - 30000 if random.random() < 0.8 else 0
            for place in random.integers(max(start, 0), len(data), random.integers(1, 8)):
                data[place] = random.integers(256)
            try:
                reader(bytes(data), 'changed')
            except UnreadableFile as error:
                refused += 1
                assert '\n' not in str(error)
    assert refused > 20
