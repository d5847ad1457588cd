"""Translates a jaxpr into the nodes of an ONNX graph, for any size of the batch.

The jaxpr is traced for BATCH examples, a prime that is no other size of a network; what is a
multiple of it becomes dynamic. Where an operator has several forms (jaxinv/nn), the stock one is
translated. Only the primitives that jaxinv's generators use are known.

The packages that convert JAX to ONNX need an earlier Orbax than jaxinv does, or TensorFlow.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from jaxinv.converters.export import ExportError

BATCH = 1_000_003

_ELEMENTWISE = {
    'add': 'Add', 'add_any': 'Add', 'sub': 'Sub', 'mul': 'Mul', 'div': 'Div', 'max': 'Max',
    'min': 'Min', 'neg': 'Neg', 'abs': 'Abs', 'exp': 'Exp', 'log': 'Log', 'tanh': 'Tanh',
    'sqrt': 'Sqrt', 'logistic': 'Sigmoid', 'pow': 'Pow', 'ge': 'GreaterOrEqual', 'gt': 'Greater',
    'le': 'LessOrEqual', 'lt': 'Less', 'eq': 'Equal', 'and': 'And', 'or': 'Or', 'not': 'Not',
}  # fmt: skip
_SAME = ('stop_gradient', 'copy', 'copy_p', 'optimization_barrier')
_CALLS = ('jit', 'pjit', 'closed_call', 'custom_jvp_call', 'custom_vjp_call', 'remat', 'checkpoint')


class Value(NamedTuple):
    """A tensor of the graph.

    shape: as in the jaxpr; actual: the same with 1 where the values are not repeated yet.
    array: the values, if they are constant.
    """

    name: str
    shape: tuple[int, ...]
    actual: tuple[int, ...]
    array: np.ndarray | None = None


class Graph:
    """Nodes and constants, and the translation of each primitive as a method `do_NAME`."""

    def __init__(self, onnx):
        self.onnx, self.nodes, self.constants = onnx, [], {}
        self.count, self.index = 0, {}

    def run(self, jaxpr, consts, inputs) -> list[Value]:
        """The outputs of a jaxpr."""
        known = dict(zip(jaxpr.constvars, (self.constant(c) for c in consts), strict=True))
        known |= dict(zip(jaxpr.invars, inputs, strict=True))

        def read(atom):
            if isinstance(atom, Literal):
                return self.constant(np.asarray(atom.val, atom.aval.dtype))
            return known[atom]

        for eqn in jaxpr.eqns:
            values = [read(atom) for atom in eqn.invars]
            outputs = self.translate(eqn, values)
            known |= dict(zip(eqn.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def translate(self, eqn, values) -> list[Value]:
        name, shape = eqn.primitive.name, eqn.outvars[0].aval.shape
        if name in _SAME:
            return values
        if name in _CALLS:
            called = eqn.params.get('jaxpr') or eqn.params['call_jaxpr']
            inner = getattr(called, 'jaxpr', called)
            return self.run(inner, getattr(called, 'consts', ()), values)
        if name == 'platform_index':  # the last form is that of all other platforms
            return [self.constant(np.int32(len(eqn.params['platforms']) - 1))]
        if name == 'cond' and values[0].array is not None:
            branch = eqn.params['branches'][int(values[0].array)]
            return self.run(branch.jaxpr, branch.consts, values[1:])
        if name in _ELEMENTWISE:
            return [self.elementwise(_ELEMENTWISE[name], values, shape)]
        if len(eqn.outvars) != 1 or not hasattr(self, f'do_{name}'):
            raise ExportError(f'The operation {name} of this generator is not written as ONNX.')
        return [getattr(self, f'do_{name}')(eqn, values, shape)]

    # --- Nodes ---

    def constant(self, array) -> Value:
        array = np.asarray(array)
        if array.dtype == jnp.bfloat16:
            array = array.astype(np.float32)
        self.count += 1
        name = f'c{self.count}'
        self.constants[name] = array
        return Value(name, array.shape, array.shape, array)

    def integers(self, numbers) -> Value:
        key = tuple(int(n) for n in numbers)
        if key not in self.index:
            self.index[key] = self.constant(np.array(key, np.int64))
        return self.index[key]

    def node(self, kind, values, shape, actual=None, name=None, **attributes) -> Value:
        self.count += 1
        name = name or f'v{self.count}'
        names = [value.name for value in values]
        self.nodes.append(self.onnx.helper.make_node(kind, names, [name], **attributes))
        shape = tuple(shape)
        return Value(name, shape, shape if actual is None else tuple(actual))

    def used_nodes(self, output):
        """The nodes that lead to the output: results that nothing reads are left out."""
        wanted, kept = {output}, []
        for node in reversed(self.nodes):
            if node.output[0] in wanted:
                wanted.update(node.input)
                kept.append(node)
        self.nodes = kept[::-1]
        return self.nodes

    def used_constants(self):
        used = {name for node in self.nodes for name in node.input}
        return [
            self.onnx.numpy_helper.from_array(np.array(array, order='C'), name)
            for name, array in self.constants.items()
            if name in used
        ]

    def elementwise(self, kind, values, shape) -> Value:
        actual = np.broadcast_shapes(*(value.actual for value in values))
        return self.node(kind, values, shape, actual)

    def full(self, value) -> Value:
        """The value with all its repetitions."""
        if value.actual == value.shape:
            return value
        pairs = list(zip(value.shape, value.actual, strict=True))
        if (BATCH, 1) not in pairs:
            sizes = self.integers([1 if n == m else n for n, m in pairs])
            return self.node('Expand', [value, sizes], value.shape)
        if 'batch' not in self.index:
            shape = self.node('Shape', [Value('w', (), ())], (1,), start=0, end=1)
            self.index['batch'] = shape
        parts = [
            self.index['batch'] if (n, m) == (BATCH, 1) else self.integers([1 if n == m else n])
            for n, m in pairs
        ]
        sizes = self.node('Concat', parts, (len(parts),), axis=0)
        return self.node('Expand', [value, sizes], value.shape)

    def reshaped(self, value, shape) -> Value:
        """shape: at most one of its sizes is a multiple of the batch."""
        if value.array is not None:
            return self.constant(value.array.reshape(shape))
        if value.shape == tuple(shape):
            return value
        sizes = [-1 if n and n % BATCH == 0 else n for n in shape]
        if sizes.count(-1) > 1:
            raise ExportError('An operation of this generator mixes pictures of a batch.')
        return self.node('Reshape', [value, self.integers(sizes)], shape)

    def transposed(self, value, order) -> Value:
        order = [int(i) for i in order]
        if order == sorted(order):
            return value
        if value.array is not None:
            return self.constant(value.array.transpose(order))
        shape, actual = ([sizes[i] for i in order] for sizes in (value.shape, value.actual))
        return self.node('Transpose', [value], shape, actual, perm=order)

    # --- Primitives: (equation, values, shape of the result) -> Value ---

    def do_rsqrt(self, eqn, values, shape):
        root = self.elementwise('Sqrt', values, shape)
        return self.elementwise('Reciprocal', [root], shape)

    def do_square(self, eqn, values, shape):
        return self.elementwise('Mul', [values[0], values[0]], shape)

    def do_integer_pow(self, eqn, values, shape):
        if eqn.params['y'] == 2:
            return self.do_square(eqn, values, shape)
        return self.elementwise('Pow', [*values, self.constant(np.float32(eqn.params['y']))], shape)

    def do_clamp(self, eqn, values, shape):
        low, x, high = values
        return self.elementwise('Min', [self.elementwise('Max', [x, low], shape), high], shape)

    def do_select_n(self, eqn, values, shape):
        which, if_false, if_true = values
        return self.elementwise('Where', [which, if_true, if_false], shape)

    def do_convert_element_type(self, eqn, values, shape):
        (value,), dtype = values, np.dtype(eqn.params['new_dtype'])
        if value.array is not None:
            return self.constant(value.array.astype(dtype))
        if dtype == eqn.invars[0].aval.dtype:
            return value
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(dtype)
        return self.node('Cast', [value], value.shape, value.actual, to=kind)

    def do_broadcast_in_dim(self, eqn, values, shape):
        (value,) = values
        actual = [1] * len(shape)
        for axis, size in zip(eqn.params['broadcast_dimensions'], value.actual, strict=True):
            actual[axis] = size
        if list(value.actual) != actual:
            value = self.reshaped(value._replace(shape=value.actual), actual)
        return value._replace(shape=tuple(shape), array=None)

    def do_reshape(self, eqn, values, shape):
        return self.reshaped(self.full(values[0]), shape)

    do_squeeze = do_expand_dims = do_reshape

    def do_transpose(self, eqn, values, shape):
        return self.transposed(values[0], eqn.params['permutation'])

    def do_slice(self, eqn, values, shape):
        value, p = self.full(values[0]), eqn.params
        steps = p['strides'] or [1] * len(shape)
        ranges = list(zip(p['start_indices'], p['limit_indices'], steps, strict=True))
        if value.array is not None:
            return self.constant(value.array[tuple(slice(*r) for r in ranges)])
        axes = [i for i, (a, b, s) in enumerate(ranges) if (a, b, s) != (0, value.shape[i], 1)]
        if not axes:
            return value
        parts = [[ranges[i][k] for i in axes] for k in range(3)]
        starts, ends, steps = map(self.integers, parts)
        return self.node('Slice', [value, starts, ends, self.integers(axes), steps], shape)

    def do_rev(self, eqn, values, shape):
        value, axes = self.full(values[0]), eqn.params['dimensions']
        if value.array is not None:
            return self.constant(np.flip(value.array, axes))
        starts, ends, steps = ([n] * len(axes) for n in (-1, -(2**31), -1))
        parts = [self.integers(n) for n in (starts, ends, axes, steps)]
        return self.node('Slice', [value, *parts], shape)

    def do_pad(self, eqn, values, shape):
        value, fill = self.full(values[0]), values[1]
        config = eqn.params['padding_config']
        if any(low < 0 or high < 0 or inner for low, high, inner in config):
            raise ExportError('A padding of this generator is not written as ONNX.')
        pads = [low for low, _, _ in config] + [high for _, high, _ in config]
        return self.node('Pad', [value, self.integers(pads), fill], shape)

    def do_concatenate(self, eqn, values, shape):
        parts = [self.full(value) for value in values]
        return self.node('Concat', parts, shape, axis=eqn.params['dimension'])

    def do_stack(self, eqn, values, shape):
        axis = eqn.params['axis']
        one = [*shape[:axis], 1, *shape[axis + 1 :]]
        parts = [self.reshaped(self.full(value), one) for value in values]
        return self.node('Concat', parts, shape, axis=axis)

    def _reduce(self, kind, eqn, values, shape):
        parts = [self.full(values[0]), self.integers(eqn.params['axes'])]
        return self.node(kind, parts, shape, keepdims=0)

    def do_reduce_sum(self, eqn, values, shape):
        return self._reduce('ReduceSum', eqn, values, shape)

    def do_reduce_max(self, eqn, values, shape):
        return self._reduce('ReduceMax', eqn, values, shape)

    def do_dot_general(self, eqn, values, shape):
        (over_l, over_r), (batch_l, batch_r) = eqn.params['dimension_numbers']
        left, right = map(self.full, values)
        free_l = [i for i in range(len(left.shape)) if i not in (*over_l, *batch_l)]
        free_r = [i for i in range(len(right.shape)) if i not in (*over_r, *batch_r)]
        left = self.transposed(left, [*batch_l, *free_l, *over_l])
        right = self.transposed(right, [*batch_r, *over_r, *free_r])
        b, n, m, k = len(batch_l), len(free_l), len(free_r), len(over_l)
        # A matrix on the right multiplies the last axis of any array.
        if b or k != 1 or m != 1:
            batch, inner = left.shape[:b], math.prod(left.shape[b + n :])
            rows, columns = math.prod(left.shape[b : b + n]), math.prod(right.shape[b + k :])
            left = self.reshaped(left, (*batch, rows, inner))
            right = self.reshaped(right, (*batch, inner, columns))
            product = self.node('MatMul', [left, right], (*batch, rows, columns))
            return self.reshaped(product, shape)
        return self.node('MatMul', [left, right], shape)

    def do_conv_general_dilated(self, eqn, values, shape):
        p = eqn.params
        numbers = p['dimension_numbers']
        x = self.transposed(self.full(values[0]), numbers.lhs_spec)
        kernel = self.transposed(self.full(values[1]), numbers.rhs_spec)
        groups, strides, padding = p['feature_group_count'], p['window_strides'], p['padding']
        made = [shape[i] for i in numbers.out_spec]
        options = {'group': groups, 'dilations': list(p['rhs_dilation'])}
        spread = list(p['lhs_dilation'])
        if p['batch_group_count'] != 1:
            raise ExportError('A convolution of this generator is not written as ONNX.')
        if any(n != 1 for n in spread):
            if groups != 1 or any(n != 1 for n in (*strides, *p['rhs_dilation'])):
                raise ExportError('A transposed convolution of this generator is not written.')
            # ONNX turns the kernel of a transposed convolution round, and crops by its padding.
            kernel = self.transposed(self.flipped(kernel), [1, 0, 2, 3])
            sizes = kernel.shape[2:]
            low, high = ([n - 1 - pad[i] for n, pad in zip(sizes, padding, strict=True)]
                         for i in (0, 1))  # fmt: skip
            result = self.node(
                'ConvTranspose', [x, kernel], made, pads=low + high, strides=spread, **options
            )
        else:
            pads = [low for low, _ in padding] + [high for _, high in padding]
            result = self.node(
                'Conv', [x, kernel], made, pads=pads, strides=list(strides), **options
            )
        return self.transposed(result, np.argsort(numbers.out_spec))

    def flipped(self, kernel):
        if kernel.array is None:
            raise ExportError('A transposed convolution of this generator has no constant kernel.')
        return self.constant(kernel.array[:, :, ::-1, ::-1])
