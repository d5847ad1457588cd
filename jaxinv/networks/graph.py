"""Networks read from ONNX and TFLite files, as pure functions.

    net = weights.graphs.load('sface')
    (embeddings,) = net(images)  # [n, 112, 112, 3] -> [n, 1, 128]

A Graph lists operations of `OPERATIONS` in order. Pictures and feature maps are [b, h, w, c] in all
of them, kernels HWIO, whatever the file's order was (converters/onnx_file.py, tflite_file.py).
A Network is a pytree of its weights with the graph as static part, so it is an argument of jitted
functions; `net(x)` is a pure function for jit, vmap and grad.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxinv.errors import JaxinvError
from jaxinv.nn import ops

MAX_ELEMENTS = 2**27  # of one result; U2-Net-P's largest has 2^23


class Node(NamedTuple):
    op: str  # of OPERATIONS
    inputs: tuple[str, ...]  # names of values and weights
    output: str
    options: tuple[tuple[str, Any], ...] = ()


class Graph(NamedTuple):
    input: str
    input_shape: tuple[int, ...]  # with a batch of 1
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Network:
    """A graph and its weights {name: float32 array}."""

    weights: dict[str, Any]
    graph: Graph = dataclasses.field(metadata={'static': True})

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        """The outputs for each picture of x [n, ...], each [n, 1, ...]."""
        return apply_each(self.graph, self.weights, x)


def apply(graph: Graph, weights: dict[str, jax.Array], x: jax.Array) -> list[jax.Array]:
    """The outputs for x of graph.input_shape. Raises JaxinvError for another shape.

    Under jit, vmap and grad; `apply_each` is for several pictures.
    """
    if tuple(x.shape) != graph.input_shape:
        raise JaxinvError(f'this network takes {list(graph.input_shape)}, not {list(x.shape)}.')
    values = {**weights, graph.input: x}
    for node in graph.nodes:
        values[node.output] = evaluate(node, [values[name] for name in node.inputs])
    return [values[name] for name in graph.outputs]


def apply_each(graph: Graph, weights: dict[str, jax.Array], x: jax.Array) -> list[jax.Array]:
    """`apply` for each picture of x [n, ...], whose shape is the input's without its batch."""
    return jax.vmap(lambda one: apply(graph, weights, one[None]))(x)


def evaluate(node: Node, inputs):
    """The result of one node; inputs in the order of node.inputs."""
    return OPERATIONS[node.op](*inputs, **dict(node.options))


def infer(node: Node, inputs) -> jax.ShapeDtypeStruct:
    """Shape and type of `evaluate`; inputs: arrays or ShapeDtypeStructs.

    Raises JaxinvError for a result of more than MAX_ELEMENTS, and what the operation raises.
    """
    result = jax.eval_shape(lambda *values: evaluate(node, values), *inputs)
    if math.prod(result.shape) > MAX_ELEMENTS:
        raise JaxinvError(f'{node.op} makes an array of shape {list(result.shape)}.')
    return result


# --- Operations -----------------------------------------------------------------------------------


def _conv(x, kernel, strides, padding, dilation, groups):
    """Convolution: kernel [k, l, c / groups, d], padding ((top, bottom), (left, right))."""
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=ops.NHWC,
        feature_group_count=groups,
    )


def _depthwise(x, kernel, strides, padding, dilation):
    """Depthwise convolution: kernel [k, l, c].

    On CPUs as shifted multiply-adds, like nn/ops.depthwise, which has no strides.
    """

    def stock(x, kernel):
        kernel = kernel[:, :, None]
        return _conv(x, kernel, strides, padding, dilation, groups=x.shape[-1])

    def taps(x, kernel):
        rows, columns = (
            (sum(pad) + n - (k - 1) * d - 1) // s + 1
            for n, k, d, s, pad in zip(
                x.shape[1:3], kernel.shape, dilation, strides, padding, strict=False
            )
        )
        x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*p, 0) for p in padding), (0, 0, 0)))
        total = 0
        for i in range(kernel.shape[0]):
            for j in range(kernel.shape[1]):
                top, left = i * dilation[0], j * dilation[1]
                bottom = top + (rows - 1) * strides[0] + 1
                right = left + (columns - 1) * strides[1] + 1
                part = x[:, top : bottom : strides[0], left : right : strides[1]]
                total = total + part * kernel[i, j].reshape(1, 1, 1, -1)
        return total

    return lax.platform_dependent(x, kernel, cpu=taps, default=stock)


def _window(x, start, combine, window, strides, padding):
    padding = ((0, 0), *padding, (0, 0))
    return lax.reduce_window(x, start, combine, (1, *window, 1), (1, *strides, 1), padding)


def _max_pool(x, window, strides, padding):
    return _window(x, -jnp.inf, lax.max, window, strides, padding)


def _avg_pool(x, window, strides, padding, count_padding):
    total = _window(x, 0.0, lax.add, window, strides, padding)
    if count_padding:
        return total / math.prod(window)
    ones = np.ones((1, *x.shape[1:3], 1), np.float32)
    return total / _window(ones, 0.0, lax.add, window, strides, padding)


def _resize(x, size, corners, half):
    """Bilinear, without antialiasing; corners: aligned corners, half: pixel centres at +0.5."""
    for axis, length in zip((1, 2), size, strict=True):
        n, places = x.shape[axis], np.arange(length, dtype=np.float64)
        if corners:
            places = places * ((n - 1) / max(length - 1, 1))
        else:
            shift = 0.5 if half else 0.0
            places = (places + shift) * (n / length) - shift
        places = np.clip(places, 0, n - 1)
        low = np.floor(places).astype(np.int32)
        high = np.minimum(low + 1, n - 1)
        part = np.float32(places - low).reshape([-1 if i == axis else 1 for i in range(4)])
        x = jnp.take(x, low, axis) * (1 - part) + jnp.take(x, high, axis) * part
    return x


def _elementwise(function):
    """The function of operands of any rank, aligned at the last axis."""

    def aligned(*inputs):
        rank = max(jnp.ndim(x) for x in inputs)
        return function(
            *(jnp.reshape(x, (1,) * (rank - jnp.ndim(x)) + jnp.shape(x)) for x in inputs)
        )

    return aligned


def _slice(x, starts, limits, strides):
    return lax.slice(x, starts, limits, strides)


def _pad(x, padding, value):
    return jnp.pad(x, padding, constant_values=value)


OPERATIONS = {
    'conv': _conv,
    'depthwise': _depthwise,
    'max_pool': _max_pool,
    'avg_pool': _avg_pool,
    'resize': _resize,
    'slice': _slice,
    'pad': _pad,
    'add': _elementwise(jnp.add),
    'sub': _elementwise(jnp.subtract),
    'mul': _elementwise(jnp.multiply),
    'div': _elementwise(jnp.divide),
    'matmul': jnp.matmul,
    'concat': lambda *parts, axis: jnp.concatenate(parts, axis),
    'reshape': lambda x, shape: jnp.reshape(x, shape),
    'transpose': lambda x, order: jnp.transpose(x, order),
    'mean': lambda x, axes, keep: jnp.mean(x, axes, keepdims=keep),
    'sum': lambda x, axes, keep: jnp.sum(x, axes, keepdims=keep),
    'softmax': lambda x, axis: jax.nn.softmax(x, axis),
    'clip': lambda x, low, high: jnp.clip(x, low, high),
    'relu': jax.nn.relu,
    'prelu': _elementwise(lambda x, slope: jnp.where(x > 0, x, x * slope)),
    'sigmoid': jax.nn.sigmoid,
    'tanh': jnp.tanh,
    'exp': jnp.exp,
    'abs': jnp.abs,
    'neg': jnp.negative,
    'sqrt': jnp.sqrt,
    'rsqrt': lax.rsqrt,
    'squared_difference': _elementwise(lambda x, y: jnp.square(x - y)),
}
