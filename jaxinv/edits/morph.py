"""Mixing of styles, and the way between two identities with their tuned generators.

    w = mix(w_one, w_other, (8, None), spec.num_ws)          # rows 8... of the other
    for frame in morph(generator, (tuned_1, w_1), (tuned_2, w_2), frames=60):
        ...                                                  # float32 [h, w, 3]

Mixing takes rows of W+ from another code (Karras et al. 2019, section 3.1): the first rows hold
pose and shape, the last ones colours. A morph goes from one pivot to another in a straight line of
W or W+ and, where each identity has weights of its own, in a straight line of the weights, so that
each end is the picture of its own generator.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv.edits.directions import EditError
from jaxinv.edits.edit import Direction, Edit, apply
from jaxinv.errors import JaxinvError
from jaxinv.generators import checks
from jaxinv.rendering import BATCH, full_precision, render
from jaxinv.types import Generator, Weights

Identity = tuple[Weights, Any]  # (weights, w [1, 1 or num_ws, w_dim])


def mix(
    w: Any,
    other: Any,
    rows: tuple[int | None, int | None] | None,
    num_ws: int,
    amount: float = 1.0,
) -> jnp.ndarray:
    """w [b, k, w_dim] with rows [start, stop) of `other` [1, k, w_dim]; k is 1 or num_ws.

    rows: None = all. amount: 1 = the other's rows, 0 = w's own, between them in a straight line.
    Raises EditError for rows or shapes that the generator does not have.
    """
    other = np.asarray(other, np.float32)
    if other.ndim != 3 or len(other) != 1:
        raise EditError(f'the other code has shape {list(other.shape)}; expected [1, k, w_dim]')
    direction = Direction('mix', other[0], rows, towards=True)
    return apply(w, Edit('mix', ((direction, amount),)), num_ws)


def interpolate_weights(first: Weights, second: Weights, amount) -> Weights:
    """first + amount * (second - first) of the parameters; buffers are those of `first`.

    Raises JaxinvError if they are not of one architecture.
    """
    _check_same(first, second)
    params = jax.tree.map(lambda a, b: a + amount * (b - a), first['params'], second['params'])
    return {**first, 'params': params}


def morph(
    generator: Generator,
    first: Identity,
    second: Identity,
    frames: int = 30,
    amounts: Sequence[float] | None = None,
) -> Iterator[np.ndarray]:
    """Pictures float32 [h, w, 3] of about [-1, 1] from one identity to another, one by one.

    first, second: weights and code of each. With the same weights object only the code moves.
    frames: at equal distances, both ends included; amounts: these ones instead, 0 = first, 1 =
    second. Memory does not depend on the number of frames: BATCH pictures of shared weights; of two
    weights both, the one between them, and one picture.

    Raises JaxinvError for codes or weights that do not fit the generator or each other.
    """
    if amounts is None:
        if frames < 2:
            raise JaxinvError(f'frames is {frames}; a morph has at least 2, its ends.')
        amounts = np.linspace(0, 1, frames)
    amounts = np.asarray(amounts, np.float32)
    if amounts.ndim != 1 or not np.isfinite(amounts).all():
        raise JaxinvError(f'amounts have shape {list(amounts.shape)}; they are finite numbers [n].')
    codes = [jnp.asarray(w, jnp.float32) for _, w in (first, second)]
    for w in codes:
        checks.check_w(w, generator.spec)
        if len(w) != 1:
            raise JaxinvError(f'a code has shape {list(w.shape)}; give one, [1, k, w_dim].')
    _check_same(first[0], second[0])
    return _frames(generator, first[0], second[0], *codes, amounts)


def _frames(generator, first, second, start, end, amounts):
    shared = first is second
    first = jax.device_put(first)  # once, not with every frame
    if shared:
        start, end = np.asarray(start), np.asarray(end)
        for i in range(0, len(amounts), BATCH):
            part = amounts[i : i + BATCH, None, None]
            yield from render(generator, first, (1 - part) * start + part * end)
        return
    between, second = _between(generator), jax.device_put({'params': second['params']})
    for amount in amounts:
        with full_precision():
            image = np.asarray(between(first, second, start, end, amount))[0]
        yield image


@functools.cache
def _between(generator):
    """One program: the weights between two, and their picture."""

    def picture(first, second, start, end, amount):
        weights = interpolate_weights(first, second, amount)
        return generator.synthesize(weights, (1 - amount) * start + amount * end)[0]

    return jax.jit(picture)


def _check_same(first: Weights, second: Weights) -> None:
    shapes = [
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
        for leaves in (jax.tree_util.tree_leaves_with_path(w['params']) for w in (first, second))
    ]
    odd = sorted(set(shapes[0].items()) ^ set(shapes[1].items()))
    if odd:
        name, shape = odd[0]
        raise JaxinvError(
            f'the two generators are of different architectures: {name} {list(shape)} is in one of '
            'them only.'
        )
