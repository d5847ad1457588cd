"""Whole pictures of any shape as square targets, with a mask of what is picture and what padding.

For generators that know whole scenes (cars of 512 x 384 in 512 x 512) and for anything that has no
face to align. The longer side fills the square; the rest is black and does not count.
"""

import hashlib
import os
from collections.abc import Sequence

import numpy as np
import PIL.Image

from jaxinv import files
from jaxinv import images as pictures
from jaxinv.data import MIN_SIDE, NoImages, Targets

PADDING = 0  # black, as the bars in the pictures that car generators were trained on


def load_targets(
    images: str | os.PathLike | Sequence[str | os.PathLike], resolution: int
) -> tuple[Targets, np.ndarray]:
    """Targets and valid [n, resolution, resolution, 1], 1 on the picture and 0 on the padding.

    images: as in data.load_targets, without 'demo'. Raises NoImages if nothing usable is left.
    """
    found = files.find(images)
    skipped, stems, squares, valid, sources = list(found.skipped), [], [], [], []
    for stem, path in found.files:
        try:
            picture = pictures.read(path)
        except pictures.ImageError as error:
            skipped.append({'file': str(path), 'reason': str(error)})
            continue
        least = min(MIN_SIDE, resolution)
        if min(picture.size) < least:
            reason = (
                f'{path.name} is too small: {picture.width} x {picture.height} pixels, at least '
                f'{least} a side are needed.'
            )
            skipped.append({'file': str(path), 'reason': reason})
            continue
        square, mask = fit(picture, resolution)
        stems.append(stem)
        squares.append(square)
        valid.append(mask)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        sources.append({'file': str(path), 'sha256': digest, 'face': None, 'warning': None})
    if not squares:
        reasons = ' '.join(item['reason'] for item in skipped)
        raise NoImages(f'No usable picture in {images!r}. {reasons}'.strip())
    targets = Targets(files.unique_names(stems), np.stack(squares), sources, skipped)
    return targets, np.stack(valid)


def fit(picture: PIL.Image.Image, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """The picture in the middle of a black square [resolution, resolution, 3], and its mask."""
    scale = resolution / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    small = picture.resize((width, height), PIL.Image.Resampling.LANCZOS)
    top, left = (resolution - height) // 2, (resolution - width) // 2
    square = np.full((resolution, resolution, 3), PADDING, np.uint8)
    mask = np.zeros((resolution, resolution, 1), np.float32)
    square[top : top + height, left : left + width] = np.asarray(small)
    mask[top : top + height, left : left + width] = 1
    return square, mask
