"""One face through the frames of a video, and the alignment square that follows it smoothly.

The mean of squares is a square, so corners are smoothed as they are. Centre and axes have Gaussians
of their own, as in STIT (Tzaban et al. 2022, "Stitch it in time", its published code), 1 and 2
frames here and 1 and 3 there. A Gaussian also flattens a turn of the head. So what it removes is
smoothed and added again (Tukey's twicing): motion is kept up to the fourth order in sigma instead
of the second. docs/video.md has the effect.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image
import scipy.ndimage

from jaxinv.faces import align, detect

SAME_FACE = 0.3  # least overlap (intersection over union) of the boxes in two frames in a row
CUT = 0.05  # a smaller overlap of the boxes is a cut between shots


class Track(NamedTuple):
    """A face in n frames."""

    landmarks: np.ndarray  # float64 [n, 68, 2], NaN where the frame is left out
    found: np.ndarray  # bool [n]; the others were interpolated or left out
    shot: np.ndarray  # int [n], counts from 0; -1 = left out

    @property
    def used(self) -> np.ndarray:
        """Indices of the frames that have a face, found or interpolated."""
        return np.flatnonzero(self.shot >= 0)


def follow(
    picture: PIL.Image.Image, before: detect.Face | None, identity: np.ndarray | None = None
) -> detect.Face | None:
    """The face of the next frame: the one at `before`, else the nearest to it, else the widest.

    identity: embedding [128] of the person; a face that is not where it was before must be theirs.
    """
    if before is None:
        return next(iter(detect.find_faces(picture)), None)
    near = [
        face for face in detect.find_near(picture, before.box)
        if overlap(face.box, before.box) >= SAME_FACE
    ]  # fmt: skip
    if near:
        return max(near, key=lambda face: overlap(face.box, before.box))
    centre = _centre(before.box)
    others = [
        face for face in detect.find_faces(picture)
        if identity is None
        or detect.identity_distance(identity, detect.identity(picture, face.landmarks))
        < detect.SAME_PERSON
    ]  # fmt: skip
    return min(others, key=lambda face: np.hypot(*(_centre(face.box) - centre)), default=None)


def overlap(a, b) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    a, b = np.reshape(a, (2, 2)), np.reshape(b, (2, 2))
    inside = np.maximum(np.minimum(a[1], b[1]) - np.maximum(a[0], b[0]), 0).prod()
    return float(inside / ((a[1] - a[0]).prod() + (b[1] - b[0]).prod() - inside))


def _centre(box) -> np.ndarray:
    return np.reshape(box, (2, 2)).mean(0)


def connect(landmarks, boxes, max_gap: int) -> Track:
    """A track from the landmarks [n, 68, 2] and boxes [n, 4] of each frame, NaN without a face.

    At most max_gap frames in a row without a face, between two frames of one shot, are
    interpolated. Frames of longer gaps or at cuts, before the first and after the last face, are
    left out.
    """
    landmarks = np.array(landmarks, np.float64)
    found = np.isfinite(landmarks).all((1, 2))
    shot, number, last = np.full(len(landmarks), -1), -1, None
    for i in np.flatnonzero(found):
        gap = None if last is None else i - last - 1
        is_cut = last is None or gap > max_gap or overlap(boxes[i], boxes[last]) < CUT
        number += is_cut
        if not is_cut and gap:
            share = (np.arange(1, gap + 1) / (gap + 1))[:, None, None]
            landmarks[last + 1 : i] = (1 - share) * landmarks[last] + share * landmarks[i]
            shot[last + 1 : i] = number
        shot[i], last = number, i
    return Track(landmarks, found, shot)


def squares(track: Track, centre_sigma: float, axes_sigma: float) -> np.ndarray:
    """Smoothed corners [n, 4, 2] of the alignment square (align.quad), NaN where left out."""
    corners = np.full([len(track.shot), 4, 2], np.nan)
    for i in track.used:
        corners[i] = align.quad(track.landmarks[i])
    centre = corners.mean(1, keepdims=True)
    axes = smooth(corners - centre, track.shot, axes_sigma)
    return smooth(centre, track.shot, centre_sigma) + axes


def smooth(values, shot: Sequence[int], sigma: float) -> np.ndarray:
    """Values [n, ...] smoothed in time, 2 G x - G G x, each shot by itself; NaN where it is -1.

    sigma: of the Gaussian G, in frames; 0 = off. Beyond its ends a shot goes on as its point
    reflection, so that a steady motion stays as it is.
    """
    values, shot = np.asarray(values, np.float64), np.asarray(shot)
    result = np.full(values.shape, np.nan)
    for number in range(shot.max(initial=-1) + 1):
        rows = np.flatnonzero(shot == number)
        own = values[rows]
        if sigma and len(own) > 1:
            once = _gaussian(own, sigma)
            own = 2 * once - _gaussian(once, sigma)
        result[rows] = own
    return result


def _gaussian(values: np.ndarray, sigma: float) -> np.ndarray:
    pad = min(len(values) - 1, int(np.ceil(4 * sigma)))
    widths = [(pad, pad)] + [(0, 0)] * (values.ndim - 1)
    padded = np.pad(values, widths, mode='reflect', reflect_type='odd')
    padded = scipy.ndimage.gaussian_filter1d(padded, sigma, axis=0, mode='nearest')
    return padded[pad : pad + len(values)]


def jitter(corners, shot: Sequence[int]) -> float:
    """Root mean square of the second differences in time of the corners [n, 4, 2], in pixels.

    NaN without three frames in a row.
    """
    shot = np.asarray(shot)
    second = corners[2:] - 2 * corners[1:-1] + corners[:-2]
    inside = (shot[2:] >= 0) & (shot[2:] == shot[1:-1]) & (shot[1:-1] == shot[:-2])
    return float(np.sqrt(np.mean(second[inside] ** 2))) if inside.any() else float('nan')
