"""EfficientNet-Lite0, a classifier of ImageNet's 1000 classes, as pure functions.

    weights = weights.networks.load_efficientnet()
    logits = efficientnet.logits(weights, images)  # [b, 1000]

The network of Tan and Le 2019 (arXiv:1905.11946) in its authors' variant for small devices:
inverted bottlenecks without squeeze-and-excitation, ReLU6 instead of swish. Batch norm is folded
into the convolutions (converters/efficientnet.py).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxinv.errors import JaxinvError
from jaxinv.nn import ops

SIZE = 224  # pixels of the training pictures
NUM_CLASSES = 1000
_STAGES = (  # repeats, window, stride of the first block, widening factor, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280  # channels

# Normalisation of pixel values 0 ... 255, for all three colours.
_MEAN, _DEVIATION = 127.0, 128.0


class Block(NamedTuple):
    """An inverted bottleneck: 1x1 to `wide` channels, depthwise, 1x1 to `outputs` channels."""

    inputs: int
    wide: int  # equal to inputs: no first 1x1
    outputs: int
    window: int
    stride: int


def blocks() -> list[Block]:
    """All bottlenecks, in order."""
    result, inputs = [], _STEM
    for repeats, window, stride, widening, outputs in _STAGES:
        for i in range(repeats):
            result.append(
                Block(inputs, inputs * widening, outputs, window, stride if i == 0 else 1)
            )
            inputs = outputs
    return result


def shapes(
    trunk_only: bool = False, channels: int = 3, depth: int | None = None
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights; kernels are HWIO.

    trunk_only: without head and classes. channels: of the input, see `trunk`. depth: of so many
    bottlenecks; None = of all.
    """
    kernels = {'stem': (3, 3, channels, _STEM)}
    for i, block in enumerate(blocks()[:depth]):
        if block.wide != block.inputs:
            kernels[f'block{i}/widen'] = (1, 1, block.inputs, block.wide)
        kernels[f'block{i}/depthwise'] = (block.window, block.window, 1, block.wide)
        kernels[f'block{i}/project'] = (1, 1, block.wide, block.outputs)
    if not trunk_only:
        kernels['head'] = (1, 1, blocks()[-1].outputs, _HEAD)
        kernels['classes'] = (_HEAD, NUM_CLASSES)
    return {
        f'{name}/{kind}': shape if kind == 'kernel' else shape[-1:]
        for name, shape in kernels.items()
        for kind in ('kernel', 'bias')
    }


def logits(weights: dict, images: jax.Array) -> jax.Array:
    """[b, 1000] of images [b, h, w, 3] in about [-1, 1]; h and w should be SIZE.

    A pure function for jit (with the weights as an argument), vmap and grad.
    """
    x = pooled(weights, images)
    kernel, bias = (weights[f'classes/{kind}'].astype(x.dtype) for kind in ('kernel', 'bias'))
    return x @ kernel + bias[None]


def pooled(weights: dict, images: jax.Array) -> jax.Array:
    """Features [b, 1280] before the classes: means over the picture of the head's maps."""
    return jnp.mean(features(weights, images)[-1], (1, 2))


def features(weights: dict, images: jax.Array) -> list[jax.Array]:
    """Feature maps [b, h', w', c] of images [b, h, w, 3]: of the stem, of each block, of the head.

    Raises JaxinvError for another shape.
    """
    maps = trunk(weights, images)
    return [*maps, _relu6(_conv(weights, 'head', maps[-1]))]


def trunk(weights: dict, images: jax.Array, depth: int | None = None) -> list[jax.Array]:
    """`features` without those of the head, after the first `depth` bottlenecks; None = all.

    The stem may take more channels than three, which are not normalised: a mask, for example.
    """
    channels = weights['stem/kernel'].shape[2]
    if images.ndim != 4 or images.shape[-1] != channels:
        raise JaxinvError(f'images {images.shape} are not [b, h, w, {channels}].')
    x = ((images[..., :3] + 1) * 127.5 - _MEAN) / _DEVIATION
    if channels > 3:
        x = jnp.concatenate([x, images[..., 3:]], -1)
    maps = [_relu6(_conv(weights, 'stem', x, stride=2))]
    for i, block in enumerate(blocks()[:depth]):
        before = x = maps[-1]
        if block.wide != block.inputs:
            x = _relu6(_conv(weights, f'block{i}/widen', x))
        x = _relu6(_depthwise(weights, f'block{i}/depthwise', x, block.stride))
        x = _conv(weights, f'block{i}/project', x)
        maps.append(x + before if x.shape == before.shape else x)
    return maps


def _conv(weights, name, x, stride=1):
    """With TensorFlow's 'SAME' padding, whose odd pixel is at the end."""
    kernel, bias = (weights[f'{name}/{kind}'].astype(x.dtype) for kind in ('kernel', 'bias'))
    order = ('NHWC', 'HWIO', 'NHWC')
    x = lax.conv_general_dilated(x, kernel, (stride, stride), 'SAME', dimension_numbers=order)
    return x + bias[None, None, None]


def _depthwise(weights, name, x, stride):
    """The same for each channel by itself."""
    kernel, bias = (weights[f'{name}/{kind}'].astype(x.dtype) for kind in ('kernel', 'bias'))

    def stock(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            'SAME',
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
            feature_group_count=x.shape[-1],
        )

    def cpu(x, kernel):
        # A quarter of the stock form's time with gradients. Windows of stride 2 are among those of
        # stride 1.
        y = ops.depthwise(x, kernel[:, :, 0], jnp.ones((len(x), 1, 1, x.shape[-1]), x.dtype))
        rows, columns = ((1 - size % 2) * (stride - 1) for size in x.shape[1:3])
        return y[:, rows::stride, columns::stride]

    return lax.platform_dependent(x, kernel, cpu=cpu, default=stock) + bias[None, None, None]


def _relu6(x):
    return jnp.clip(x, 0, 6)
