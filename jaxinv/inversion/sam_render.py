"""Images of SAM's codes outside the search: inversions and edits, image by image."""

import functools
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from jaxinv import edits as edits_lib
from jaxinv.inversion import sam
from jaxinv.types import Generator, GeneratorSpec

EDITS_PER_PASS = 3  # with the unedited image a batch of 4, which bounds memory


def edit_deltas(edits: Sequence, w_plus, spec: GeneratorSpec) -> np.ndarray:
    """What each edit adds to w_plus [n, num_ws, w_dim]: [e, n, num_ws, w_dim]."""
    w_plus = np.asarray(w_plus)
    check_edits(edits)
    deltas = [np.asarray(edits_lib.difference(w_plus, edit, spec.num_ws)) for edit in edits]
    return np.stack(deltas) if deltas else np.zeros((0, *w_plus.shape), np.float32)


def check_edits(edits: Sequence) -> None:
    """Raises EditError for edits that SAM's codes do not take: those of styles."""
    for edit in edits:
        if any(direction.styles is not None for direction, _ in edit.steps):
            raise edits_lib.EditError(
                f'{edit.name} moves styles; edits of codes of SAM move w, because regions keep the '
                'features of the unedited code'
            )


@functools.cache
def _editor(generator, mixing):
    return jax.jit(
        lambda weights, codes, masks, deltas: sam.synthesize_edits(
            generator, weights, codes, masks, deltas, mixing=mixing
        )
    )


def render_each(
    generator: Generator, weights, codes: sam.Codes, masks, deltas, mixing: str = 'with_offsets'
) -> Iterator[np.ndarray]:
    """For each image its inversion and its edits, [1 + e, h, w, 3].

    codes and masks as in `sam.synthesize`, n images; deltas [e, n, num_ws, w_dim] of `edit_deltas`.
    One program, whatever n and e are; it holds EDITS_PER_PASS + 1 images.
    """
    editor, count = _editor(generator, mixing), len(deltas)
    passes = max(-(-count // EDITS_PER_PASS), 1)
    padded = np.zeros((passes * EDITS_PER_PASS, *np.shape(codes.w_plus)), np.float32)
    padded[:count] = deltas
    for i in range(len(codes.w_plus)):
        own = jax.tree.map(lambda x, i=i: x[i : i + 1], (codes, dict(masks)))
        pictures = []
        for deltas_of_pass in np.split(padded[:, i : i + 1], passes):
            with jax.default_matmul_precision('highest'):  # results, see jaxinv/rendering.py
                found = np.asarray(editor(weights, *own, deltas_of_pass))[:, 0]
            pictures.append(found if not pictures else found[1:])
        yield np.concatenate(pictures)[: 1 + count]
