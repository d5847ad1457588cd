"""Assembles a networks.graph.Graph node by node, with every shape inferred and bounded."""

import math
from typing import NamedTuple

import jax
import numpy as np

from jaxinv.converters.file_view import Refused
from jaxinv.networks import graph

MAX_NODES = 5000  # U2-Net-P has 900, most of them of shapes
MAX_FILE = 2**28  # bytes
MAX_WEIGHTS = 2**27  # elements; a file may use one array many times


class Value(NamedTuple):
    """A result of a node, or the input."""

    name: str
    shape: tuple[int, ...]


class Builder:
    """Nodes and weights so far. Constants are NumPy arrays, results are Values."""

    def __init__(self, shape):
        """shape: of the input, with a batch of 1."""
        self.input = self._value('input', check_shape(shape))
        self.weights: dict[str, np.ndarray] = {}
        self._nodes: list[graph.Node] = []
        self._size = 0  # elements of the weights
        self._names: dict[int, str] = {}  # of a constant's array
        self._kept: list[np.ndarray] = []  # so that no id is used twice

    def add(self, op: str, *inputs, **options) -> Value:
        """The result of an operation of networks.graph.OPERATIONS on Values and constants.

        Raises Refused for too many nodes, and what graph.infer raises.
        """
        if len(self._nodes) == MAX_NODES:
            raise Refused(f'has more than {MAX_NODES} operations')
        names = tuple(one.name if isinstance(one, Value) else self._constant(one) for one in inputs)
        name = f'{op}{len(self._nodes)}'
        node = graph.Node(op, names, name, tuple(sorted(options.items())))
        shapes = [
            jax.ShapeDtypeStruct(one.shape if isinstance(one, Value) else np.shape(one), np.float32)
            for one in inputs
        ]
        result = graph.infer(node, shapes)
        self._nodes.append(node)
        return self._value(name, result.shape)

    def finish(self, outputs) -> tuple[graph.Graph, dict[str, np.ndarray]]:
        """The graph of what the outputs need, and its float32 weights."""
        needed, nodes = {one.name for one in outputs}, []
        for node in reversed(self._nodes):
            if node.output in needed:
                needed.update(node.inputs)
                nodes.append(node)
        weights = {name: array for name, array in self.weights.items() if name in needed}
        names = tuple(one.name for one in outputs)
        return graph.Graph('input', self.input.shape, tuple(reversed(nodes)), names), weights

    def _value(self, name, shape) -> Value:
        return Value(name, tuple(int(n) for n in shape))

    def _constant(self, array) -> str:
        if id(array) not in self._names:
            self._size += np.size(array)
            if self._size > MAX_WEIGHTS:
                raise Refused(f'has more than {MAX_WEIGHTS} weights')
            name = f'w{len(self.weights)}'
            values = np.array(array, np.float32, order='C')
            if not np.isfinite(values).all():
                raise Refused('has a constant with values that are not finite')
            self._names[id(array)] = name
            self._kept.append(array)
            self.weights[name] = values
        return self._names[id(array)]


def check_shape(shape) -> tuple[int, ...]:
    """The shape as integers. Raises Refused unless all are positive and their product bounded."""
    shape = tuple(int(n) for n in shape)
    if min(shape, default=1) < 1 or math.prod(shape) > graph.MAX_ELEMENTS:
        raise Refused(f'has an array of shape {list(shape)}')
    return shape


def same_padding(lengths, window, strides, dilation) -> tuple[tuple[int, int], ...]:
    """TensorFlow's 'SAME' padding of each axis: the odd pixel is at the end."""
    padding = []
    for n, k, stride, step in zip(lengths, window, strides, dilation, strict=True):
        total = max((-(-n // stride) - 1) * stride + (k - 1) * step + 1 - n, 0)
        padding.append((total // 2, total - total // 2))
    return tuple(padding)
