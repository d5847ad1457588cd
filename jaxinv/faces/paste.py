"""Puts an aligned crop back into its photograph: the inverse of faces/align.py.

A crop of `size` pixels a side covers the oriented square `quad` of the photograph. Pixel (x, y) of
the photograph is pixel A ((x, y) - quad_0) of the crop, with A a rotation and a scale
(align.into_crop). A soft mask blends the two, and the crop's colours are shifted to the
photograph's along the seam, smoothly into the inside.
"""

import numpy as np
import PIL.Image
import scipy.ndimage

from jaxinv.errors import JaxinvError
from jaxinv.faces import align
from jaxinv.faces.detect import landmarks_aligned

MASKS = ('face', 'crop')
FEATHER = 0.06  # width of the soft edge, in sides of the square
FOREHEAD = 0.75  # height of the forehead above the brows, in distances from brows to chin
SEAM = 0.1  # spread of the colour correction, in sides of the square
SMOOTH = 8  # pixels
LIKE = 24  # levels of 255: parts of the seam that differ by more than others count less
FAR = 1e-3  # weight of the seam's mean, relative to the largest weight of the seam's parts


def paste(
    photograph: PIL.Image.Image, crop_uint8, quad, *, mask='face', match_colour: bool = True
) -> PIL.Image.Image:
    """The photograph with the crop in its place, at the photograph's resolution.

    photograph: upright sRGB (data.images.read). crop_uint8 [size, size, 3]; quad [4, 2]: its square
    in the photograph, as in Targets.sources: top-left, bottom-left, bottom-right, top-right.
    mask: 'face' = the face found in the crop, or the middle ellipse where none is, 'crop' = the
    whole square, or an array [size, size] from 0 to 1. match_colour: shifts the crop's colours to
    the photograph's along the seam. Pixels outside the mask stay as they are. Raises JaxinvError.
    """
    crop = np.asarray(crop_uint8)
    corners = np.asarray(quad, np.float64)
    size = len(crop)
    if crop.dtype != np.uint8 or crop.shape != (size, size, 3) or corners.shape != (4, 2):
        raise JaxinvError(
            f'paste takes a uint8 crop [size, size, 3] and a quad [4, 2], not {crop.dtype} '
            f'{list(crop.shape)} and {list(corners.shape)}.'
        )
    box = _box(corners, photograph.size)
    if box is None:
        return photograph.copy()
    soft = _mask(mask, crop)
    # A crop that is larger than its square is averaged first, which bicubic sampling does not.
    side = max(1, round(align.side(corners)))
    if side < size:
        crop = np.asarray(
            PIL.Image.fromarray(crop).resize((side, side), PIL.Image.Resampling.LANCZOS)
        )
    inside = _warp(PIL.Image.fromarray(crop), corners, box)
    weight = _warp(PIL.Image.fromarray(np.uint8(np.rint(255 * soft))), corners, box) / 255
    weight = weight[..., None] * _inside(corners, box)[..., None]
    before = np.asarray(photograph.crop(box), np.float64)
    if match_colour:
        inside = inside + _seam_shift(before - inside, weight[..., 0], SEAM * side)
    blended = before + weight * (inside - before)
    result = photograph.copy()
    blended = PIL.Image.fromarray(np.uint8(np.rint(np.clip(blended, 0, 255))))
    result.paste(blended, box[:2])
    return result


def _box(corners, extent):
    """(left, top, right, bottom) of the square's part inside the photograph; None if empty."""
    low = np.maximum(np.floor(corners.min(0)) - 1, 0).astype(int)
    high = np.minimum(np.ceil(corners.max(0)) + 2, extent).astype(int)
    return None if (high <= low).any() else (*map(int, low), *map(int, high))


def _warp(crop, corners, box):
    """float64 [h, w] or [h, w, 3]: the crop sampled at the photograph's pixels in the box."""
    left, top, right, bottom = box
    points = np.array([[left, top], [left + 1, top], [left, top + 1]], np.float64)
    start, across, down = align.into_crop(points, corners, crop.size[0])
    a, d = across - start
    b, e = down - start
    # Pillow's coordinates have pixel centres at +0.5 on both sides.
    c, f = start + 0.5 - 0.5 * np.array([a + b, d + e])
    size = (right - left, bottom - top)
    warped = crop.transform(
        size, PIL.Image.Transform.AFFINE, (a, b, c, d, e, f), PIL.Image.Resampling.BICUBIC
    )
    return np.asarray(warped, np.float64)


def _inside(corners, box):
    """1 where the photograph's pixel lies in the square, 0 outside; [h, w]."""
    left, top, right, bottom = box
    x, y = np.meshgrid(np.arange(left, right), np.arange(top, bottom))
    places = align.into_crop(np.stack([x, y], -1).reshape(-1, 2), corners, 1) + 0.5
    return ((places >= 0) & (places <= 1)).all(1).reshape(x.shape).astype(np.float64)


def _mask(mask, crop):
    """float [size, size] in [0, 1], with a soft edge."""
    size = len(crop)
    if not isinstance(mask, str):
        soft = np.asarray(mask, np.float64)
        if soft.shape != (size, size) or not ((soft >= 0) & (soft <= 1)).all():
            raise JaxinvError(
                f'mask is {list(soft.shape)}; [{size}, {size}] from 0 to 1 is needed.'
            )
        return soft
    if mask not in MASKS:
        raise JaxinvError(f"mask is {mask!r}; it can be 'face', 'crop' or an array.")
    return soft_mask(mask, size, landmarks_aligned(crop) if mask == 'face' else None)


def soft_mask(mask: str, size: int, landmarks=None) -> np.ndarray:
    """float64 [size, size] from 0 to 1: the region 'face' or 'crop' of a crop, with a soft edge.

    landmarks [68, 2] of the face, in the crop's pixels; None = the middle ellipse.
    """
    hard = np.ones([size, size], bool) if mask == 'crop' else _face(landmarks, size)
    # From the edge inwards, so that nothing outside the region changes.
    padded = np.pad(hard, 1)
    distance = scipy.ndimage.distance_transform_edt(padded)[1:-1, 1:-1] / (FEATHER * size)
    t = np.clip(distance, 0, 1)
    return t * t * (3 - 2 * t)


def _face(landmarks, size):
    """bool [size, size]: an ellipse around jaw and forehead."""
    y, x = np.mgrid[:size, :size].astype(np.float64)
    if landmarks is None:
        centre, axes = np.array([0.5, 0.55]) * size, np.array([0.36, 0.44]) * size
        return ((x - centre[0]) / axes[0]) ** 2 + ((y - centre[1]) / axes[1]) ** 2 <= 1
    points = np.asarray(landmarks, np.float64)
    brows, chin = points[17:27].mean(0), points[8]
    top = brows + FOREHEAD * (brows - chin)
    centre, half = (top + chin) / 2, np.hypot(*(chin - top)) / 2
    down = (chin - top) / (2 * half)
    across = np.array([down[1], -down[0]])
    width = 1.1 * np.abs((points[:17] - centre) @ across).max()
    u = ((x - centre[0]) * across[0] + (y - centre[1]) * across[1]) / width
    v = ((x - centre[0]) * down[0] + (y - centre[1]) * down[1]) / (1.08 * half)
    return u**2 + v**2 <= 1


def _seam_shift(difference, weight, spread):
    """The photograph's colours minus the crop's along the seam, spread smoothly; [h, w, 3].

    Where a turned head leaves face on one side and background on the other, the colours need not
    match: the weight of a pixel of the seam falls with its distance from the median. Far from the
    seam it is the mean over the seam. Computed at the size at which the spread is SMOOTH pixels:
    the result has no finer detail.
    """
    height, width = weight.shape
    factor = max(spread / SMOOTH, 1.0)
    small = max(1, round(width / factor)), max(1, round(height / factor))

    def smooth(values):
        reduced = PIL.Image.fromarray(np.float32(values)).resize(small, PIL.Image.Resampling.BOX)
        return scipy.ndimage.gaussian_filter(np.asarray(reduced), spread / factor, mode='constant')

    seam = weight * (1 - weight)
    if (seam > 0.1).any():
        apart = difference - np.median(difference[seam > 0.1], axis=0)
        seam = seam * np.exp(-(apart**2).sum(-1) / (2 * LIKE**2))
    total = smooth(seam)
    least = FAR * max(total.max(), 1e-9)
    shift = []
    for i in range(3):
        mean = (seam * difference[..., i]).sum() / max(seam.sum(), 1e-9)
        part = (smooth(seam * difference[..., i]) + least * mean) / (total + least)
        part = PIL.Image.fromarray(np.float32(part))
        shift.append(np.asarray(part.resize((width, height), PIL.Image.Resampling.BILINEAR)))
    return np.stack(shift, -1).astype(np.float64)
