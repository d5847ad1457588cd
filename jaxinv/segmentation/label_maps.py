"""Label maps: the segment of each pixel; reads those of users from PNG and npy files."""

import os
import pathlib
import warnings
from typing import NamedTuple

import numpy as np
import PIL.Image

from jaxinv.converters import array_files, file_view
from jaxinv.errors import JaxinvError

MAX_PIXELS = 2**25  # of a label map
MAX_SEGMENTS = 256  # of a user's map; a file with more is a photograph or a depth map


class Segments(NamedTuple):
    labels: np.ndarray  # int32 [h, w]; each of 0 ... len(names) - 1 occurs
    names: tuple[str, ...]


def number(labels, names=None) -> Segments:
    """Segments of integer labels [h, w], renumbered from 0 in their order.

    names: {label: name} or None; a label N without a name becomes 'segment N'.
    """
    old, labels = np.unique(np.asarray(labels), return_inverse=True)
    names = names or {}
    return Segments(
        labels.reshape(labels.shape).astype(np.int32),
        tuple(names.get(int(v), f'segment {int(v)}') for v in old),
    )


def resize(segments: Segments, size: int | tuple[int, int]) -> Segments:
    """Nearest-neighbour resize to `size` (height, width); segments without a pixel are dropped."""
    size = (size, size) if isinstance(size, int) else tuple(size)
    labels = _nearest(segments.labels, size)
    return number(labels, dict(enumerate(segments.names)))


def read_map(path: str | os.PathLike, size: tuple[int, int]) -> Segments:
    """A user's label map, resized to `size` (height, width) by nearest neighbours.

    PNG: palette indices, grey values (8 or 16 bits) or colours are the labels; npy: integers or
    booleans [h, w]. Raises JaxinvError if the file is unreadable, has another aspect ratio than the
    picture, or more than MAX_SEGMENTS labels.
    """
    path = pathlib.Path(path)
    labels = _read_npy(path) if path.suffix.lower() == '.npy' else _read_picture(path)
    (height, width), (rows, columns) = size, labels.shape
    if abs(rows * width - columns * height) > max(rows, columns, height, width):
        raise JaxinvError(
            f'{path} has {columns} x {rows} labels for a picture of {width} x {height} pixels; '
            'a label map must have the shape of its (aligned) picture.'
        )
    segments = number(_nearest(labels, size))
    if len(segments.names) > MAX_SEGMENTS:
        raise JaxinvError(
            f'{path} has {len(segments.names)} labels and at most {MAX_SEGMENTS} are allowed; '
            'is it a label map, saved without smoothing?'
        )
    return segments


def _read_npy(path: pathlib.Path) -> np.ndarray:
    labels = array_files.read(path)[0].get('')  # None: an .npz file
    if not isinstance(labels, np.ndarray) or labels.ndim != 2 or labels.dtype.kind not in 'biu':
        content = getattr(labels, 'shape', type(labels).__name__)
        raise JaxinvError(f'{path} holds {content}; a label map is whole numbers [h, w].')
    if labels.size == 0:
        raise JaxinvError(f'{path} is empty.')
    return labels.astype(np.int64)


def _read_picture(path: pathlib.Path) -> np.ndarray:
    with file_view.reading(path, 'a readable PNG'), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Pillow's, about unusual files
        with PIL.Image.open(path, formats=('PNG',)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise JaxinvError(
                    f'{path} has {image.width} x {image.height} pixels; at most '
                    f'{MAX_PIXELS // 10**6} million are read.'
                )
            if image.mode not in ('1', 'L', 'P', 'I', 'I;16', 'I;16B'):
                # Each colour is a label; channels in the order RGB.
                image = image.convert('RGB')
            pixels = np.asarray(image).astype(np.int64)
    if pixels.ndim == 3:
        pixels = pixels @ np.array([1 << 16, 1 << 8, 1])
    return pixels


def _nearest(labels, size) -> np.ndarray:
    rows, columns = (
        np.minimum(((np.arange(s) + 0.5) * n / s).astype(int), n - 1)
        for n, s in zip(labels.shape, size, strict=True)
    )
    return labels[rows[:, None], columns]
