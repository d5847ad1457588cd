"""Shapes with soft edges on square pictures, as opacities [side, side] in [0, 1].

Places and lengths are fractions of the side, x from the left and y from the top; pixel (i, j) is at
((j + 0.5) / side, (i + 0.5) / side).
"""

import numpy as np
import PIL.Image
import PIL.ImageDraw
import scipy.ndimage

FINE = 3  # polygons are drawn at so many times the size and averaged
VISIBLE = 1 / 510  # below it an opacity changes no value by half a step of 255


def grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the pixels, [side, side] each."""
    at = (np.arange(side) + 0.5) / side
    y, x = np.meshgrid(at, at, indexing='ij')
    return x, y


def ellipse(side, x, y, across, down, degrees=0.0, power=2.0, blur=0.0) -> np.ndarray:
    """An ellipse by its centre and half axes; with power 3 or 4 nearly a rectangle.

    degrees: the picture's centre is turned about, clockwise. blur: standard deviation.
    """
    px, py = _turned_back(*grid(side), degrees)
    radius = (np.abs((px - x) / across) ** power + np.abs((py - y) / down) ** power) ** (1 / power)
    # The edge is one pixel wide.
    return _blurred(np.clip(0.5 + (1 - radius) * min(across, down) * side, 0, 1), blur)


def polygon(side, points, degrees=0.0, blur=0.0) -> np.ndarray:
    """A polygon by its corners (x, y), turned like an ellipse."""
    corners = np.array([_turned_back(x, y, -degrees) for x, y in points]) * side * FINE
    canvas = PIL.Image.new('L', (side * FINE, side * FINE))
    PIL.ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in corners], fill=255)
    fine = np.asarray(canvas, float).reshape(side, FINE, side, FINE) / 255
    return _blurred(fine.mean((1, 3)), blur)


def line(side, ends, width) -> np.ndarray:
    """A straight line between two places."""
    (ax, ay), (bx, by) = ends
    length = np.hypot(bx - ax, by - ay)
    ox, oy = (ay - by) / length * width / 2, (bx - ax) / length * width / 2
    return polygon(
        side, [(ax + ox, ay + oy), (bx + ox, by + oy), (bx - ox, by - oy), (ax - ox, ay - oy)]
    )


def box(left, top, right, bottom) -> list[tuple[float, float]]:
    """The corners of a rectangle, with points along its edges."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def diamond(x, y, across, down) -> list[tuple[float, float]]:
    return [(x, y - down), (x + across, y), (x, y + down), (x - across, y)]


def arch(x, base, across, height) -> list[tuple[float, float]]:
    """The upper half of a rounded rectangle, standing on y = base."""
    angles = np.linspace(np.pi, 0, 40)
    bow = [np.sign(f(angles)) * np.abs(f(angles)) ** 0.6 for f in (np.cos, np.sin)]
    return [(x + across * c, base - height * s) for c, s in zip(*bow, strict=True)]


def blend(image, colour, opacity) -> np.ndarray:
    """float [h, w, 3]: `colour`, [3] or a picture, over the picture. Faint traces are left out."""
    opacity = visible(opacity)[..., None]
    return np.asarray(image, float) * (1 - opacity) + colour * opacity


def visible(opacity) -> np.ndarray:
    """The opacity, 0 where nobody would see it."""
    return np.where(opacity < VISIBLE, 0, opacity)


def to_uint8(image) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def colour(rng: np.random.Generator) -> np.ndarray:
    """A random colour of cloth or paint, float [3] in 0 ... 255."""
    hue, saturation, value = rng.random(), rng.uniform(0.35, 0.9), rng.uniform(0.35, 0.95)
    shares = np.clip(np.abs((hue * 6 + np.array((0, 4, 2))) % 6 - 3) - 1, 0, 1)
    return np.round(255 * value * (1 - saturation * (1 - shares)))


def round_light(side: int) -> np.ndarray:
    """Brightness [side, side, 1] of something round before the middle, lit from the upper left."""
    x, y = grid(side)
    return (1.12 - 2.2 * (x - 0.44) ** 2 - 0.25 * y)[..., None]


def cloth(side: int, rng: np.random.Generator, ribs: bool = False) -> np.ndarray:
    """Brightness [side, side, 1] of cloth about 1: fine and coarse noise, and knitted ribs."""
    noise = rng.standard_normal((side, side)) * 0.03
    folds = scipy.ndimage.zoom(rng.standard_normal((8, 8)), side / 8, order=3, mode='nearest')
    brightness = 1 + noise + 0.05 * folds[:side, :side]
    if ribs:
        x, y = grid(side)
        brightness *= 1 + 0.12 * np.sin(2 * np.pi * 34 * (x + 0.15 * (x - 0.5) * y))
    return brightness[..., None]


def _turned_back(x, y, degrees):
    angle = np.deg2rad(degrees)
    dx, dy = x - 0.5, y - 0.5
    cos, sin = np.cos(angle), np.sin(angle)
    return 0.5 + cos * dx + sin * dy, 0.5 - sin * dx + cos * dy


def _blurred(opacity, blur):
    return scipy.ndimage.gaussian_filter(opacity, blur * len(opacity)) if blur else opacity
