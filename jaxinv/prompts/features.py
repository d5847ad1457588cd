"""Texts and images in CLIP's space, and the losses on them."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import rendering
from jaxinv.errors import JaxinvError
from jaxinv.networks import clip
from jaxinv.types import GeneratorSpec

BATCH = 64  # texts of a forward pass
_PHRASES = (
    'a bad photo of|a low resolution photo of|a rendering of|graffiti of|a cropped photo of|'
    'a tattoo of|a bright photo of|a dark photo of|a drawing of|a close-up photo of|'
    'a black and white photo of|a painting of|a pixelated photo of|a sculpture of|'
    'a jpeg corrupted photo of|a blurry photo of|a photo of|a good photo of|a doodle of|'
    'a sketch of|a rendition of|art of|itap of'
).split('|')
_KINDS = 'hard to see|clean|dirty|cool|large|nice|weird|small'.split('|')
_THINGS = 'embroidered {}|plastic {}|origami {}|toy {}|plushie {}|cartoon {}'.split('|')
# The 79 phrases by which StyleCLIP averages a text (section 6), of CLIP's 80 for ImageNet.
TEMPLATES = (
    *(f'{phrase} {article} {{}}.' for phrase in _PHRASES for article in ('a', 'the')),
    *(f'a photo of {article} {kind} {{}}.' for kind in _KINDS for article in ('a', 'the')),
    *(f'{article} {thing}.' for thing in _THINGS for article in ('a', 'the')),
    *(f'{article} {{}} in a video game.' for article in ('a', 'the')),
    'a photo of my {}.', 'a photo of one {}.', 'itap of my {}.',
)  # fmt: skip
_ARTICLES = ('a ', 'an ', 'the ')


@functools.lru_cache(maxsize=4)
def _text_program(spec: clip.Spec):
    return jax.jit(functools.partial(clip.text_features, spec))


def text_features(network: clip.Clip, prompts: Sequence[str], templates: bool = False):
    """Unit features [n, features] of texts, on the host.

    templates: each text is put into TEMPLATES, without an article before it, and the unit features
    are averaged, as in section 6. Raises JaxinvError for texts that are empty or too long.
    """
    if not len(prompts) or not all(isinstance(p, str) and p.strip() for p in prompts):
        raise JaxinvError(f'texts are {list(prompts)!r}; give at least one, none of them empty.')
    texts = [phrase for prompt in prompts for phrase in phrases_of(prompt, templates)]
    context = network.weights['text/positions'].shape[0]
    tokens = network.tokenizer(texts, context)
    program, found = _text_program(network.spec), []
    size = min(BATCH, len(tokens))
    for start in range(0, len(tokens), size):
        own = tokens[start : start + size]
        padded = np.concatenate([own, np.repeat(own[-1:], size - len(own), 0)])
        with rendering.full_precision():
            found.append(np.asarray(program(network.weights, padded))[: len(own)])
    features = _unit(np.concatenate(found).reshape(len(prompts), -1, found[0].shape[1]))
    return _unit(features.mean(1))


def phrases_of(prompt: str, templates: bool) -> list[str]:
    """The texts that stand for a prompt."""
    prompt = prompt.strip()
    if not templates:
        return [prompt]
    for article in _ARTICLES:
        if prompt.lower().startswith(article):
            prompt = prompt[len(article) :]
            break
    return [template.replace('{}', prompt) for template in TEMPLATES]


def _unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def image_features(spec: clip.Spec, weights, images, preparation: str = 'clip'):
    """Unit features [b, features] of images [b, h, h, 3] of about [-1, 1].

    preparation: 'clip' (`clip.prepare`), or 'official' as StyleCLIP's code: means of areas, without
    CLIP's normalisation.
    """
    if preparation == 'clip':
        return clip.unit(clip.image_features(spec, weights, images))
    sizes = clip.sizes_of(weights)
    return clip.unit(clip.patch_features(spec, weights, _areas(images, sizes.grid * sizes.patch)))


def _areas(images, size: int):
    """Means over size x size equal squares: as images repeated `size` times, then pooled."""
    height = images.shape[1]
    edges = np.arange(size + 1) * height / size
    rows = np.arange(height)
    overlap = np.minimum(edges[1:, None], rows + 1) - np.maximum(edges[:-1, None], rows)
    matrix = jnp.asarray(np.clip(overlap, 0, None) * size / height, images.dtype)
    x = jnp.einsum('sh,bhwc->bswc', matrix, images)
    return jnp.einsum('tw,bswc->bstc', matrix, x)


def check_clip(network, spec: GeneratorSpec) -> None:
    """Raises JaxinvError unless it is a Clip, and for a generator as `check_latent` does."""
    if not isinstance(network, clip.Clip):
        raise JaxinvError(
            f'clip is a {type(network).__name__}; give what jaxinv.load_clip returned.'
        )
    check_latent(spec)


def check_latent(spec: GeneratorSpec) -> None:
    """Raises JaxinvError for generators whose w holds a class."""
    if spec.moving_dims is not None:
        raise JaxinvError(
            f'{spec.name} has its class in w; edits by text are for StyleGAN2 and MobileStyleGAN.'
        )
