"""Writes a generator's synthesis, w -> image, as an ONNX file, and compares it with jaxinv's.

Input 'w' [batch, num_ws, w_dim], output 'image' [batch, 3, h, w], float32, about [-1, 1]; the noise
maps are the generator's own.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import generators
from jaxinv.converters.export import ExportError
from jaxinv.io import write_atomically
from jaxinv.types import Generator, Weights
from jaxinv.weights.onnx_graph import BATCH, Graph, Value

OPSET, IR_VERSION = 18, 9  # read by onnxruntime since 1.14
TOLERANCE = 1e-4  # of `difference`
MAX_BYTES = 2**31 - 2**20  # of a file, a limit of protocol buffers


def write(path: pathlib.Path, generator: Generator, weights: Weights, about=None) -> None:
    """Writes the .onnx file. about: the generator's origin, in JSON's types, for its metadata.

    Raises ExportError for an operation that is not translated, or a graph of 2 GB.
    """
    model = model_of(generator, weights)
    record = generators.record(generator.spec)
    for key, value in {'jaxinv': record, 'about': about or {}}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, json.dumps(value)
    if model.ByteSize() > MAX_BYTES:
        raise ExportError(
            f'{path} would have {model.ByteSize()} bytes; ONNX files have below 2^31.'
        )
    write_atomically(path, model.SerializeToString())


def model_of(generator: Generator, weights: Weights):
    """The onnx.ModelProto of a generator with these weights. Raises ExportError."""
    import onnx  # late: it takes a while

    generator = generators.with_computing(generator)  # float32, which all runtimes have
    spec = generator.spec
    leaves, tree = jax.tree.flatten(weights)

    def images(leaves, w):
        # With the channels first, as in the PyTorch codes.
        return generator.synthesize(jax.tree.unflatten(tree, leaves), w)[0].transpose(0, 3, 1, 2)

    shapes = [jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype) for leaf in leaves]
    w = jax.ShapeDtypeStruct((BATCH, spec.num_ws, spec.w_dim), jnp.float32)
    jaxpr = jax.make_jaxpr(images)(shapes, w)
    graph = Graph(onnx)
    code = Value('w', w.shape, w.shape)
    values = [graph.constant(np.asarray(leaf)) for leaf in leaves]
    (image,) = graph.run(jaxpr.jaxpr, jaxpr.consts, [*values, code])
    graph.node('Identity', [graph.full(image)], image.shape, name='image')
    size = spec.resolution
    made = onnx.helper.make_graph(
        graph.used_nodes('image'),
        'synthesis',
        [_info(onnx, 'w', ['batch', spec.num_ws, spec.w_dim])],
        [_info(onnx, 'image', ['batch', 3, size, size])],
        graph.used_constants(),
    )
    opset = onnx.helper.make_opsetid('', OPSET)
    return onnx.helper.make_model(
        made, opset_imports=[opset], ir_version=IR_VERSION, producer_name='jaxinv'
    )


def sample_codes(generator: Generator, weights: Weights, count: int = 2) -> np.ndarray:
    """Seeded codes [count, num_ws, w_dim] for `difference`."""
    spec = generator.spec
    z = np.random.RandomState(0).randn(count, spec.z_dim).astype(np.float32)
    label = (jax.nn.one_hot(jnp.arange(count), spec.label_dim),) if spec.label_dim else ()
    w = np.asarray(generator.map(weights, z, *label))
    return np.repeat(w[:, None], spec.num_ws, 1)


def difference(path: pathlib.Path, generator: Generator, weights: Weights, w) -> float:
    """Largest difference of the file's images, by onnxruntime, from jaxinv's; w [b, k, w_dim].

    Over their largest value where that exceeds 1.
    """
    import onnxruntime

    w = np.broadcast_to(np.asarray(w, np.float32), (len(w), generator.spec.num_ws, w.shape[2]))
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    (found,) = session.run(None, {'w': w})
    images = np.asarray(jax.jit(lambda *args: generator.synthesize(*args)[0])(weights, w))
    return float(np.abs(found.transpose(0, 2, 3, 1) - images).max() / max(1, np.abs(images).max()))


def _info(onnx, name, shape):
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
