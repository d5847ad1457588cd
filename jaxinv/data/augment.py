"""Changes of aligned pictures that a code should not follow, for the training of encoders.

A photograph differs from generated pictures in framing, light, colour, sharpness, noise,
compression and in what is before the face. Each picture is changed by numbers of its own generator
of random numbers, on the host.
"""

import io

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageFilter

from jaxinv.data import occluders
from jaxinv.settings.encoders import Augmentation

TURN, SCALE, SHIFT = 4.0, 0.06, 0.04  # degrees, factor - 1, share of the side; standard deviations
BLUR = 1.8  # pixels at 256, largest
NOISE = 10.0  # of 255, largest standard deviation
QUALITY = 25, 95  # of JPEG


def augment(image_uint8, rng: np.random.Generator, s: Augmentation) -> np.ndarray:
    """The picture [h, w, 3], changed; each change by chance, as the settings say."""
    image = np.asarray(image_uint8)
    if rng.random() < s.occluders:
        for _ in range(rng.integers(1, occluders.MAX_OCCLUDERS + 1)):
            image = occluders.occlude(image, rng)
    picture = PIL.Image.fromarray(image)
    if rng.random() < s.crop:
        picture = _crop(picture, rng)
    if rng.random() < s.colour:
        picture = _colour(picture, rng)
    if rng.random() < s.grey:
        picture = picture.convert('L').convert('RGB')
    if rng.random() < s.blur:
        radius = rng.uniform(0, BLUR) * picture.width / 256
        picture = picture.filter(PIL.ImageFilter.GaussianBlur(radius))
    if rng.random() < s.noise:
        noise = rng.standard_normal(np.shape(picture), np.float32) * rng.uniform(0, NOISE)
        values = np.asarray(picture, np.float32) + noise
        picture = PIL.Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
    if rng.random() < s.jpeg:
        file = io.BytesIO()
        picture.save(file, 'JPEG', quality=int(rng.integers(*QUALITY)))
        picture = PIL.Image.open(file)
    return np.asarray(picture)


def _crop(picture, rng):
    """Turned, scaled and shifted a little; what comes from outside is mirrored."""
    side = picture.width
    angle = np.deg2rad(rng.normal(0, TURN))
    scale = np.exp(rng.normal(0, SCALE))
    pad = side // 4
    padded = np.pad(np.asarray(picture), ((pad, pad), (pad, pad), (0, 0)), 'reflect')
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    centre = np.array([side / 2, side / 2])
    source = centre + pad + rng.normal(0, SHIFT, 2) * side
    offset = source - np.array([[cos, sin], [-sin, cos]]) @ centre
    matrix = (cos, sin, offset[0], -sin, cos, offset[1])
    whole = PIL.Image.fromarray(padded)
    return whole.transform((side, side), PIL.Image.Transform.AFFINE, matrix, PIL.Image.BILINEAR)


def _colour(picture, rng):
    """Another contrast, saturation, brightness and tint."""
    for enhancer in (PIL.ImageEnhance.Contrast, PIL.ImageEnhance.Color):
        picture = enhancer(picture).enhance(np.exp(rng.normal(0, 0.2)))
    values = np.asarray(picture, np.float32) / 255
    gains = np.exp(rng.normal(0, 0.06, 3) + rng.normal(0, 0.12))
    values = np.clip(values * gains, 0, 1) ** np.exp(rng.normal(0, 0.15))
    return PIL.Image.fromarray(np.rint(255 * values).astype(np.uint8))
