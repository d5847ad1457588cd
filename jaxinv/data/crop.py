"""Pictures of any shape as squares, for generators whose pictures are not aligned by a face.

    crop      the middle square; the default
    pad       the whole picture, black bars where it lacks
    stretch   the whole picture, its sides made equal
    4:3       or any WIDTH:HEIGHT: the largest middle part of that shape, then as 'pad'

The last is for generators trained on wide pictures in a square: LSUN's cars are 512 x 384 in
512 x 512, and their generator makes bars of that height whatever the photograph, so a picture
should have them too. The bars are then part of what is reproduced and need no mask.
"""

import re

import numpy as np
import PIL.Image

from jaxinv.errors import JaxinvError

KINDS = ('crop', 'pad', 'stretch')
PADDING = 0  # black, as in the pictures that car generators were trained on


def check(how: str) -> None:
    """Raises JaxinvError for a way that does not exist."""
    if how not in KINDS and _shape(how) is None:
        raise JaxinvError(
            f"data.fit is {how!r}; it can be 'auto', {', '.join(map(repr, KINDS))} or a shape such "
            "as '4:3'."
        )


def square(
    picture: PIL.Image.Image, resolution: int, how: str = 'crop'
) -> tuple[np.ndarray, np.ndarray]:
    """The picture as uint8 [resolution, resolution, 3], and where it is: bool, the same size.

    Raises JaxinvError for an unknown `how`.
    """
    check(how)
    if how == 'crop':
        picture = _middle(picture, (1, 1))
    elif how not in KINDS:
        picture = _middle(picture, _shape(how))
    width, height = resolution, resolution
    if how != 'stretch':
        scale = resolution / max(picture.size)
        width, height = (max(1, round(side * scale)) for side in picture.size)
    small = resize(picture, (width, height))
    top, left = (resolution - height) // 2, (resolution - width) // 2
    pixels = np.full((resolution, resolution, 3), PADDING, np.uint8)
    valid = np.zeros((resolution, resolution), bool)
    pixels[top : top + height, left : left + width] = np.asarray(small)
    valid[top : top + height, left : left + width] = True
    return pixels, valid


def resize(picture: PIL.Image.Image, size: tuple[int, int]) -> PIL.Image.Image:
    """To (width, height). By whole factors the mean of each block is exact and does not ring."""
    whole = picture.width % size[0] == 0 and picture.height % size[1] == 0
    method = PIL.Image.Resampling.BOX if whole else PIL.Image.Resampling.LANCZOS
    return picture.resize(size, method)


def _shape(how) -> tuple[int, int] | None:
    match = re.fullmatch(r'([1-9]\d{0,3}):([1-9]\d{0,3})', str(how))
    return (int(match[1]), int(match[2])) if match else None


def _middle(picture, shape):
    """The largest part of the shape (width, height) around the middle."""
    scale = min(picture.width / shape[0], picture.height / shape[1])
    width, height = (max(1, round(side * scale)) for side in shape)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))
