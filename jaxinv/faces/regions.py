"""Measures of hair, beard, glasses, gaze and light from the pixels of regions of a face.

No network of a package measures these, so the colours and edges of regions do, placed by landmarks:
`by_mesh` by MediaPipe's 478, `by_dlib` by dlib's 68, `by_mask` by DeepLab's mask of the person. The
sources differ in landmarks, regions or statistics, so that one can steer an edit and another judge
it. They rank faces; shadows and backgrounds are their errors.

  light        log2 of the brightness of the face's right side over its left (in the picture)
  skin         brightness of the skin, 0 ... 100 (L*)
  hair_colour  brightness of the hair, 0 ... 100 (L*)
  hair_length  % of strips beside the cheeks that is hair (mesh: of the hair's colour; mask: person)
  fringe       % by which the forehead is unlike the cheeks (mesh: colour; dlib: edges)
  beard        % by which chin and upper lip are darker (mesh) or rougher (dlib) than the cheeks
  glasses      log of the strongest edges below the eyes and beside them (mesh)
  gaze         place of the dark of the eyes between their corners, in % of an eye's width (dlib)
"""

import jax
import numpy as np
import PIL.Image

from jaxinv.faces.batches import in_batches
from jaxinv.weights import graphs

_PERSON = 15  # of PASCAL VOC's classes
_CHEEKS = ((50, 101, 205), (280, 330, 425))  # of the 478: below the left and the right eye
_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip


def person(images_uint8) -> np.ndarray:
    """Probability of a person, float32 [n, 257, 257], of uint8 pictures [n, h, h, 3]."""
    return in_batches(_person, graphs.load('deeplab'), images_uint8)


@jax.jit
def _person(network, images):
    small = jax.image.resize(images, (len(images), 257, 257, 3), 'linear')
    (scores,) = network(small / 127.5 - 1)
    return jax.nn.softmax(scores[:, 0])[..., _PERSON]


def lightness(image_uint8) -> np.ndarray:
    """L*, 0 to 100, float32 [h, w] of sRGB [h, w, 3] (CIE 1976)."""
    linear = _LINEAR[image_uint8] @ np.float32([0.2126, 0.7152, 0.0722])
    return np.where(linear > 0.008856, 116 * np.cbrt(linear) - 16, 903.3 * linear)


_LINEAR = np.arange(256, dtype=np.float64) / 255
_LINEAR = np.where(_LINEAR <= 0.04045, _LINEAR / 12.92, ((_LINEAR + 0.055) / 1.055) ** 2.4)
_LINEAR = _LINEAR.astype(np.float32)


def by_mesh(image_uint8, points) -> dict[str, float]:
    """{'light', 'skin', 'hair_colour', 'hair_length', 'fringe', 'beard', 'glasses'}.

    points: landmarks [478, 3] of the uint8 picture [h, h, 3].
    """
    points = np.asarray(points, np.float64)[:, :2]
    light = lightness(image_uint8)
    colour = _opponent(image_uint8, light)
    left, right = (_mean(light, points[list(group)]) for group in _CHEEKS)
    cheeks = np.concatenate([_patch(colour, points[i], 5) for group in _CHEEKS for i in group])
    cheek = np.median(cheeks, 0)
    top, chin, brow = points[10], points[152], points[9]
    height, width = np.hypot(*(chin - top)), np.hypot(*(points[454] - points[234]))
    up = (top - chin) / height

    # The mesh ends below the hairline.
    hair = np.concatenate(
        [
            _patch(colour, top + up * rise * height + np.array([shift * width, 0]), 8)
            for rise in (0.22, 0.3)
            for shift in (-0.15, 0.0, 0.15)
        ]
    )
    hair_colour = np.median(hair, 0)
    strips = _beside(points, light.shape)
    like = np.linalg.norm((colour[strips] - hair_colour) * [0.7, 1, 1], axis=-1) < 16
    forehead = np.concatenate(
        [
            _patch(colour, top + (brow - top) * down + np.array([shift * width, 0]), 6)
            for down in (0.25, 0.45)
            for shift in (-0.25, -0.12, 0.0, 0.12, 0.25)
        ]
    )
    unlike = np.linalg.norm((forehead - cheek) * [0.7, 1, 1], axis=-1) > 18
    chins = [points[i] for i in (164, 165, 391, 18, 200, 199, 208, 428, 210, 430)]
    darkness = np.mean([_mean(light, one[None], 4) for one in chins])
    return {
        'light': float(np.log2((right + 5) / (left + 5))),
        'skin': float((left + right) / 2),
        'hair_colour': float(hair_colour[0]),
        'hair_length': float(100 * like.mean()) if like.size else np.nan,
        'fringe': float(100 * unlike.mean()),
        'beard': float(100 * (1 - darkness / max((left + right) / 2, 1))),
        'glasses': _rims(light, points),
    }


def by_dlib(image_uint8, points) -> dict[str, float]:
    """{'light', 'skin', 'fringe', 'beard', 'gaze'} with landmarks [68, 2] of the picture."""
    points = np.asarray(points, np.float64)
    light = lightness(image_uint8)
    eyes = points[36:42].mean(0), points[42:48].mean(0)
    distance = np.hypot(*(eyes[1] - eyes[0]))
    centre = (eyes[0] + eyes[1]) / 2
    down = (points[8] - centre) / np.hypot(*(points[8] - centre))
    # Lower cheeks, between the corner of the mouth and the jaw.
    sides = [(points[4] + points[48]) / 2, (points[12] + points[54]) / 2]
    left, right = (_mean(light, one[None], 6) for one in sides)

    edges, rough = _edges(light), _roughness(light)
    cheeks = np.array([(points[31] + points[2]) / 2, (points[35] + points[14]) / 2])
    band = centre - down * 0.75 * distance
    shifts = np.array([[s * distance, 0] for s in (-0.5, -0.25, 0, 0.25, 0.5)])
    forehead = _mean(edges, band + shifts, 7) + 0.3
    chin, aside = (points[8] + points[57]) / 2, np.array([0.25 * distance, 0])
    lip = [(points[31] + points[49]) / 2, (points[35] + points[53]) / 2]
    texture = _mean(rough, np.array([chin, chin - aside, chin + aside, *lip]), 7) + 0.1
    return {
        'light': float(np.log2((right + 5) / (left + 5))),
        'skin': _mean(light, points[28:30], 4),
        'fringe': float(100 * np.log(forehead / (_mean(edges, cheeks, 7) + 0.3))),
        'beard': float(100 * np.log(texture / (_mean(rough, cheeks, 7) + 0.1))),
        'gaze': _dark_of_eyes(light, points),
    }


def by_mask(image_uint8, points, dense, mask) -> dict[str, float]:
    """{'hair_colour', 'hair_length'} from the person's mask (`person` of the picture).

    points [68, 2] and dense [478, 3]: landmarks that tell the hair from the face.
    """
    light, dense = lightness(image_uint8), np.asarray(dense)[:, :2]
    size = light.shape[0]
    mask = np.asarray(PIL.Image.fromarray(mask).resize((size, size))) > 0.5
    face = _inside(dense[list(_OVAL)], light.shape)
    above = np.arange(size)[:, None] < np.asarray(points)[17:27, 1].min()  # the brows
    hair = light[mask & ~face & above]
    strips = _beside(dense, light.shape)
    return {
        'hair_colour': float(np.median(hair)) if hair.size > 50 else np.nan,
        'hair_length': float(100 * mask[strips].mean()) if strips.any() else np.nan,
    }


# --- Regions and their statistics -----------------------------------------------------------------


def _opponent(image_uint8, light):
    """[h, w, 3]: L*, and red-green and yellow-blue differences on a like scale."""
    r, g, b = (image_uint8[..., i].astype(np.float32) for i in range(3))
    return np.stack([light, 0.35 * (r - g), 0.2 * (r + g - 2 * b)], -1)


def _patch(values, centre, radius):
    """Values within a square around a point, [k, ...]; the nearest inside for points outside."""
    size = values.shape[0]
    x, y = np.clip(np.rint(centre), radius, size - 1 - radius).astype(int)
    part = values[y - radius : y + radius + 1, x - radius : x + radius + 1]
    return part.reshape(-1, *values.shape[2:])


def _mean(values, centres, radius: int = 6) -> float:
    return float(np.mean([_patch(values, one, radius).mean() for one in centres]))


def _inside(polygon, shape):
    """bool [h, w]: the pixels of a polygon [k, 2]."""
    import PIL.ImageDraw

    picture = PIL.Image.new('L', shape[::-1])
    PIL.ImageDraw.Draw(picture).polygon([tuple(map(float, p)) for p in polygon], fill=1)
    return np.asarray(picture) > 0


def _beside(points, shape):
    """bool [h, w]: strips beside the cheeks, from the height of the nose to below the mouth."""
    width = np.hypot(*(points[454] - points[234]))
    rows = (int(points[1, 1]), int(points[17, 1] + 0.1 * width))
    strips = np.zeros(shape, bool)
    for edge, sign in ((points[234, 0], -1), (points[454, 0], 1)):
        ends = sorted((edge + sign * 0.05 * width, edge + sign * 0.25 * width))
        left, right = np.clip(np.rint(ends), 0, shape[1]).astype(int)
        strips[max(rows[0], 0) : rows[1], left:right] = True
    return strips


def _edges(light):
    """Length of the gradient, per pixel of a picture of 512 pixels."""
    gy, gx = np.gradient(light)
    return np.hypot(gx, gy) * (len(light) / 512)


def _roughness(light):
    """Absolute difference from the mean of the eight neighbours and the pixel."""
    padded = np.pad(light, 1, mode='edge')
    height, width = light.shape
    total = sum(padded[i : i + height, j : j + width] for i in range(3) for j in range(3))
    return np.abs(light - total / 9)


def _rims(light, points) -> float:
    """Log of the strongest vertical steps below the eyes and beside them, over the brightness."""
    steps = []
    for lower, outer, cheek, side in ((145, 33, 101, 127), (374, 263, 330, 356)):
        eye = np.hypot(*(points[cheek] - points[lower]))
        column = np.linspace(points[lower] + [0, 0.25 * eye], points[cheek] + [0, 0.1 * eye], 40)
        arm = (points[outer] * 0.55 + points[side] * 0.45)[None]
        arm = arm + np.linspace(-0.45, 0.45, 40)[:, None] * np.array([0, eye])
        for line in (column, arm):
            rows = [
                _sample(light, line + [shift, 0]) for shift in np.linspace(-0.12, 0.12, 5) * eye
            ]
            profile = np.mean(rows, 0)
            steps.append(np.abs(profile[3:] - profile[:-3]).max() / (profile.mean() + 10))
    return float(np.log(np.mean(np.sort(steps)[1:]) + 0.01))


def _sample(values, points):
    import scipy.ndimage

    return scipy.ndimage.map_coordinates(values, points[:, ::-1].T, order=1, mode='nearest')


def _dark_of_eyes(light, points) -> float:
    """Mean place of the dark pixels between the corners of each eye; weights 1 for black."""
    places = []
    for first, last, lids in ((36, 39, range(36, 42)), (42, 45, range(42, 48))):
        start, end = points[first], points[last]
        axis = end - start
        # The polygon of the lids, without the corners, whose lashes are dark.
        inside = _inside(points[list(lids)], light.shape)
        y, x = np.nonzero(inside)
        along = ((np.stack([x, y], -1) - (start + end) / 2) @ axis) / (axis @ axis)
        keep = np.abs(along) < 0.36
        if keep.sum() < 8:
            return np.nan
        values = light[y, x][keep]
        weight = np.clip(np.percentile(values, 60) - values, 0, None) + 1e-6
        places.append(np.average(along[keep], weights=weight))
    return float(100 * np.mean(places))
