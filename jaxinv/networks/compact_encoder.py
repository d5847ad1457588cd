"""A small encoder of photographs to W or W+ on EfficientNet-Lite0, as pure functions.

One w for all rows of W+, and optionally a difference from it for each later row (e4e, Tov et al.
2021, arXiv:2102.02766, section 4), of low rank. The w comes from two summaries of the network's
feature maps: the means of every stage over all pixels, and a grid of the last stage, reduced to few
channels, which keeps places. A linear layer makes w of both. `--config=train_encoder` trains it
(experiments/train_encoder.py).
"""

import jax
import jax.numpy as jnp

from jaxinv.networks import efficientnet
from jaxinv.pixels import area_resize

SIZE = 192  # pixels that pictures are reduced to
GRID = 6  # places a side of the last stage's feature map at SIZE
CHANNELS = 40  # of the grid
RANK = 24  # of the differences between rows of W+
ROWS = ('rows/down/kernel', 'rows/down/bias', 'rows/up')  # weights of these differences
STAGES = (1, 3, 5, 8, 11, 15, 16)  # feature maps whose means are read: the last of each stage


def shapes(w_dim: int, channels: int = 3) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights; kernels are HWIO, of the linear layer [in, out].

    channels: of the input; more than three as in efficientnet.trunk.
    """
    outputs = [block.outputs for block in efficientnet.blocks()]
    return efficientnet.shapes(trunk_only=True, channels=channels) | {
        'grid/kernel': (1, 1, outputs[-1], CHANNELS),
        'grid/bias': (CHANNELS,),
        'w/kernel': (summary_size(), w_dim),
        'w/bias': (w_dim,),
    }


def row_shapes(num_ws: int, w_dim: int, rank: int = RANK) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the further weights of an encoder to W+."""
    found = ((summary_size(), rank), (rank,), (rank, (num_ws - 1) * w_dim))
    return dict(zip(ROWS, found, strict=True))


def summary_size() -> int:
    """Numbers of `summary` for a picture."""
    outputs = [block.outputs for block in efficientnet.blocks()]
    return sum(outputs[i - 1] for i in STAGES) + GRID**2 * CHANNELS


def summary(weights: dict, images: jax.Array) -> jax.Array:
    """Numbers [b, summary_size()] of images [b, h, h, 3] in [-1, 1], from which w is linear."""
    maps = efficientnet.trunk(weights, area_resize(images, SIZE))
    means = [jnp.mean(maps[i], (1, 2)) for i in STAGES]
    kernel, bias = (weights[f'grid/{part}'].astype(images.dtype) for part in ('kernel', 'bias'))
    grid = jnp.einsum('bhwc,cd->bhwd', maps[-1], kernel[0, 0]) + bias[None, None, None]
    return jnp.concatenate([*means, grid.reshape(len(images), -1)], 1)


def differences(weights: dict, images: jax.Array) -> jax.Array:
    """w minus the mean of W, [b, w_dim], of images [b, h, h, 3] in [-1, 1]."""
    return of_summary(weights, summary(weights, images))


def of_summary(weights: dict, found: jax.Array) -> jax.Array:
    """`differences` of a `summary`."""
    kernel, bias = (weights[f'w/{part}'].astype(found.dtype) for part in ('kernel', 'bias'))
    return found @ kernel + bias[None]


def rows_of_summary(weights: dict, found: jax.Array, num_ws: int) -> jax.Array:
    """w_plus minus the mean of W, [b, num_ws, w_dim], of a `summary`: the first row and the others.

    weights: also those of `row_shapes`.
    """
    first = of_summary(weights, found)
    down, bias, up = (weights[name].astype(found.dtype) for name in ROWS)
    others = ((found @ down + bias[None]) @ up).reshape(len(first), num_ws - 1, first.shape[1])
    return jnp.concatenate([first[:, None], first[:, None] + others], 1)
