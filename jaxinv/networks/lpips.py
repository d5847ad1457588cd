"""LPIPS, the learned perceptual distance (Zhang et al. 2018, version 0.1), as pure functions.

    weights = weights.networks.load_lpips('vgg')
    target = lpips.features(weights, targets)          # once
    loss = lpips.distance(lpips.features(weights, images), target)

Equation 1 of the paper: the distance is the sum over five layers of the spatial mean of the squared
difference of channel-normalised features, weighted per channel. `features` multiplies by the square
root of those weights (as NVIDIA's vgg16.pt with `return_lpips`), so that a distance is a plain
squared difference and the features of a target are computed once.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxinv.errors import JaxinvError
from jaxinv.nn import strided

# Trunk layers in order: ('conv', channels, window, stride, padding); ('pool', window), stride 2;
# 'tap' marks the layers that LPIPS compares, after their ReLU.
_ALEX = (
    ('conv', 64, 11, 4, 2), 'tap', ('pool', 3),
    ('conv', 192, 5, 1, 2), 'tap', ('pool', 3),
    ('conv', 384, 3, 1, 1), 'tap',
    ('conv', 256, 3, 1, 1), 'tap',
    ('conv', 256, 3, 1, 1), 'tap',
)  # fmt: skip
_VGG = (
    ('conv', 64, 3, 1, 1), ('conv', 64, 3, 1, 1), 'tap', ('pool', 2),
    ('conv', 128, 3, 1, 1), ('conv', 128, 3, 1, 1), 'tap', ('pool', 2),
    ('conv', 256, 3, 1, 1), ('conv', 256, 3, 1, 1), ('conv', 256, 3, 1, 1), 'tap', ('pool', 2),
    ('conv', 512, 3, 1, 1), ('conv', 512, 3, 1, 1), ('conv', 512, 3, 1, 1), 'tap', ('pool', 2),
    ('conv', 512, 3, 1, 1), ('conv', 512, 3, 1, 1), ('conv', 512, 3, 1, 1), 'tap',
)  # fmt: skip
LAYERS = {'alex': _ALEX, 'vgg': _VGG}
MIN_SIZE = {'alex': 31, 'vgg': 16}  # pixels; the last feature map of smaller images is empty

# LPIPS' scaling layer: mean and deviation of ImageNet for images in [-1, 1].
_SHIFT = np.float32([-0.030, -0.088, -0.188])
_SCALE = np.float32([0.458, 0.448, 0.450])


class Trunk(nn.Module):
    """AlexNet or VGG16 without the classifier: images [b, h, w, 3] -> five maps [b, h', w', c]."""

    net: str  # 'alex' or 'vgg'

    @nn.compact
    def __call__(self, images):
        shift, scale = (x.astype(images.dtype)[None, None, None] for x in (_SHIFT, _SCALE))
        x = (images - shift) / scale
        maps, index = [], 0
        for layer in LAYERS[self.net]:
            if layer == 'tap':
                maps.append(x)
            elif layer[0] == 'pool':
                x = strided.max_pool(x, layer[1])
            else:
                _, channels, window, stride, padding = layer
                shape = (window, window, x.shape[-1], channels)
                kernel = self.param(f'conv{index}_kernel', nn.initializers.he_normal(), shape)
                bias = self.param(f'conv{index}_bias', nn.initializers.zeros, (channels,))
                x = strided.conv(x, kernel.astype(x.dtype), stride, padding)
                x = nn.relu(x + bias.astype(x.dtype)[None, None, None])
                index += 1
        return tuple(maps)


def shapes(net: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights of `net`, 'alex' or 'vgg'. Raises JaxinvError for others."""
    if net not in LAYERS:
        raise JaxinvError(f"LPIPS network {net!r} is not one of 'alex', 'vgg'.")
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    maps, tree = jax.eval_shape(lambda x: Trunk(net).init_with_output(jax.random.key(0), x), images)
    result = {name: leaf.shape for name, leaf in tree['params'].items()}
    return result | {f'head{i}': (x.shape[-1],) for i, x in enumerate(maps)}


def features(weights: dict, images: jax.Array, dtype=None) -> tuple[jax.Array, ...]:
    """Five maps [b, h', w', c] of images [b, h, w, 3] in about [-1, 1], for the functions below.

    dtype: of the maps, e.g. 'bfloat16'; None = that of the images. Lengths and distances are
    float32 at least.

    Each pixel's features are divided by their length and multiplied by the square root of the head
    weights. A pure function for jit (with the weights as an argument), vmap and grad. Products have
    JAX's default matmul precision, which is below float32 on GPUs and TPUs.

    The reference implementation fails on images smaller than MIN_SIZE; here their pixels are
    repeated up to that size.
    """
    least = MIN_SIZE[_net(weights)]
    if images.ndim == 4 and 0 < min(images.shape[1:3]) < least:
        times = -(-least // min(images.shape[1:3]))
        images = jnp.repeat(jnp.repeat(images, times, 1), times, 2)
    images = images if dtype is None else images.astype(dtype)
    exact = jnp.promote_types(images.dtype, jnp.float32)
    heads = [jnp.sqrt(weights[f'head{i}'].astype(exact)) for i in range(5)]
    maps = zip(trunk(weights, images), heads, strict=True)
    return tuple(
        (_normalize(x.astype(exact)) * head[None, None, None]).astype(x.dtype) for x, head in maps
    )


def trunk(weights: dict, images: jax.Array) -> tuple[jax.Array, ...]:
    """The five feature maps [b, h', w', c] of the trunk, after their ReLU. Raises JaxinvError."""
    net = _net(weights)
    if images.ndim != 4 or images.shape[-1] != 3 or min(images.shape[1:3]) < MIN_SIZE[net]:
        raise JaxinvError(
            f'images {images.shape} are not [b, h, w, 3] with h and w of at least {MIN_SIZE[net]}, '
            f'which LPIPS {net} needs.'
        )
    return Trunk(net).apply({'params': weights}, images)


def _net(weights):
    return 'vgg' if 'conv12_kernel' in weights else 'alex'


def per_layer(features_a, features_b) -> jax.Array:
    """The five terms of the distance, [b, 5]."""
    exact = jnp.result_type(features_a[0], features_b[0], jnp.float32)
    terms = [
        jnp.sum(jnp.square(a.astype(exact) - b.astype(exact)), axis=(1, 2, 3))
        / (a.shape[1] * a.shape[2])
        for a, b in zip(features_a, features_b, strict=True)
    ]
    return jnp.stack(terms, axis=-1)


def distance(features_a, features_b) -> jax.Array:
    """LPIPS distance [b] of two results of `features`; a batch of 1 broadcasts.

    0 for equal images, with gradient 0.
    """
    return jnp.sum(per_layer(features_a, features_b), axis=-1)


def spatial(features_a, features_b, size) -> jax.Array:
    """Map of the distance [b, *size], or [b, size, size]: the sum of the layers' resized maps.

    Bilinear with half-pixel centres, as the mode `spatial=True` of the reference implementation.
    """
    height, width = (size, size) if isinstance(size, int) else size
    total = 0.0
    for a, b in zip(features_a, features_b, strict=True):
        layer = jnp.sum(jnp.square(a - b), axis=-1)
        shape = (layer.shape[0], height, width)
        total = total + jax.image.resize(layer, shape, 'bilinear', antialias=False)
    return total


def _normalize(x):
    """Unit length over channels; value and gradient 0 where all channels are 0."""
    squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    zero = squares == 0
    length = jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, squares)))
    return x / (length + 1e-10)
