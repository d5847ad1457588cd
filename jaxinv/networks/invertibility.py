"""SAM's invertibility network (section 3.1, equation 2, appendix 6.1): pictures -> maps.

    network, variables = weights.networks.load_invertibility('runs/.../network.safetensors')
    maps = predict(network, variables, images)           # {'W+': [b, 256, 256], 'F4': ..., ...}

The latent spaces share a DeepLabV3+ base with eight output channels (networks/deeplab.py); every
space has a head of a few convolutions. The network predicts the maps that are measured in
inversion/invertibility.py, in the same units.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxinv.errors import JaxinvError
from jaxinv.networks import lpips
from jaxinv.networks.deeplab import CHANNELS, Base, Sizes, batch_norm
from jaxinv.pixels import area_resize

SIZE = 256  # pixels of pictures and maps


SIZES = {
    'official': Sizes('resnet', (3, 4, 23, 3), 64, 256, 48, 2),  # ResNet-101, the released code
    'paper': Sizes('resnet', (3, 4, 23, 3), 64, 256, 48, 3),
    'small': Sizes('resnet', (1, 1, 1, 1), 16, 48, 16, 3),
    # For few training pictures: the trunk is pretrained on ImageNet, and frozen.
    'vgg16': Sizes('vgg16', (), 0, 64, 24, 3),
}


class Network(nn.Module):
    """Images [b, h, w, 3] in [-1, 1] -> {space: [b, h, w]}, all at least 0.

    taps: `trunk_taps` if the trunk is 'vgg16', else None. train: True = use and update batch
    statistics ('batch_stats' must be mutable), with dropout (a key 'dropout' is needed).
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
    """Name of a space's head among the parameters."""
    return f'head_{space.replace("+", "_plus")}'


class Head(nn.Module):
    """x [b, h, w, c] -> map [b, h, w]."""

    layers: int

    @nn.compact
    def __call__(self, x, train):
        for i in range(self.layers - 1):
            x = nn.Conv(CHANNELS // 2, (3, 3), padding=1, name=f'conv{i}')(x)
            x = nn.leaky_relu(batch_norm(train, f'bn{i}')(x), 0.2)
        return nn.relu(nn.Conv(1, (1, 1), name=f'conv{self.layers - 1}')(x))[..., 0]


# --- Use ------------------------------------------------------------------------------------------


def make(spaces, size: str = 'vgg16') -> Network:
    """A network for these spaces. size: a key of SIZES; raises JaxinvError for others."""
    if size not in SIZES:
        raise JaxinvError(f'network size {size!r} is unknown; known: {", ".join(SIZES)}.')
    return Network(tuple(spaces), SIZES[size])


def init(network: Network, seed: int) -> dict[str, Any]:
    """Random variables {'params', 'batch_stats'}: He-normal kernels, batch norm the identity."""
    rng, flat = np.random.default_rng(seed), {}
    for name, like in shapes(network).items():
        if name.endswith('kernel'):
            flat[name] = rng.standard_normal(like.shape) * np.sqrt(2 / np.prod(like.shape[:-1]))
        else:
            flat[name] = np.full(like.shape, name.endswith(('scale', 'var')), float)
        # The targets are positive. A head that starts below 0 has no gradient through its ReLU.
        if name.endswith(f'conv{network.sizes.head_layers - 1}/bias'):
            flat[name] += 0.5
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), unflatten_dict(flat, sep='/'))


def shapes(network: Network) -> dict[str, jax.ShapeDtypeStruct]:
    """Names and shapes of all variables: {'params/base/...': ..., 'batch_stats/...': ...}."""
    images = jnp.zeros((1, 64, 64, 3))
    taps = jnp.zeros((1, 16, 16, 256)), jnp.zeros((1, 4, 4, 512))  # used by 'vgg16' only
    return flatten_dict(jax.eval_shape(network.init, jax.random.key(0), images, taps), sep='/')


def trunk_taps(network: Network, vgg_weights, images):
    """Features of the frozen trunk for images [b, h, w, 3]; None if the trunk is a ResNet.

    vgg_weights: of LPIPS-vgg. Returns (fine [b, h / 4, w / 4, 256], deep [b, h / 16, w / 16, 512]).
    """
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

    vgg_weights: of LPIPS-vgg, for the trunk 'vgg16'. Raises JaxinvError if they are missing.
    """
    if network.sizes.trunk == 'vgg16' and vgg_weights is None:
        raise JaxinvError('the trunk of this network is that of LPIPS-vgg; pass vgg_weights.')
    maps = _apply(network)(variables, vgg_weights, jnp.asarray(images))
    return {space: maps[space] for space in network.spaces}  # jit sorts the keys
