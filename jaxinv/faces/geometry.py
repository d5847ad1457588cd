"""Measures of a face from its landmarks: dlib's 68 or MediaPipe's 478.

Distances are in units of the eye distance (centre of one eye's corners to the other's), or as said.
Both sets of landmarks give the same measures, so that one can steer an edit and the other judge it.

  pitch, yaw, roll  degrees; positive up, towards the picture's right, clockwise in the picture
  mouth_open        gap of the inner lips, in % of the eye distance
  eye_open          height over width of the eyes, in %; eye_closed is its negative
  brows             height of the brows above the eyes, in % of the eye distance
  face_width        width of the face at the cheekbones over its height, in %
  lips              thickness of both lips, in % of the eye distance
  gaze              place of the irises between the corners of the eyes, in % of an eye's width;
                    0 = in the middle, positive towards the picture's right
"""

import numpy as np

# Of the 68 landmarks, and of the 478: (left in the picture, right in the picture).
_EYES = {68: ((36, 39), (42, 45)), 478: ((33, 133), (362, 263))}  # corners
_LIDS = {  # pairs (upper, lower)
    68: (((37, 41), (38, 40)), ((43, 47), (44, 46))),
    478: (((160, 144), (159, 145), (158, 153)), ((385, 380), (386, 374), (387, 373))),
}
_BROWS = {68: ((18, 19, 20), (23, 24, 25)), 478: ((105, 66, 107), (336, 296, 334))}
_LIPS = {68: (51, 62, 66, 57), 478: (0, 13, 14, 17)}  # outer and inner, upper and lower
_CHEEKS = {68: (1, 15), 478: (234, 454)}
_HEIGHT = {68: (27, 8), 478: (10, 152)}  # root of the nose, or hairline, and chin
_IRISES = (468, 473)


def measure(points) -> dict[str, float]:
    """The measures that landmarks [68, 2] or [478, 3] allow; NaN where the landmarks are."""
    points = np.asarray(points, np.float64)
    count = len(points)
    flat = points[:, :2]
    eyes = [flat[list(pair)] for pair in _EYES[count]]
    centres = [pair.mean(0) for pair in eyes]
    across = centres[1] - centres[0]
    distance = np.hypot(*across)
    down = np.array([-across[1], across[0]]) / distance

    def length(a, b):
        return np.hypot(*(flat[a] - flat[b]))

    opens = [
        np.mean([length(*pair) for pair in lids]) / np.hypot(*(corners[1] - corners[0]))
        for lids, corners in zip(_LIDS[count], eyes, strict=True)
    ]
    brows = [
        (centre - flat[list(brow)].mean(0)) @ down
        for brow, centre in zip(_BROWS[count], centres, strict=True)
    ]
    outer_top, top, bottom, outer_bottom = _LIPS[count]
    values = {
        'roll': float(np.degrees(np.arctan2(across[1], across[0]))),
        'mouth_open': 100 * max((flat[bottom] - flat[top]) @ down, 0) / distance,
        'eye_open': 100 * np.mean(opens),
        'eye_closed': -100 * np.mean(opens),
        'brows': 100 * np.mean(brows) / distance,
        'face_width': 100 * length(*_CHEEKS[count]) / length(*_HEIGHT[count]),
        'lips': 100 * (length(outer_top, top) + length(bottom, outer_bottom)) / distance,
    }
    if count == 478:
        values.update(_of_478(points, eyes))
    return {name: float(value) for name, value in values.items()}


def _of_478(points, eyes):
    left, right = points[list(_CHEEKS[478])]
    top, chin = points[list(_HEIGHT[478])]
    gaze = []
    for iris, (start, end) in zip(_IRISES, eyes, strict=True):
        axis = end - start
        gaze.append((points[iris, :2] - (start + end) / 2) @ axis / (axis @ axis))
    return {
        'yaw': np.degrees(np.arctan2(right[2] - left[2], np.hypot(*(right - left)[:2]))),
        'pitch': np.degrees(np.arctan2(top[2] - chin[2], np.hypot(*(chin - top)[:2]))),
        'gaze': 100 * np.mean(gaze),
    }
