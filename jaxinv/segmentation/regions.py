"""Masks of named regions of a picture: where an edit may act.

    mask = mask_of('mouth', image_uint8)      # bool [h, w]

  brows, eyes, mouth, nose          polygons of dlib's 68 landmarks (face.py)
  irises, lips                      of MediaPipe's 478 landmarks (faces/mesh.py)
  face, hair, clothes, background   classes of face.py, by landmarks and colour
  person, cat, car, ...             PASCAL VOC's 20 classes, by DeepLabV3 on MobileNetV2
  foreground                        what stands out, of any class, by U2-Net-P

What is not there, or too small to be trusted, is an error, never an empty mask.
"""

import difflib
import functools
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import scipy.ndimage

from jaxinv import faces
from jaxinv.errors import JaxinvError
from jaxinv.faces import mesh
from jaxinv.io import expanded
from jaxinv.segmentation import face
from jaxinv.segmentation.label_maps import Segments, read_map
from jaxinv.text import printable
from jaxinv.weights import graphs

PARTS = ('brows', 'eyes', 'mouth', 'nose')
# Outlines by points of the 478, and how far outside they are widened, in sides of the picture.
MESH = {
    'irises': (((469, 470, 471, 472), (474, 475, 476, 477)), 0.008),
    'lips': (
        (
            (
                61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39,
                40, 185,
            ),
        ),
        0.008,
    ),
}  # fmt: skip
OBJECTS = (  # in DeepLab's order, after the background
    'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat', 'chair', 'cow',
    'dining table', 'dog', 'horse', 'motorbike', 'person', 'potted plant', 'sheep', 'sofa', 'train',
    'tv',
)  # fmt: skip
SALIENT = 'foreground'
# Classes: the beginning of their segments' names (face.segment).
CLASSES = {
    'face': ('face', *PARTS),
    'hair': ('hair or hat',),
    'clothes': ('neck and clothes',),
    'background': ('background',),
}
NAMES = (*sorted(CLASSES), *PARTS, *MESH, SALIENT, *OBJECTS)
LEAST = 0.05  # of the picture, of a class
_DEEPLAB_SIZE, _SALIENT_SIZE = 257, 320
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
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


class NotThere(JaxinvError):
    """A region is not in a picture, or covers too little of it."""


def mask_of(region: str | os.PathLike, image_uint8, name: str = 'the picture') -> np.ndarray:
    """bool [h, w]: the pixels of a region of a uint8 picture [h, w, 3].

    region: one of NAMES, for which the picture is FFHQ-aligned, or the path of a mask (PNG or npy)
    of two values, of which the larger one is inside; it is resized by nearest neighbours. name: of
    the picture, for messages.

    Raises JaxinvError for another region, and NotThere without a face and for a class that covers
    less than LEAST of the picture.
    """
    return Finder(image_uint8, name).mask_of(region)


class Finder:
    """mask_of for several regions of one picture: what they share is computed once."""

    def __init__(self, image_uint8, name: str = 'the picture'):
        self._image, self._name = np.asarray(image_uint8), name

    def mask_of(self, region: str | os.PathLike) -> np.ndarray:
        check(region)
        shape = self._image.shape[:2]
        if is_file(region):
            return _read(expanded(region), shape)
        if region in OBJECTS:
            return self._enough(self._objects == OBJECTS.index(region) + 1, region)
        if region == SALIENT:
            return self._enough(_salient(self._image), region)
        missing = NotThere(
            f'there is no FFHQ-aligned face in {self._name}, so no region {region!r}.'
        )
        if region in MESH:
            points = self._points
            if np.isnan(points).any():
                raise missing
            outlines, margin = MESH[region]
            inside = np.any([face.mask(points[list(own)], shape) for own in outlines], axis=0)
            return scipy.ndimage.distance_transform_edt(~inside) <= margin * len(inside)
        if self._landmarks is None:
            raise missing
        if region in PARTS:
            return face.features(self._landmarks, shape)[region]
        segments = self._segments
        chosen = [i for i, n in enumerate(segments.names) if n.startswith(CLASSES[region])]
        return self._enough(np.isin(segments.labels, chosen), region)

    @functools.cached_property
    def _landmarks(self) -> np.ndarray | None:
        return faces.landmarks_aligned(self._image)

    @functools.cached_property
    def _points(self) -> np.ndarray:
        return mesh.landmarks478(self._image[None])[0, :, :2]

    @functools.cached_property
    def _segments(self) -> Segments:
        return face.segment(self._image, self._landmarks)

    @functools.cached_property
    def _objects(self) -> np.ndarray:
        return _objects(self._image)

    def _enough(self, mask, region: str) -> np.ndarray:
        if mask.mean() < LEAST:
            raise NotThere(
                f'{region!r} covers {100 * mask.mean():.1f} % of {self._name}, less than '
                f'{100 * LEAST:g} %, too little to be told from errors; give a mask of your own.'
            )
        return mask


def _objects(image_uint8) -> np.ndarray:
    """The class of each pixel, 0 ... 20, [h, w]."""
    scores = np.asarray(_deeplab(graphs.load('deeplab'), np.float32(image_uint8)[None]))[0]
    return _enlarged(scores, image_uint8.shape[:2]).argmax(-1)


def _salient(image_uint8) -> np.ndarray:
    """bool [h, w]: what stands out."""
    scores = np.asarray(_u2net(graphs.load('u2netp'), np.float32(image_uint8)[None]))[0]
    return _enlarged(scores[..., None], image_uint8.shape[:2])[..., 0] > 0.5


@jax.jit
def _deeplab(network, images):
    size = (len(images), _DEEPLAB_SIZE, _DEEPLAB_SIZE, 3)
    (scores,) = network(jax.image.resize(images, size, 'linear') / 127.5 - 1)
    return scores[:, 0]


@jax.jit
def _u2net(network, images):
    size = (len(images), _SALIENT_SIZE, _SALIENT_SIZE, 3)
    small = jax.image.resize(images, size, 'linear') / 255
    mean, std = (jnp.array(x).reshape(1, 1, 1, 3) for x in (_MEAN, _STD))
    first, *_ = network((small - mean) / std)
    return first.reshape(len(images), _SALIENT_SIZE, _SALIENT_SIZE)


def _enlarged(maps, shape) -> np.ndarray:
    """float32 [h, w, c] -> [*shape, c], bilinear."""
    planes = [PIL.Image.fromarray(np.float32(maps[..., i])) for i in range(maps.shape[-1])]
    bilinear = PIL.Image.Resampling.BILINEAR
    return np.stack([np.asarray(plane.resize(shape[::-1], bilinear)) for plane in planes], -1)


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
