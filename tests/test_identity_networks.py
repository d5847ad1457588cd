"""CurricularFace at random weights equals an ONNX graph of IR-101; its file is read and checked."""

import functools
import re

import numpy as np
import pickle_writer
import pytest
import recipe

from jaxinv import faces
from jaxinv.converters import encoders as converter
from jaxinv.converters import tables
from jaxinv.data import load_images
from jaxinv.errors import JaxinvError
from jaxinv.experiments import comparison_measure
from jaxinv.metrics import identity
from jaxinv.networks import ir_se50

# Of the official code (backbone/model_irse.py of HuangYG123/CurricularFace): channels, units.
STAGES = ((64, 3), (128, 13), (256, 30), (512, 3))
NORM = ('weight', 'bias', 'running_mean', 'running_var')
COUNTER = 'num_batches_tracked'


def layout():
    """{name: shape} of CurricularFace_Backbone.pth: its last batch norm has no weight and bias."""
    found = {}

    def norm(name, channels, parts=NORM):
        found.update({f'{name}.{part}': (channels,) for part in parts})
        found[f'{name}.{COUNTER}'] = ()

    found['input_layer.0.weight'] = (64, 3, 3, 3)
    norm('input_layer.1', 64)
    found['input_layer.2.weight'] = (64,)
    norm('output_layer.0', 512)
    found['output_layer.3.weight'] = (512, 512 * 7 * 7)
    found['output_layer.3.bias'] = (512,)
    norm('output_layer.4', 512, NORM[2:])
    inputs, i = 64, 0
    for outputs, count in STAGES:
        for _ in range(count):
            if inputs != outputs:
                found[f'body.{i}.shortcut_layer.0.weight'] = (outputs, inputs, 1, 1)
                norm(f'body.{i}.shortcut_layer.1', outputs)
            res = f'body.{i}.res_layer'
            norm(f'{res}.0', inputs)
            found[f'{res}.1.weight'] = (outputs, inputs, 3, 3)
            found[f'{res}.2.weight'] = (outputs,)
            found[f'{res}.3.weight'] = (outputs, outputs, 3, 3)
            norm(f'{res}.4', outputs)
            inputs, i = outputs, i + 1
    return found


def values(name, shape):
    """Seeded values with which embeddings neither vanish nor overflow."""
    array = recipe.normal(name, shape)
    if name.endswith(COUNTER):
        return np.array(3)
    if name.endswith('running_var'):
        return 1 + 0.1 * np.abs(array)
    if len(shape) > 1:
        return array * np.float32(np.prod(shape[1:]) ** -0.5)
    if name.endswith('.2.weight'):  # slopes of PReLU
        return 0.25 + 0.1 * array
    if name.endswith('res_layer.4.weight'):
        return 0.3 + 0.1 * array
    return (1 if name.endswith('weight') else 0) + 0.1 * array


@functools.cache
def state_dict():
    return {name: np.asarray(values(name, shape)) for name, shape in layout().items()}


def onnx_embeddings(arrays, images):
    """IR-101 written out as ONNX operators, by hand from the official code; lengths are 1."""
    import onnx
    import onnxruntime
    from onnx import helper

    nodes, constants = [], {}

    def add(kind, inputs, **attributes):
        for name in inputs[1:]:
            if name in arrays:
                array = arrays[name][:, None, None] if kind == 'PRelu' else arrays[name]
                constants[name] = np.ascontiguousarray(array, np.float32)
        nodes.append(helper.make_node(kind, inputs, [f't{len(nodes)}'], **attributes))
        return f't{len(nodes) - 1}'

    def conv(x, name, stride=1, pad=1):
        return add('Conv', [x, f'{name}.weight'], strides=[stride] * 2, pads=[pad] * 4)

    def norm(x, name):
        return add('BatchNormalization', [x, *(f'{name}.{p}' for p in NORM)], epsilon=1e-5)

    def unit(x, name, inputs, outputs, stride):
        if inputs == outputs:
            shortcut = add('MaxPool', [x], kernel_shape=[1, 1], strides=[stride] * 2)
        else:
            shortcut = conv(x, f'{name}.shortcut_layer.0', stride, 0)
            shortcut = norm(shortcut, f'{name}.shortcut_layer.1')
        res = f'{name}.res_layer'
        x = conv(norm(x, f'{res}.0'), f'{res}.1')
        x = conv(add('PRelu', [x, f'{res}.2.weight']), f'{res}.3', stride)
        return add('Add', [norm(x, f'{res}.4'), shortcut])

    constants |= {'one': np.ones(512, np.float32), 'zero': np.zeros(512, np.float32)}
    x = norm(conv('images', 'input_layer.0'), 'input_layer.1')
    x = add('PRelu', [x, 'input_layer.2.weight'])
    inputs, i = 64, 0
    for outputs, count in STAGES:
        for k in range(count):
            x = unit(x, f'body.{i}', inputs, outputs, 1 if k else 2)
            inputs, i = outputs, i + 1
    x = add('Flatten', [norm(x, 'output_layer.0')])
    x = add('Gemm', [x, 'output_layer.3.weight', 'output_layer.3.bias'], transB=1)
    last = [f'output_layer.4.{p}' for p in NORM[2:]]
    add('BatchNormalization', [x, 'one', 'zero', *last], epsilon=1e-5)
    graph = helper.make_graph(
        nodes,
        'ir_101',
        [helper.make_tensor_value_info('images', 1, [len(images), 3, 112, 112])],
        [helper.make_tensor_value_info(nodes[-1].output[0], 1, [len(images), 512])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {'images': np.float32(images.transpose(0, 3, 1, 2))})
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.mark.long
def test_curricularface_of_a_file_equals_the_onnx_graph(tmp_path):
    """Two portraits and a blank picture, through the file, the crop and the network."""
    path = tmp_path / 'CurricularFace_Backbone.pth'
    path.write_bytes(pickle_writer.torch_legacy(pickle_writer.tensors(state_dict())))
    judge = identity.judges(('curricularface',), curricularface=str(path))['curricularface']
    images = load_images('demo', resolution=256).images_uint8
    found = judge.embed(np.concatenate([images, np.zeros_like(images[:1])]))
    assert found.shape == (3, 512) and np.isnan(found[2]).all() and judge.better == 1
    points = [identity.five_points(faces.landmarks_aligned(image)) for image in images]
    chips = np.stack(
        [identity.crop_to_template(*pair) for pair in zip(images, points, strict=True)]
    )
    expected = onnx_embeddings(state_dict(), chips / 127.5 - 1)
    assert abs(expected[0] @ expected[1]) < 0.999  # the network tells the two apart
    np.testing.assert_allclose(found[:2], expected, atol=1e-4)
    cosine = judge.compare(found[:1], found[1:2])
    np.testing.assert_allclose(cosine, expected[0] @ expected[1], atol=1e-4)


def test_the_layout_is_that_of_the_official_code():
    shapes = ir_se50.identity_shapes(ir_se50.IR_101)
    official = {name: shape for name, shape in layout().items() if not name.endswith(COUNTER)}
    assert shapes.keys() == official.keys()
    for name, shape in official.items():
        order = {4: (2, 3, 1, 0), 2: (1, 0)}.get(len(shape), range(len(shape)))
        assert shapes[name] == tuple(shape[axis] for axis in order), name
    units = ir_se50.units(ir_se50.IR_101)
    assert [i for i, unit in enumerate(units) if unit.stride == 2] == [0, 3, 16, 46]
    assert len(units) == 49 and len(ir_se50.units()) == 24


def test_files_that_are_no_curricularface_get_a_sentence(tmp_path):
    arrays = {n: np.broadcast_to(np.float32(1), shape) for n, shape in layout().items()}
    one = np.ones(512, np.float32)
    cases = {
        'It holds no output_layer.3.weight, as networks': {'a': one},
        r'Missing array: body.48.res_layer.3.weight \(1 in all\)': {
            k: v for k, v in arrays.items() if k != 'body.48.res_layer.3.weight'
        },
        'Unexpected array: body.0.res_layer.5.fc1.weight': arrays
        | {'body.0.res_layer.5.fc1.weight': one},
        'Unexpected array: output_layer.4.weight': arrays | {'output_layer.4.weight': one},
        r"'input_layer.0.weight' has the shape \[512\]": arrays | {'input_layer.0.weight': one},
        "'input_layer.1.running_var' has negative": arrays
        | {'input_layer.1.running_var': -one[:64]},
        "'output_layer.3.bias' has values that are not finite": arrays
        | {'output_layer.3.bias': np.nan * one},
    }
    for message, content in cases.items():
        with pytest.raises(tables.ConversionError) as error:
            converter.convert_identity(content, ir_se50.IR_101)
        assert re.search(message, str(error.value)), (message, str(error.value))
    with pytest.raises(JaxinvError, match='no file .*none.pth with CurricularFace; give Curricul'):
        identity.judges(('curricularface',), curricularface=str(tmp_path / 'none.pth'))
    other = tmp_path / 'other.pth'
    other.write_bytes(pickle_writer.torch_zip(pickle_writer.tensors({'a': one})))
    with pytest.raises(JaxinvError, match='other.pth is not CurricularFace on IR-101: It holds no'):
        identity.judges(('curricularface',), curricularface=str(other))


def test_numbers_by_another_file_of_a_network_are_measured_again():
    def measurer(**files):
        judges = {name: identity.Judge(None, None, 1, file) for name, file in files.items()}
        return comparison_measure.Measurer(None, (), {}, judges, {}, {})

    known = {'target_sha256': 't', 'image_sha256': 'i', 'files': {'arcface': 'one'}}
    known['metrics'] = {'id_arcface': 0.5, 'id_sface': 0.5}
    assert comparison_measure._fits(known, measurer(arcface='one'), 't', 'i')
    assert not comparison_measure._fits(known, measurer(arcface='other'), 't', 'i')
    assert not comparison_measure._fits(known | {'files': {}}, measurer(arcface='one'), 't', 'i')
    assert comparison_measure._fits(known | {'files': {}}, measurer(sface=''), 't', 'i')
