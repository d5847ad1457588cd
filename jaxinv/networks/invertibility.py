"""SAM's invertibility network (section 3.1, equation 2, appendix 6.1): a picture in, maps out.

    network, variables = load('runs/.../network.safetensors')
    maps = predict(network, variables, images)           # {'W+': [b, 256, 256], 'F4': ..., ...}

A DeepLabV3+ base (Chen et al. 2018, arXiv:1802.02611) with eight output channels is shared by the
latent spaces, and every space has a head of a few convolutions. It learns to predict what
invertibility.measure measures, so the two are interchangeable.
"""

import functools
import json
import pathlib
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from converters import tables
from jaxinv.errors import JaxinvError
from jaxinv.images import area_resize
from jaxinv.networks import lpips

SIZE = 256  # pixels of pictures and maps
CHANNELS = 8  # between the base and the heads
DILATIONS = (6, 12, 18)  # of the pyramid, at a 16th of the picture
MULTI_GRID = (1, 2, 4)  # dilations in the last stage, times 2


class Sizes(NamedTuple):
    """What is free in the architecture."""

    trunk: str  # 'resnet', or 'vgg16': the frozen trunk of LPIPS
    blocks: tuple[int, ...]  # of the ResNet's four stages; the last has at most 3
    width: int  # channels of the ResNet's first convolution
    pyramid: int  # channels of each arm of the pyramid, and of the decoder
    shortcut: int  # channels of the decoder's fine input
    head_layers: int  # convolutions of a head: 3 in the paper, 2 in the released code


SIZES = {
    'official': Sizes('resnet', (3, 4, 23, 3), 64, 256, 48, 2),  # ResNet-101, the released code
    'paper': Sizes('resnet', (3, 4, 23, 3), 64, 256, 48, 3),
    'small': Sizes('resnet', (1, 1, 1, 1), 16, 48, 16, 3),
    # Learns from few pictures, since its trunk has seen ImageNet.
    'vgg16': Sizes('vgg16', (), 0, 64, 24, 3),
}


class Network(nn.Module):
    """Images [b, h, w, 3] in [-1, 1] -> {space: [b, h, w]}, all at least 0.

    taps: (fine [b, h / 4, ...], deep [b, h / 16, ...]) features of the trunk if it is 'vgg16'.
    With train=True batch statistics are used and kept ('batch_stats' is mutable) and 'dropout'
    needs a key.
    """

    spaces: tuple[str, ...]
    sizes: Sizes

    @nn.compact
    def __call__(self, images, taps=None, train: bool = False):
        x = Base(self.sizes, name='base')(images, taps, train)
        heads = {
            space: Head(self.sizes.head_layers, name=head_name(space)) for space in self.spaces
        }
        return {space: head(x, train) for space, head in heads.items()}


def head_name(space: str) -> str:
    return f'head_{space.replace("+", "_plus")}'


class Head(nn.Module):
    """x [b, h, w, c] -> map [b, h, w]."""

    layers: int

    @nn.compact
    def __call__(self, x, train):
        for i in range(self.layers - 1):
            x = nn.Conv(CHANNELS // 2, (3, 3), padding=1, name=f'conv{i}')(x)
            x = nn.leaky_relu(_norm(train, f'bn{i}')(x), 0.2)
        return nn.relu(nn.Conv(1, (1, 1), name=f'conv{self.layers - 1}')(x))[..., 0]


class Base(nn.Module):
    """Trunk, atrous pyramid and decoder: images [b, h, w, 3] -> [b, h, w, 8]."""

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
    """Bottleneck ResNet of output stride 16: images -> (features at a 4th, at a 16th)."""

    blocks: tuple[int, ...]
    width: int

    @nn.compact
    def __call__(self, images, train):
        x = _conv(self.width, 7, stride=2, name='conv1')(images)
        x = nn.relu(_norm(train, 'bn1')(x))
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
    channels: int
    stride: int
    dilation: int
    project: bool  # a convolution on the shortcut

    @nn.compact
    def __call__(self, x, train):
        short = x
        if self.project:
            short = _conv(4 * self.channels, 1, self.stride, name='downsample')(x)
            short = _norm(train, 'downsample_bn')(short)
        x = nn.relu(_norm(train, 'bn1')(_conv(self.channels, 1, name='conv1')(x)))
        x = _conv(self.channels, 3, self.stride, self.dilation, name='conv2')(x)
        x = nn.relu(_norm(train, 'bn2')(x))
        x = _norm(train, 'bn3')(_conv(4 * self.channels, 1, name='conv3')(x))
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
        return nn.relu(_norm(self.train, 'bn')(x))


def _conv(channels, window, stride=1, dilation=1, name=None):
    padding = dilation * (window - 1) // 2
    return nn.Conv(
        channels,
        (window, window),
        (stride, stride),
        padding=padding,
        kernel_dilation=dilation,
        use_bias=False,
        kernel_init=nn.initializers.he_normal(),
        name=name,
    )


def _norm(train, name):
    # PyTorch's defaults; its momentum is 1 minus Flax's.
    return nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, name=name)


def resize(x, size: tuple[int, int]):
    """Bilinear [b, h, w, c] -> [b, *size, c] in which the corner pixels keep their places."""
    rows, columns = (_corners(n, s) for n, s in zip(x.shape[1:3], size, strict=True))
    highest = jax.lax.Precision.HIGHEST
    x = jnp.einsum('sh,bhwc->bswc', rows.astype(x.dtype), x, precision=highest)
    return jnp.einsum('tw,bswc->bstc', columns.astype(x.dtype), x, precision=highest)


def _corners(length: int, size: int) -> np.ndarray:
    place = np.arange(size) * (length - 1) / max(size - 1, 1)
    return np.maximum(1 - np.abs(place[:, None] - np.arange(length)), 0).astype(np.float32)


# --- Use ------------------------------------------------------------------------------------------


def make(spaces, size: str = 'vgg16') -> Network:
    """A network for these spaces. Raises JaxinvError for a size that is not in SIZES."""
    if size not in SIZES:
        raise JaxinvError(f'network size {size!r} is unknown; known: {", ".join(SIZES)}.')
    return Network(tuple(spaces), SIZES[size])


def init(network: Network, key) -> dict[str, Any]:
    """Random variables {'params', 'batch_stats'}."""
    images = jnp.zeros((1, 64, 64, 3))
    taps = None
    if network.sizes.trunk == 'vgg16':
        taps = jnp.zeros((1, 16, 16, 256)), jnp.zeros((1, 4, 4, 512))
    return jax.jit(network.init)(key, images, taps)


def shapes(network: Network) -> dict[str, jax.ShapeDtypeStruct]:
    """Names and shapes of all variables: {'params/base/...': ..., 'batch_stats/...': ...}."""
    return tables.flatten(jax.eval_shape(lambda: init(network, jax.random.key(0))))


def trunk_taps(network: Network, vgg_weights, images):
    """The frozen trunk's features that `Network` takes, or None if it has a trunk of its own."""
    if network.sizes.trunk != 'vgg16':
        return None
    maps = lpips.trunk(vgg_weights, images)
    return maps[2], maps[4]


@functools.cache
def _apply(network):
    @jax.jit
    def apply(variables, vgg_weights, images):
        images = area_resize(images, SIZE)
        return network.apply(variables, images, trunk_taps(network, vgg_weights, images))

    return apply


def predict(network: Network, variables, images, vgg_weights=None) -> dict[str, jax.Array]:
    """{space: [b, 256, 256]} for images [b, h, w, 3], h and w at least 256.

    vgg_weights: of LPIPS-vgg, if that is the trunk.
    """
    if network.sizes.trunk == 'vgg16' and vgg_weights is None:
        raise JaxinvError('this network stands on the trunk of LPIPS-vgg; pass its weights.')
    maps = _apply(network)(variables, vgg_weights, jnp.asarray(images))
    return {space: maps[space] for space in network.spaces}  # jit sorts by name


def save(path, network: Network, variables) -> None:
    """One safetensors file; its header says which network it is."""
    path = pathlib.Path(path)
    about = {'spaces': network.spaces, 'sizes': network.sizes._asdict()}
    flat = {name: np.array(value, order='C') for name, value in tables.flatten(variables).items()}
    partial = path.with_name(path.name + '.partial')
    safetensors.numpy.save_file(flat, partial, metadata={'invertibility': json.dumps(about)})
    partial.chmod(0o644)  # safetensors makes files that only their owner can read
    partial.replace(path)


def load(path) -> tuple[Network, dict[str, Any]]:
    """A network and its variables from a file of `save`, or the released code's .pt.

    Raises JaxinvError for another file.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise JaxinvError(f'{path} is not a file; name an invertibility network.')
    if path.suffix in ('.pt', '.pth'):
        from converters import invertibility as converter

        return converter.load(path)
    try:
        with safetensors.safe_open(path, 'numpy') as reader:
            about = json.loads((reader.metadata() or {}).get('invertibility', 'null'))
            flat = {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118
        sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in about['sizes'].items()}
        network = Network(tuple(about['spaces']), Sizes(**sizes))
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError) as error:
        raise JaxinvError(
            f'{path} is not an invertibility network that jaxinv wrote ({error}).'
        ) from None
    like = shapes(network)
    flat = tables.apply({name: (name, np.asarray) for name in like}, flat, like)
    return network, jax.tree.map(jnp.asarray, tables.unflatten(flat))
