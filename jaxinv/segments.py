"""Segments of a picture: the regions that share one latent space (SAM section 3.1, refinement).

    segments = segment(image_uint8)                    # of a face if there is one, else of colours
    segments.labels, segments.names                    # int32 [h, w]; ('face', 'eyes', ...)

The paper takes a segmentation network; here landmarks and SLIC superpixels (Achanta et al. 2012)
do its work without weights. A network (segmenters.py) or a label map comes in instead.
"""

import functools
import os
import pathlib
from typing import NamedTuple

import numpy as np
import PIL.Image

from jaxinv import segmenters
from jaxinv.errors import JaxinvError

MAX_SEGMENTS = 256  # of a user's map; more is a photograph or a map of depths
SUPERPIXELS = 700
PARTS = 12  # regions of a picture without a face
METHODS = ('auto', 'face', 'slic')
LEAST = 1e-3  # of a picture; less of what a network names is left to its surroundings


class Segments(NamedTuple):
    labels: np.ndarray  # int32 [h, w], each of 0 ... len(names) - 1 somewhere
    names: tuple[str, ...]


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
    stands where alignment puts it, else 'slic'), 'torchvision' or 'transformers' (segmenters.py),
    a label map (see `read_map`), or a folder of maps NAME.png or NAME.npy. Raises JaxinvError for a
    map that cannot be used, without a face, or without the network's package.
    """
    image_uint8 = np.asarray(image_uint8)
    if segmenters.is_asked_for(how):
        return by_names(image_uint8, segmenters.find(image_uint8, str(how)), parts)
    if how in ('auto', 'face'):
        from jaxinv import face_segments, faces

        landmarks = faces.landmarks_aligned(image_uint8)
        if landmarks is not None:
            return face_segments.segment(image_uint8, landmarks)
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
    if segmenters.is_asked_for(how):
        segmenters.check(str(how))
    elif how not in METHODS and not pathlib.Path(how).exists():
        raise _unknown(how)


def number(labels, names=None) -> Segments:
    """Labels of any integers [h, w] counted anew from 0, in order; `names` {label: name} or None.

    Without a name a segment is called 'segment N' by its old label.
    """
    old, labels = np.unique(np.asarray(labels), return_inverse=True)
    names = names or {}
    return Segments(
        labels.reshape(labels.shape).astype(np.int32),
        tuple(names.get(int(v), f'segment {int(v)}') for v in old),
    )


def resize(segments: Segments, size: int | tuple[int, int]) -> Segments:
    """Nearest-neighbour copy of [h, w]; segments too small to survive are left out."""
    size = (size, size) if isinstance(size, int) else tuple(size)
    labels = _nearest(segments.labels, size)
    return number(labels, dict(enumerate(segments.names)))


def read_map(path: str | os.PathLike, size: tuple[int, int]) -> Segments:
    """A user's label map, brought to `size` (h, w) by nearest neighbours.

    PNG: palette indices, grey values (also of 16 bits) or colours are the labels; npy: integers or
    booleans [h, w]. Raises JaxinvError: unreadable, of another shape than the picture, or with more
    than MAX_SEGMENTS labels.
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
    ways = ', '.join((*METHODS, *segmenters.DEFAULTS))
    return JaxinvError(
        f'segments.how is {str(how)!r}, neither one of {ways} nor a label map or folder of maps; '
        'check the spelling.'
    )


def _read_npy(path: pathlib.Path) -> np.ndarray:
    try:
        labels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise JaxinvError(f'{path} is not a readable .npy file ({error}).') from None
    if not isinstance(labels, np.ndarray) or labels.ndim != 2 or labels.dtype.kind not in 'biu':
        found = getattr(labels, 'shape', type(labels).__name__)
        raise JaxinvError(f'{path} holds {found}; a label map is whole numbers [h, w].')
    if labels.size == 0:
        raise JaxinvError(f'{path} is empty.')
    return labels.astype(np.int64)


def _read_picture(path: pathlib.Path) -> np.ndarray:
    try:
        with PIL.Image.open(path, formats=('PNG',)) as image:
            if image.mode not in ('1', 'L', 'P', 'I', 'I;16', 'I;16B'):
                # A colour a label, whatever order the file's channels have.
                image = image.convert('RGB')
            pixels = np.asarray(image).astype(np.int64)
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise JaxinvError(f'{path} is not a readable PNG ({error}).') from None
    if pixels.ndim == 3:
        pixels = pixels @ np.array([1 << 16, 1 << 8, 1])
    return pixels


def _nearest(labels, size) -> np.ndarray:
    rows, columns = (
        np.minimum(((np.arange(s) + 0.5) * n / s).astype(int), n - 1)
        for n, s in zip(labels.shape, size, strict=True)
    )
    return labels[rows[:, None], columns]


# --- Superpixels and their joining ----------------------------------------------------------------


class Superpixels(NamedTuple):
    labels: np.ndarray  # int [h, w], 0 ... n - 1
    colors: np.ndarray  # [n, 3] mean CIELAB
    areas: np.ndarray  # [n] pixels
    pairs: np.ndarray  # [m, 2] neighbours, each pair once
    borders: np.ndarray  # [m] length of their common border in pixels


def superpixels(image_uint8, count: int = SUPERPIXELS) -> Superpixels:
    """SLIC superpixels (compactness 10, in CIELAB) of a picture, and who touches whom."""
    import skimage.color
    import skimage.segmentation

    labels = skimage.segmentation.slic(
        image_uint8, count, compactness=10.0, sigma=0.5, start_label=0, channel_axis=-1
    )
    labels = number(labels).labels
    lab = skimage.color.rgb2lab(image_uint8)
    areas = np.bincount(labels.ravel())
    colors = np.stack([np.bincount(labels.ravel(), c.ravel()) for c in np.moveaxis(lab, -1, 0)], 1)
    colors = colors / areas[:, None]
    touching = np.concatenate(
        [
            np.stack([labels[:, :-1].ravel(), labels[:, 1:].ravel()], 1),
            np.stack([labels[:-1].ravel(), labels[1:].ravel()], 1),
        ]
    )
    touching = np.sort(touching[touching[:, 0] != touching[:, 1]], axis=1)
    pairs, borders = np.unique(touching, axis=0, return_counts=True)
    return Superpixels(labels, colors, areas, pairs.reshape(-1, 2), borders)


def join(found: Superpixels, members, parts: int, least: float = 0.0) -> np.ndarray:
    """Joins neighbours among the superpixels `members` [m] until `parts` regions are left.

    Ward's criterion: the pair whose union adds least to the squared distance of all pixels from
    their region's colour, a_i a_j / (a_i + a_j) |c_i - c_j|^2. With least > 0 it goes on below
    `parts` while that, a pixel of the picture, is less than `least`. Where nothing touches any
    more, apart regions are joined by the same rule. Returns the region [m] of each member, from 0.
    """
    members = np.asarray(members)
    place = np.full(len(found.areas), -1)
    place[members] = np.arange(len(members))
    inside = place[found.pairs]
    touches = np.zeros((len(members),) * 2, bool)
    inside = inside[(inside >= 0).all(1)]
    touches[inside[:, 0], inside[:, 1]] = touches[inside[:, 1], inside[:, 0]] = True
    areas, colors = found.areas[members].astype(float), found.colors[members].copy()
    region = np.arange(len(members))
    costs = np.full(touches.shape, np.inf)
    for i in range(len(members)):
        costs[i] = _ward(areas, colors, touches, i)
    left, total = len(members), found.areas.sum()
    while left > 1:
        i, j = divmod(int(costs.argmin()), len(members))
        if not np.isfinite(costs[i, j]):
            rest = np.unique(region)
            touches[np.ix_(rest, rest)] = ~np.eye(len(rest), dtype=bool)
            for i in rest:
                costs[i] = _ward(areas, colors, touches, i)
            continue
        if left <= parts and costs[i, j] >= least * total:
            break
        colors[i] = (areas[i] * colors[i] + areas[j] * colors[j]) / (areas[i] + areas[j])
        areas[i] += areas[j]
        touches[i] |= touches[j]
        touches[:, i] |= touches[:, j]
        touches[i, i] = False
        touches[j] = touches[:, j] = False
        costs[j] = costs[:, j] = np.inf
        costs[i] = costs[:, i] = _ward(areas, colors, touches, i)
        region[region == j] = i
        left -= 1
    return np.unique(region, return_inverse=True)[1]


def _ward(areas, colors, touches, i):
    distance = ((colors - colors[i]) ** 2).sum(1)
    return np.where(touches[i], areas * areas[i] / (areas + areas[i]) * distance, np.inf)


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
