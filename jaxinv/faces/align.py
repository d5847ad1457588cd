"""FFHQ alignment: from 68 landmarks to the upright square crop that FFHQ generators expect.

Karras et al. 2019, appendix C: eyes and mouth define an oriented square. Where it extends beyond
the picture, the picture is mirrored, blurred and faded to its median colour. The square is then
warped upright. Coordinates are (x, y) in pixels, x right and y down; pixel centres are at +0.5
only inside Pillow's warp.
"""

import numpy as np
import PIL.Image
import scipy.ndimage

# Of the 68 landmarks (iBUG numbering, from 0).
LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)  # left and right as seen in the picture
MOUTH_CORNERS = (48, 54)
MAX_WARP = 4096  # pixels a side; FFHQ's own warp size


def quad(landmarks) -> np.ndarray:
    """Corners of the oriented square [4, 2]: top-left, bottom-left, bottom-right, top-right.

    Its x axis is the mean of the eye line and the perpendicular of the eye-mouth line. Half its
    side is the larger of 2 eye distances and 1.8 eye-mouth distances. Its centre is a tenth of the
    way from the eyes to the mouth. Raises ValueError unless landmarks are finite and [68, 2].
    """
    points = np.asarray(landmarks, np.float64)
    if points.shape != (68, 2) or not np.isfinite(points).all():
        raise ValueError(f'quad takes 68 finite landmarks [68, 2], not shape {points.shape}.')
    left, right = points[LEFT_EYE].mean(0), points[RIGHT_EYE].mean(0)
    eyes = (left + right) / 2
    across = right - left
    down = points[list(MOUTH_CORNERS)].mean(0) - eyes

    axis = across + np.array([down[1], -down[0]])  # `down` turned by 90 degrees points right
    length = np.hypot(*axis)
    if length == 0:
        raise ValueError('the 68 landmarks coincide, so they define no square.')
    x = axis / length * max(2.0 * np.hypot(*across), 1.8 * np.hypot(*down))
    y = np.array([-x[1], x[0]])
    centre = eyes + 0.1 * down
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def side(corners) -> float:
    """Side of a quad [4, 2] in pixels of the photograph: the true resolution of the crop."""
    corners = np.asarray(corners)
    return float(np.hypot(*(corners[3] - corners[0])))


def into_crop(points, corners, size: int) -> np.ndarray:
    """Points [n, 2] of the picture in coordinates of the aligned crop, `size` pixels a side."""
    corners = np.asarray(corners, np.float64)
    across, down = corners[3] - corners[0], corners[1] - corners[0]
    axes = np.stack([across, down]) / (across @ across)  # perpendicular and of equal length
    return (np.asarray(points) - corners[0]) @ axes.T * size - 0.5


def align(
    image: PIL.Image.Image,
    landmarks,
    size: int,
    *,
    supersample: int = 4,  # 1 = warp directly to `size`, as PTI's published code does
) -> PIL.Image.Image:
    """The aligned face, size x size pixels.

    FFHQ was made with supersample 4. The warp samples bilinearly, so at the final size it would
    skip pixels of a sharper photograph and alias; here it warps to a larger size, at most MAX_WARP,
    and LANCZOS averages. Raises ValueError for sizes below 1 or landmarks outside the picture.
    """
    return warp(image, quad(landmarks), size, supersample=supersample)


def warp(image: PIL.Image.Image, corners, size: int, *, supersample: int = 4) -> PIL.Image.Image:
    """The oriented square with these corners [4, 2], size x size pixels; see `align`."""
    if size < 1 or supersample < 1:
        raise ValueError(f'size {size} and supersample {supersample} must be at least 1.')
    canvas, corners = _prepare(image, np.asarray(corners, np.float64), size)
    large = max(size, min(size * supersample, MAX_WARP))
    aligned = canvas.transform(
        (large, large),
        PIL.Image.Transform.QUAD,
        (corners + 0.5).flatten().tolist(),
        PIL.Image.Resampling.BILINEAR,
    )
    if large > size:
        aligned = aligned.resize((size, size), PIL.Image.Resampling.LANCZOS)
    return aligned


def prepare(image: PIL.Image.Image, landmarks, size: int) -> tuple[PIL.Image.Image, np.ndarray]:
    """The part of the picture that the warp needs, and the quad [4, 2] in its coordinates.

    Shrinks (the quad's side becomes 2 to 4 times `size`), crops, and pads by mirroring.
    """
    return _prepare(image, quad(landmarks), size)


def _prepare(image, corners, size):
    image = image if image.mode == 'RGB' else image.convert('RGB')
    shrink = int(side(corners) / size * 0.5)
    if shrink > 1:
        reduced = [max(1, round(length / shrink)) for length in image.size]
        image = image.resize(reduced, PIL.Image.Resampling.LANCZOS)
        corners = corners / shrink
    length = side(corners)
    border = max(round(length * 0.1), 3)

    low, high = np.floor(corners.min(0)), np.ceil(corners.max(0))
    extent = np.array(image.size)
    start = np.maximum(low - border, 0)
    stop = np.minimum(high + border, extent)
    if (stop <= start).any():
        raise ValueError('the landmarks lie outside the picture.')
    if (stop - start < extent).any():
        image = image.crop((*start.astype(int).tolist(), *stop.astype(int).tolist()))
        corners = corners - start

    low, high = np.floor(corners.min(0)), np.ceil(corners.max(0))
    before = np.maximum(border - low, 0)
    after = np.maximum(high - np.array(image.size) + border, 0)
    # As in the published code: up to four pixels of the border may be missing without padding.
    if max(before.max(), after.max()) > border - 4:
        least = round(length * 0.3)
        before = np.maximum(before, least).astype(int)
        after = np.maximum(after, least).astype(int)
        image = _mirror_and_fade(image, before, after, blur=length * 0.02)
        corners = corners + before
    return image, corners


def _mirror_and_fade(image: PIL.Image.Image, before, after, blur: float) -> PIL.Image.Image:
    """Pads by reflection; with the distance the padding is blurred, then faded to the median."""
    pad = ((before[1], after[1]), (before[0], after[0]), (0, 0))
    pixels = np.pad(np.asarray(image, np.float32), pad, mode='reflect')
    height, width = pixels.shape[:2]
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None]
    # Distance to the nearest side in units of its padding: 1 on the picture's edge, 0 outside.
    inset_x = np.minimum(x / before[0], (width - 1 - x) / after[0])
    inset_y = np.minimum(y / before[1], (height - 1 - y) / after[1])
    outside = (1.0 - np.minimum(inset_x, inset_y))[..., None]
    blurred = scipy.ndimage.gaussian_filter(pixels, [blur, blur, 0])
    pixels += (blurred - pixels) * np.clip(outside * 3.0 + 1.0, 0.0, 1.0)
    pixels += (np.median(pixels, axis=(0, 1)) - pixels) * np.clip(outside, 0.0, 1.0)
    return PIL.Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
