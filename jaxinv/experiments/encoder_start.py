"""Where the training of an encoder starts, and how it weighs errors of w: two linear fits.

start        a linear layer on frozen ImageNet features, by ridge regression
rows         differences between rows of W+ that are 0, for an encoder to W+
visible_map  a linear map from w to small pictures: what an error of w changes in the picture
"""

import zlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import pixels, settings
from jaxinv.data import augment
from jaxinv.networks import compact_encoder, efficientnet
from jaxinv.settings.encoders import Augmentation
from jaxinv.weights.networks import load_efficientnet

BATCH = 32  # pictures of a forward pass
SUMMARIES = 64  # pictures whose summaries are scaled to unit variance
SMALL = 16  # pixels a side of the linear model of the picture


def start(config, dataset, statistics) -> dict[str, jax.Array]:
    """Weights with frozen ImageNet features and a linear layer by ridge regression.

    Half of the pictures are changed as in training. The grid's channels are the principal
    components of the last stage.
    """
    shapes = compact_encoder.shapes(dataset.w.shape[1])
    weights = {k: v for k, v in load_efficientnet().items() if k in shapes}
    summary = jax.jit(compact_encoder.summary)
    last = jax.jit(
        lambda weights, x: efficientnet.trunk(weights, pixels.area_resize(x, compact_encoder.SIZE))
    )
    some = last(weights, pixels.to_float(dataset.images_uint8[:BATCH]))[-1]
    some = some.reshape(-1, some.shape[-1])
    mean = some.mean(0)
    components = jnp.linalg.svd(some - mean[None], full_matrices=False)[2]
    kernel = components[: compact_encoder.CHANNELS].T
    weights |= {'grid/kernel': kernel[None, None], 'grid/bias': -mean @ kernel}
    s = settings.of(config, Augmentation)
    features = []
    for i in range(0, len(dataset.w), BATCH):
        pictures = list(dataset.images_uint8[i : i + BATCH])
        rng = np.random.default_rng([config.seed, zlib.crc32(b'start'), i])
        pictures = [augment.augment(x, rng, s) if rng.random() < 0.5 else x for x in pictures]
        pictures += [pictures[-1]] * (BATCH - len(pictures))
        features.append(np.asarray(summary(weights, pixels.to_float(np.stack(pictures)))))
    x = np.concatenate(features)[: len(dataset.w)].astype(np.float64)
    y = dataset.w - np.asarray(statistics.mean, np.float64)
    centre, spread = x.mean(0), x.std(0) + 1e-6
    x = (x - centre) / spread
    gram = x.T @ x + config.ridge * len(x) * np.eye(x.shape[1])
    solution = np.linalg.solve(gram, x.T @ (y - y.mean(0))) / spread[:, None]
    bias = y.mean(0) - centre @ solution
    linear = {'w/kernel': solution, 'w/bias': bias}
    return weights | {name: jnp.asarray(value, jnp.float32) for name, value in linear.items()}


def rows(own: dict, num_ws: int, rank: int, dataset, seed: int) -> dict[str, jax.Array]:
    """Weights of the differences between rows, which are 0: random projections of the summary.

    own: the encoder to W. Each number of the summary counts in units of its deviation.
    """
    summary = jax.jit(compact_encoder.summary)
    pictures = dataset.images_uint8[:SUMMARIES]
    starts = range(0, len(pictures), BATCH)
    parts = [pixels.to_float(pictures[i : i + BATCH]) for i in starts]
    x = np.concatenate([np.asarray(summary(own, part)) for part in parts])
    kernel = np.random.default_rng([seed, 1]).standard_normal((x.shape[1], rank))
    kernel = kernel / np.sqrt(x.shape[1]) / (x.std(0) + 1e-3)[:, None]
    up = np.zeros((rank, (num_ws - 1) * dataset.w.shape[1]))
    found = dict(zip(compact_encoder.ROWS, (kernel, -x.mean(0) @ kernel, up), strict=True))
    return {name: jnp.asarray(value, jnp.float32) for name, value in found.items()}


def visible_map(dataset, statistics) -> np.ndarray:
    """A [w_dim, n]: the linear map from w to small pictures, scaled so that E|A dw|^2 = 1."""
    small = np.concatenate(
        [
            np.asarray(
                pixels.area_resize(pixels.to_float(dataset.images_uint8[i : i + 256]), SMALL)
            )
            for i in range(0, len(dataset.w), 256)
        ]
    ).reshape(len(dataset.w), -1)
    x = dataset.w - np.asarray(statistics.mean, np.float64)
    gram = x.T @ x
    gram += 1e-2 * np.trace(gram) / len(gram) * np.eye(len(gram))
    found = np.linalg.solve(gram, x.T @ (small - small.mean(0)))
    return (found / np.sqrt(np.mean(np.sum((x @ found) ** 2, 1)))).astype(np.float32)
