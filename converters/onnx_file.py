"""Reader of ONNX files: float networks with one picture as input, as a Graph and its weights.

The protocol buffer is parsed by the package `onnx`; nothing in it is executed, and no other file
that it names is opened. Block-quantised weights (DequantizeLinear of a constant) become float32,
and what depends on shapes alone (Shape, Gather, ...) is computed while reading.
Operators: https://onnx.ai/onnx/operators.
"""

import pathlib

import numpy as np

from jaxinv.converters import file_view, onnx_constants
from jaxinv.converters.file_view import Refused
from jaxinv.converters.graph_builder import (
    MAX_FILE,
    MAX_NODES,
    Builder,
    Value,
    check_shape,
    same_padding,
)

_PLAIN = {
    'Relu': 'relu', 'Sigmoid': 'sigmoid', 'Tanh': 'tanh', 'Exp': 'exp', 'Abs': 'abs', 'Neg': 'neg',
    'Sqrt': 'sqrt',
}  # fmt: skip
_ELEMENTWISE = {'Add': 'add', 'Sub': 'sub', 'Mul': 'mul', 'Div': 'div', 'PRelu': 'prelu'}
_NHWC, _NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
_MAX_CONSTANTS = 2**26  # elements of all that are computed while reading


def read(source, name: str | None = None):
    """(Graph, {name: float32 array}) of a file's path, or of its bytes under a name for errors.

    The graph takes and gives pictures and feature maps as [1, h, w, c]. Raises UnreadableFile, one
    sentence, for other files, operations that are not known here, and networks that are too large.
    """
    name = name or str(source)
    with file_view.reading(name, 'an ONNX network'):
        import onnx  # late: only for these files

        data = source if isinstance(source, bytes) else pathlib.Path(source).read_bytes()
        if len(data) > MAX_FILE:
            raise Refused(f'has more than {MAX_FILE >> 20} MB')
        model = onnx.ModelProto()
        model.ParseFromString(data)
        return _Reader(onnx, model.graph).convert()


class _Reader:
    """Values are NumPy arrays in the file's order, or Values; those of rank 4 are [1, h, w, c]."""

    def __init__(self, onnx, graph):
        if len(graph.node) > MAX_NODES or not graph.node:
            raise Refused(f'has {len(graph.node)} operations; 1 to {MAX_NODES} are allowed')
        self.onnx, self.graph = onnx, graph
        self.left = _MAX_CONSTANTS
        self.values: dict[str, np.ndarray | Value] = {}
        for tensor in graph.initializer:
            self.values[tensor.name] = self._array(tensor)

    def convert(self):
        # Older files list constants as inputs, too; converted ones also such as nothing uses.
        used = {name for node in self.graph.node for name in node.input} - self.values.keys()
        inputs = [one for one in self.graph.input if one.name in used]
        if len(inputs) != 1:
            raise Refused(f'has {len(inputs)} inputs, and one is allowed')
        dims = inputs[0].type.tensor_type.shape.dim
        # A batch of unknown size is 1; other lengths must be given.
        shape = [one.dim_value or (0 if i else 1) for i, one in enumerate(dims)]
        shape = check_shape(shape)
        self.builder = Builder(_last(shape))
        self.values[inputs[0].name] = self.builder.input
        for node in self.graph.node:
            options = {one.name: self._attribute(one) for one in node.attribute}
            given = [self.values[name] if name else None for name in node.input]
            results = self._node(node.op_type, given, options, len(node.output))
            if not isinstance(results, list):
                results = [results]
            self.values.update(zip(node.output, results, strict=False))
        outputs = [self.values[one.name] for one in self.graph.output]
        if not all(isinstance(one, Value) for one in outputs):
            raise Refused('has an output that depends on no input')
        return self.builder.finish(outputs)

    def _array(self, tensor) -> np.ndarray:
        if tensor.data_location or tensor.external_data:
            raise Refused('has weights in another file')
        check_shape(n for n in tensor.dims if n)  # an empty list of sizes has the shape [0]
        return self.onnx.numpy_helper.to_array(tensor)

    def _attribute(self, one):
        if one.type == one.TENSOR:
            return self._array(one.t)
        if one.type in (one.GRAPH, one.GRAPHS):
            raise Refused('has a control structure (a graph within a graph)')
        return self.onnx.helper.get_attribute_value(one)

    # --- One operation ----------------------------------------------------------------------------

    def _node(self, kind, inputs, options, outputs):
        if kind == 'Constant':
            return onnx_constants.constant(options)
        if kind in ('Identity', 'Dropout'):
            return inputs[0]
        if kind == 'Shape':
            return np.array(_first(_shape(inputs[0])), np.int64)
        if all(isinstance(one, np.ndarray) or one is None for one in inputs):
            self.left -= onnx_constants.folded_size(kind, inputs, options)
            if self.left < 0:
                raise Refused('has constants that are too large')
            return np.asarray(onnx_constants.fold(kind, inputs, options))
        if kind in _PLAIN:
            return self.builder.add(_PLAIN[kind], inputs[0])
        if kind in _ELEMENTWISE:
            return self.builder.add(_ELEMENTWISE[kind], *self._aligned(inputs[:2]))
        method = getattr(self, f'_{kind.lower()}', None)
        if method is None or kind not in _METHODS:
            raise Refused(f'has the operation {kind[:40]}, which is not known here')
        return method(inputs, options, outputs)

    def _aligned(self, inputs):
        """Operands in one order of axes, so that they broadcast as in the file's order."""
        rank = max(len(_shape(one)) for one in inputs)
        if rank != 4:
            return inputs
        return [self._rank4(one) for one in inputs]

    def _rank4(self, one):
        """An operand of a broadcast with feature maps."""
        shape = _shape(one)
        if len(shape) == 4 and isinstance(one, Value):
            return one
        shape = (1,) * (4 - len(shape)) + tuple(shape)
        if isinstance(one, np.ndarray):
            return one.reshape(shape).transpose(_NHWC)
        return self.builder.add(
            'transpose', self.builder.add('reshape', one, shape=shape), order=_NHWC
        )

    def _in_file_order(self, x):
        return self.builder.add('transpose', x, order=_NCHW) if len(x.shape) == 4 else x

    def _in_own_order(self, x):
        return self.builder.add('transpose', x, order=_NHWC) if len(x.shape) == 4 else x

    def _conv(self, inputs, options, _):
        x, kernel, *bias = inputs
        groups = options.get('group', 1)
        if kernel.ndim != 4:
            raise Refused('has a convolution that is not of pictures')
        strides, padding, dilation = _windows(options, x, kernel.shape[2:])
        common = {'strides': strides, 'padding': padding, 'dilation': dilation}
        if groups == x.shape[-1] == kernel.shape[0] and kernel.shape[1] == 1:
            kernel = kernel[:, 0].transpose(1, 2, 0)
            y = self.builder.add('depthwise', x, kernel, **common)
        else:
            y = self.builder.add('conv', x, kernel.transpose(2, 3, 1, 0), groups=groups, **common)
        return self.builder.add('add', y, bias[0]) if bias else y

    def _batchnormalization(self, inputs, options, _):
        x, scale, shift, mean, variance = inputs
        scale = scale / np.sqrt(variance + np.float32(options.get('epsilon', 1e-5)))
        shift = shift - mean * scale
        if len(x.shape) not in (2, 4):
            raise Refused('has a batch normalisation that is not of pictures or vectors')
        return self.builder.add('add', self.builder.add('mul', x, scale), shift)

    def _gemm(self, inputs, options, _):
        x, kernel, *bias = inputs
        kernel = kernel.T if options.get('transB') else kernel
        if options.get('transA') or options.get('beta', 1.0) != 1:
            raise Refused('has a matrix product with options that are not known here')
        y = self.builder.add('matmul', x, kernel * np.float32(options.get('alpha', 1.0)))
        return self.builder.add('add', y, bias[0]) if bias else y

    def _matmul(self, inputs, options, _):
        if max(len(_shape(one)) for one in inputs) > 3:
            raise Refused('has a matrix product of feature maps, which is not known here')
        return self.builder.add('matmul', *inputs)

    def _flatten(self, inputs, options, _):
        x = self._in_file_order(inputs[0])
        axis = options.get('axis', 1) % len(x.shape)
        shape = (int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:])))
        return self.builder.add('reshape', x, shape=shape)

    def _reshape(self, inputs, options, _):
        x = self._in_file_order(inputs[0])
        shape = onnx_constants.resolved(inputs[1].tolist(), x.shape)
        return self._in_own_order(self.builder.add('reshape', x, shape=shape))

    def _unsqueeze(self, inputs, options, _):
        x = self._in_file_order(inputs[0])
        axes = onnx_constants.axes_of(inputs, options)
        shape, rank = list(x.shape), len(x.shape) + len(axes)
        for axis in sorted(axis % rank for axis in axes):
            shape.insert(axis, 1)
        return self._in_own_order(self.builder.add('reshape', x, shape=tuple(shape)))

    def _transpose(self, inputs, options, _):
        x = self._in_file_order(inputs[0])
        order = options.get('perm') or range(len(x.shape))[::-1]
        return self._in_own_order(self.builder.add('transpose', x, order=tuple(order)))

    def _concat(self, inputs, options, _):
        rank = len(_shape(inputs[0]))
        parts = [self._rank4(one) if rank == 4 else one for one in inputs]
        return self.builder.add('concat', *parts, axis=_own_axis(options['axis'], rank))

    def _split(self, inputs, options, outputs):
        x, rank = inputs[0], len(inputs[0].shape)
        axis = _own_axis(options.get('axis', 0), rank)
        sizes = inputs[1].tolist() if len(inputs) > 1 else options.get('split')
        sizes = sizes or [x.shape[axis] // outputs] * outputs
        edges = np.cumsum([0, *sizes]).tolist()
        return [self._cut(x, axis, a, b, 1) for a, b in zip(edges, edges[1:], strict=False)]

    def _slice(self, inputs, options, _):
        if len(inputs) < 3:
            starts, ends = options['starts'], options['ends']
            axes, steps = options.get('axes'), None
        else:
            starts, ends, axes, steps = (
                None if one is None else one.tolist() for one in (*inputs[1:], None, None)[:4]
            )
        x, rank = inputs[0], len(inputs[0].shape)
        axes = range(len(starts)) if axes is None else axes
        for axis, start, end, step in zip(
            axes, starts, ends, steps or [1] * len(starts), strict=True
        ):
            own = _own_axis(axis, rank)
            length = x.shape[own]
            start, end = (min(max(n + length if n < 0 else n, 0), length) for n in (start, end))
            if step < 1 or end <= start:
                raise Refused('has a slice that is empty or reversed')
            x = self._cut(x, own, start, end, int(step))
        return x

    def _cut(self, x, axis, start, end, step):
        starts, limits, strides = [0] * len(x.shape), list(x.shape), [1] * len(x.shape)
        starts[axis], limits[axis], strides[axis] = start, end, step
        return self.builder.add(
            'slice', x, starts=tuple(starts), limits=tuple(limits), strides=tuple(strides)
        )

    def _softmax(self, inputs, options, _):
        rank = len(inputs[0].shape)
        return self.builder.add('softmax', inputs[0], axis=_own_axis(options.get('axis', -1), rank))

    def _reducemean(self, inputs, options, _):
        x, rank = inputs[0], len(inputs[0].shape)
        axes = tuple(
            _own_axis(axis, rank) for axis in onnx_constants.axes_of(inputs, options) or range(rank)
        )
        keep = bool(options.get('keepdims', 1))
        if rank == 4 and not keep and len(axes) == 1:
            raise Refused('has a mean over one axis of feature maps, which is not known here')
        return self.builder.add('mean', x, axes=axes, keep=keep)

    def _globalaveragepool(self, inputs, options, _):
        return self.builder.add('mean', inputs[0], axes=(1, 2), keep=True)

    def _maxpool(self, inputs, options, _):
        window = tuple(options['kernel_shape'])
        strides, padding, dilation = _windows(options, inputs[0], window, 1)
        if dilation != (1, 1):
            raise Refused('has a dilated pooling, which is not known here')
        common = {'window': window, 'strides': strides, 'padding': padding}
        return self.builder.add('max_pool', inputs[0], **common)

    def _averagepool(self, inputs, options, _):
        window = tuple(options['kernel_shape'])
        strides, padding, _ = _windows(options, inputs[0], window, 1)
        if options.get('ceil_mode'):
            raise Refused('has an average pooling with ceil_mode, which is not known here')
        counted = bool(options.get('count_include_pad'))
        common = {'window': window, 'strides': strides, 'padding': padding}
        return self.builder.add('avg_pool', inputs[0], count_padding=counted, **common)

    def _pad(self, inputs, options, _):
        x = inputs[0]
        pads = inputs[1].tolist() if len(inputs) > 1 else list(options['pads'])
        if options.get('mode', b'constant') != b'constant' or min(pads) < 0:
            raise Refused('has a padding of another kind than constant')
        value = inputs[2] if len(inputs) > 2 and inputs[2] is not None else options.get('value', 0)
        pairs = list(zip(pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True))
        if not any(map(any, pairs)):
            return x
        pairs = [pairs[i] for i in _NHWC] if len(pairs) == 4 else pairs
        return self.builder.add('pad', x, padding=tuple(pairs), value=float(np.reshape(value, ())))

    def _resize(self, inputs, options, _):
        x = inputs[0]
        how = options.get('coordinate_transformation_mode', b'half_pixel').decode()
        modes = {'align_corners', 'half_pixel', 'pytorch_half_pixel', 'asymmetric'}
        if options.get('mode') != b'linear' or how not in modes or options.get('antialias'):
            raise Refused('has a resizing other than bilinear, which is not known here')
        if len(inputs) > 3 and inputs[3] is not None and inputs[3].size:
            size = inputs[3].tolist()[2:]
        else:
            scales = inputs[2].tolist()[2:]
            size = [int(n * scale) for n, scale in zip(x.shape[1:3], scales, strict=True)]
        check_shape(size)
        return self.builder.add(
            'resize', x, size=tuple(size), corners=how == 'align_corners', half='half' in how
        )


_METHODS = (
    'Conv', 'BatchNormalization', 'Gemm', 'MatMul', 'Flatten', 'Reshape', 'Unsqueeze', 'Transpose',
    'Concat', 'Split', 'Slice', 'Softmax', 'ReduceMean', 'GlobalAveragePool', 'MaxPool',
    'AveragePool', 'Pad', 'Resize',
)  # fmt: skip


def _shape(value) -> tuple[int, ...]:
    return value.shape


def _first(shape):
    """A shape in the file's order, of one in ours."""
    return tuple(shape[i] for i in _NCHW) if len(shape) == 4 else tuple(shape)


def _last(shape):
    return tuple(shape[i] for i in _NHWC) if len(shape) == 4 else tuple(shape)


def _own_axis(axis: int, rank: int) -> int:
    axis %= rank
    return _NHWC.index(axis) if rank == 4 else axis


def _windows(options, x, window, default_dilation=1):
    """(strides, padding, dilation) of a convolution or pooling."""
    if len(x.shape) != 4 or len(window) != 2:
        raise Refused('has a convolution or pooling that is not of pictures')
    strides = tuple(options.get('strides', (1, 1)))
    dilation = tuple(options.get('dilations', (1, 1)))
    how = options.get('auto_pad', b'NOTSET').decode()
    if how == 'SAME_UPPER':
        return strides, same_padding(x.shape[1:3], window, strides, dilation), dilation
    if how not in ('NOTSET', 'VALID'):
        raise Refused(f'has the padding {how[:20]}, which is not known here')
    pads = options.get('pads', (0, 0, 0, 0)) if how == 'NOTSET' else (0, 0, 0, 0)
    padding = [(pads[0], pads[2]), (pads[1], pads[3])]
    if options.get('ceil_mode'):
        for i, (n, k, s) in enumerate(zip(x.shape[1:3], window, strides, strict=True)):
            low, high = padding[i]
            left = (n + low + high - k) % s
            padding[i] = (low, high + (s - left if left else 0))
    return strides, tuple(padding), dilation
