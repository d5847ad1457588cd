"""Values of an ONNX graph that depend on constants alone, computed with NumPy while it is read."""

import numpy as np

from jaxinv.converters.file_view import Refused
from jaxinv.converters.graph_builder import check_shape

_NUMPY = {'Add': np.add, 'Sub': np.subtract, 'Mul': np.multiply}
_TYPES = {1: np.float32, 6: np.int32, 7: np.int64, 10: np.float16, 11: np.float64}  # of Cast


def constant(options):
    for name in ('value', 'value_float', 'value_int', 'value_floats', 'value_ints'):
        if name in options:
            return np.asarray(options[name])
    raise Refused('has a constant of a type that is not known here')


def folded_size(kind, inputs, options) -> int:
    """Elements that `fold` makes, or more."""
    sizes = [one.size for one in inputs if one is not None]
    if kind in _NUMPY:
        return int(np.prod(np.broadcast_shapes(*(one.shape for one in inputs)), dtype=float))
    if kind == 'Gather':
        return sizes[0] * sizes[1]
    if kind == 'DequantizeLinear':
        return sizes[0] + sizes[1] * max(int(options.get('block_size', 0)), 1)
    return sum(sizes)


def fold(kind, inputs, options):
    """A node of which every input is a constant."""
    x = inputs[0]
    if kind == 'DequantizeLinear':
        return _dequantized(
            *inputs, axis=options.get('axis', 1), block=options.get('block_size', 0)
        )
    if kind == 'Reshape':
        return x.reshape(resolved(inputs[1].tolist(), x.shape))
    if kind == 'Gather':
        return np.take(x, inputs[1], options.get('axis', 0))
    if kind == 'Concat':
        return np.concatenate(inputs, options['axis'])
    if kind == 'Unsqueeze':
        return np.expand_dims(x, tuple(axes_of(inputs, options)))
    if kind == 'Transpose':
        return np.transpose(x, options.get('perm'))
    if kind == 'Cast' and options['to'] in _TYPES:
        return x.astype(_TYPES[options['to']])
    if kind == 'Slice' and len(inputs) >= 3:
        starts, ends, axes, steps = (
            None if one is None else one.tolist() for one in (*inputs[1:], None, None)[:4]
        )
        cuts = [slice(None)] * x.ndim
        for i, axis in enumerate(range(len(starts)) if axes is None else axes):
            cuts[axis] = slice(starts[i], ends[i], steps[i] if steps else 1)
        return x[tuple(cuts)]
    if kind in _NUMPY:
        return _NUMPY[kind](*inputs)
    raise Refused(f'has the operation {kind[:40]} on constants, which is not known here')


def _dequantized(x, scale, zero=None, *, axis, block):
    """(x - zero) * scale in float32; both for all, for each index of an axis, or for each block."""
    zero = np.zeros_like(scale) if zero is None else zero
    parts = []
    for part in (scale.astype(np.float32), zero.astype(np.float32)):
        if block and part.ndim == x.ndim:
            part = np.repeat(part, block, axis).take(range(x.shape[axis]), axis)
        elif part.ndim == 1 and part.size > 1:
            part = part.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])
        else:
            part = part.reshape(())
        parts.append(part)
    return (x.astype(np.float32) - parts[1]) * parts[0]


def axes_of(inputs, options):
    return (
        inputs[1].tolist() if len(inputs) > 1 and inputs[1] is not None else options.get('axes', [])
    )


def resolved(wanted, shape):
    """The shape that Reshape gives: 0 keeps a length, -1 is what remains."""
    known = [shape[i] if n == 0 else int(n) for i, n in enumerate(wanted)]
    if -1 in known:
        rest = int(np.prod([n for n in known if n != -1]))
        known[known.index(-1)] = int(np.prod(shape)) // max(rest, 1)
    return check_shape(known)
