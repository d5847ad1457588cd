"""Segments of an FFHQ-aligned portrait, from its 68 landmarks and superpixels.

Eyes, brows, nose and mouth are polygons of landmarks. What lies around the face is found by random
walks (Grady 2005, "Multilabel random walker image segmentation using prior models"): every
superpixel goes to the class that a walk from it, held back by differences of colour, would most
likely end in, where the classes pull as far as the usual layout of a portrait suggests.

Layout coordinates: the origin between the eyes, v down towards the mouth, which is at v = 1, and u
at right angles to it, to the picture's right.
"""

import numpy as np
import PIL.Image
import PIL.ImageDraw
import scipy.ndimage

from jaxinv.faces import align
from jaxinv.segmentation.label_maps import Segments, number
from jaxinv.segmentation.superpixels import Superpixels, join, superpixels

CLASSES = ('face', 'hair or hat', 'neck and clothes', 'background')
# Where classes other than the face usually are: Gaussians (u, v, deviations of u and v), mirrored.
LAYOUT = {
    'hair or hat': ((0.0, -1.2, 0.6, 0.2), (0.8, -0.9, 0.25, 0.3), (1.1, 0.1, 0.15, 0.5)),
    'neck and clothes': ((0.0, 2.1, 0.7, 0.15), (1.0, 2.2, 0.5, 0.15)),
    'background': ((1.8, -1.75, 0.3, 0.25), (1.85, -0.4, 0.15, 0.8), (1.6, 0.9, 0.2, 0.3)),
}
PULL = 0.02  # of the layout, against the differences of colour
ANYWHERE = 0.2  # of a class where the layout does not expect it, if the colour is its own
SPREAD = 8.0  # of a class' colours, in CIELAB
SOFTNESS = 10.0  # CIELAB distance at which neighbours hold a walk back by 1 / e
# The parts around the face are divided further where that takes this much off the squared colour
# distance of a pixel, averaged over the picture.
CONTRAST = 30.0
MAX_PARTS = 3


def segment(image_uint8, landmarks) -> Segments:
    """Segments of a picture [h, w, 3] with landmarks [68, 2].

    'face', 'eyes', 'brows', 'nose', 'mouth', and, as far as they are there and numbered if divided,
    'hair or hat', 'neck and clothes', 'background left' and 'background right'.
    """
    image_uint8, points = np.asarray(image_uint8), np.asarray(landmarks, float)
    found = superpixels(image_uint8)
    classes = classify(found, points)
    middle = points[27:31, 0].mean()  # the ridge of the nose
    columns = np.arange(image_uint8.shape[1])
    center = np.bincount(found.labels.ravel(), np.broadcast_to(columns, found.labels.shape).ravel())
    right = center / found.areas > middle

    groups = [('face', classes == 0), *((c, classes == i) for i, c in enumerate(CLASSES[1:3], 1))]
    groups += [('background left', (classes == 3) & ~right)]
    groups += [('background right', (classes == 3) & right)]
    label_of, names = np.zeros(len(found.areas), int), {}
    for name, chosen in groups:
        members = np.flatnonzero(chosen)
        if not len(members):
            continue
        parts = np.zeros(len(members), int)
        if name != 'face':
            parts = join(found, members, MAX_PARTS, CONTRAST)
            parts = _largest_first(parts, found.areas[members])
        label_of[members] = len(names) + parts
        for part in range(parts.max() + 1):
            names[len(names)] = f'{name} {part + 1}' if parts.max() else name
    labels = label_of[found.labels]
    for name, mask in features(points, labels.shape).items():
        names[len(names)] = name
        labels[mask] = len(names) - 1
    return number(labels, names)


def classify(found: Superpixels, landmarks) -> np.ndarray:
    """Class (place in CLASSES) of each superpixel, by random walks with the layout as prior."""
    prior = layout(landmarks, found.labels.shape)
    prior = np.stack([np.bincount(found.labels.ravel(), p.ravel()) for p in prior], 1)
    prior = prior / found.areas[:, None]

    difference = found.colors[found.pairs[:, 0]] - found.colors[found.pairs[:, 1]]
    weight = np.exp(-((np.linalg.norm(difference, axis=1) / SOFTNESS) ** 2)) + 1e-4
    weight = weight * found.borders / found.borders.mean()
    laplacian = np.zeros((len(found.areas),) * 2)
    i, j = found.pairs.T
    laplacian[i, j] = laplacian[j, i] = -weight
    laplacian[np.diag_indices_from(laplacian)] = -laplacian.sum(1)
    pull = PULL * (prior + ANYWHERE) * _by_color(found, prior)
    matrix = laplacian + np.diag(pull.sum(1) + 1e-9)
    return np.linalg.solve(matrix, pull).argmax(1)


def _by_color(found, prior) -> np.ndarray:
    """Probability [n, 4] of each class by colour alone, as the pixels that the layout gives it."""
    distance = np.linalg.norm(found.colors[:, None] - found.colors, axis=-1)
    density = np.exp(-0.5 * (distance / SPREAD) ** 2) @ (prior * found.areas[:, None])
    density = density / np.maximum(prior.T @ found.areas, 1) + 1e-4
    return density / density.sum(1, keepdims=True)


def layout(landmarks, shape) -> np.ndarray:
    """How strongly each class of CLASSES is expected at each pixel, [4, h, w] from 0 to 1."""
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
    """(u, v) of each pixel [h, w]."""
    eyes, down = _axes(landmarks)
    y, x = np.indices(shape)
    x, y, length = x - eyes[0], y - eyes[1], down @ down
    return (x * down[1] - y * down[0]) / length, (x * down[0] + y * down[1]) / length


def features(landmarks, shape) -> dict[str, np.ndarray]:
    """Masks [h, w] of 'brows', 'eyes', 'nose' and 'mouth', a little wider than the landmarks."""
    _, down = _axes(landmarks)
    length = np.hypot(*down)
    brow = 0.06 * length * down / length  # landmarks run along the brows' upper edge
    brows = [[*(b - 0.7 * brow), *(b[::-1] + brow)] for b in (landmarks[17:22], landmarks[22:27])]
    eyes = [landmarks[align.LEFT_EYE], landmarks[align.RIGHT_EYE]]
    nose = [*landmarks[27:28], *landmarks[31:36]]
    wide = {
        'brows': (brows, 0.02),
        'eyes': (eyes, 0.06),
        'nose': ([nose], 0.07),
        'mouth': ([landmarks[48:60]], 0.04),
    }
    masks = {}
    for name, (polygons, margin) in wide.items():
        inside = np.any([mask(p, shape) for p in polygons], axis=0)
        masks[name] = scipy.ndimage.distance_transform_edt(~inside) <= margin * length
    return masks


def mask(polygon, shape) -> np.ndarray:
    """Pixels [h, w] inside a polygon of points (x, y)."""
    image = PIL.Image.new('1', shape[::-1])
    PIL.ImageDraw.Draw(image).polygon([tuple(map(float, p)) for p in polygon], fill=1)
    return np.asarray(image)


def _axes(landmarks):
    """The point between the eyes, and the way from there to the mouth."""
    landmarks = np.asarray(landmarks)
    eyes = (landmarks[align.LEFT_EYE].mean(0) + landmarks[align.RIGHT_EYE].mean(0)) / 2
    return eyes, landmarks[list(align.MOUTH_CORNERS)].mean(0) - eyes


def _forehead(landmarks):
    """Points of half an ellipse over the brows, from the right end of the jaw to the left."""
    eyes, down = _axes(landmarks)
    ends = landmarks[[16, 0]]
    angle = np.linspace(0, np.pi, 9)[1:-1, None]
    centre, across = ends.mean(0), (ends[0] - ends[1]) / 2
    top = eyes - 0.65 * down - centre
    return centre + np.cos(angle) * across + np.sin(angle) * top


def _largest_first(parts, areas) -> np.ndarray:
    rank = np.argsort(np.argsort(-np.bincount(parts, areas), kind='stable'))
    return rank[parts]
