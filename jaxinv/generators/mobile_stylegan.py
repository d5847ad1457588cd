"""MobileStyleGAN (Belousov 2021, arXiv:2104.04767) as pure functions around Flax modules.

Distilled from StyleGAN2 (FFHQ, config-f), with the mapping network, and hence the W, of that model.

Latent rows: the first conv reads w[0]; block i (output 8 * 2^i pixels) reads w[3i + 1] in its
upsampling and conv1, w[3i + 2] in conv2, and w[3i + 3] in to_img, which only the last block has.
The original has one row more, which no layer reads (23 at 1024 pixels).

Weights: {'params': {'synthesis': {'b4': ..., 'b8': ...}}, blocks named by their resolution,
          'buffers': {'mapping': ..., 'noise': {'b8_conv1': [8, 8, 1], ...}, 'w_avg': [w_dim]}}.
The mapping network is a buffer because tuning keeps it constant.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxinv.errors import JaxinvError
from jaxinv.generators import checks
from jaxinv.nn import ops
from jaxinv.nn import remat as rematerialise
from jaxinv.types import Generator, GeneratorSpec

CHANNELS = (512, 512, 512, 512, 512, 256, 128, 64)  # at 4, 8, ..., 512 pixels
FEATURES = {16: 'F4', 32: 'F6', 64: 'F8', 128: 'F10'}  # SAM's names of the outputs of conv2
LEAKY_GAIN = math.sqrt(2 / (1 + 0.2**2))  # keeps the variance of a random network


def mobile_stylegan(
    resolution=512,
    channels=CHANNELS,  # at 4, 8, ... pixels; images of full size have twice the last of these
    z_dim=512,
    w_dim=512,
    mapping_layers=8,
    compute_dtype=None,  # of feature maps and kernels, e.g. 'bfloat16'; None = the parameters'
    remat=False,  # recompute blocks in the backward pass, for less memory (nn/remat.py)
    name='mobile_stylegan',
) -> Generator:
    """A generator of images of full size, 8 * 2^(len(channels) - 1) pixels, or half of it.

    The network ends in a Haar wavelet step. At half size that step is skipped and its low band / 2
    is the image, which equals the 2x2 mean of the full-size image. compute_dtype does not apply to
    parameters, styles and the image.
    Raises JaxinvError for other resolutions.
    """
    sizes = [4 * 2**i for i in range(len(channels))]
    if resolution not in (sizes[-1], 2 * sizes[-1]):
        raise JaxinvError(
            f'{name} makes images of {2 * sizes[-1]} or {sizes[-1]} pixels, not {resolution}.'
        )
    layers = [f'b{size}_{conv}' for size in sizes for conv in ('conv1', 'conv2')]
    layers.remove('b4_conv2')
    noise_shapes = {layer: (int(layer[1:].split('_')[0]),) * 2 + (1,) for layer in layers}
    spec = GeneratorSpec(
        name=name,
        resolution=resolution,
        z_dim=z_dim,
        w_dim=w_dim,
        num_ws=3 * (len(channels) - 1) + 2,
        noise_shapes=tuple(noise_shapes.items()),
        feature_shapes=tuple(
            (FEATURES[size], (size, size, c))
            for size, c in zip(sizes, channels, strict=True)
            if size in FEATURES
        ),
        style_layers=_style_layers(sizes, channels),
    )
    mapping = Mapping(w_dim, mapping_layers)
    synthesis = Synthesis(tuple(channels), resolution == 2 * sizes[-1], compute_dtype, remat)

    def init(key):
        keys = jax.random.split(key, 4)
        noise = checks.normal_maps(keys[0], noise_shapes)
        w = jnp.zeros([1, spec.num_ws, w_dim])
        mapper = mapping.init(keys[1], jnp.zeros([1, z_dim]))['params']
        z = jax.random.normal(keys[2], [1000, z_dim])
        return {
            'params': {
                'synthesis': synthesis.init(keys[3], w, checks.batched(noise), {}, {})['params']
            },
            'buffers': {
                'mapping': mapper,
                'noise': noise,
                'w_avg': mapping.apply({'params': mapper}, z).mean(0),
            },
        }

    def map_(weights, z):
        checks.check_z(z, spec)
        return mapping.apply({'params': weights['buffers']['mapping']}, z)

    def synthesize(weights, w, noise='const', taps=None, style_offsets=None):
        w, maps, taps = checks.synthesis_arguments(weights, w, noise, taps, spec)
        styles = checks.styles_by_block(style_offsets, len(w), spec)
        return synthesis.apply({'params': weights['params']['synthesis']}, w, maps, taps, styles)

    return Generator(spec, init, map_, synthesize)


def _style_layers(sizes, channels) -> tuple[tuple[str, int, int], ...]:
    """GeneratorSpec.style_layers; a layer's style has the channels of its input."""
    layers = [('b4_conv1', 0, channels[0])]
    for i, (size, count) in enumerate(zip(sizes[1:], channels[1:], strict=True)):
        layers.append((f'b{size}_up', 3 * i + 1, channels[i]))
        layers.append((f'b{size}_conv1', 3 * i + 1, channels[i] // 4))
        layers.append((f'b{size}_conv2', 3 * i + 2, count))
    return (*layers, (f'b{sizes[-1]}_to_img', 3 * len(sizes) - 3, channels[-1]))


class Mapping(nn.Module):
    """z [b, z_dim] -> w [b, w_dim]: second-moment normalisation, then dense layers."""

    w_dim: int
    layers: int

    @nn.compact
    def __call__(self, z):
        x = z * jax.lax.rsqrt(jnp.mean(jnp.square(z), -1, keepdims=True) + 1e-8)
        for i in range(self.layers):
            x = nn.Dense(self.w_dim, name=f'dense_{i}')(x)
            x = ops.leaky_relu(x) * math.sqrt(2)
        return x


class Synthesis(nn.Module):
    """w [b, num_ws, w_dim], noise maps, taps, styles -> (images [b, h, w, 3], features).

    styles: {block: {layer: [b or 1, channels]}}, added to the layers' styles.
    """

    channels: tuple[int, ...]
    full_size: bool
    compute_dtype: str | None
    remat: bool

    @nn.compact
    def __call__(self, w, noise, taps, styles):
        features = {}
        first = FirstBlock(self.channels[0], self.compute_dtype, name='b4')
        x = first(w[:, 0], noise['b4_conv1'], styles.get('b4', {}).get('conv1'))
        for i, channels in enumerate(self.channels[1:]):
            size = 8 * 2**i
            rows = w[:, 3 * i + 1 : 3 * i + 4]
            last = i == len(self.channels) - 2
            block = Block(channels, to_image=last, full_size=self.full_size, name=f'b{size}')
            maps = noise[f'b{size}_conv1'], noise[f'b{size}_conv2']
            own = styles.get(f'b{size}', {})
            x = rematerialise.call(block, rows, x, *maps, own, remat=self.remat and not last)
            if size in FEATURES:
                tap = taps.get(FEATURES[size])
                x = features[FEATURES[size]] = x if tap is None else tap(x)
        return block.image(rows, x, own.get('to_img')), features


class FirstBlock(nn.Module):
    """w [b, w_dim], noise [b or 1, 4, 4, 1] or None -> [b, 4, 4, channels]."""

    channels: int
    compute_dtype: str | None

    @nn.compact
    def __call__(self, w, noise, offset):
        const = self.param('const', nn.initializers.normal(1.0), (4, 4, self.channels))
        const = const if self.compute_dtype is None else const.astype(self.compute_dtype)
        x = jnp.broadcast_to(const, (len(w), *const.shape))
        return StyledConv(self.channels, dense=True, name='conv1')(x, w, noise, offset)


class Block(nn.Module):
    """x [b, h, w, c] -> [b, 2h, 2w, channels]; with to_image, `image` makes the image of that."""

    channels: int
    to_image: bool
    full_size: bool

    def setup(self):
        self.up = Upsample()
        self.conv1 = StyledConv(self.channels, dense=False)
        self.conv2 = StyledConv(self.channels, dense=False)
        if self.to_image:
            self.to_img = ToImage(self.full_size)

    def __call__(self, w, x, noise_1, noise_2, styles):
        x = self.up(x, w[:, 0], styles.get('up'))
        x = self.conv1(x, w[:, 0], noise_1, styles.get('conv1'))
        return self.conv2(x, w[:, 1], noise_2, styles.get('conv2'))

    def image(self, w, x, offset):
        return self.to_img(x, w[:, 2], offset)


class Upsample(nn.Module):
    """Modulation, then an inverse Haar wavelet step: [b, h, w, c] -> [b, 2h, 2w, c / 4]."""

    @nn.compact
    def __call__(self, x, w, offset):
        return ops.haar_up(x * _style(x, w, offset).astype(x.dtype))


class StyledConv(nn.Module):
    """Modulation, convolution (dense 3x3, or depthwise 3x3 and 1x1), noise, bias, leaky ReLU.

    Demodulation does not depend on the style in this network; it is part of the kernel.
    """

    channels: int
    dense: bool

    @nn.compact
    def __call__(self, x, w, noise, offset):
        c = x.shape[-1]
        style = (_style(x, w, offset) / math.sqrt(9 * c)).astype(x.dtype)
        gain = nn.initializers.normal(LEAKY_GAIN)
        if self.dense:
            kernel = self.param('kernel', gain, (3, 3, c, self.channels))
            x = ops.conv(x * style, kernel.astype(x.dtype))
        else:
            depthwise = self.param('depthwise', nn.initializers.normal(1.0), (3, 3, c))
            x = ops.depthwise(x, depthwise.astype(x.dtype), style)
            pointwise = self.param('pointwise', gain, (c, self.channels))
            x = ops.pointwise(x, pointwise.astype(x.dtype))
        strength = self.param('noise_strength', nn.initializers.constant(0.1), ())
        if noise is not None:
            x = x + (strength * noise).astype(x.dtype)
        bias = self.param('bias', nn.initializers.zeros, (self.channels,))
        return ops.leaky_relu(x + bias.astype(x.dtype)[None, None, None])


class ToImage(nn.Module):
    """Modulated 1x1 convolution to the four wavelet bands of the image, then the image."""

    full_size: bool

    @nn.compact
    def __call__(self, x, w, offset):
        c = x.shape[-1]
        kernel = self.param('pointwise', nn.initializers.normal(1.0), (c, 12))
        bias = self.param('bias', nn.initializers.zeros, (12,))
        if not self.full_size:
            # The low band / 2 is the 2x2 mean of the full-size image; other bands are not needed.
            kernel, bias = kernel[:, :3] / 2, bias[:3] / 2
        # Scaling the kernel avoids a pass over the largest feature map.
        style = _style(x, w, offset)[:, 0, 0, :, None] / math.sqrt(c)
        kernel = (style * kernel[None]).astype(x.dtype)
        dtype = jnp.promote_types(x.dtype, jnp.float32)  # of the image
        x = jnp.einsum('bhwc,bcd->bhwd', x, kernel, preferred_element_type=dtype)
        x = x + bias[None, None, None]
        return ops.haar_up(x) if self.full_size else x


def _style(x, w, offset):
    """Modulation of x's channels by one row of w [b, w_dim]: [b, 1, 1, c].

    offset: added to it, [b or 1, c]; None = none.
    """
    dense = nn.Dense(
        x.shape[-1],
        kernel_init=nn.initializers.variance_scaling(0.25, 'fan_in', 'normal'),
        bias_init=nn.initializers.ones,
        name='modulation',
    )
    style = dense(w)
    if offset is not None:
        style = style + offset.astype(style.dtype)
    return style[:, None, None]
