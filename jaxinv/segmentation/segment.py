"""Segments of a picture: the regions that share one latent space (SAM section 3.1, refinement).

    segments = segment(image_uint8)                    # of a face if there is one, else of colours
    segments.labels, segments.names                    # int32 [h, w]; ('face', 'eyes', ...)

The paper takes a segmentation network; here landmarks (segmentation/face.py) and superpixels do its
work without weights. A network (segmentation/torch_models.py) or a label map (segmentation/label_maps.py) comes in instead.
"""

import functools
import os
import pathlib

import numpy as np

from jaxinv import faces
from jaxinv.errors import JaxinvError
from jaxinv.segmentation import face, torch_models
from jaxinv.segmentation.label_maps import Segments, number, read_map
from jaxinv.segmentation.superpixels import join, superpixels

PARTS = 12  # regions of a picture without a face
METHODS = ('auto', 'face', 'slic')
LEAST = 1e-3  # of a picture; less of what a network names is left to its surroundings


def segment(
    image_uint8,
    how: str | os.PathLike = 'auto',
    *,
    name: str = '',  # of the picture, to find its map if `how` is a folder
    parts: int = PARTS,  # of 'slic', and of what a network leaves unnamed
) -> Segments:
    """The segments of a picture [h, w, 3].

    how: 'face' (FFHQ-aligned; parts of the face, hair or hat, clothes, background), 'slic'
    (neighbouring superpixels of like colour joined until `parts` are left), 'auto' ('face' if one
    stands where alignment puts it, else 'slic'), 'torchvision' or 'transformers' (segmentation/torch_models.py),
    a label map (label_maps.read_map), or a folder of maps NAME.png or NAME.npy. Raises JaxinvError
    for a map that cannot be used, without a face, or without the network's package.
    """
    image_uint8 = np.asarray(image_uint8)
    if torch_models.is_asked_for(how):
        return by_names(image_uint8, torch_models.find(image_uint8, str(how)), parts)
    if how in ('auto', 'face'):
        landmarks = faces.landmarks_aligned(image_uint8)
        if landmarks is not None:
            return face.segment(image_uint8, landmarks)
        if how == 'face':
            raise JaxinvError(
                f'no face stands where FFHQ alignment puts it in {name or "the picture"}; '
                "take segments 'slic' or 'auto'."
            )
    if how in METHODS:
        return _by_color(image_uint8, parts)
    return read_map(_map_of(how, name), image_uint8.shape[:2])


def check(how: str | os.PathLike) -> None:
    """Raises JaxinvError for a way to segment that does not exist here; see `segment`."""
    if torch_models.is_asked_for(how):
        torch_models.check(str(how))
    elif how not in METHODS and not pathlib.Path(how).exists():
        raise _unknown(how)


def _map_of(how, name: str) -> pathlib.Path:
    path = pathlib.Path(how)
    if path.is_dir():
        for suffix in ('.png', '.npy'):
            if (path / f'{name}{suffix}').is_file():
                return path / f'{name}{suffix}'
        raise JaxinvError(f'{path} holds neither {name}.png nor {name}.npy.')
    if not path.is_file():
        raise _unknown(how)
    return path


def _unknown(how) -> JaxinvError:
    ways = ', '.join((*METHODS, *torch_models.DEFAULTS))
    return JaxinvError(
        f'segments.how is {str(how)!r}, neither one of {ways} nor a label map or folder of maps; '
        'check the spelling.'
    )


def _by_color(image_uint8, parts: int, inside=None) -> Segments:
    """inside: bool [h, w], where segments are wanted, None = everywhere; -1 may stand elsewhere."""
    if parts < 1:
        raise JaxinvError(f'segments.parts is {parts}; it must be at least 1.')
    found = superpixels(image_uint8)
    members = np.unique(found.labels if inside is None else found.labels[inside])
    region = np.full(len(found.areas), -1)
    region[members] = join(found, members, parts)
    labels = region[found.labels].astype(np.int32)
    return Segments(labels, tuple(f'part {i + 1}' for i in range(region.max() + 1)))


def by_names(image_uint8, found, parts: int) -> Segments:
    """Segments of what has a name: `found` is [(name, mask bool [h, w])], later ones on top.

    The rest is divided by colour into `parts` regions, or fewer as it is less than the picture.
    """
    labels = np.full(image_uint8.shape[:2], -1)
    names, seen = {}, {}
    for name, mask in found:
        if mask.mean() < LEAST:
            continue
        seen[name] = seen.get(name, 0) + 1
        names[len(names)] = name if seen[name] == 1 else f'{name} {seen[name]}'
        labels[mask] = len(names) - 1
    rest = labels < 0
    if rest.any():
        others = _by_color(image_uint8, max(1, round(parts * rest.mean())), rest)
        labels[rest] = len(names) + others.labels[rest]
        names |= {len(names) + i: name for i, name in enumerate(others.names)}
    return number(labels, names)


# --- Pictures of segments -------------------------------------------------------------------------


@functools.cache
def palette(count: int) -> np.ndarray:
    """Distinct colours uint8 [count, 3]: hues a golden angle apart, in two lightnesses."""
    import colorsys

    colors = [
        colorsys.hls_to_rgb(i * 0.381966 % 1, (0.45, 0.65)[i % 2], 0.75) for i in range(count)
    ]
    return np.rint(255 * np.array(colors)).astype(np.uint8)


def overlay(image_uint8, segments: Segments, strength: float = 0.45) -> np.ndarray:
    """The picture tinted by segment, with their borders drawn: uint8 [h, w, 3]."""
    colors = palette(len(segments.names))[segments.labels]
    mixed = (1 - strength) * np.asarray(image_uint8, float) + strength * colors
    edge = np.zeros(segments.labels.shape, bool)
    edge[:, 1:] |= segments.labels[:, 1:] != segments.labels[:, :-1]
    edge[1:] |= segments.labels[1:] != segments.labels[:-1]
    mixed[edge] = 255
    return np.rint(mixed).astype(np.uint8)
