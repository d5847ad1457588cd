"""How alike the faces of two pictures are, by networks that are trained independently.

  sface           cosine of SFace's embeddings (jaxinv/faces/identity.py), faces by the dense mesh;
                  1 = equal, above 0.363 one person by its authors
  dlib            Euclidean distance of dlib's embeddings; 0 = equal, below 0.6 one person by its
                  authors
  mobilefacenet   cosine of MobileFaceNet's embeddings (Chen et al. 2018, arXiv:1804.07573), 192
                  numbers; 1 = equal. Its npm package does not state what it was trained on
  arcface         cosine of ArcFace's embeddings (IR-SE50, the user's file); 1 = equal
  curricularface  cosine of CurricularFace's embeddings (Huang et al. 2020, arXiv:2004.00288;
                  IR-101, the user's file); 1 = equal

All take FFHQ-aligned pictures. The last three see the face in ArcFace's frame of 112 pixels, by the
similarity that brings eyes, nose and corners of the mouth (of dlib's 68 landmarks) nearest to
ArcFace's five points; the crop is made at four times the size and averaged. pSp's script for
CurricularFace (scripts/calc_id_loss_parallel.py) has the same frame with MTCNN's five points, and
samples it bilinearly without averaging. A picture in which no face is found has the embedding NaN,
and its number is NaN: tables count these.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
import PIL.Image

from jaxinv import faces, rendering
from jaxinv.errors import JaxinvError
from jaxinv.io import sha256
from jaxinv.networks import graph, ir_se50
from jaxinv.pixels import to_float
from jaxinv.weights import graphs
from jaxinv.weights.networks import load_arcface, load_curricularface

# Places (x, y) of the eyes, the tip of the nose and the corners of the mouth in a picture of 112
# pixels (Deng et al. 2019, ArcFace; from SphereFace's 96 x 112).
TEMPLATE = np.array([
    (38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655),
    (70.7299, 92.2041),
])  # fmt: skip
WHERE = {(True, False): 'target', (False, True): 'picture', (True, True): 'both'}  # is no face
_SUPERSAMPLE = 4
_MOBILE_FEATURES = 192  # of MobileFaceNet's embedding
_BATCH = 8  # of the network; even, for MobileFaceNet


class Judge(NamedTuple):
    """A network that compares faces."""

    embed: Callable[[np.ndarray], np.ndarray]  # uint8 [b, h, w, 3] -> [b, e], NaN without a face
    compare: Callable[[np.ndarray, np.ndarray], np.ndarray]  # [b, e], [b, e] -> [b]
    better: int  # -1 = lower is more alike, 1 = higher
    file: str = ''  # SHA-256 of the user's file with its weights


def judges(names: Sequence[str], arcface: str = '', curricularface: str = '') -> dict[str, Judge]:
    """The networks of these names.

    arcface, curricularface: the files model_ir_se50.pth and CurricularFace_Backbone.pth, for the
    networks of these names. Raises JaxinvError for an unknown name, a file that is missing or
    something else, or a package that cannot be had.
    """
    makers = {
        'dlib': _dlib,
        'sface': _sface,
        'mobilefacenet': _mobilefacenet,
        'arcface': lambda: _residual(load_arcface, arcface, ir_se50.IR_SE50),
        'curricularface': lambda: _residual(load_curricularface, curricularface, ir_se50.IR_101),
    }
    unknown = [name for name in names if name not in makers]
    if unknown:
        raise JaxinvError(
            f'there is no identity network {unknown[0]!r}; there are {", ".join(makers)}.'
        )
    return {name: makers[name]() for name in names}


def no_face(target: np.ndarray, picture: np.ndarray) -> list[str | None]:
    """Where no face was found: 'target', 'picture' or 'both', None = nowhere. Embeddings [b, e]."""
    lost = [np.isnan(vectors).any(-1) for vectors in (target, picture)]
    return [WHERE.get(pair) for pair in zip(*map(np.ndarray.tolist, lost), strict=True)]


def cosine(a, b) -> np.ndarray:
    """Cosines [b] of embeddings [b, e]."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.sum(a * b, -1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def five_points(landmarks) -> np.ndarray:
    """Eyes, tip of the nose and corners of the mouth [5, 2] of 68 landmarks [68, 2]."""
    points = np.asarray(landmarks, np.float64)
    eyes = points[36:42].mean(0), points[42:48].mean(0)
    return np.stack([*eyes, points[30], points[48], points[54]])


def crop_to_template(image_uint8, points, size: int = 112) -> np.ndarray:
    """The face with its five points [5, 2] nearest to TEMPLATE: uint8 [size, size, 3].

    The similarity (turn, scale, shift) with the least squared error, as complex least squares.
    """
    target = TEMPLATE @ [1, 1j] * (size / 112)
    there = np.asarray(points, np.float64) @ [1, 1j]
    # From the crop to the picture, as Pillow asks for: there = turn * target + shift.
    system = np.stack([target, np.ones(5)], 1)
    (turn, shift), *_ = np.linalg.lstsq(system, there, rcond=None)
    step = turn / _SUPERSAMPLE
    # A pixel's centre is at +0.5 in Pillow's warp, and its index in the landmarks.
    offset = shift - 0.5 * turn * (1 + 1j) + 0.5 * (1 + 1j)
    matrix = (step.real, -step.imag, offset.real, step.imag, step.real, offset.imag)
    canvas = PIL.Image.fromarray(np.ascontiguousarray(image_uint8)).transform(
        (size * _SUPERSAMPLE,) * 2,
        PIL.Image.Transform.AFFINE,
        matrix,
        PIL.Image.Resampling.BILINEAR,
    )
    return np.asarray(canvas.resize((size, size), PIL.Image.Resampling.BOX))


def _dlib() -> Judge:
    return Judge(faces.embed, faces.identity_distance, -1)


def _sface() -> Judge:
    return Judge(faces.sface, cosine, 1)


def _mobilefacenet() -> Judge:
    network = graphs.load('mobilefacenet')

    def of_chips(chips: np.ndarray) -> np.ndarray:
        with rendering.full_precision():
            return np.asarray(_of_pairs(network, (np.float32(chips) - 127.5) / 128))

    return Judge(lambda images: _embed(images, of_chips, _MOBILE_FEATURES), cosine, 1)


@jax.jit
def _of_pairs(network: graph.Network, chips: jax.Array) -> jax.Array:
    """[b, e] of chips [b, h, w, 3] by a network whose file fixes the batch; b is a multiple."""
    groups = chips.reshape(-1, *network.graph.input_shape)
    found = jax.vmap(lambda one: graph.apply(network.graph, network.weights, one)[0])(groups)
    return found.reshape(len(chips), -1)


def _residual(load: Callable, source: str, spec: ir_se50.Spec) -> Judge:
    path = pathlib.Path(source)
    weights, digest = load(path), sha256(path)
    network = jax.jit(ir_se50.identity, static_argnums=2)

    def of_chips(chips: np.ndarray) -> np.ndarray:
        with rendering.full_precision():
            return np.asarray(network(weights, to_float(chips), spec))

    return Judge(lambda images: _embed(images, of_chips, ir_se50.FEATURES), cosine, 1, digest)


def _embed(images_uint8, network: Callable, features: int) -> np.ndarray:
    """Embeddings [b, features] of the faces in their template, NaN without a face."""
    found = np.full((len(images_uint8), features), np.nan)
    chips, rows = [], []
    for i, image in enumerate(images_uint8):
        landmarks = faces.landmarks_aligned(image)
        if landmarks is not None:
            chips.append(crop_to_template(image, five_points(landmarks)))
            rows.append(i)
    for start in range(0, len(rows), _BATCH):
        batch = np.stack(chips[start : start + _BATCH])
        padded = np.concatenate([batch, np.repeat(batch[-1:], _BATCH - len(batch), axis=0)])
        found[rows[start : start + _BATCH]] = network(padded)[: len(batch)]
    return found
