"""BigGAN-deep (Brock et al. 2019, arXiv:1809.11096, appendix B) as pure functions around Flax.

w = [z, e], the code and the embedding of the class; there is no mapping network, so W+ is SAM's Z+
with the class, and an edit direction may change either part. Row 0 of W+ makes the first 4x4
feature, row i + 1 conditions the batch norms of block i.

Batch norms use recorded statistics, one row for each truncation 0, 0.02, ..., 1. The public PyTorch
code swaps the two weights when it interpolates between rows, and misses rows by rounding
(0.58 / 0.02 is below 29 in floating point, so it takes row 28). truncation_mode='official' does
the same, 'correct' interpolates.

Kernels are stored divided by their spectral norms (converters/biggan.py).

Weights: {'params': {'synthesis': {'gen_z': ..., 'block_0': ..., 'attention': ..., ...}},
          'buffers': {'mapping': {'embeddings': [classes, e]}, 'w_avg': [w_dim],
                      'statistics': {'block_0': {'bn_0': {'mean': [rows, c], 'var': ...}}}}}.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinv.errors import JaxinvError
from jaxinv.generators import checks, records
from jaxinv.nn import ops, upsample_nearest
from jaxinv.nn import remat as rematerialise
from jaxinv.types import Generator, GeneratorSpec

F, T = False, True
# Blocks as (upsampling, channels before, channels after), channels in units of channel_width.
_TO_64 = ((F, 16, 16), (T, 16, 16), (F, 16, 16), (T, 16, 8), (F, 8, 8))
_FROM_64 = ((F, 4, 4), (T, 4, 2), (F, 2, 2), (T, 2, 1))
_256 = (*_TO_64, (T, 8, 8), (F, 8, 8), (T, 8, 4), *_FROM_64)
LAYERS = {128: (*_TO_64, (T, 8, 4), *_FROM_64), 256: _256, 512: (*_256, (F, 1, 1), (T, 1, 1))}
FIRST = 16  # channels of the 4x4 feature, in units of channel_width
REDUCTION = 4  # of channels inside a block
MODES = ('correct', 'official')
TRUNCATION_MODES = ('correct', 'official')


def biggan_deep(
    resolution,
    *,
    layers=None,  # as in LAYERS; None = the official network's of this resolution
    channel_width=128,
    num_classes=1000,
    z_dim=128,
    class_embed_dim=128,
    attention_position=8,  # index of the block after self-attention; >= len(layers) = none
    num_statistics=51,
    epsilon=1e-4,
    truncation=1.0,
    truncation_mode='correct',
    compute_dtype=None,  # of feature maps and kernels, e.g. 'bfloat16'; None = the parameters'
    remat=False,  # recompute blocks in the backward pass, for less memory (nn/remat.py)
    name='biggan_deep',
) -> Generator:
    """A class-conditional generator of square images.

    The feature F(2k) is the output of block 2k - 1, before attention; in the official networks it
    has 4 * 2^k pixels, as SAM's F2, F4, ... of StyleGAN2. The last block's output is no feature.
    synthesize ignores `noise`. Raises JaxinvError for invalid layers, sizes or options.
    """
    layers = LAYERS.get(resolution) if layers is None else tuple(tuple(row) for row in layers)
    _check_layers(name, resolution, layers)
    _check_options(truncation, truncation_mode)
    sizes = {
        'channel_width': (channel_width, 8),
        'z_dim': (z_dim, 1),
        'class_embed_dim': (class_embed_dim, 1),
        'num_classes': (num_classes, 1),
        'num_statistics': (num_statistics, 2),
    }
    for size, (value, least) in sizes.items():
        if value < least:
            raise JaxinvError(f'{size} of {name} is {value}; it must be at least {least}.')
    w_dim = z_dim + class_embed_dim
    shapes, size = {}, 4
    for i, (up, _, outputs) in enumerate(layers[:-1], 1):
        size *= 1 + up
        if i % 2 == 0:
            shapes[f'F{i}'] = (size, size, outputs * channel_width)
    spec = GeneratorSpec(
        name=name,
        resolution=resolution,
        z_dim=z_dim,
        w_dim=w_dim,
        num_ws=1 + len(layers),
        label_dim=num_classes,
        feature_shapes=tuple(shapes.items()),
        z_truncation=truncation,
        moving_dims=z_dim,
        family='biggan_deep',
        arguments=(
            ('resolution', resolution),
            ('layers', layers),
            ('channel_width', channel_width),
            ('num_classes', num_classes),
            ('z_dim', z_dim),
            ('class_embed_dim', class_embed_dim),
            ('attention_position', attention_position),
            ('num_statistics', num_statistics),
            ('epsilon', epsilon),
            ('truncation', truncation),
            ('truncation_mode', truncation_mode),
        ),
    )
    synthesis = Synthesis(layers, channel_width, attention_position, epsilon, compute_dtype, remat)
    row_weights = statistics_rows(truncation, num_statistics, truncation_mode)

    def init(key):
        keys = jax.random.split(key)
        statistics = _statistics(layers, channel_width, num_statistics)
        w = jnp.zeros([1, spec.num_ws, w_dim])
        row = _interpolate(statistics, row_weights)
        embeddings = jax.random.normal(keys[0], [num_classes, class_embed_dim])
        return {
            'params': {'synthesis': synthesis.init(keys[1], w, row, {})['params']},
            'buffers': {
                'mapping': {'embeddings': embeddings},
                'w_avg': w_average(z_dim, embeddings),
                'statistics': statistics,
            },
        }

    def map_(weights, z, label=None):
        checks.check_z(z, spec)
        checks.check_label(label, len(z), spec)
        embeddings = weights['buffers']['mapping']['embeddings']
        return jnp.concatenate([z, jnp.asarray(label, embeddings.dtype) @ embeddings], -1)

    def synthesize(weights, w, noise='const', taps=None, style_offsets=None):
        w, _, taps = checks.synthesis_arguments(weights, w, noise, taps, spec)
        checks.check_style_offsets(style_offsets or {}, len(w), spec)  # it has no styles
        row = _interpolate(weights['buffers']['statistics'], row_weights)
        return synthesis.apply({'params': weights['params']['synthesis']}, w, row, taps)

    return Generator(spec, init, map_, synthesize)


def arguments_of(record: dict) -> dict:
    """The factory's arguments from a record in JSON's types. Raises JaxinvError."""
    layers = record.get('layers') if isinstance(record, dict) else None
    ok = isinstance(layers, list | tuple) and 0 < len(layers) <= records.MAX_LAYERS
    if not ok or not all(map(_is_layer, layers)):
        raise JaxinvError(
            'The record of the generator has unusable layers; they must be a list of 1 to '
            f'{records.MAX_LAYERS} [upsampling, channels before, channels after].'
        )
    rest = {name: value for name, value in record.items() if name != 'layers'}
    layers = tuple((bool(up), before, after) for up, before, after in layers)
    return records.parse(rest, _FIELDS) | {'layers': layers}


def _is_layer(row):
    if not isinstance(row, list | tuple) or len(row) != 3 or row[0] not in (0, 1):
        return False
    return all(type(n) is int and 0 < n <= 1024 for n in row[1:])


_FIELDS = {
    'resolution': records.Field(int, 8, records.MAX_RESOLUTION),
    'channel_width': records.Field(int, 8, records.MAX_SIZE),
    'num_classes': records.Field(int, 1, records.MAX_CLASSES),
    'z_dim': records.Field(int, 1, records.MAX_SIZE),
    'class_embed_dim': records.Field(int, 1, records.MAX_SIZE),
    'attention_position': records.Field(int, 0, records.MAX_LAYERS),
    'num_statistics': records.Field(int, 2, records.MAX_SIZE),
    'epsilon': records.Field(float, 0, 1),
    'truncation': records.Field(float, 0, 1),
    'truncation_mode': records.Field(str, choices=TRUNCATION_MODES),
}


def w_average(z_dim: int, embeddings):
    """The mean of W [w_dim]: 0 for z, the mean embedding [classes, e] for the class."""
    return jnp.concatenate([jnp.zeros([z_dim], embeddings.dtype), embeddings.mean(0)])


def statistics_rows(truncation: float, rows: int, mode: str) -> tuple[tuple[int, float], ...]:
    """The rows of statistics that a truncation uses: (index, weight) of one or two."""
    if mode == 'official':
        fraction, row = math.modf(truncation / (1.0 / (rows - 1)))
        row = int(row)
        return ((row, fraction), (row + 1, 1 - fraction)) if fraction else ((row, 1.0),)
    position = round(truncation * (rows - 1), 6)  # rounded, so that multiples of 0.02 are rows
    row = int(position)
    if position == row:
        return ((row, 1.0),)
    return ((row, row + 1 - position), (row + 1, position - row))


def _interpolate(statistics, row_weights):
    """[rows, c] -> [c] for every array of the tree."""
    return jax.tree.map(lambda table: sum(x * table[row] for row, x in row_weights), statistics)


def _statistics(layers, width, rows):
    """Means 0 and variances 1 for every batch norm."""

    def table(channels):
        return {'mean': jnp.zeros([rows, channels]), 'var': jnp.ones([rows, channels])}

    blocks = {
        f'block_{i}': {
            f'bn_{j}': table(inputs * width // (REDUCTION if j else 1)) for j in range(4)
        }
        for i, (_, inputs, _) in enumerate(layers)
    }
    return blocks | {'bn': table(width)}


def _check_layers(name, resolution, layers):
    if layers is None:
        raise JaxinvError(
            f'{name} of {resolution} pixels needs `layers`; without it the resolution must be one '
            f'of {", ".join(map(str, LAYERS))}.'
        )
    channels, size = FIRST, 4
    for i, (up, inputs, outputs) in enumerate(layers):
        if inputs != channels or outputs not in (inputs, inputs // 2):
            raise JaxinvError(
                f'Block {i} of {name} goes from {inputs} to {outputs} times channel_width; it must '
                f'take {channels} and keep or halve them.'
            )
        channels, size = outputs, size * (2 if up else 1)
    if channels != 1:
        raise JaxinvError(f'The blocks of {name} end with {channels} times channel_width, not 1.')
    if size != resolution:
        raise JaxinvError(f'The blocks of {name} make {size} pixels, not {resolution}.')


def _check_options(truncation, mode):
    if mode not in MODES:
        raise JaxinvError(f'truncation_mode is {mode!r}; it can be {" or ".join(MODES)}.')
    if not 0 < truncation <= 1:
        raise JaxinvError(f'truncation is {truncation}; it must be above 0 and at most 1.')


class Synthesis(nn.Module):
    """w [b, num_ws, w_dim], rows of statistics, taps -> (images [b, h, w, 3], features)."""

    layers: tuple[tuple[bool, int, int], ...]
    width: int
    attention_position: int
    epsilon: float
    compute_dtype: str | None
    remat: bool

    @nn.compact
    def __call__(self, w, statistics, taps):
        x = nn.Dense(16 * FIRST * self.width, name='gen_z')(w[:, 0])
        x = x.reshape(-1, 4, 4, FIRST * self.width)
        if self.compute_dtype is not None:
            x = x.astype(self.compute_dtype)
        features = {}
        for i, (up, _, outputs) in enumerate(self.layers):
            if i == self.attention_position:
                x = Attention(name='attention')(x)
            block = Block(outputs * self.width, up, self.epsilon, name=f'block_{i}')
            given = w[:, i + 1], x, statistics[f'block_{i}']
            last = i + 1 == len(self.layers)
            x = rematerialise.call(block, *given, remat=self.remat and not last)
            feature = f'F{i + 1}'
            if i % 2 and not last:
                if feature in taps:
                    x = taps[feature](x)
                features[feature] = x
        x = nn.relu(PlainNorm(self.epsilon, name='bn')(x, statistics['bn']))
        return ToImage(name='to_rgb')(x), features


class Block(nn.Module):
    """[b, h, w, c] -> [b, h, w, channels], or [b, 2h, 2w, channels] if `up`."""

    channels: int
    up: bool
    epsilon: float

    @nn.compact
    def __call__(self, w, x, statistics):
        def norm(i, x):
            return nn.relu(ClassNorm(self.epsilon, name=f'bn_{i}')(x, w, statistics[f'bn_{i}']))

        def conv(i, x, channels, size, operator):
            return Conv(channels, size, operator, name=f'conv_{i}')(x)

        inner = x.shape[-1] // REDUCTION
        short = x[..., : self.channels]
        x = conv(0, norm(0, x), inner, 1, ops.pointwise)
        x = conv(1, norm(1, x), inner, 3, upsample_nearest.up_conv if self.up else ops.conv)
        x = conv(2, norm(2, x), inner, 3, ops.conv)
        x = conv(3, norm(3, x), self.channels, 1, ops.pointwise)
        return x + (upsample_nearest.up(short) if self.up else short)


class Conv(nn.Module):
    """Convolution by `operator`, which takes x and a kernel, and bias."""

    channels: int
    size: int  # 1: the kernel is [c, d]
    operator: Any

    @nn.compact
    def __call__(self, x):
        window = () if self.size == 1 else (self.size, self.size)
        shape = (*window, x.shape[-1], self.channels)
        kernel = self.param('kernel', nn.initializers.lecun_normal(), shape)
        bias = self.param('bias', nn.initializers.zeros, (self.channels,))
        return self.operator(x, kernel.astype(x.dtype)) + bias.astype(x.dtype)[None, None, None]


class ClassNorm(nn.Module):
    """Class-conditional batch norm: (x - mean) / sqrt(var + epsilon) (1 + scale(w)) + offset(w)."""

    epsilon: float

    @nn.compact
    def __call__(self, x, w, statistics):
        shape = (w.shape[-1], x.shape[-1])
        scale, offset = (
            w @ self.param(name, nn.initializers.normal(0.02), shape)
            for name in ('scale', 'offset')
        )
        scale = (1 + scale) * jax.lax.rsqrt(statistics['var'] + self.epsilon)[None]
        offset = offset - statistics['mean'][None] * scale
        return _affine(x, scale[:, None, None], offset[:, None, None])


class PlainNorm(nn.Module):
    """Batch norm with a scale and bias of its own."""

    epsilon: float

    @nn.compact
    def __call__(self, x, statistics):
        shape = x.shape[-1:]
        scale = self.param('scale', nn.initializers.ones, shape)
        bias = self.param('bias', nn.initializers.zeros, shape)
        scale = scale * jax.lax.rsqrt(statistics['var'] + self.epsilon)
        bias = bias - statistics['mean'] * scale
        return _affine(x, scale[None, None, None], bias[None, None, None])


def _affine(x, scale, shift):
    return x * scale.astype(x.dtype) + shift.astype(x.dtype)


class Attention(nn.Module):
    """Self-attention (Zhang et al. 2019, arXiv:1805.08318): x + gamma * o(softmax(...))."""

    @nn.compact
    def __call__(self, x):
        b, h, w, c = x.shape

        def kernel(name, inputs, outputs):
            init = nn.initializers.lecun_normal()
            return self.param(name, init, (inputs, outputs)).astype(x.dtype)

        query = ops.pointwise(x, kernel('theta', c, c // 8)).reshape(b, h * w, -1)
        keys = _pool(ops.pointwise(x, kernel('phi', c, c // 8)))
        values = _pool(ops.pointwise(x, kernel('g', c, c // 2)))
        weights = jax.nn.softmax(query @ keys.swapaxes(1, 2), axis=-1)
        mixed = (weights @ values).reshape(b, h, w, -1)
        gamma = self.param('gamma', nn.initializers.constant(0.5), ())
        return x + gamma.astype(x.dtype) * ops.pointwise(mixed, kernel('o', c // 2, c))


def _pool(x):
    """2x2 max pooling, flattened: [b, h, w, c] -> [b, h w / 4, c]."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, c)
    x = jnp.maximum(x[:, :, 0], x[:, :, 1])
    return jnp.maximum(x[:, :, :, 0], x[:, :, :, 1]).reshape(b, -1, c)


class ToImage(nn.Module):
    """tanh of a 3x3 convolution to RGB; float32, also from bfloat16.

    The official layer makes channel_width channels, of which the first three are the image.
    """

    @nn.compact
    def __call__(self, x):
        c = x.shape[-1]
        kernel = self.param('kernel', nn.initializers.lecun_normal(), (3, 3, c, 3))
        bias = self.param('bias', nn.initializers.zeros, (3,))
        x = ops.conv(x, kernel.astype(x.dtype))
        return jnp.tanh(x.astype(kernel.dtype) + bias[None, None, None])
