"""Masks of named regions of a picture: where an edit may act.

    mask = mask_of('mouth', image_uint8)      # bool [h, w]

Parts of a face are polygons of its landmarks; face, hair, clothes and background are classes of
face.py. What is not there, or too small to be trusted, is an error, never an empty mask.
"""

import difflib
import os
import pathlib

import numpy as np
import PIL.Image
import scipy.ndimage

from jaxinv import faces
from jaxinv.errors import JaxinvError
from jaxinv.io import expanded
from jaxinv.segmentation import face
from jaxinv.segmentation.label_maps import read_map
from jaxinv.text import printable

PARTS = ('brows', 'eyes', 'mouth', 'nose')
# Classes: the beginning of their segments' names (face.segment).
CLASSES = {
    'face': ('face', *PARTS),
    'hair': ('hair or hat',),
    'clothes': ('neck and clothes',),
    'background': ('background',),
}
NAMES = (*sorted(CLASSES), *PARTS)
LEAST = 0.05  # of the picture, of a class
SUFFIXES = ('.png', '.npy')


def is_file(region: str | os.PathLike) -> bool:
    return pathlib.PurePath(region).suffix.lower() in SUFFIXES


def check(region: str | os.PathLike) -> None:
    """Raises JaxinvError unless `region` is one of NAMES or an existing file of a mask."""
    if is_file(region):
        if not expanded(region).is_file():
            raise JaxinvError(f'there is no file {printable(str(region))} to read a region from.')
    elif region not in NAMES:
        close = difflib.get_close_matches(str(region), NAMES, n=1, cutoff=0.5)
        hint = f' Did you mean {close[0]!r}?' if close else ''
        raise JaxinvError(
            f'no region {printable(str(region))!r}.{hint} Regions: {", ".join(NAMES)}; or a mask '
            f'({", ".join(SUFFIXES)}).'
        )


def mask_of(region: str | os.PathLike, image_uint8, name: str = 'the picture') -> np.ndarray:
    """bool [h, w]: the pixels of a region of a uint8 picture [h, w, 3].

    region: one of NAMES, for which the picture is FFHQ-aligned, or the path of a mask (PNG or npy)
    of two values, of which the larger one is inside; it is resized by nearest neighbours. name: of
    the picture, for messages.

    Raises JaxinvError for another region, without a face, and for a class that covers less than
    LEAST of the picture.
    """
    check(region)
    image_uint8 = np.asarray(image_uint8)
    shape = image_uint8.shape[:2]
    if is_file(region):
        return _read(expanded(region), shape)
    landmarks = faces.landmarks_aligned(image_uint8)
    if landmarks is None:
        raise JaxinvError(f'there is no FFHQ-aligned face in {name}, so no region {region!r}.')
    if region in PARTS:
        return face.features(landmarks, shape)[region]
    segments = face.segment(image_uint8, landmarks)
    chosen = [i for i, n in enumerate(segments.names) if n.startswith(CLASSES[region])]
    mask = np.isin(segments.labels, chosen)
    if mask.mean() < LEAST:
        raise JaxinvError(
            f'{region!r} covers {100 * mask.mean():.1f} % of {name}, less than {100 * LEAST:g} %, '
            'too little to be told from errors; give a mask of your own.'
        )
    return mask


def _read(path: pathlib.Path, shape) -> np.ndarray:
    segments = read_map(path, shape)
    if len(segments.names) != 2:
        raise JaxinvError(
            f'{printable(path.name)} has {len(segments.names)} different values; a mask has two, '
            'of which the larger one is inside.'
        )
    return segments.labels == 1


def soft(mask, width: float) -> np.ndarray:
    """float32 [h, w] of bool [h, w]: 1 inside, falling to 0 within `width` pixels outside.

    Outwards, so that a part which an edit makes larger, as a smiling mouth, fits in.
    """
    distance = scipy.ndimage.distance_transform_edt(~np.asarray(mask, bool))
    t = np.clip(1 - distance / max(width, 1e-6), 0, 1)
    return np.float32(t * t * (3 - 2 * t))


def shrink(mask, size: tuple[int, int]) -> np.ndarray:
    """float32 [h, w] -> [*size] by area means: the mask at the size of a feature map."""
    image = PIL.Image.fromarray(np.float32(mask))
    return np.asarray(image.resize(size[::-1], PIL.Image.Resampling.BOX))
