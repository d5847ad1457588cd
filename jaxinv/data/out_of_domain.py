"""Changes of aligned faces that a generator of faces does not make, with the pixels they touch.

In FFHQ's alignment the eyes and the mouth have their places (Karras et al. 2019, appendix C), so a
hat, paint or glasses are drawn without landmarks. Places are fractions of the side, (x, y).
"""

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageFilter
import scipy.ndimage

from jaxinv.data import drawing, occluders
from jaxinv.data.drawing import blend, box, ellipse, line, polygon, visible

EYES = ((0.375, 0.472), (0.625, 0.472))
MOUTH = (0.5, 0.74)
FACE = (0.5, 0.575, 0.235, 0.32)  # an ellipse: centre, half axes
MIN_COVERED = 0.125  # of that ellipse by an occluder


class Change(NamedTuple):
    """A changed picture."""

    kind: str  # of CHANGES
    image_uint8: np.ndarray  # [h, w, 3]
    mask: np.ndarray  # bool [h, w]: where it may differ; elsewhere it is the clean picture
    facts: dict[str, Any]  # numbers of the change, for the record


def change(index: int, image_uint8, rng: np.random.Generator) -> Change:
    """The change number `index` of an aligned square picture [h, w, 3].

    The changes take turns, and so do the styles of each.
    """
    kind = tuple(CHANGES)[index % len(CHANGES)]
    image, turn = np.asarray(image_uint8), index // len(CHANGES)
    changed, mask, facts = CHANGES[kind](image, rng, turn)
    return Change(kind, changed, mask, facts)


def _touched(*opacities) -> np.ndarray:
    return np.any([visible(opacity) > 0 for opacity in opacities], axis=0)


# --- Things before the face -----------------------------------------------------------------------


def occluder(image, rng, turn):
    """A piece of a photograph over at least an eighth of the face."""
    face = ellipse(len(image), *FACE) > 0.5
    while True:
        changed, opacity = occluders.cover(image, rng)
        covered = (opacity[face] > 0.5).mean()
        if covered >= MIN_COVERED:
            return changed, _touched(opacity), {'covers': round(float(covered), 3)}


def hat(image, rng, turn):
    """A hat with a brim or a knitted cap, with the shadow on the forehead."""
    style = ('brim', 'cap')[turn % 2]
    side, colour = len(image), drawing.colour(rng)
    tilt, turned = rng.uniform(-7, 7), image
    if style == 'brim':
        crown = polygon(side, drawing.arch(0.5, 0.24, 0.28, rng.uniform(0.3, 0.36)), tilt)
        band = crown * polygon(side, box(0.1, 0.17, 0.9, 0.235), tilt)
        rim = ellipse(side, 0.5, 0.25, 0.47, 0.075, tilt)
        shadow = ellipse(side, 0.5, 0.315, 0.38, 0.09, tilt, blur=0.025)
        layers = ((crown, 1.0), (band, 0.35), (rim, 0.85))
    else:
        crown = polygon(side, drawing.arch(0.5, 0.28, 0.37, 0.36), tilt)
        cuff = ellipse(side, 0.5, 0.245, 0.39, 0.105, tilt) * polygon(
            side, box(0, 0.17, 1, 1), tilt
        )
        shadow = ellipse(side, 0.5, 0.325, 0.32, 0.07, tilt, blur=0.02)
        layers = ((crown, 1.0), (cuff, 0.7))
    turned = blend(turned, turned * 0.35, shadow)
    light = drawing.round_light(side) * drawing.cloth(side, rng, ribs=style == 'cap')
    for opacity, brightness in layers:
        turned = blend(turned, np.clip(colour * brightness * light, 0, 255), opacity)
    facts = {'style': style, 'colour': colour.tolist(), 'degrees': round(tilt, 1)}
    return (
        drawing.to_uint8(turned),
        _touched(crown, rim if style == 'brim' else cuff, shadow),
        facts,
    )


def glasses(image, rng, turn):
    """Dark glasses, or a bar over the eyes."""
    side, tilt = len(image), rng.uniform(-4, 4)
    style = 'bar' if turn % 4 == 3 else 'glasses'
    colour = drawing.colour(rng) * 0.3
    if style == 'bar':
        opacity = polygon(side, box(0.2, 0.415, 0.8, 0.535), tilt)
        changed, everything = blend(image, np.zeros(3), opacity), opacity
    else:
        width, height = rng.uniform(0.1, 0.125), rng.uniform(0.06, 0.09)
        lenses = sum(ellipse(side, x, y + 0.015, width, height, tilt, power=3) for x, y in EYES)
        rims = sum(
            ellipse(side, x, y + 0.015, width + 0.013, height + 0.013, tilt, power=3)
            for x, y in EYES
        )
        rims = np.maximum(rims, polygon(side, box(0.46, 0.452, 0.54, 0.47), tilt))
        for ends in ((0.12, 0.26), (0.74, 0.88)):
            rims = np.maximum(rims, polygon(side, box(ends[0], 0.455, ends[1], 0.472), tilt))
        rims, lenses = np.clip(rims, 0, 1), np.clip(lenses, 0, 1)
        # The sky in the lenses: brighter above.
        sky = 20 + 70 * np.clip(0.58 - drawing.grid(side)[1], 0, 0.2)[..., None] / 0.2
        changed = blend(blend(image, colour, rims), sky * np.ones(3), 0.95 * lenses)
        everything = np.maximum(rims, lenses)
    return (
        drawing.to_uint8(changed),
        _touched(everything),
        {'style': style, 'degrees': round(tilt, 1)},
    )


def face_mask(image, rng, turn):
    """A surgical mask over nose and mouth."""
    side = len(image)
    colour = np.array(((150, 190, 215), (225, 228, 230), (45, 45, 50))[turn % 3], float)
    outline = [(0.255, 0.565), (0.4, 0.56), (0.5, 0.535), (0.6, 0.56), (0.745, 0.565)]
    outline += [(0.725, 0.76), (0.625, 0.885), (0.5, 0.925), (0.375, 0.885), (0.275, 0.76)]
    body = polygon(side, outline, blur=0.002)
    straps = np.zeros((side, side))
    for a, b in (((0.26, 0.57), (0.19, 0.52)), ((0.28, 0.76), (0.2, 0.68))):
        for mirror in (False, True):
            ends = [(1 - x, y) for x, y in (a, b)] if mirror else [a, b]
            straps = np.maximum(straps, line(side, ends, 0.008))
    x, y = drawing.grid(side)
    pleats = 1 - 0.13 * np.exp(-((((y + 0.12 * (x - 0.5) ** 2) * 14) % 1 - 0.5) ** 2) / 0.01)
    light = drawing.round_light(side) * pleats[..., None] * drawing.cloth(side, rng)
    shadow = polygon(side, [(px, py + 0.012) for px, py in outline], blur=0.012)
    changed = blend(image, image * 0.55, shadow)
    changed = blend(changed, colour * 0.9, straps)
    changed = blend(changed, np.clip(colour * light, 0, 255), body)
    return (
        drawing.to_uint8(changed),
        (np.maximum(body, straps) > 0) | (shadow > 0),
        {'colour': colour.tolist()},
    )


# --- On the skin ----------------------------------------------------------------------------------


def make_up(image, rng, turn):
    """Paint on the face, with the light of the face: a clown, a tiger, two colours, or stripes."""
    side, style = len(image), ('clown', 'tiger', 'halves', 'stripes')[turn % 4]
    face = ellipse(side, *FACE, blur=0.012)
    holes = sum(ellipse(side, x, y, 0.058, 0.026, blur=0.004) for x, y in EYES)
    face = face * np.clip(1 - holes, 0, 1)
    x, y = drawing.grid(side)
    first, second = drawing.colour(rng), drawing.colour(rng)
    if style == 'clown':
        paint = [(np.array((238, 236, 232.0)), face)]
        for cx, cy in EYES:
            paint.append(
                (first, polygon(side, drawing.diamond(cx, cy, 0.062, 0.13), blur=0.003) * face)
            )
        paint.append((np.array((205, 25, 30.0)), ellipse(side, *MOUTH, 0.15, 0.07) * face))
        paint.append((np.array((215, 20, 30.0)), ellipse(side, 0.5, 0.615, 0.062, 0.055)))
    elif style == 'tiger':
        muzzle = ellipse(side, 0.5, 0.72, 0.13, 0.12, blur=0.02)
        waves = np.sin(38 * (y + 0.35 * np.abs(x - 0.5) + 0.02 * np.sin(40 * x)))
        edge = np.clip((np.abs(x - 0.5) - 0.075) / 0.04, 0, 1)
        stripes = np.clip((waves - 0.35) * 4, 0, 1) * edge
        paint = [(np.array((235, 130, 25.0)), face), (np.array((245, 240, 230.0)), face * muzzle)]
        paint.append((np.array((25, 18, 15.0)), face * stripes * (1 - 0.8 * muzzle)))
        paint.append((np.array((30, 20, 20.0)), ellipse(side, 0.5, 0.63, 0.05, 0.03) * face))
    elif style == 'halves':
        border = 0.5 + 0.02 * np.sin(30 * y) + rng.uniform(-0.03, 0.03)
        half = np.clip((x - border) * 200, 0, 1)
        paint = [(first, face * (1 - half)), (second, face * half)]
    else:
        paint = []
        for i, height in enumerate((0.545, 0.59, 0.635)):
            for left, right in ((0.24, 0.41), (0.59, 0.76)):
                bar = polygon(side, box(left, height, right, height + 0.024), blur=0.003)
                paint.append(((first, second)[i % 2], bar * face))
        paint.append((first, polygon(side, box(0.3, 0.34, 0.7, 0.375), blur=0.003) * face))
    grey = np.asarray(image, float) @ (0.299, 0.587, 0.114)
    light = np.clip(grey / np.median(grey[face > 0.5]), 0.25, 1.35)[..., None]
    changed, everything = image, np.zeros((side, side))
    for colour, opacity in paint:
        changed = blend(changed, np.clip(colour * light, 0, 255), 0.9 * opacity)
        everything = np.maximum(everything, opacity)
    return drawing.to_uint8(changed), _touched(everything), {'style': style}


# --- Of the whole picture -------------------------------------------------------------------------


def light(image, rng, turn):
    """Strong coloured light from one side, and darkness on the other."""
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(2.2, 2.8)
    x, y = (axis - 0.5 for axis in drawing.grid(len(image)))
    # From -1 to 1 over a third of the side, across the face.
    along = np.clip(6 * (x * np.cos(angle) + y * np.sin(angle)), -1, 1)
    tint = 1 + 0.8 * rng.uniform(-1, 1, 3)
    gain = np.exp(strength * along)[..., None]
    tints = tint ** np.clip(along, 0, 1)[..., None]
    linear = (np.asarray(image) / 255.0) ** 2.2 * gain * tints
    changed = 255 * np.clip(linear, 0, 1) ** (1 / 2.2)
    facts = {'from_degrees': round(float(np.rad2deg(angle)), 1), 'gain': round(np.exp(strength), 2)}
    return drawing.to_uint8(changed), np.ones(image.shape[:2], bool), facts


def crop(image, rng, turn):
    """Turned by 15 to 60 degrees and shifted: nearer, or farther on a plain ground."""
    side = len(image)
    angle = np.deg2rad(rng.uniform(15, 60) * rng.choice((-1, 1)))
    scale = rng.uniform(0.55, 0.75) if turn % 2 else rng.uniform(1.35, 1.8)
    shift = rng.uniform(-0.12, 0.12, 2) * side
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array(((cos, -sin), (sin, cos))) / scale
    centre = np.full(2, (side - 1) / 2)
    offset = centre - matrix @ (centre + shift)
    edge, ground = ('reflect', 0) if scale > 1 else ('constant', float(rng.integers(256)))
    source = image.astype(float)
    if scale < 1:
        source = scipy.ndimage.gaussian_filter(source, (0.5 / scale, 0.5 / scale, 0))
    changed = np.stack(
        [
            scipy.ndimage.affine_transform(
                source[..., c], matrix, offset, order=1, mode=edge, cval=ground
            )
            for c in range(3)
        ],
        -1,
    )
    facts = {'degrees': round(float(np.rad2deg(angle)), 1), 'scale': round(float(scale), 3)}
    # Pixel (row, column) of the changed picture is pixel matrix @ (row, column) + offset of the
    # clean one.
    facts |= {'matrix': matrix.round(6).tolist(), 'offset': offset.round(3).tolist()}
    return drawing.to_uint8(changed), np.ones(image.shape[:2], bool), facts


def quality(image, rng, turn):
    """Small, blurred, and in a JPEG of low quality."""
    side = len(image)
    small, blur, jpeg = int(rng.integers(56, 113)), rng.uniform(0.4, 1), int(rng.integers(6, 20))
    picture = PIL.Image.fromarray(image).resize((small, small), PIL.Image.Resampling.BOX)
    picture = picture.filter(PIL.ImageFilter.GaussianBlur(blur))
    picture = picture.resize((side, side), PIL.Image.Resampling.BICUBIC)
    file = io.BytesIO()
    picture.save(file, 'JPEG', quality=jpeg)
    with PIL.Image.open(file) as decoded:
        changed = np.asarray(decoded.convert('RGB'))
    facts = {'pixels': small, 'blur': round(blur, 2), 'jpeg': jpeg}
    return changed, np.ones(image.shape[:2], bool), facts


CHANGES: dict[str, Callable] = {
    'occluder': occluder,
    'hat': hat,
    'make_up': make_up,
    'glasses': glasses,
    'face_mask': face_mask,
    'light': light,
    'crop': crop,
    'quality': quality,
}
