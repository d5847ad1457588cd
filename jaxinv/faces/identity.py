"""Identity embeddings by SFace (Zhong et al. 2021, arXiv:2205.12010), in JAX.

    vectors = embed(images_uint8)  # [n, 128], length 1; their products are cosine similarities

    vectors = embed_of(graphs.load('sface'), images, points)  # for jit, vmap and grad

A network of another origin than dlib's (faces/detect.py). On photographs, same person: 0.72 to 0.77
(3 pairs of one man), different people at most 0.32 (18 pairs).
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxinv.faces import mesh
from jaxinv.faces.batches import in_batches
from jaxinv.networks.graph import Network
from jaxinv.weights import graphs

SIZE = 112
SAME_PERSON = 1.128  # distance of length-1 vectors whose cosine is 0.363, the network's own limit
# Where the network expects the eyes, the tip of the nose and the corners of the mouth (ArcFace's
# template), and their points of the mesh: the irises' centres, 1, 61 and 291.
_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366],
     [41.5493, 92.3655], [70.7299, 92.2041]],
    np.float32,
)  # fmt: skip
_POINTS = np.array([468, 473, 1, 61, 291])
_BEFORE = 160  # pixels to which an aligned picture is averaged first: about the template's scale


def embed(images_uint8) -> np.ndarray:
    """float64 [n, 128] of length 1, of aligned uint8 pictures [n, h, h, 3]; NaN without a face."""
    networks = (graphs.load('sface'), graphs.load('landmarks478'))
    vectors, logits = in_batches(_embed, networks, images_uint8)
    vectors = vectors.astype(np.float64)
    vectors[logits < mesh.LEAST] = np.nan
    return vectors


def embed_of(network: Network, images: jax.Array, points: jax.Array) -> jax.Array:
    """[n, 128] of pictures [n, h, h, 3] in [-1, 1] with landmarks [n, 478, 3]. For jit and grad."""
    scale = _BEFORE / images.shape[1]
    small = jax.image.resize(images, (len(images), _BEFORE, _BEFORE, 3), 'linear')
    faces = jax.vmap(_warp)(small, (points[:, _POINTS, :2] + 0.5) * scale - 0.5)
    (vectors,) = network((faces + 1) * 127.5)
    vectors = vectors.reshape(-1, 128)
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)


def _warp(image, points):
    """The face at the template's place: [SIZE, SIZE, 3] of image [h, h, 3] and its points [5, 2].

    The similarity from template to points of least squares, as complex numbers: p = a t + b.
    """
    t = _TEMPLATE - _TEMPLATE.mean(0)
    p = points - points.mean(0, keepdims=True)
    real = jnp.sum(t * p) / np.sum(t**2)
    imaginary = jnp.sum(t[:, 0] * p[:, 1] - t[:, 1] * p[:, 0]) / np.sum(t**2)
    y, x = jnp.mgrid[:SIZE, :SIZE] - _TEMPLATE.mean(0)[::-1, None, None]
    u = real * x - imaginary * y + points[:, 0].mean()
    v = imaginary * x + real * y + points[:, 1].mean()
    sample = lambda plane: jax.scipy.ndimage.map_coordinates(plane, [v, u], 1, 'nearest')  # noqa: E731
    return jax.vmap(sample, 2, 2)(image)


@jax.jit
def _embed(networks, images):
    images = images / 127.5 - 1
    points, logits = mesh.points_of(networks[1], images)
    return embed_of(networks[0], images, points), logits
