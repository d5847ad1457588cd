"""StyleGAN2 (Karras et al. 2020, arXiv:1912.04958) as pure functions around Flax modules.

Parameters have the raw scale of the official checkpoints: equalised learning rates (gains of
1/sqrt(fan_in), and 0.01 in the mapping network) are applied at run time, so that tuning takes the
same steps and export is exact. Blocks are named by their resolution, 'b4', 'b8', ...

Latent rows: b4's conv1 reads w[0]; the k-th block after it reads w[2k - 1] in conv0, w[2k] in
conv1; every block's torgb reads the row after its conv1's, which the next conv0 reads, too.

Modulation scales the input of a convolution and demodulation its output. This equals scaling the
kernel for each sample (section 2.2 of the paper), without a grouped convolution.

Weights: {'params': {'synthesis': {'b4': ..., 'b8': ...}},
          'buffers': {'mapping': ..., 'noise': {'b8_conv0': [8, 8, 1], ...}, 'w_avg': [w_dim]}}.
The mapping network is a buffer because tuning keeps it constant.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinv.errors import JaxinvError
from jaxinv.generators import checks, records
from jaxinv.nn import ops, upsample_fir
from jaxinv.nn import remat as rematerialise
from jaxinv.nn.styled_conv import image_kernels, styled_conv
from jaxinv.types import Generator, GeneratorSpec

ARCHITECTURES = ('skip', 'resnet', 'orig')
MAPPING_LR = 0.01  # learning-rate factor of the mapping network's dense layers
EPSILON = 1e-8


def stylegan2(
    resolution,
    *,
    z_dim=512,
    w_dim=512,
    c_dim=0,  # classes; 0 = unconditional
    mapping_layers=8,
    embed_features=None,  # numbers that the mapping network makes of a label; None = w_dim
    layer_features=None,  # numbers between layers of the mapping network; None = w_dim
    channel_base=32768,
    channel_max=512,
    channels=None,  # at 4, 8, ... pixels; None = min(channel_base / size, channel_max)
    architecture='skip',
    conv_clamp=None,  # limit of every layer's output; None = none
    scaled_epsilon=False,  # epsilon of demodulation: True = rosinality's, False = NVIDIA's
    compute_dtype=None,  # of feature maps and kernels, e.g. 'bfloat16'; None = the parameters'
    remat=False,  # recompute blocks in the backward pass, for less memory (nn/remat.py)
    name='stylegan2',
) -> Generator:
    """A generator of square images of `resolution` pixels, a power of two.

    architecture: 'skip' sums images of all blocks; 'resnet' and 'orig' make the image in the last
    block, with and without shortcuts around blocks. Features are the outputs of all blocks but the
    last, with SAM's names F(2 log2(size) - 4): F4 at 16 pixels, F6 at 32, ... A tap changes the
    input of the next block; the torgb of its own block reads the feature before the tap.
    compute_dtype does not apply to parameters, styles and the sum of images.
    Raises JaxinvError for an invalid resolution, architecture or number of channels.
    """
    if resolution < 8 or resolution & (resolution - 1):
        raise JaxinvError(f'{name} makes images of 8, 16, 32, ... pixels, not {resolution}.')
    if architecture not in ARCHITECTURES:
        raise JaxinvError(
            f'architecture is {architecture!r}; it can be {", ".join(ARCHITECTURES)}.'
        )
    sizes = [4 * 2**i for i in range(int(math.log2(resolution)) - 1)]
    if channels is None:
        channels = [min(channel_base // size, channel_max) for size in sizes]
    if len(channels) != len(sizes):
        raise JaxinvError(
            f'channels has {len(channels)} numbers; {resolution} pixels need {len(sizes)}, one for '
            f'each of {sizes}.'
        )
    noise_shapes = {'b4_conv1': (4, 4, 1)} | {
        f'b{size}_{conv}': (size, size, 1) for size in sizes[1:] for conv in ('conv0', 'conv1')
    }
    spec = GeneratorSpec(
        name=name,
        resolution=resolution,
        z_dim=z_dim,
        w_dim=w_dim,
        num_ws=2 * len(sizes),
        label_dim=c_dim,
        noise_shapes=tuple(noise_shapes.items()),
        feature_shapes=tuple(
            (feature_name(size), (size, size, c))
            for size, c in zip(sizes[:-1], channels[:-1], strict=True)
        ),
        style_layers=_style_layers(sizes, channels, architecture),
        style_gain=1 / math.sqrt(w_dim),
        family='stylegan2',
        arguments=(
            ('resolution', resolution),
            ('z_dim', z_dim),
            ('w_dim', w_dim),
            ('c_dim', c_dim),
            ('mapping_layers', mapping_layers),
            ('channels', tuple(channels)),
            ('architecture', architecture),
            ('conv_clamp', conv_clamp),
            ('scaled_epsilon', scaled_epsilon),
            # Left out where they are w_dim, as in nearly all files.
            *((('embed_features', embed_features),) if embed_features not in (None, w_dim) else ()),
            *((('layer_features', layer_features),) if layer_features not in (None, w_dim) else ()),
        ),
    )
    mapping = Mapping(w_dim, mapping_layers, embed_features or w_dim, layer_features or w_dim)
    synthesis = Synthesis(
        tuple(channels), architecture, conv_clamp, scaled_epsilon, compute_dtype, remat
    )

    def init(key):
        keys = jax.random.split(key, 4)
        noise = checks.normal_maps(keys[0], noise_shapes)
        z = jax.random.normal(keys[2], [1000, z_dim])
        label = jax.nn.one_hot(jnp.arange(1000) % c_dim, c_dim) if c_dim else None
        mapper = mapping.init(keys[1], z, label)['params']
        w = jnp.zeros([1, spec.num_ws, w_dim])
        return {
            'params': {
                'synthesis': synthesis.init(keys[3], w, checks.batched(noise), {}, {})['params']
            },
            'buffers': {
                'mapping': mapper,
                'noise': noise,
                'w_avg': mapping.apply({'params': mapper}, z, label).mean(0),
            },
        }

    def map_(weights, z, label=None):
        checks.check_z(z, spec)
        checks.check_label(label, len(z), spec)
        return mapping.apply({'params': weights['buffers']['mapping']}, z, label)

    def synthesize(weights, w, noise='const', taps=None, style_offsets=None):
        w, maps, taps = checks.synthesis_arguments(weights, w, noise, taps, spec)
        styles = checks.styles_by_block(style_offsets, len(w), spec)
        return synthesis.apply({'params': weights['params']['synthesis']}, w, maps, taps, styles)

    return Generator(spec, init, map_, synthesize)


def arguments_of(record: dict) -> dict:
    """The factory's arguments from a record in JSON's types. Raises JaxinvError."""
    arguments = records.parse(record, _FIELDS)
    return arguments | {'channels': tuple(arguments['channels'])}


_FIELDS = {
    'resolution': records.Field(int, 8, records.MAX_RESOLUTION),
    'z_dim': records.Field(int, 1, records.MAX_SIZE),
    'w_dim': records.Field(int, 1, records.MAX_SIZE),
    'c_dim': records.Field(int, 0, records.MAX_CLASSES),
    'mapping_layers': records.Field(int, 1, records.MAX_LAYERS),
    'embed_features': records.Field(int, 1, records.MAX_SIZE, optional=True),
    'layer_features': records.Field(int, 1, records.MAX_SIZE, optional=True),
    'channels': records.Field(int, 1, records.MAX_SIZE, length=16),
    'architecture': records.Field(str, choices=ARCHITECTURES),
    'conv_clamp': records.Field(float, 1e-30, 1e30, optional=True),
    'scaled_epsilon': records.Field(bool),
}


def feature_name(size: int) -> str:
    """SAM's name of the feature of `size` pixels, a power of two."""
    return f'F{2 * (size.bit_length() - 1) - 4}'


def _style_layers(sizes, channels, architecture) -> tuple[tuple[str, int, int], ...]:
    """GeneratorSpec.style_layers; a layer's style has the channels of its input."""
    layers = []
    for i, (size, count) in enumerate(zip(sizes, channels, strict=True)):
        if i > 0:
            layers.append((f'b{size}_conv0', 2 * i - 1, channels[i - 1]))
        layers.append((f'b{size}_conv1', 2 * i, count))
        if architecture == 'skip' or i == len(sizes) - 1:
            layers.append((f'b{size}_torgb', 2 * i + 1, count))
    return tuple(layers)


class Mapping(nn.Module):
    """z [b, z_dim], label [b, c_dim] or None -> w [b, w_dim]."""

    w_dim: int
    layers: int
    embed_features: int
    layer_features: int  # between layers

    @nn.compact
    def __call__(self, z, label):
        x = _normalize(z)
        if label is not None:
            embedded = Dense(self.embed_features, name='embed')(label)
            x = jnp.concatenate([x, _normalize(embedded)], -1)
        for i in range(self.layers):
            features = self.w_dim if i == self.layers - 1 else self.layer_features
            x = Dense(features, MAPPING_LR, name=f'dense_{i}')(x)
            x = ops.leaky_relu(x) * math.sqrt(2)
        return x


class Synthesis(nn.Module):
    """w [b, num_ws, w_dim], noise maps, taps, styles -> (images [b, h, w, 3], features).

    styles: {block: {layer: [b or 1, channels]}}, added to the layers' styles.
    """

    channels: tuple[int, ...]
    architecture: str
    conv_clamp: float | None
    scaled_epsilon: bool
    compute_dtype: str | None
    remat: bool

    @nn.compact
    def __call__(self, w, noise, taps, styles):
        x, images, features = None, None, {}
        for i, channels in enumerate(self.channels):
            size = 4 * 2**i
            last = i == len(self.channels) - 1
            block = Block(
                channels,
                to_image=last or self.architecture == 'skip',
                shortcut=self.architecture == 'resnet',
                conv_clamp=self.conv_clamp,
                scaled_epsilon=self.scaled_epsilon,
                compute_dtype=self.compute_dtype,
                name=f'b{size}',
            )
            rows = w[:, max(2 * i - 1, 0) : 2 * i + 2]
            maps = noise.get(f'b{size}_conv0'), noise[f'b{size}_conv1']
            remat = self.remat and not last
            own = styles.get(f'b{size}', {})
            x, images = rematerialise.call(block, rows, x, images, *maps, own, remat=remat)
            if not last:
                feature = feature_name(size)
                if feature in taps:
                    x = taps[feature](x)
                features[feature] = x
        return images, features


class Block(nn.Module):
    """x [b, h, w, c], images [b, h, w, 3] -> both at twice the size; None, None -> 4 pixels."""

    channels: int
    to_image: bool
    shortcut: bool
    conv_clamp: float | None
    scaled_epsilon: bool
    compute_dtype: str | None

    @nn.compact
    def __call__(self, w, x, images, noise_0, noise_1, styles):
        def layer(name, gain=1.0, up=False):
            return StyledConv(
                self.channels,
                up,
                gain,
                self.conv_clamp,
                self.scaled_epsilon,
                self.compute_dtype,
                name=name,
            )

        if x is None:
            const = self.param('const', nn.initializers.normal(1.0), (4, 4, self.channels))
            x = jnp.broadcast_to(const, (len(w), *const.shape))
            x = layer('conv1')(x, w[:, 0], noise_1, styles.get('conv1'))
        elif self.shortcut:
            short = Shortcut(self.channels, name='skip')(x)
            x = layer('conv0', up=True)(x, w[:, 0], noise_0, styles.get('conv0'))
            conv1 = layer('conv1', gain=math.sqrt(0.5))
            x = short + conv1(x, w[:, 1], noise_1, styles.get('conv1'))
        else:
            x = layer('conv0', up=True)(x, w[:, 0], noise_0, styles.get('conv0'))
            x = layer('conv1')(x, w[:, 1], noise_1, styles.get('conv1'))
        if images is not None:
            images = upsample_fir.up(images)
        if self.to_image:
            to_image = ToImage(self.conv_clamp, name='torgb')
            new = to_image(x, w[:, -1], styles.get('torgb'))
            images = new if images is None else images + new
        return x, images


class StyledConv(nn.Module):
    """Modulation, 3x3 convolution (`up`: twice the size), demodulation, noise, bias, leaky ReLU."""

    channels: int
    up: bool
    gain: float
    conv_clamp: float | None
    scaled_epsilon: bool
    compute_dtype: str | None

    @nn.compact
    def __call__(self, x, w, noise, offset):
        c = x.shape[-1]
        style = _moved(Dense(c, bias=1.0, name='modulation')(w), offset)
        kernel = self.param('kernel', nn.initializers.normal(1.0), (3, 3, c, self.channels))
        # NVIDIA adds epsilon to the raw squared norm, rosinality after a gain of 1 / sqrt(9 c).
        epsilon = EPSILON * 9 * c if self.scaled_epsilon else EPSILON
        # Nine terms in one pass; XLA:CPU's sum over the first axes takes ten times as long.
        squares = sum(kernel[i, j] ** 2 for i in range(3) for j in range(3))
        demodulation = jax.lax.rsqrt(style**2 @ squares + epsilon)
        strength = self.param('noise_strength', nn.initializers.constant(0.1), ())
        noise = jnp.zeros((1, 1, 1, 1), x.dtype) if noise is None else strength * noise
        bias = self.param('bias', nn.initializers.zeros, (self.channels,))
        limit = None if self.conv_clamp is None else self.conv_clamp * self.gain
        gain = math.sqrt(2) * self.gain
        operands = (x, style, kernel, demodulation, noise, bias)
        if self.compute_dtype is not None:
            operands = (operand.astype(self.compute_dtype) for operand in operands)
        return styled_conv(*operands, self.up, gain, limit)


class Shortcut(nn.Module):
    """[b, h, w, c] -> [b, 2h, 2w, channels]: 1x1 convolution, then the filter."""

    channels: int

    @nn.compact
    def __call__(self, x):
        c = x.shape[-1]
        kernel = self.param('kernel', nn.initializers.normal(1.0), (c, self.channels))
        return upsample_fir.up(ops.pointwise(x, (kernel * math.sqrt(0.5 / c)).astype(x.dtype)))


class ToImage(nn.Module):
    """Modulated 1x1 convolution to RGB, without demodulation."""

    conv_clamp: float | None

    @nn.compact
    def __call__(self, x, w, offset):
        c = x.shape[-1]
        style = _moved(Dense(c, bias=1.0, name='modulation')(w), offset) / math.sqrt(c)
        kernel = self.param('kernel', nn.initializers.normal(1.0), (c, 3))
        bias = self.param('bias', nn.initializers.zeros, (3,))
        # Scaling the kernel avoids a pass over the largest feature map.
        x = image_kernels(x, (style[:, :, None] * kernel[None]).astype(x.dtype))
        return _clamp(x + bias[None, None, None], self.conv_clamp)


class Dense(nn.Module):
    """x [b, c] -> [b, features], with equalised learning rates."""

    features: int
    lr: float = 1.0
    bias: float = 0.0

    @nn.compact
    def __call__(self, x):
        c = x.shape[-1]
        shape = (c, self.features)
        kernel = self.param('kernel', nn.initializers.normal(1 / self.lr), shape)
        bias = self.param('bias', nn.initializers.constant(self.bias), (self.features,))
        return x @ (kernel * (self.lr / math.sqrt(c))) + (bias * self.lr)[None]


def _moved(style, offset):
    """style [b, c] + offset [b or 1, c]; None = no offset."""
    return style if offset is None else style + offset.astype(style.dtype)


def _normalize(x):
    """Unit second moment over the last axis."""
    return x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + EPSILON)


def _clamp(x, limit):
    return x if limit is None else jnp.clip(x, -limit, limit)
