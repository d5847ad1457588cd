"""478 face landmarks with irises and 52 scores of expression, by MediaPipe's networks in JAX.

    points = landmarks478(images_uint8)  # [n, 478, 3], pixels
    scores = blendshapes(images_uint8)  # {'jawOpen': [n], ...}, 0 ... 1

    points, logits = points_of(graphs.load('landmarks478'), images)  # for jit, vmap and grad
    scores = scores_of(graphs.load('blendshapes'), points)

For FFHQ-aligned pictures: the face is where alignment puts it, so the network sees a fixed square.
Landmarks: x right and y down in pixels of the given picture, pixel centres at whole numbers; z in
the same unit, negative towards the viewer. Points 468 to 472 are the iris at the left of the
picture with its centre first, 473 to 477 the one at the right. 'Left' and 'Right' in names of
scores are the person's own, as in ARKit.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv.faces.batches import in_batches
from jaxinv.networks.graph import Network
from jaxinv.weights import graphs

SQUARE = (0.05, 0.1, 0.9)  # left, top and side of what the network sees, in sides of the picture
_SIZE = 256
LEAST = 0.0  # logit of a face below which there is none

# MediaPipe's names and points of the network of expressions, in its order (face_blendshapes_graph).
BLENDSHAPES = (
    '_neutral', 'browDownLeft', 'browDownRight', 'browInnerUp', 'browOuterUpLeft',
    'browOuterUpRight', 'cheekPuff', 'cheekSquintLeft', 'cheekSquintRight', 'eyeBlinkLeft',
    'eyeBlinkRight', 'eyeLookDownLeft', 'eyeLookDownRight', 'eyeLookInLeft', 'eyeLookInRight',
    'eyeLookOutLeft', 'eyeLookOutRight', 'eyeLookUpLeft', 'eyeLookUpRight', 'eyeSquintLeft',
    'eyeSquintRight', 'eyeWideLeft', 'eyeWideRight', 'jawForward', 'jawLeft', 'jawOpen', 'jawRight',
    'mouthClose', 'mouthDimpleLeft', 'mouthDimpleRight', 'mouthFrownLeft', 'mouthFrownRight',
    'mouthFunnel', 'mouthLeft', 'mouthLowerDownLeft', 'mouthLowerDownRight', 'mouthPressLeft',
    'mouthPressRight', 'mouthPucker', 'mouthRight', 'mouthRollLower', 'mouthRollUpper',
    'mouthShrugLower', 'mouthShrugUpper', 'mouthSmileLeft', 'mouthSmileRight', 'mouthStretchLeft',
    'mouthStretchRight', 'mouthUpperUpLeft', 'mouthUpperUpRight', 'noseSneerLeft', 'noseSneerRight',
)  # fmt: skip
_USED = np.array([
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66,
    67, 70, 78, 80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144,
    145, 146, 148, 149, 150, 152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173,
    176, 178, 181, 185, 191, 195, 197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283, 284,
    285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318, 321, 323, 324, 332,
    334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385, 386,
    387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, *range(468, 478),
])  # fmt: skip


def landmarks478(images_uint8) -> np.ndarray:
    """float64 [n, 478, 3] of FFHQ-aligned uint8 pictures [n, h, w, 3]; NaN without a face."""
    points, logits = in_batches(_points, graphs.load('landmarks478'), images_uint8)
    points = points.astype(np.float64).reshape(-1, 478, 3)
    points[logits.reshape(-1) < LEAST] = np.nan
    return points


def blendshapes(images_uint8) -> dict[str, np.ndarray]:
    """{name of BLENDSHAPES: float64 [n]}, 0 to 1, of FFHQ-aligned pictures; NaN without a face."""
    return blendshapes_of(landmarks478(images_uint8))


def blendshapes_of(points) -> dict[str, np.ndarray]:
    """`blendshapes` of landmarks [n, 478, 3]; NaN where they are."""
    scores = _scores(graphs.load('blendshapes'), np.nan_to_num(points))
    scores = np.where(np.isfinite(points).all((1, 2))[:, None], np.float64(scores), np.nan)
    return dict(zip(BLENDSHAPES, scores.reshape(-1, 52).T, strict=True))


def points_of(network: Network, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(landmarks [n, 478, 3], logit of a face [n]) of pictures [n, h, h, 3] in [-1, 1].

    A pure function for jit, vmap and grad.
    """
    left, top, side = SQUARE
    scale = _SIZE / (side * images.shape[1])
    crops = jax.vmap(
        lambda image: jax.image.scale_and_translate(
            image,
            (_SIZE, _SIZE, 3),
            (0, 1),
            jnp.full(2, scale),
            jnp.array([-top, -left]) * _SIZE / side,
            'linear',
        )
    )(images)
    points, logits, _ = network(crops / 2 + 0.5)
    # Pixel centres are at +0.5 in the network's square.
    points = points.reshape(-1, 478, 3) / scale
    start = jnp.array([left, top, 0]) * images.shape[1] - jnp.array([0.5, 0.5, 0])
    return points + start[None, None], logits.reshape(-1)


def scores_of(network: Network, points: jax.Array) -> jax.Array:
    """[n, 52], as BLENDSHAPES, of landmarks [n, 478, 2 or more]. For jit, vmap and grad."""
    (scores,) = network(points[:, _USED, :2])
    return scores.reshape(-1, 52)


_points = jax.jit(lambda network, images: points_of(network, images / 127.5 - 1))
_scores = jax.jit(scores_of)
