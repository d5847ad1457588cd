"""SLIC superpixels (Achanta et al. 2012) of a picture, and the joining of those of like colour."""

from typing import NamedTuple

import numpy as np

from jaxinv.segmentation.label_maps import number

SUPERPIXELS = 700


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
