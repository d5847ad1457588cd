"""IR-SE50 and IR-101 in evaluation mode, as pure functions.

  IR_SE50  24 units; the body of the field's encoders and of ArcFace
  IR_101   49 units; the body of CurricularFace (Huang et al. 2020, arXiv:2004.00288)

Residual networks (Deng et al. 2019, arXiv:1801.07698, section 3.2.2) with batch norm before the
first convolution of a unit, and PReLU; IR-SE50 with squeeze and excitation (Hu et al. 2018,
arXiv:1709.01507). Weights keep the names of the PyTorch code; kernels are HWIO
(converters/encoders.py).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxinv.errors import JaxinvError
from jaxinv.nn import strided

EPSILON = 1e-5  # of batch norms
REDUCTION = 16  # of squeeze and excitation
FEATURES = 512  # channels of the last unit, and of an identity's embedding
IDENTITY_SIZE = 112  # pixels, of the network of identities
NORM = ('weight', 'bias', 'running_mean', 'running_var')


class Spec(NamedTuple):
    """A body, and the end of a network of identities on it."""

    stages: tuple[tuple[int, int], ...]  # channels, units; the first unit halves the size
    squeeze: bool  # squeeze and excitation at the end of a unit
    affine: bool  # weight and bias of an identity's last batch norm


IR_SE50 = Spec(((64, 3), (128, 4), (256, 14), (512, 3)), True, True)
IR_101 = Spec(((64, 3), (128, 13), (256, 30), (512, 3)), False, False)


class Unit(NamedTuple):
    inputs: int
    outputs: int
    stride: int


def units(spec: Spec = IR_SE50) -> list[Unit]:
    """The units of the body, in order."""
    found, inputs = [], 64
    for outputs, count in spec.stages:
        for i in range(count):
            found.append(Unit(inputs, outputs, 2 if i == 0 else 1))
            inputs = outputs
    return found


def shapes(channels: int = 3, spec: Spec = IR_SE50) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights of input layer and body; channels: of the input."""
    found = {'input_layer.0.weight': (3, 3, channels, 64)} | norm_shapes('input_layer.1', 64)
    found['input_layer.2.weight'] = (64,)
    for i, unit in enumerate(units(spec)):
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
        if spec.squeeze:
            squeezed = unit.outputs // REDUCTION
            found[f'{res}.5.fc1.weight'] = (1, 1, unit.outputs, squeezed)
            found[f'{res}.5.fc2.weight'] = (1, 1, squeezed, unit.outputs)
    return found


def norm_shapes(name: str, channels: int, affine: bool = True) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a batch norm; affine: with weight and bias."""
    return {f'{name}.{part}': (channels,) for part in (NORM if affine else NORM[2:])}


def identity_shapes(spec: Spec = IR_SE50) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights of a network of identities: ArcFace's, CurricularFace's."""
    size = FEATURES * (IDENTITY_SIZE // 16) ** 2
    found = shapes(spec=spec) | norm_shapes('output_layer.0', FEATURES)
    found |= {'output_layer.3.weight': (size, FEATURES), 'output_layer.3.bias': (FEATURES,)}
    return found | norm_shapes('output_layer.4', FEATURES, spec.affine)


def body(weights: dict, images: jax.Array, spec: Spec = IR_SE50) -> dict[int, jax.Array]:
    """{unit: features [b, h', w', c]} of images [b, h, w, channels] in about [-1, 1].

    -1 is the input layer, [b, h, w, 64]; the first unit of a stage halves the size: of IR-SE50
    units 0, 3, 7 and 21. Raises JaxinvError for images of another rank or number of channels.
    """
    channels = weights['input_layer.0.weight'].shape[2]
    if images.ndim != 4 or images.shape[-1] != channels:
        raise JaxinvError(f'images {images.shape} are not [b, h, w, {channels}].')
    x = convolve(weights, 'input_layer.0', images, 1, 1)
    x = _prelu(weights, 'input_layer.2', normalise(weights, 'input_layer.1', x))
    found = {-1: x}
    for i, unit in enumerate(units(spec)):
        found[i] = x = _unit(weights, f'body.{i}', x, unit, spec.squeeze)
    return found


def identity(weights: dict, images: jax.Array, spec: Spec = IR_SE50) -> jax.Array:
    """Unit embeddings [b, 512] of aligned faces [b, 112, 112, 3], RGB in [-1, 1]."""
    x = body(weights, images, spec)[len(units(spec)) - 1]
    x = normalise(weights, 'output_layer.0', x)
    x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)  # flat in PyTorch's order
    kernel, bias = (
        weights[f'output_layer.3.{part}'].astype(x.dtype) for part in ('weight', 'bias')
    )
    x = normalise(weights, 'output_layer.4', x @ kernel + bias[None])
    return x / jnp.linalg.norm(x, axis=1, keepdims=True)


def _unit(weights, name, x, unit, squeeze):
    if unit.inputs == unit.outputs:
        shortcut = x[:, :: unit.stride, :: unit.stride]
    else:
        shortcut = convolve(weights, f'{name}.shortcut_layer.0', x, unit.stride, 0)
        shortcut = normalise(weights, f'{name}.shortcut_layer.1', shortcut)
    res = f'{name}.res_layer'
    x = convolve(weights, f'{res}.1', normalise(weights, f'{res}.0', x), 1, 1)
    x = convolve(weights, f'{res}.3', _prelu(weights, f'{res}.2', x), unit.stride, 1)
    x = normalise(weights, f'{res}.4', x)
    if not squeeze:
        return x + shortcut
    squeezed = jnp.mean(x, (1, 2), keepdims=True)
    squeezed = jax.nn.relu(convolve(weights, f'{res}.5.fc1', squeezed, 1, 0))
    return x * jax.nn.sigmoid(convolve(weights, f'{res}.5.fc2', squeezed, 1, 0)) + shortcut


def convolve(weights, name, x, stride, padding):
    """A convolution, with its bias if it has one."""
    x = strided.conv(x, weights[f'{name}.weight'].astype(x.dtype), stride, padding)
    bias = weights.get(f'{name}.bias')
    return x if bias is None else x + bias.astype(x.dtype)[None, None, None]


def normalise(weights, name, x):
    """A batch norm by its stored statistics, over the last axis; weight, bias may be absent."""
    parts = [weights.get(f'{name}.{part}') for part in NORM]
    weight, bias, mean, variance = (p if p is None else p.astype(x.dtype) for p in parts)
    scale = lax.rsqrt(variance + EPSILON)
    if weight is not None:
        scale = weight * scale
    shift = -mean * scale if bias is None else bias - mean * scale
    lead = (None,) * (x.ndim - 1)
    return x * scale[lead] + shift[lead]


def _prelu(weights, name, x):
    slope = weights[f'{name}.weight'].astype(x.dtype)[None, None, None]
    return jnp.where(x > 0, x, slope * x)
