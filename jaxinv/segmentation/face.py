"""Segments of an FFHQ-aligned portrait, from its 68 landmarks and superpixels.

Eyes, brows, nose and mouth are polygons of landmarks. The rest is classified by random walks on the
graph of superpixels (Grady 2005, "Multilabel random walker image segmentation using prior models").
Edge weights decrease with the difference of colour; the prior is the usual layout of a portrait.

Layout coordinates: the origin is between the eyes, v points down to the mouth, which is at v = 1,
and u is perpendicular, to the picture's right.
"""

import numpy as np
import PIL.Image
import PIL.ImageDraw
import scipy.ndimage

from jaxinv.faces import align
from jaxinv.segmentation.label_maps import Segments, number
from jaxinv.segmentation.superpixels import Superpixels, merge, slic

CLASSES = ('face', 'hair or hat', 'neck and clothes', 'background')
# Layout of the classes other than the face: Gaussians (u, v, deviations of u and v), mirrored.
LAYOUT = {
    'hair or hat': ((0.0, -1.2, 0.6, 0.2), (0.8, -0.9, 0.25, 0.3), (1.1, 0.1, 0.15, 0.5)),
    'neck and clothes': ((0.0, 2.1, 0.7, 0.15), (1.0, 2.2, 0.5, 0.15)),
    'background': ((1.8, -1.75, 0.3, 0.25), (1.85, -0.4, 0.15, 0.8), (1.6, 0.9, 0.2, 0.3)),
}
PRIOR_WEIGHT = 0.02  # of the layout, relative to the edge weights
UNIFORM_PRIOR = 0.2  # added to the layout everywhere, times the probability of the class by colour
COLOR_DEVIATION = 8.0  # CIELAB units; bandwidth of a class' colour density
EDGE_DEVIATION = 10.0  # CIELAB distance at which an edge weight has fallen to 1 / e
# A region around the face is divided, into at most MAX_PARTS, where that lowers the squared CIELAB
# distance of pixels from their region's colour by this much, averaged over the picture.
CONTRAST = 30.0
MAX_PARTS = 3


def segment(image_uint8, landmarks) -> Segments:
    """Segments of a uint8 picture [h, w, 3] with landmarks [68, 2].

    'face', 'eyes', 'brows', 'nose', 'mouth', and those present of 'hair or hat', 'neck and
    clothes', 'background left' and 'background right', numbered if divided.
    """
    image_uint8, points = np.asarray(image_uint8), np.asarray(landmarks, float)
    superpixels = slic(image_uint8)
    classes = classify(superpixels, points)
    middle = points[27:31, 0].mean()  # the ridge of the nose
    shape = superpixels.labels.shape
    columns = np.broadcast_to(np.arange(shape[1]), shape)
    center = np.bincount(superpixels.labels.ravel(), columns.ravel()) / superpixels.areas
    right = center > middle

    groups = [('face', classes == 0), *((c, classes == i) for i, c in enumerate(CLASSES[1:3], 1))]
    groups += [('background left', (classes == 3) & ~right)]
    groups += [('background right', (classes == 3) & right)]
    label_of, names = np.zeros(len(superpixels.areas), int), {}
    for name, selected in groups:
        members = np.flatnonzero(selected)
        if not len(members):
            continue
        parts = np.zeros(len(members), int)
        if name != 'face':
            parts = merge(superpixels, members, MAX_PARTS, CONTRAST)
            parts = _largest_first(parts, superpixels.areas[members])
        label_of[members] = len(names) + parts
        for part in range(parts.max() + 1):
            names[len(names)] = f'{name} {part + 1}' if parts.max() else name
    labels = label_of[superpixels.labels]
    for name, mask in features(points, labels.shape).items():
        names[len(names)] = name
        labels[mask] = len(names) - 1
    return number(labels, names)


def classify(superpixels: Superpixels, landmarks) -> np.ndarray:
    """Class [n], an index into CLASSES, of each superpixel.

    Solves (L + sum_k diag(prior_k)) x_k = prior_k for the probabilities x_k of each class k.
    """
    labels, areas = superpixels.labels, superpixels.areas
    prior = layout(landmarks, labels.shape)
    prior = np.stack([np.bincount(labels.ravel(), p.ravel()) for p in prior], 1) / areas[:, None]

    i, j = superpixels.pairs.T
    distance = np.linalg.norm(superpixels.colors[i] - superpixels.colors[j], axis=1)
    weight = np.exp(-((distance / EDGE_DEVIATION) ** 2)) + 1e-4
    weight = weight * superpixels.borders / superpixels.borders.mean()
    laplacian = np.zeros((len(areas),) * 2)
    laplacian[i, j] = laplacian[j, i] = -weight
    laplacian[np.diag_indices_from(laplacian)] = -laplacian.sum(1)
    prior = PRIOR_WEIGHT * (prior + UNIFORM_PRIOR) * _color_probability(superpixels, prior)
    matrix = laplacian + np.diag(prior.sum(1) + 1e-9)
    return np.linalg.solve(matrix, prior).argmax(1)


def _color_probability(superpixels, prior) -> np.ndarray:
    """Probability [n, 4] of each class by colour alone, from colours where its prior is high."""
    colors, areas = superpixels.colors, superpixels.areas
    distance = np.linalg.norm(colors[:, None] - colors, axis=-1)
    density = np.exp(-0.5 * (distance / COLOR_DEVIATION) ** 2) @ (prior * areas[:, None])
    density = density / np.maximum(prior.T @ areas, 1) + 1e-4
    return density / density.sum(1, keepdims=True)


def layout(landmarks, shape) -> np.ndarray:
    """Prior of each class of CLASSES at each pixel: [4, h, w] in [0, 1]."""
    points = np.asarray(landmarks, float)
    u, v = coordinates(points, shape)
    face = mask([*points[:17], *_forehead(points)], shape)
    inner = scipy.ndimage.distance_transform_edt(face)
    face_size = np.sqrt(face.sum())
    maps = [np.clip(inner / (0.1 * face_size), 0.0, 1.0)]
    for name in CLASSES[1:]:
        total = np.zeros(shape)
        for across, down, du, dv in LAYOUT[name]:
            for side in {across, -across}:
                total += np.exp(-0.5 * (((u - side) / du) ** 2 + ((v - down) / dv) ** 2))
        maps.append(np.where(face, 0.0, np.minimum(total, 1.0)))
    return np.stack(maps)


def coordinates(landmarks, shape) -> tuple[np.ndarray, np.ndarray]:
    """Layout coordinates (u, v) of each pixel, [h, w] each."""
    eyes, down = _axes(landmarks)
    y, x = np.indices(shape)
    x, y, length = x - eyes[0], y - eyes[1], down @ down
    return (x * down[1] - y * down[0]) / length, (x * down[0] + y * down[1]) / length


def features(landmarks, shape) -> dict[str, np.ndarray]:
    """Masks bool [h, w] of 'brows', 'eyes', 'nose' and 'mouth': their polygons, widened."""
    _, down = _axes(landmarks)
    length = np.hypot(*down)
    brow = 0.06 * length * down / length  # the landmarks are on the upper edge of the brows
    brows = [[*(b - 0.7 * brow), *(b[::-1] + brow)] for b in (landmarks[17:22], landmarks[22:27])]
    eyes = [landmarks[align.LEFT_EYE], landmarks[align.RIGHT_EYE]]
    nose = [*landmarks[27:28], *landmarks[31:36]]
    polygons_of = {  # name: (polygons, margin in units of the eye-mouth distance)
        'brows': (brows, 0.02),
        'eyes': (eyes, 0.06),
        'nose': ([nose], 0.07),
        'mouth': ([landmarks[48:60]], 0.04),
    }
    masks = {}
    for name, (polygons, margin) in polygons_of.items():
        inside = np.any([mask(p, shape) for p in polygons], axis=0)
        masks[name] = scipy.ndimage.distance_transform_edt(~inside) <= margin * length
    return masks


def mask(polygon, shape) -> np.ndarray:
    """bool [h, w]: pixels inside a polygon of points (x, y)."""
    image = PIL.Image.new('1', shape[::-1])
    PIL.ImageDraw.Draw(image).polygon([tuple(map(float, p)) for p in polygon], fill=1)
    return np.asarray(image)


def _axes(landmarks):
    """The point between the eyes [2], and the vector [2] from there to the mouth."""
    landmarks = np.asarray(landmarks)
    eyes = (landmarks[align.LEFT_EYE].mean(0) + landmarks[align.RIGHT_EYE].mean(0)) / 2
    return eyes, landmarks[list(align.MOUTH_CORNERS)].mean(0) - eyes


def _forehead(landmarks):
    """Points of half an ellipse above the brows, from the right end of the jaw to the left."""
    eyes, down = _axes(landmarks)
    ends = landmarks[[16, 0]]
    angle = np.linspace(0, np.pi, 9)[1:-1, None]
    centre, across = ends.mean(0), (ends[0] - ends[1]) / 2
    top = eyes - 0.65 * down - centre
    return centre + np.cos(angle) * across + np.sin(angle) * top


def _largest_first(parts, areas) -> np.ndarray:
    rank = np.argsort(np.argsort(-np.bincount(parts, areas), kind='stable'))
    return rank[parts]
