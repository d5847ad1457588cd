"""Distortions of generated pictures that no generator reproduces: occluders and misalignment.

A generated picture can be inverted everywhere, so its maps of invertibility are nearly constant.
Pieces of other photographs over it, and faces away from their aligned position, replace the hands,
microphones and hats of real photographs.
"""

import functools
import pathlib

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFilter
import scipy.ndimage

# Photographs in scikit-image's wheel: public domain or CC0.
TEXTURES = ('chelsea.png', 'coffee.png', 'rocket.jpg')
MAX_OCCLUDERS = 3
MISALIGNED_FRACTION = 0.3  # of the pictures are rotated, shifted and scaled


def distort(image_uint8, rng: np.random.Generator) -> np.ndarray:
    """The picture [h, w, 3] with 0 to 3 occluders; some pictures are also misaligned."""
    image = np.asarray(image_uint8)
    if rng.random() < MISALIGNED_FRACTION:
        image = misalign(image, rng)
    for _ in range(rng.integers(0, MAX_OCCLUDERS + 1)):
        image = occlude(image, rng)
    return image


def misalign(image, rng: np.random.Generator) -> np.ndarray:
    """Rotated by up to 20 degrees, scaled by 0.8 to 1.25, shifted by up to a tenth of the side.

    uint8 [h, w, 3]; pixels from outside are mirrored at the edges.
    """
    size = np.array(image.shape[:2])
    angle, scale = np.deg2rad(rng.uniform(-20, 20)), np.exp(rng.uniform(np.log(0.8), np.log(1.25)))
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[cos, -sin], [sin, cos]]) / scale
    centre = (size - 1) / 2
    offset = centre - matrix @ (centre + rng.uniform(-0.1, 0.1, 2) * size)
    planes = [
        scipy.ndimage.affine_transform(image[..., c], matrix, offset, order=1, mode='reflect')
        for c in range(3)
    ]
    return np.stack(planes, -1)


def occlude(image, rng: np.random.Generator) -> np.ndarray:
    """uint8 [h, w, 3] with an octagonal piece of another photograph, or of one colour, over it.

    Its place, size and shape are random; its border is blurred.
    """
    return cover(image, rng)[0]


def cover(image, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(the picture of `occlude`, the opacity [h, w] in [0, 1] of the piece)."""
    height, width = image.shape[:2]
    mask = PIL.Image.new('L', (width, height))
    centre, radius = rng.uniform(0.05, 0.95, 2), rng.uniform(0.07, 0.25)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 8))
    radii = radius * rng.uniform(0.6, 1.4, 8) * rng.choice([1.0, 1.6], p=[0.7, 0.3])
    points = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    corners = [(float(x * width), float(y * height)) for x, y in points]
    PIL.ImageDraw.Draw(mask).polygon(corners, fill=255)
    mask = mask.filter(PIL.ImageFilter.GaussianBlur(width / 200))
    opacity = np.asarray(mask, np.float32)[..., None] / 255
    if rng.random() < 0.25:
        piece = np.broadcast_to(rng.integers(0, 256, 3), image.shape)
    else:
        piece = _random_crop(textures()[rng.integers(len(TEXTURES))], (height, width), rng)
    covered = np.rint(image * (1 - opacity) + piece * opacity).astype(np.uint8)
    return covered, opacity[..., 0]


def _random_crop(texture, size, rng):
    """A random square of the texture, at least a third of its shorter side, resized to `size`."""
    side = int(rng.uniform(0.33, 1.0) * min(texture.shape[:2]))
    y, x = (rng.integers(0, n - side + 1) for n in texture.shape[:2])
    square = PIL.Image.fromarray(texture[y : y + side, x : x + side])
    return np.asarray(square.resize(size[::-1], PIL.Image.Resampling.BICUBIC))


@functools.cache
def textures() -> tuple[np.ndarray, ...]:
    """The photographs of TEXTURES, uint8 [h, w, 3]."""
    import skimage

    folder = pathlib.Path(skimage.__file__).parent / 'data'
    arrays = []
    for name in TEXTURES:
        with PIL.Image.open(folder / name) as picture:
            arrays.append(np.asarray(picture.convert('RGB')))
    return tuple(arrays)
