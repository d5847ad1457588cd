"""DeepLabV3+ (Chen et al. 2018, arXiv:1802.02611) on a ResNet, or on given features.

The layers are those of the PyTorch code that SAM's invertibility network uses, so that its weights
convert: atrous pyramid at 1/16 of the picture's size, decoder at 1/4, bilinear resizing with
aligned corners.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

CHANNELS = 8  # of the output
DILATIONS = (6, 12, 18)  # of the pyramid
MULTI_GRID = (1, 2, 4)  # dilations of the ResNet's last stage, divided by 2


TRUNKS = ('resnet', 'vgg16')


class Sizes(NamedTuple):
    """The parameters of the architecture."""

    trunk: str  # of TRUNKS: 'resnet', or 'vgg16', the frozen trunk of LPIPS
    blocks: tuple[int, ...]  # of the ResNet's four stages; at most 3 in the last
    width: int  # channels of the ResNet's first convolution
    pyramid: int  # channels of each branch of the pyramid, and of the decoder
    shortcut: int  # channels of the decoder's fine input
    head_layers: int  # convolutions of a head: 3 in the paper, 2 in the released code


class Base(nn.Module):
    """Trunk, atrous pyramid and decoder: images [b, h, w, 3] -> [b, h, w, 8].

    taps: (fine [b, h / 4, w / 4, c], deep [b, h / 16, w / 16, d]) for trunk 'vgg16', else None.
    """

    sizes: Sizes

    @nn.compact
    def __call__(self, images, taps, train):
        s = self.sizes
        if s.trunk == 'resnet':
            fine, deep = ResNet(s.blocks, s.width, name='backbone')(images, train)
        else:
            fine, deep = taps
        x = Pyramid(s.pyramid, name='aspp')(deep, train)
        fine = ConvRelu(s.shortcut, 1, train, name='shortcut')(fine)
        x = jnp.concatenate([resize(x, fine.shape[1:3]), fine], -1)
        x = ConvRelu(s.pyramid, 3, train, name='decoder0')(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        x = ConvRelu(s.pyramid, 3, train, name='decoder1')(x)
        x = nn.Dropout(0.1, deterministic=not train)(x)
        return resize(nn.Conv(CHANNELS, (1, 1), name='out')(x), images.shape[1:3])


class Pyramid(nn.Module):
    """Atrous spatial pyramid pooling: x [b, h, w, c] -> [b, h, w, channels]."""

    channels: int

    @nn.compact
    def __call__(self, x, train):
        arms = [ConvRelu(self.channels, 1, train, name='arm0')(x)]
        for i, dilation in enumerate(DILATIONS, 1):
            arms.append(ConvRelu(self.channels, 3, train, dilation, name=f'arm{i}')(x))
        mean = jnp.mean(x, axis=(1, 2), keepdims=True)
        mean = ConvRelu(self.channels, 1, train, name='mean')(mean)
        arms.append(jnp.broadcast_to(mean, arms[0].shape))
        x = ConvRelu(self.channels, 1, train, name='join')(jnp.concatenate(arms, -1))
        return nn.Dropout(0.5, deterministic=not train)(x)


class ResNet(nn.Module):
    """Bottleneck ResNet of output stride 16: images -> features at 1/4 and 1/16 of the size."""

    blocks: tuple[int, ...]
    width: int

    @nn.compact
    def __call__(self, images, train):
        x = _conv(self.width, 7, stride=2, name='conv1')(images)
        x = nn.relu(batch_norm(train, 'bn1')(x))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        fine = None
        for stage, count in enumerate(self.blocks):
            channels = self.width * 2**stage
            for i in range(count):
                stride = 2 if i == 0 and stage in (1, 2) else 1
                dilation = 2 * MULTI_GRID[i] if stage == 3 else 1
                name = f'layer{stage + 1}_{i}'
                x = Bottleneck(channels, stride, dilation, i == 0, name=name)(x, train)
            fine = x if stage == 0 else fine
        return fine, x


class Bottleneck(nn.Module):
    """x [b, h, w, c] -> [b, h / stride, w / stride, 4 channels]."""

    channels: int
    stride: int
    dilation: int
    project: bool  # with a convolution in the shortcut

    @nn.compact
    def __call__(self, x, train):
        short = x
        if self.project:
            short = _conv(4 * self.channels, 1, self.stride, name='downsample')(x)
            short = batch_norm(train, 'downsample_bn')(short)
        x = nn.relu(batch_norm(train, 'bn1')(_conv(self.channels, 1, name='conv1')(x)))
        x = _conv(self.channels, 3, self.stride, self.dilation, name='conv2')(x)
        x = nn.relu(batch_norm(train, 'bn2')(x))
        x = batch_norm(train, 'bn3')(_conv(4 * self.channels, 1, name='conv3')(x))
        return nn.relu(x + short)


class ConvRelu(nn.Module):
    """Convolution, batch norm, ReLU."""

    channels: int
    window: int
    train: bool
    dilation: int = 1

    @nn.compact
    def __call__(self, x):
        x = _conv(self.channels, self.window, 1, self.dilation, name='conv')(x)
        return nn.relu(batch_norm(self.train, 'bn')(x))


def _conv(channels, window, stride=1, dilation=1, name=None):
    padding = dilation * (window - 1) // 2
    return nn.Conv(
        channels,
        (window, window),
        (stride, stride),
        padding=padding,
        kernel_dilation=dilation,
        use_bias=False,
        name=name,
    )


def batch_norm(train, name):
    """With PyTorch's defaults; its momentum 0.1 is 0.9 in Flax."""
    return nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, name=name)


def resize(x, size: tuple[int, int]):
    """Bilinear resizing with aligned corners: [b, h, w, c] -> [b, *size, c]."""
    rows, columns = (_corners(n, s) for n, s in zip(x.shape[1:3], size, strict=True))
    highest = jax.lax.Precision.HIGHEST
    x = jnp.einsum('sh,bhwc->bswc', rows.astype(x.dtype), x, precision=highest)
    return jnp.einsum('tw,bswc->bstc', columns.astype(x.dtype), x, precision=highest)


def _corners(length: int, size: int) -> np.ndarray:
    """Interpolation weights [size, length]."""
    positions = np.arange(size) * (length - 1) / max(size - 1, 1)
    return np.maximum(1 - np.abs(positions[:, None] - np.arange(length)), 0).astype(np.float32)
