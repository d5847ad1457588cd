"""Inception v3 as FID uses it: features of pictures for distances of sets, as pure functions.

    weights = weights.networks.load_inception(PATH)
    features = inception.pooled(weights, images)  # [b, 2048]

The network of Szegedy et al. 2016 (arXiv:1512.00567) with the weights and the departures of the
TensorFlow file inception-2015-12-05, by which FID is defined (Heusel et al. 2017): averages at a
picture's edge leave padding out, and the last block pools by the maximum. Names of the weights are
those of pytorch-fid's file; kernels are HWIO. Its classes are not used.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxinv.errors import JaxinvError

SIZE, FEATURES = 299, 2048  # pixels of the input; channels of the last block
EPSILON = 1e-3  # of batch norms
NORM = ('weight', 'bias', 'running_mean', 'running_var')


class Layer(NamedTuple):
    """A convolution without bias, batch norm, ReLU."""

    name: str
    inputs: int
    outputs: int
    window: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: tuple[int, int] | None = None  # None = half the window, which keeps the size


class Block(NamedTuple):
    """Branches side by side, their channels concatenated in this order.

    A branch is a chain of layers; a tuple in it is a fork, whose ends are concatenated. A string at
    its start is a pool: 'average' or 'max' of 3 x 3, 'reduce' = max with stride 2.
    """

    name: str
    branches: tuple


def _block(name: str, *branches) -> Block:
    def named(item):
        if isinstance(item, tuple) and not isinstance(item, Layer):
            return tuple(map(named, item))
        return item if isinstance(item, str) else item._replace(name=f'{name}.{item.name}')

    return Block(name, tuple([named(item) for item in branch] for branch in branches))


def _a(name, inputs, pooled):
    return _block(
        name,
        [Layer('branch1x1', inputs, 64)],
        [Layer('branch5x5_1', inputs, 48), Layer('branch5x5_2', 48, 64, (5, 5))],
        [
            Layer('branch3x3dbl_1', inputs, 64),
            Layer('branch3x3dbl_2', 64, 96, (3, 3)),
            Layer('branch3x3dbl_3', 96, 96, (3, 3)),
        ],
        ['average', Layer('branch_pool', inputs, pooled)],
    )


def _b(name, inputs):
    return _block(
        name,
        [Layer('branch3x3', inputs, 384, (3, 3), 2, (0, 0))],
        [
            Layer('branch3x3dbl_1', inputs, 64),
            Layer('branch3x3dbl_2', 64, 96, (3, 3)),
            Layer('branch3x3dbl_3', 96, 96, (3, 3), 2, (0, 0)),
        ],
        ['reduce'],
    )


def _c(name, inputs, middle):
    wide, tall = (1, 7), (7, 1)
    return _block(
        name,
        [Layer('branch1x1', inputs, 192)],
        [
            Layer('branch7x7_1', inputs, middle),
            Layer('branch7x7_2', middle, middle, wide),
            Layer('branch7x7_3', middle, 192, tall),
        ],
        [
            Layer('branch7x7dbl_1', inputs, middle),
            Layer('branch7x7dbl_2', middle, middle, tall),
            Layer('branch7x7dbl_3', middle, middle, wide),
            Layer('branch7x7dbl_4', middle, middle, tall),
            Layer('branch7x7dbl_5', middle, 192, wide),
        ],
        ['average', Layer('branch_pool', inputs, 192)],
    )


def _d(name, inputs):
    return _block(
        name,
        [Layer('branch3x3_1', inputs, 192), Layer('branch3x3_2', 192, 320, (3, 3), 2, (0, 0))],
        [
            Layer('branch7x7x3_1', inputs, 192),
            Layer('branch7x7x3_2', 192, 192, (1, 7)),
            Layer('branch7x7x3_3', 192, 192, (7, 1)),
            Layer('branch7x7x3_4', 192, 192, (3, 3), 2, (0, 0)),
        ],
        ['reduce'],
    )


def _e(name, inputs, pool):
    def fork(stem):
        return Layer(f'{stem}a', 384, 384, (1, 3)), Layer(f'{stem}b', 384, 384, (3, 1))

    return _block(
        name,
        [Layer('branch1x1', inputs, 320)],
        [Layer('branch3x3_1', inputs, 384), fork('branch3x3_2')],
        [
            Layer('branch3x3dbl_1', inputs, 448),
            Layer('branch3x3dbl_2', 448, 384, (3, 3)),
            fork('branch3x3dbl_3'),
        ],
        [pool, Layer('branch_pool', inputs, 192)],
    )


# Strings are pools between the layers: 'reduce' = max of 3 x 3 with stride 2.
NETWORK = (
    Layer('Conv2d_1a_3x3', 3, 32, (3, 3), 2, (0, 0)),
    Layer('Conv2d_2a_3x3', 32, 32, (3, 3), 1, (0, 0)),
    Layer('Conv2d_2b_3x3', 32, 64, (3, 3)),
    'reduce',
    Layer('Conv2d_3b_1x1', 64, 80),
    Layer('Conv2d_4a_3x3', 80, 192, (3, 3), 1, (0, 0)),
    'reduce',
    _a('Mixed_5b', 192, 32),
    _a('Mixed_5c', 256, 64),
    _a('Mixed_5d', 288, 64),
    _b('Mixed_6a', 288),
    _c('Mixed_6b', 768, 128),
    _c('Mixed_6c', 768, 160),
    _c('Mixed_6d', 768, 160),
    _c('Mixed_6e', 768, 192),
    _d('Mixed_7a', 768),
    _e('Mixed_7b', 1280, 'average'),
    _e('Mixed_7c', 2048, 'max'),
)


def layers() -> list[Layer]:
    """All convolutions, in the order of NETWORK."""
    found = []

    def visit(item):
        if isinstance(item, Layer):
            found.append(item)
        elif isinstance(item, Block):
            visit(item.branches)
        elif not isinstance(item, str):
            for inner in item:
                visit(inner)

    visit(NETWORK)
    return found


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights; kernels are HWIO."""
    found = {}
    for layer in layers():
        found[f'{layer.name}.conv.weight'] = (*layer.window, layer.inputs, layer.outputs)
        found |= {f'{layer.name}.bn.{part}': (layer.outputs,) for part in NORM}
    return found


def pooled(weights: dict, images: jax.Array) -> jax.Array:
    """Features [b, 2048] of images [b, h, w, 3] in [-1, 1], resized to 299 px as pytorch-fid does.

    That is bilinearly and without smoothing, so pictures of other sizes than 299 alias; it is part
    of the protocol.
    """
    shape = (len(images), SIZE, SIZE, 3)
    return features(weights, jax.image.resize(images, shape, 'linear', antialias=False))


def features(weights: dict, images: jax.Array) -> jax.Array:
    """Means [b, 2048] over the last block's maps of images [b, h, w, 3], not resized."""
    if images.ndim != 4 or images.shape[-1] != 3:
        raise JaxinvError(f'images {images.shape} are not [b, h, w, 3].')
    return jnp.mean(_chain(weights, NETWORK, images), (1, 2))


def _chain(weights, items, x):
    for item in items:
        if isinstance(item, str):
            x = _pool(item, x)
        elif isinstance(item, Layer):
            x = _layer(weights, item, x)
        elif isinstance(item, Block):
            x = jnp.concatenate([_chain(weights, own, x) for own in item.branches], -1)
        else:
            x = jnp.concatenate([_layer(weights, own, x) for own in item], -1)
    return x


def _layer(weights, layer, x):
    kernel = weights[f'{layer.name}.conv.weight'].astype(x.dtype)
    padding = layer.padding
    if padding is None:
        padding = tuple(side // 2 for side in layer.window)
    x = lax.conv_general_dilated(
        x,
        kernel,
        (layer.stride, layer.stride),
        [(side, side) for side in padding],
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    weight, bias, mean, variance = (
        weights[f'{layer.name}.bn.{part}'].astype(x.dtype)[None, None, None] for part in NORM
    )
    return jax.nn.relu((x - mean) * lax.rsqrt(variance + EPSILON) * weight + bias)


def _pool(kind, x):
    window, edge = (1, 3, 3, 1), [(0, 0), (1, 1), (1, 1), (0, 0)]
    if kind == 'reduce':
        return lax.reduce_window(x, -jnp.inf, lax.max, window, (1, 2, 2, 1), 'VALID')
    if kind == 'max':
        return lax.reduce_window(x, -jnp.inf, lax.max, window, (1, 1, 1, 1), edge)
    ones = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    total, count = (lax.reduce_window(v, 0.0, lax.add, window, (1,) * 4, edge) for v in (x, ones))
    return total / count
