"""A class for every picture of a run, where w holds the class and an inversion leaves it alone.

BigGAN-deep's w is [z, embedding of the class] (GeneratorSpec.moving_dims): the search moves z, and
each picture's code keeps the embedding of the class that it was given or is predicted to show.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv import classify, generators, results
from jaxinv.types import Generator, GeneratorSpec, Weights


class Classes(NamedTuple):
    """Of the pictures of a run."""

    choice: classify.Choice
    embeddings: np.ndarray  # [n, e], the last e numbers of their codes

    def rows(self, which) -> 'Classes':
        """Of the pictures of these numbers."""
        labels, candidates = self.choice
        own = tuple(candidates[i] for i in which) if candidates else ()
        return Classes(classify.Choice(labels[which], own), self.embeddings[which])


def in_w(spec: GeneratorSpec) -> bool:
    """Whether every code names a class of its own."""
    return bool(spec.label_dim) and spec.moving_dims is not None


def embeddings(generator: Generator, weights: Weights, labels=None) -> np.ndarray | None:
    """What codes of the classes `labels` [n] end with, [n, e]; None = of all.

    None for a generator whose codes do not name a class.
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
    """The classes of targets (data.Targets), and the generator of the first one.

    Of that generator's codes only the first numbers are right for the other pictures: what stays is
    `Classes.embeddings`. Raises JaxinvError as classify.choose_labels.
    """
    spec = generator.spec
    if not in_w(spec):
        return generator, None
    choice = classify.choose_labels(targets.images_uint8, label, spec.label_dim, log, targets.names)
    found = Classes(choice, embeddings(generator, weights, choice.labels))
    return generators.with_label(generator, int(choice.labels[0])), found


def tables(names, classes: Classes | None) -> list[results.Table]:
    """For the report: which class each picture was inverted in, and what else it could show."""
    if classes is None:
        return []
    labels, candidates = classes.choice.labels.tolist(), classes.choice.candidates
    shown = [classify.describe(c) for c in candidates] or ['chosen by --config.label'] * len(labels)
    values = {
        name: {'label': label, 'candidates': candidates[i] if candidates else []}
        for i, (name, label) in enumerate(zip(names, labels, strict=True))
    }
    rows = [list(row) for row in zip(names, map(str, labels), shown, strict=True)]
    return [
        results.Table(
            'classes',
            'Classes',
            ['picture', 'class', 'likeliest classes, with probabilities'],
            rows,
            'The class is kept during the inversion; --config.label=CLASS takes another for all.',
            values,
        )
    ]
