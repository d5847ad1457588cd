"""Segments of a picture: the regions that share one latent space (SAM section 3.1, refinement).

    segments = segment(image_uint8)                 # parts of a face if there is one, else colours
    segments.labels, segments.names                 # int32 [h, w]; ('face', 'eyes', ...)

The paper uses a segmentation network. The default here needs no weights: landmarks (face.py) and
superpixels. Alternatives are named regions, as those of edits (regions.py), a network
(torch_models.py) and a label map (label_maps.py).
"""

import difflib
import functools
import os
import pathlib

import numpy as np

from jaxinv import faces
from jaxinv.errors import JaxinvError
from jaxinv.segmentation import face, regions, torch_models
from jaxinv.segmentation.label_maps import Segments, number, read_map
from jaxinv.segmentation.superpixels import merge, slic
from jaxinv.text import printable

PARTS = 12  # regions of a picture without a face
METHODS = ('auto', 'face', 'slic')
REGIONS = 'regions:'  # and names or masks of regions.py, separated by commas
REST = 'rest'  # the segment of what no region covers
MIN_FRACTION = 1e-3  # of the picture; smaller masks of a network or of a region are ignored


def segment(
    image_uint8,
    how: str | os.PathLike = 'auto',
    *,
    name: str = '',  # of the picture; selects its map if `how` is a folder
    parts: int = PARTS,  # regions by colour, of 'slic' and of pixels that a network leaves unnamed
    log=print,
) -> Segments:
    """The segments of a uint8 picture [h, w, 3].

    how, one of:
      'face'        parts of the face, hair or hat, clothes, background; the face is FFHQ-aligned
      'slic'        superpixels, neighbours of similar colour merged until `parts` are left
      'auto'        'face' if there is an aligned face, else 'slic'
      'regions:face,hair'   regions of regions.py, see by_regions
      'torchvision', 'transformers'   a network, see torch_models.py
      a path        of a label map (label_maps.read_map), or of a folder with NAME.png or NAME.npy

    Raises JaxinvError if there is no aligned face for 'face', a map cannot be used, or a network's
    package or weights are missing.
    """
    image_uint8 = np.asarray(image_uint8)
    if torch_models.is_network(how):
        return by_masks(image_uint8, torch_models.masks(image_uint8, str(how)), parts)
    if str(how).startswith(REGIONS):
        return by_regions(image_uint8, _named_regions(how), name or 'the picture', log)
    if how in ('auto', 'face'):
        landmarks = faces.landmarks_aligned(image_uint8)
        if landmarks is not None:
            return face.segment(image_uint8, landmarks)
        if how == 'face':
            raise JaxinvError(
                f'there is no FFHQ-aligned face in {name or "the picture"}; '
                "set segments.how to 'slic' or 'auto'."
            )
    if how in METHODS:
        return _by_color(image_uint8, parts)
    return read_map(_map_of(how, name), image_uint8.shape[:2])


def check(how: str | os.PathLike) -> None:
    """Raises JaxinvError unless `how` is one of `segment` and its package or file exists."""
    if torch_models.is_network(how):
        torch_models.check(str(how))
    elif str(how).startswith(REGIONS):
        _named_regions(how)
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
    hint, parts = '', str(how).split(',')
    close = difflib.get_close_matches(
        parts[0].partition(':')[0], (*METHODS, *torch_models.DEFAULTS, REGIONS[:-1]), n=1
    )
    if all(part.strip() in regions.NAMES for part in parts):
        hint = f' Did you mean {REGIONS + str(how)!r}?'
    elif close:
        hint = f' Did you mean {close[0]!r}?'
    names = ', '.join((*METHODS, *torch_models.DEFAULTS, f'{REGIONS}NAME,...'))
    return JaxinvError(
        f'segments.how is {str(how)!r}, neither one of {names} nor a label map or folder of maps; '
        f'check the spelling.{hint}'
    )


def _named_regions(how) -> list[str]:
    """The regions of 'regions:NAME,...'; raises JaxinvError if one is unknown or given twice."""
    names = [part.strip() for part in str(how).removeprefix(REGIONS).split(',')]
    if '' in names:
        raise JaxinvError(
            f'segments.how is {str(how)!r}; it takes the form {REGIONS}face,hair. '
            f'Regions: {", ".join(regions.NAMES)}; or a mask ({", ".join(regions.SUFFIXES)}).'
        )
    for i, name in enumerate(names):
        regions.check(name)
        if name in names[:i]:
            raise JaxinvError(f'segments.how is {str(how)!r}, which has {name!r} twice.')
    return names


def _by_color(image_uint8, parts: int, inside=None) -> Segments:
    """Segments by colour alone.

    inside: bool [h, w] of pixels to segment, None = all. Superpixels without such a pixel have the
    label -1.
    """
    if parts < 1:
        raise JaxinvError(f'segments.parts is {parts}; it must be at least 1.')
    superpixels = slic(image_uint8)
    labels = superpixels.labels
    members = np.unique(labels if inside is None else labels[inside])
    region = np.full(len(superpixels.areas), -1)
    region[members] = merge(superpixels, members, parts)
    labels = region[labels].astype(np.int32)
    return Segments(labels, tuple(f'part {i + 1}' for i in range(region.max() + 1)))


def by_masks(image_uint8, masks, parts: int) -> Segments:
    """Segments from named masks [(name, bool [h, w]), ...]; later ones cover earlier ones.

    The remaining pixels are divided by colour into `parts` regions times their fraction of the
    picture. Equal names are numbered: 'cat', 'cat 2'.
    """
    labels = np.full(image_uint8.shape[:2], -1)
    names, counts = {}, {}
    for name, mask in masks:
        if mask.mean() < MIN_FRACTION:
            continue
        counts[name] = counts.get(name, 0) + 1
        names[len(names)] = name if counts[name] == 1 else f'{name} {counts[name]}'
        labels[mask] = len(names) - 1
    rest = labels < 0
    if rest.any():
        others = _by_color(image_uint8, max(1, round(parts * rest.mean())), rest)
        labels[rest] = len(names) + others.labels[rest]
        names |= {len(names) + i: name for i, name in enumerate(others.names)}
    return number(labels, names)


def by_regions(image_uint8, names, name: str = 'the picture', log=print) -> Segments:
    """Segments from regions (regions.py): names of them, or paths of masks.

    Earlier ones cover later ones; what none covers is one segment REST. A region that is not in the
    picture, or of which less than MIN_FRACTION is left by those before it, is left out, and the log
    says so. name: of the picture.

    Raises JaxinvError for an unknown region and for a mask that cannot be used.
    """
    finder, found = regions.Finder(image_uint8, name), {}
    labels = np.full(np.shape(image_uint8)[:2], -1)
    for i, region in enumerate(names):
        title = pathlib.PurePath(region).name if regions.is_file(region) else str(region)
        title = printable(title) if title not in found.values() else f'{printable(title)} {i + 1}'
        try:
            own = finder.mask_of(region) & (labels < 0)
        except regions.NotThere as error:
            log(f'{name}: no segment {title!r}: {error}')
            continue
        if own.mean() < MIN_FRACTION:
            log(
                f'{name}: no segment {title!r}: less than {100 * MIN_FRACTION:g} % of the picture '
                'is in it and in no region before it; give smaller regions first.'
            )
            continue
        labels[own], found[i] = i, title
    labels[labels < 0] = len(names)
    return number(labels, found | {len(names): REST})


# --- Pictures of segments -------------------------------------------------------------------------


@functools.cache
def palette(count: int) -> np.ndarray:
    """Distinct colours uint8 [count, 3]: hues a golden angle apart, of two lightnesses."""
    import colorsys

    colors = [
        colorsys.hls_to_rgb(i * 0.381966 % 1, (0.45, 0.65)[i % 2], 0.75) for i in range(count)
    ]
    return np.rint(255 * np.array(colors)).astype(np.uint8)


def overlay(image_uint8, segments: Segments, strength: float = 0.45) -> np.ndarray:
    """The picture [h, w, 3] tinted by segment, with white borders between them: uint8 [h, w, 3]."""
    colors = palette(len(segments.names))[segments.labels]
    mixed = (1 - strength) * np.asarray(image_uint8, float) + strength * colors
    edge = np.zeros(segments.labels.shape, bool)
    edge[:, 1:] |= segments.labels[:, 1:] != segments.labels[:, :-1]
    edge[1:] |= segments.labels[1:] != segments.labels[:-1]
    mixed[edge] = 255
    return np.rint(mixed).astype(np.uint8)
