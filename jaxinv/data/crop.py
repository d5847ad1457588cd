"""Crops pictures of any shape to squares, for generators that are not aligned by faces.

    crop      the largest central square; the default
    pad       the whole picture between black bars
    stretch   the whole picture, resized to a square
    4:3       or any WIDTH:HEIGHT: the largest central part of that shape, then as 'pad'

WIDTH:HEIGHT is for generators trained on wide pictures inside a square. LSUN cars are 512 x 384 in
512 x 512, and their generator always draws bars of that height. The bars are part of the target
and need no mask.
"""

import re

import numpy as np
import PIL.Image

from jaxinv.errors import JaxinvError

KINDS = ('crop', 'pad', 'stretch')
PADDING = 0  # black, as in the training pictures of the car generators


def check(fit: str) -> None:
    """Raises JaxinvError for an unknown `fit`."""
    if fit not in KINDS and _shape(fit) is None:
        raise JaxinvError(
            f"data.fit is {fit!r}; it can be 'auto', {', '.join(map(repr, KINDS))} or a shape such "
            "as '4:3'."
        )


def square(
    picture: PIL.Image.Image, resolution: int, fit: str = 'crop'
) -> tuple[np.ndarray, np.ndarray]:
    """A picture as a square, and which of its pixels are not padding.

    Returns (uint8 [resolution, resolution, 3], bool [resolution, resolution]). Raises JaxinvError
    for an unknown `fit`.
    """
    check(fit)
    if fit == 'crop':
        picture = _central_part(picture, (1, 1))
    elif fit not in KINDS:
        picture = _central_part(picture, _shape(fit))
    width, height = resolution, resolution
    if fit != 'stretch':
        scale = resolution / max(picture.size)
        width, height = (max(1, round(side * scale)) for side in picture.size)
    resized = resize(picture, (width, height))
    top, left = (resolution - height) // 2, (resolution - width) // 2
    pixels = np.full((resolution, resolution, 3), PADDING, np.uint8)
    valid = np.zeros((resolution, resolution), bool)
    pixels[top : top + height, left : left + width] = np.asarray(resized)
    valid[top : top + height, left : left + width] = True
    return pixels, valid


def resize(picture: PIL.Image.Image, size: tuple[int, int]) -> PIL.Image.Image:
    """A picture resized to (width, height) pixels.

    Integer factors average blocks, which is exact and does not ring; other factors use Lanczos.
    """
    integer = picture.width % size[0] == 0 and picture.height % size[1] == 0
    method = PIL.Image.Resampling.BOX if integer else PIL.Image.Resampling.LANCZOS
    return picture.resize(size, method)


def _shape(fit) -> tuple[int, int] | None:
    match = re.fullmatch(r'([1-9]\d{0,3}):([1-9]\d{0,3})', str(fit))
    return (int(match[1]), int(match[2])) if match else None


def _central_part(picture, shape):
    """The largest central part of the aspect ratio `shape` (width, height)."""
    scale = min(picture.width / shape[0], picture.height / shape[1])
    width, height = (max(1, round(side * scale)) for side in shape)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))
