"""Reader of TensorFlow Lite files: float networks of one subgraph, as a Graph and its weights.

The flatbuffer is parsed by the package `tflite`; nothing in it is executed. Weights in float16
become float32. Format: tensorflow/compiler/mlir/lite/schema/schema.fbs.
"""

import pathlib

import numpy as np

from jaxinv.converters import file_view
from jaxinv.converters.file_view import Refused
from jaxinv.converters.graph_builder import (
    MAX_FILE,
    MAX_NODES,
    Builder,
    Value,
    check_shape,
    same_padding,
)

_TYPES = {0: np.float32, 1: np.float16, 2: np.int32, 4: np.int64}
_TYPES = {number: np.dtype(kind).newbyteorder('<') for number, kind in _TYPES.items()}
_MAX_TENSORS = 4 * MAX_NODES
_ACTIVATIONS = {0: None, 1: (0.0, np.inf), 2: (-1.0, 1.0), 3: (0.0, 6.0)}
_PLAIN = {
    'RELU': 'relu', 'ABS': 'abs', 'LOGISTIC': 'sigmoid', 'SQRT': 'sqrt', 'RSQRT': 'rsqrt',
    'NEG': 'neg', 'EXP': 'exp', 'TANH': 'tanh', 'PRELU': 'prelu',
    'SQUARED_DIFFERENCE': 'squared_difference',
}  # fmt: skip
_WITH_ACTIVATION = {'ADD': 'add', 'SUB': 'sub', 'MUL': 'mul', 'DIV': 'div'}


def read(source, name: str | None = None):
    """(Graph, {name: float32 array}) of a file's path, or of its bytes under a name for errors.

    Raises UnreadableFile, one sentence, for other files, operations that are not known here,
    quantised weights, and networks that are too large.
    """
    name = name or str(source)
    with file_view.reading(name, 'a TensorFlow Lite network'):
        data = source if isinstance(source, bytes) else pathlib.Path(source).read_bytes()
        if len(data) > MAX_FILE:
            raise Refused(f'has more than {MAX_FILE >> 20} MB')
        return _Reader(data).convert()


class _Reader:
    def __init__(self, data: bytes):
        import tflite  # late: only for these files

        if data[4:8] != b'TFL3':
            raise ValueError('no TFL3 at its start')
        self.tflite = tflite
        self.model = tflite.Model.GetRootAs(data, 0)
        if self.model.SubgraphsLength() != 1:
            raise Refused(f'has {self.model.SubgraphsLength()} subgraphs, and one is allowed')
        self.graph = self.model.Subgraphs(0)
        if self.graph.OperatorsLength() > MAX_NODES or self.graph.TensorsLength() > _MAX_TENSORS:
            raise Refused(f'has more than {MAX_NODES} operations')
        codes = vars(tflite.BuiltinOperator).items()
        self.names = {number: name for name, number in codes if isinstance(number, int)}
        self.values: dict[int, np.ndarray | Value] = {}

    def convert(self):
        inputs = self.graph.InputsAsNumpy()
        if np.size(inputs) != 1:
            raise Refused(f'has {np.size(inputs)} inputs, and one is allowed')
        self.builder = Builder(self._shape(self.graph.Tensors(int(inputs[0]))))
        for i in range(self.graph.TensorsLength()):
            array = self._array(i)
            if array is not None:
                self.values[i] = array
        self.values[int(inputs[0])] = self.builder.input
        for i in range(self.graph.OperatorsLength()):
            operator = self.graph.Operators(i)
            code = self.model.OperatorCodes(operator.OpcodeIndex())
            number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            kind = self.names.get(number, str(number))
            places = [int(n) for n in operator.InputsAsNumpy()]
            result = self._node(kind, operator, [self.values[n] for n in places if n >= 0])
            (output,) = operator.OutputsAsNumpy()
            self.values[int(output)] = result
        outputs = [self.values[int(i)] for i in self.graph.OutputsAsNumpy()]
        return self.builder.finish(outputs)

    def _shape(self, tensor):
        return check_shape(tensor.ShapeAsNumpy() if tensor.ShapeLength() else ())

    def _array(self, index: int):
        """The constant in a tensor; None for a result."""
        tensor = self.graph.Tensors(index)
        buffer = self.model.Buffers(tensor.Buffer())
        if not buffer.DataLength():
            return None
        if tensor.Type() not in _TYPES:
            raise Refused('has quantised or other constants; only float ones are read')
        values = np.frombuffer(buffer.DataAsNumpy().tobytes(), _TYPES[tensor.Type()])
        values = values.reshape(self._shape(tensor))
        return values.astype(np.float32) if values.dtype.kind == 'f' else values.astype(np.int64)

    def _options(self, kind: str, operator):
        """The table of options of an operation."""
        table = operator.BuiltinOptions()
        options = getattr(self.tflite, kind)()
        if table is None:
            raise ValueError(f'an operation without its {kind}')
        options.Init(table.Bytes, table.Pos)
        return options

    def _node(self, kind, operator, inputs):
        add = self.builder.add
        if kind == 'DEQUANTIZE':
            return inputs[0] if isinstance(inputs[0], np.ndarray) else _unknown('DEQUANTIZE')
        if kind in _PLAIN:
            return add(_PLAIN[kind], *inputs)
        if kind in _WITH_ACTIVATION:
            options = self._options(f'{kind.capitalize()}Options', operator)
            return self._activated(add(_WITH_ACTIVATION[kind], *inputs), options)
        if kind in ('CONV_2D', 'DEPTHWISE_CONV_2D'):
            return self._conv(kind, operator, *inputs)
        if kind in ('AVERAGE_POOL_2D', 'MAX_POOL_2D'):
            return self._pool(kind, operator, *inputs)
        x = inputs[0]
        if kind == 'RESIZE_BILINEAR':
            options = self._options('ResizeBilinearOptions', operator)
            corners, half = bool(options.AlignCorners()), bool(options.HalfPixelCenters())
            return add('resize', x, size=check_shape(inputs[1]), corners=corners, half=half)
        if kind == 'CONCATENATION':
            options = self._options('ConcatenationOptions', operator)
            return self._activated(add('concat', *inputs, axis=options.Axis()), options)
        if kind == 'RESHAPE':
            shape = self._shape(self.graph.Tensors(int(operator.OutputsAsNumpy()[0])))
            return add('reshape', x, shape=shape)
        if kind == 'TRANSPOSE':
            return add('transpose', x, order=_ints(inputs[1]))
        if kind == 'PAD':
            return add('pad', x, padding=tuple(map(tuple, inputs[1].tolist())), value=0.0)
        if kind in ('MEAN', 'SUM'):
            keep = bool(self._options('ReducerOptions', operator).KeepDims())
            return add(kind.lower(), x, axes=_ints(np.atleast_1d(inputs[1])), keep=keep)
        if kind == 'STRIDED_SLICE':
            return self._slice(operator, *inputs)
        return _unknown(kind)

    def _conv(self, kind, operator, x, kernel, bias=None):
        options = self._options(
            'Conv2DOptions' if kind == 'CONV_2D' else 'DepthwiseConv2DOptions', operator
        )
        strides = (options.StrideH(), options.StrideW())
        dilation = (options.DilationHFactor(), options.DilationWFactor())
        padding = self._padding(options, x, kernel.shape[1:3], strides, dilation)
        common = {'strides': strides, 'padding': padding, 'dilation': dilation}
        if kind == 'CONV_2D':
            kernel = kernel.transpose(1, 2, 3, 0)
            y = self.builder.add('conv', x, kernel, groups=x.shape[-1] // kernel.shape[2], **common)
        elif kernel.shape[-1] == x.shape[-1]:
            y = self.builder.add('depthwise', x, kernel[0], **common)
        else:  # several filters for a channel
            kernel = kernel.transpose(1, 2, 0, 3)
            y = self.builder.add('conv', x, kernel, groups=x.shape[-1], **common)
        y = y if bias is None else self.builder.add('add', y, bias)
        return self._activated(y, options)

    def _pool(self, kind, operator, x):
        options = self._options('Pool2DOptions', operator)
        window = (options.FilterHeight(), options.FilterWidth())
        strides = (options.StrideH(), options.StrideW())
        padding = self._padding(options, x, window, strides, (1, 1))
        common = {'window': window, 'strides': strides, 'padding': padding}
        if kind == 'MAX_POOL_2D':
            return self._activated(self.builder.add('max_pool', x, **common), options)
        return self._activated(
            self.builder.add('avg_pool', x, count_padding=False, **common), options
        )

    def _padding(self, options, x, window, strides, dilation):
        if options.Padding() == 1:  # 'VALID'
            return ((0, 0), (0, 0))
        return same_padding(x.shape[1:3], window, strides, dilation)

    def _activated(self, x, options):
        """x after the activation that is fused into its operation."""
        number = options.FusedActivationFunction()
        if number not in _ACTIVATIONS:
            _unknown(f'activation {number}')
        limits = _ACTIVATIONS[number]
        if limits is None:
            return x
        if limits[1] == np.inf:
            return self.builder.add('relu', x)
        return self.builder.add('clip', x, low=limits[0], high=limits[1])

    def _slice(self, operator, x, begin, end, strides):
        options = self._options('StridedSliceOptions', operator)
        if options.EllipsisMask() or options.NewAxisMask() or strides.min() < 1:
            _unknown('STRIDED_SLICE with these options')
        starts, limits, shape = [], [], []
        for i, (n, a, b) in enumerate(zip(x.shape, begin.tolist(), end.tolist(), strict=True)):
            a, b = (place + n if place < 0 else place for place in (a, b))
            shrinks = options.ShrinkAxisMask() >> i & 1
            a = 0 if options.BeginMask() >> i & 1 and not shrinks else min(a, n)
            b = a + 1 if shrinks else n if options.EndMask() >> i & 1 else min(b, n)
            starts.append(a)
            limits.append(b)
            if not shrinks:
                shape.append(-(-(b - a) // int(strides[i])))
        y = self.builder.add(
            'slice', x, starts=tuple(starts), limits=tuple(limits), strides=_ints(strides)
        )
        return self.builder.add('reshape', y, shape=check_shape(shape))


def _ints(array) -> tuple[int, ...]:
    return tuple(int(n) for n in array)


def _unknown(kind):
    raise Refused(f'has the operation {kind}, which is not known here')
