"""CLIP: features of images and texts in one space (Radford et al. 2021, arXiv:2103.00020).

Two transformers with normalisation before each layer (section 2.4 of the paper): a vision
transformer on patches, whose first row is the image's feature, and a causal one on tokens, whose
row at the end of the text is the text's. Pure functions over arrays; all sizes come from the
arrays. The layers of a tower are stacked, and one program of a layer is scanned over them.

    {'image/patch/kernel': [p, p, 3, width], 'image/blocks/qkv/kernel': [layers, width, 3 width],
     'text/tokens': [vocabulary, width], ...}    see `shapes`
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv.errors import JaxinvError

EPSILON = 1e-5  # of layer normalisation
MEAN = (0.48145466, 0.4578275, 0.40821073)  # of the training images, in [0, 1]
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
RANDOM = 'random weights'  # origin of a network for tests
ACTIVATIONS = {
    'quick_gelu': lambda x: x * jax.nn.sigmoid(1.702 * x),  # OpenAI's
    'gelu': lambda x: jax.nn.gelu(x, approximate=False),
}


class Spec(NamedTuple):
    """What the arrays do not say."""

    image_heads: int
    text_heads: int
    activation: str  # of ACTIVATIONS


class Clip(NamedTuple):
    """A network with its weights."""

    spec: Spec
    weights: dict[str, Any]
    tokenizer: Any  # bpe.Tokenizer
    origin: str  # file or address, or RANDOM

    @property
    def is_random(self) -> bool:
        return self.origin == RANDOM


class Tower(NamedTuple):
    width: int
    layers: int
    hidden: int  # width of the layer between two dense layers


class Sizes(NamedTuple):
    image: Tower
    text: Tower
    patch: int  # pixels
    grid: int  # patches a side
    context: int  # tokens of the longest text, with start and end
    vocabulary: int
    features: int


def sizes_of(weights: dict) -> Sizes:
    """The sizes of a network's arrays."""
    towers = []
    for name in ('image', 'text'):
        layers, width, hidden = weights[f'{name}/blocks/up/kernel'].shape
        towers.append(Tower(width, layers, hidden))
    context = weights['text/positions'].shape[0]
    grid = math.isqrt(weights['image/positions'].shape[0] - 1)
    patch, features = weights['image/patch/kernel'].shape[0], weights['image/projection'].shape[1]
    return Sizes(*towers, patch, grid, context, weights['text/tokens'].shape[0], features)


def shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights."""
    image, text = sizes.image, sizes.text
    found = {
        'image/patch/kernel': (sizes.patch, sizes.patch, 3, image.width),
        'image/class': (image.width,),
        'image/positions': (sizes.grid**2 + 1, image.width),
        'image/projection': (image.width, sizes.features),
        'text/tokens': (sizes.vocabulary, text.width),
        'text/positions': (sizes.context, text.width),
        'text/projection': (text.width, sizes.features),
        'logit_scale': (),
    }
    for name, width in (
        ('image/pre', image.width),
        ('image/post', image.width),
        ('text/final', text.width),
    ):
        found |= {f'{name}/scale': (width,), f'{name}/bias': (width,)}
    for name, (width, layers, hidden) in (('image', image), ('text', text)):
        for part, shape in block_shapes(width, hidden).items():
            found[f'{name}/blocks/{part}'] = (layers, *shape)
    return found


def block_shapes(width: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of one layer's weights."""
    found = {}
    for norm in ('norm_1', 'norm_2'):
        found |= {f'{norm}/scale': (width,), f'{norm}/bias': (width,)}
    for dense, inputs, outputs in (
        ('qkv', width, 3 * width),
        ('out', width, width),
        ('up', width, hidden),
        ('down', hidden, width),
    ):
        found |= {f'{dense}/kernel': (inputs, outputs), f'{dense}/bias': (outputs,)}
    return found


def random_weights(sizes: Sizes, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights, for tests: their features mean nothing."""
    found, rng = {}, np.random.default_rng(seed)
    for name, shape in shapes(sizes).items():
        normals = rng.standard_normal(shape, np.float32)
        if name.endswith('/scale'):
            found[name] = 1 + 0.1 * normals
        elif name.endswith('/kernel'):
            inputs = math.prod(shape[:-1] if name == 'image/patch/kernel' else shape[-2:-1])
            found[name] = normals / math.sqrt(inputs)
        else:
            found[name] = 0.1 * normals
    return {name: np.asarray(x, np.float32) for name, x in found.items()} | {
        'logit_scale': np.asarray(math.log(100.0), np.float32)
    }


# --- Features -------------------------------------------------------------------------------------


def prepare(images: jax.Array, size: int) -> jax.Array:
    """Square images [b, h, h, 3] of about [-1, 1] as CLIP's image tower takes them.

    Bicubic with antialiasing to `size` pixels, as in CLIP's own preparation, then normalised by
    MEAN and DEVIATION. Values are not clamped, so that gradients reach pixels outside [-1, 1].
    """
    if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
        raise JaxinvError(f'images {images.shape} are not square colour pictures [b, h, h, 3].')
    x = jax.image.resize(images, (len(images), size, size, 3), 'cubic', antialias=True)
    mean, deviation = jnp.asarray(MEAN, x.dtype), jnp.asarray(DEVIATION, x.dtype)
    return ((x + 1) / 2 - mean[None, None, None]) / deviation[None, None, None]


def image_features(spec: Spec, weights: dict, images: jax.Array) -> jax.Array:
    """Features [b, features] of images [b, h, h, 3] of about [-1, 1] and any size.

    Not normalised; see `unit`.
    """
    sizes = sizes_of(weights)
    return patch_features(spec, weights, prepare(images, sizes.grid * sizes.patch))


def patch_features(spec: Spec, weights: dict, x: jax.Array) -> jax.Array:
    """Features of images [b, s, s, 3] that `prepare` made, s = grid * patch."""
    sizes = sizes_of(weights)
    b, p, g = len(x), sizes.patch, sizes.grid
    if x.shape[1:] != (g * p, g * p, 3):
        raise JaxinvError(f'images {x.shape} are not [b, {g * p}, {g * p}, 3].')
    patches = x.reshape(b, g, p, g, p, 3).transpose(0, 1, 3, 2, 4, 5).reshape(b, g * g, -1)
    kernel = weights['image/patch/kernel'].reshape(-1, sizes.image.width)
    first = jnp.broadcast_to(weights['image/class'], (b, 1, sizes.image.width))
    x = jnp.concatenate([first, patches @ kernel], 1) + weights['image/positions'][None]
    x = _normalise(x, weights['image/pre/scale'], weights['image/pre/bias'])
    x = _blocks(spec, weights, 'image', x, spec.image_heads, None)
    x = _normalise(x[:, 0], weights['image/post/scale'], weights['image/post/bias'])
    return x @ weights['image/projection']


def text_features(spec: Spec, weights: dict, tokens: jax.Array) -> jax.Array:
    """Features [b, features] of texts as tokens [b, context] (bpe.Tokenizer), not normalised.

    The end of a text is its highest token, the last of the vocabulary, as in OpenAI's code.
    """
    context = weights['text/positions'].shape[0]
    if tokens.ndim != 2 or tokens.shape[1] != context:
        raise JaxinvError(f'tokens {tokens.shape} are not [b, {context}].')
    x = weights['text/tokens'][tokens] + weights['text/positions'][None]
    later = jnp.triu(jnp.full((context, context), -jnp.inf, x.dtype), 1)
    x = _blocks(spec, weights, 'text', x, spec.text_heads, later)
    x = _normalise(x, weights['text/final/scale'], weights['text/final/bias'])
    ends = x[jnp.arange(len(x)), tokens.argmax(-1)]
    return ends @ weights['text/projection']


def unit(features: jax.Array) -> jax.Array:
    """Features of length 1: their products are CLIP's similarities, from -1 to 1."""
    return features / jnp.linalg.norm(features, axis=-1, keepdims=True)


def _blocks(spec, weights, tower, x, heads, mask):
    prefix = f'{tower}/blocks/'
    stacked = {n.removeprefix(prefix): a for n, a in weights.items() if n.startswith(prefix)}
    activation = ACTIVATIONS[spec.activation]

    def block(x, own):
        def dense(name, x):
            return x @ own[f'{name}/kernel'] + own[f'{name}/bias'][None, None]

        y = _normalise(x, own['norm_1/scale'], own['norm_1/bias'])
        x = x + dense('out', _attend(dense('qkv', y), heads, mask))
        y = _normalise(x, own['norm_2/scale'], own['norm_2/bias'])
        return x + dense('down', activation(dense('up', y))), None

    return jax.lax.scan(block, x, stacked)[0]


def _attend(qkv, heads, mask):
    """Attention [b, rows, width] of queries, keys and values [b, rows, 3 width]."""
    b, rows, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    q, k, v = jnp.moveaxis(qkv.reshape(b, rows, 3, heads, width // heads), 2, 0)
    products = jnp.einsum('bqhc,bkhc->bhqk', q, k) / math.sqrt(width // heads)
    if mask is not None:
        products = products + mask[None, None]
    shares = jax.nn.softmax(products, axis=-1)
    return jnp.einsum('bhqk,bkhc->bqhc', shares, v).reshape(b, rows, width)


def _normalise(x, scale, bias):
    lead = (None,) * (x.ndim - 1)
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + EPSILON)
    return x * scale[lead] + bias[lead]
