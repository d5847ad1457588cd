"""What a generator cannot make: occluders and crooked framing, put on pictures that it made.

A generated picture alone can be inverted everywhere, so it teaches nothing about what cannot be.
Pieces of other photographs over it, and faces that stand where alignment would not put them, are
cheap stand-ins for hands, microphones and hats of real photographs.
"""

import functools

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFilter
import scipy.ndimage

# Photographs in scikit-image's wheel: public domain or CC0.
TEXTURES = ('chelsea.png', 'coffee.png', 'rocket.jpg')
MAX_OCCLUDERS = 3
CROOKED = 0.3  # share of the pictures that are turned, shifted and scaled


def distort(image_uint8, rng: np.random.Generator) -> np.ndarray:
    """The picture [h, w, 3] with 0 to 3 occluders, some also crooked."""
    image = np.asarray(image_uint8)
    if rng.random() < CROOKED:
        image = crooked(image, rng)
    for _ in range(rng.integers(0, MAX_OCCLUDERS + 1)):
        image = occlude(image, rng)
    return image


def crooked(image, rng: np.random.Generator) -> np.ndarray:
    """Turned up to 20 degrees, scaled 0.8 to 1.25, shifted up to a tenth; mirrored at the edges."""
    size = np.array(image.shape[:2])
    angle, scale = np.deg2rad(rng.uniform(-20, 20)), np.exp(rng.uniform(np.log(0.8), np.log(1.25)))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale
    centre = (size - 1) / 2
    offset = centre - turn @ (centre + rng.uniform(-0.1, 0.1, 2) * size)
    planes = [
        scipy.ndimage.affine_transform(image[..., c], turn, offset, order=1, mode='reflect')
        for c in range(3)
    ]
    return np.stack(planes, -1)


def occlude(image, rng: np.random.Generator) -> np.ndarray:
    """A blob of another photograph, or of one colour, over a random place, its rim softened."""
    height, width = image.shape[:2]
    mask = PIL.Image.new('L', (width, height))
    centre, radius = rng.uniform(0.05, 0.95, 2), rng.uniform(0.07, 0.25)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 8))
    reach = radius * rng.uniform(0.6, 1.4, 8) * rng.choice([1.0, 1.6], p=[0.7, 0.3])
    points = centre + reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    corners = [(float(x * width), float(y * height)) for x, y in points]
    PIL.ImageDraw.Draw(mask).polygon(corners, fill=255)
    mask = mask.filter(PIL.ImageFilter.GaussianBlur(width / 200))
    share = np.asarray(mask, np.float32)[..., None] / 255
    if rng.random() < 0.25:
        cover = np.broadcast_to(rng.integers(0, 256, 3), image.shape)
    else:
        cover = _crop(textures()[rng.integers(len(TEXTURES))], (height, width), rng)
    return np.rint(image * (1 - share) + cover * share).astype(np.uint8)


def _crop(texture, size, rng):
    """A random square of the texture, a third of its height or more, at `size`."""
    side = int(rng.uniform(0.33, 1.0) * min(texture.shape[:2]))
    y, x = (rng.integers(0, n - side + 1) for n in texture.shape[:2])
    piece = PIL.Image.fromarray(texture[y : y + side, x : x + side])
    return np.asarray(piece.resize(size[::-1], PIL.Image.Resampling.BICUBIC))


@functools.cache
def textures() -> tuple[np.ndarray, ...]:
    """The photographs, uint8 [h, w, 3]."""
    import pathlib

    import skimage

    folder = pathlib.Path(skimage.__file__).parent / 'data'
    found = []
    for name in TEXTURES:
        with PIL.Image.open(folder / name) as picture:
            found.append(np.asarray(picture.convert('RGB')))
    return tuple(found)
