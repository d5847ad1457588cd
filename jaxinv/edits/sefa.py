"""SeFa: directions from the weights of a generator alone (Shen and Zhou 2021, arXiv:2007.06600).

A style is A w + b, so a unit direction n changes the styles of the chosen layers by A n, with their
A's one above the other. The directions of the largest |A n| are the eigenvectors of A^T A
(equation 3), in the order of their eigenvalues. Nothing is sampled.
"""

from typing import NamedTuple

import numpy as np

from jaxinv.edits.directions import EditError
from jaxinv.generators import style_space
from jaxinv.types import Generator, GeneratorSpec, Weights


class Factors(NamedTuple):
    """directions: [w_dim, w_dim], a unit row each; eigenvalues [w_dim], from the largest."""

    directions: np.ndarray
    eigenvalues: np.ndarray


def factorise(
    generator: Generator,
    weights: Weights,
    rows: tuple[int | None, int | None] | None = None,
    normalised: bool = False,
) -> Factors:
    """The directions of the layers that read the rows [start, stop) of W+; None = all rows.

    The layers are those of `layers_of`. normalised: rows of A have length 1, as in the official
    code; the paper has them as they are. The sign of an eigenvector is arbitrary: here its largest
    value is positive. Raises EditError for a generator without affine layers, or no such rows.
    """
    layers = layers_of(generator.spec, rows)
    a = [np.asarray(style_space.affine(generator.spec, weights, name)[0]) for name in layers]
    a = np.concatenate(a, axis=1).T.astype(np.float64)  # [channels of all layers, w_dim]
    if normalised:
        a = a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-12)
    values, vectors = np.linalg.eigh(a.T @ a)
    values, vectors = values[::-1], vectors.T[::-1]
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(1)[:, None], 1)
    return Factors((vectors * np.sign(largest)).astype(np.float32), values)


def layers_of(
    spec: GeneratorSpec, rows: tuple[int | None, int | None] | None = None
) -> tuple[str, ...]:
    """Names of the layers that read rows of W+, as in the official code.

    That of the image (torgb) counts only where no convolution reads its row.
    """
    if not spec.style_layers:
        raise EditError(f'SeFa needs affine layers of styles, which {spec.name} does not have')
    chosen = range(spec.num_ws)[slice(*rows)] if rows is not None else range(spec.num_ws)
    convolutions = {row for name, row, _ in spec.style_layers if not name.endswith('_torgb')}
    found = tuple(
        name
        for name, row, _ in spec.style_layers
        if row in chosen and not (name.endswith('_torgb') and row in convolutions)
    )
    if not found:
        raise EditError(f'SeFa: the rows of {spec.name} are 0..{spec.num_ws - 1}, not {rows}')
    return found
