"""IR-SE50, the body of the field's encoders and of ArcFace, in evaluation mode, as pure functions.

A residual network of 24 units (Deng et al. 2019, arXiv:1801.07698, section 3.2.2) with squeeze and
excitation (Hu et al. 2018, arXiv:1709.01507), batch norm before the first convolution of a unit,
and PReLU. Weights keep the names of the PyTorch code; kernels are HWIO (converters/encoders.py).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxinv.errors import JaxinvError
from jaxinv.nn import strided

EPSILON = 1e-5  # of batch norms
REDUCTION = 16  # of squeeze and excitation
_STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))  # channels, units
FEATURES = 512  # channels of the last unit, and of an identity's embedding
IDENTITY_SIZE = 112  # pixels, of the network of identities
NORM = ('weight', 'bias', 'running_mean', 'running_var')


class Unit(NamedTuple):
    inputs: int
    outputs: int
    stride: int


def units() -> list[Unit]:
    """The 24 units of the body, in order."""
    found, inputs = [], 64
    for outputs, count in _STAGES:
        for i in range(count):
            found.append(Unit(inputs, outputs, 2 if i == 0 else 1))
            inputs = outputs
    return found


def shapes(channels: int = 3) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights of input layer and body; channels: of the input."""
    found = {'input_layer.0.weight': (3, 3, channels, 64)} | norm_shapes('input_layer.1', 64)
    found['input_layer.2.weight'] = (64,)
    for i, unit in enumerate(units()):
        body = f'body.{i}'
        if unit.inputs != unit.outputs:
            found[f'{body}.shortcut_layer.0.weight'] = (1, 1, unit.inputs, unit.outputs)
            found |= norm_shapes(f'{body}.shortcut_layer.1', unit.outputs)
        res = f'{body}.res_layer'
        found |= norm_shapes(f'{res}.0', unit.inputs)
        found[f'{res}.1.weight'] = (3, 3, unit.inputs, unit.outputs)
        found[f'{res}.2.weight'] = (unit.outputs,)
        found[f'{res}.3.weight'] = (3, 3, unit.outputs, unit.outputs)
        found |= norm_shapes(f'{res}.4', unit.outputs)
        squeezed = unit.outputs // REDUCTION
        found[f'{res}.5.fc1.weight'] = (1, 1, unit.outputs, squeezed)
        found[f'{res}.5.fc2.weight'] = (1, 1, squeezed, unit.outputs)
    return found


def norm_shapes(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a batch norm."""
    return {f'{name}.{part}': (channels,) for part in NORM}


def identity_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights of ArcFace's network of identities."""
    size = FEATURES * (IDENTITY_SIZE // 16) ** 2
    found = shapes() | norm_shapes('output_layer.0', FEATURES)
    found |= {'output_layer.3.weight': (size, FEATURES), 'output_layer.3.bias': (FEATURES,)}
    return found | norm_shapes('output_layer.4', FEATURES)


def body(weights: dict, images: jax.Array) -> dict[int, jax.Array]:
    """{unit: features [b, h', w', c]} of images [b, h, w, channels] in about [-1, 1].

    -1 is the input layer, [b, h, w, 64]; units 0, 3, 7 and 21 halve the size.
    """
    channels = weights['input_layer.0.weight'].shape[2]
    if images.ndim != 4 or images.shape[-1] != channels:
        raise JaxinvError(f'images {images.shape} are not [b, h, w, {channels}].')
    x = convolve(weights, 'input_layer.0', images, 1, 1)
    x = _prelu(weights, 'input_layer.2', normalise(weights, 'input_layer.1', x))
    found = {-1: x}
    for i, unit in enumerate(units()):
        found[i] = x = _unit(weights, f'body.{i}', x, unit)
    return found


def identity(weights: dict, images: jax.Array) -> jax.Array:
    """Unit embeddings [b, 512] of aligned faces [b, 112, 112, 3] in [-1, 1]."""
    x = normalise(weights, 'output_layer.0', body(weights, images)[len(units()) - 1])
    x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)  # flat in PyTorch's order
    kernel, bias = (
        weights[f'output_layer.3.{part}'].astype(x.dtype) for part in ('weight', 'bias')
    )
    x = normalise(weights, 'output_layer.4', x @ kernel + bias[None])
    return x / jnp.linalg.norm(x, axis=1, keepdims=True)


def _unit(weights, name, x, unit):
    if unit.inputs == unit.outputs:
        shortcut = x[:, :: unit.stride, :: unit.stride]
    else:
        shortcut = convolve(weights, f'{name}.shortcut_layer.0', x, unit.stride, 0)
        shortcut = normalise(weights, f'{name}.shortcut_layer.1', shortcut)
    res = f'{name}.res_layer'
    x = convolve(weights, f'{res}.1', normalise(weights, f'{res}.0', x), 1, 1)
    x = convolve(weights, f'{res}.3', _prelu(weights, f'{res}.2', x), unit.stride, 1)
    x = normalise(weights, f'{res}.4', x)
    squeezed = jnp.mean(x, (1, 2), keepdims=True)
    squeezed = jax.nn.relu(convolve(weights, f'{res}.5.fc1', squeezed, 1, 0))
    return x * jax.nn.sigmoid(convolve(weights, f'{res}.5.fc2', squeezed, 1, 0)) + shortcut


def convolve(weights, name, x, stride, padding):
    """A convolution, with its bias if it has one."""
    x = strided.conv(x, weights[f'{name}.weight'].astype(x.dtype), stride, padding)
    bias = weights.get(f'{name}.bias')
    return x if bias is None else x + bias.astype(x.dtype)[None, None, None]


def normalise(weights, name, x):
    """A batch norm with its stored statistics, over the last axis."""
    weight, bias, mean, variance = (weights[f'{name}.{part}'].astype(x.dtype) for part in NORM)
    scale = weight * lax.rsqrt(variance + EPSILON)
    lead = (None,) * (x.ndim - 1)
    return x * scale[lead] + (bias - mean * scale)[lead]


def _prelu(weights, name, x):
    slope = weights[f'{name}.weight'].astype(x.dtype)[None, None, None]
    return jnp.where(x > 0, x, slope * x)
