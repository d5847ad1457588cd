"""The loss of identity: 1 minus the cosine of a face network's features before and after an edit.

'sface'    SFace (faces/identity.py), whose weights a package has. The face is taken from where its
           landmarks were before the edit.
'arcface'  ArcFace on IR-SE50, as in StyleCLIP and the field's encoders; its weights are a file of
           yours, model_ir_se50.pth. The face is a fixed square of an FFHQ-aligned picture.

The edit is steered by this network, so an identity is judged by another: dlib's, in reports.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxinv.errors import JaxinvError
from jaxinv.faces import mesh
from jaxinv.faces.identity import embed_of
from jaxinv.networks import ir_se50
from jaxinv.pixels import area_resize
from jaxinv.types import GeneratorSpec
from jaxinv.weights import graphs
from jaxinv.weights.text_edits import load_identity

KINDS = ('sface', 'arcface')


class Identity(NamedTuple):
    """A network of identities with its weights."""

    kind: str  # of KINDS
    weights: Any  # arcface: arrays; sface: the networks of features and of landmarks


class Before(NamedTuple):
    """What is kept of pictures before an edit; [b, ...] each."""

    features: jax.Array  # [b, e], of length 1
    points: jax.Array  # landmarks [b, 478, 3]; arcface: [b, 0, 3]
    face: jax.Array  # 1 where there is a face, else 0: the loss leaves it out


def load(source: Any, spec: GeneratorSpec) -> Identity | None:
    """The network of 'auto', 'sface', an Identity or a path of ArcFace's file; None for '', None.

    'auto' is SFace for generators of faces, and none for others. Raises JaxinvError.
    """
    if source is None or isinstance(source, Identity):
        return source
    if not isinstance(source, str):
        raise JaxinvError(
            f"identity is a {type(source).__name__}; it can be 'auto', 'sface', '', or the path of "
            "ArcFace's file."
        )
    if source == '' or (source == 'auto' and spec.domain not in ('ffhq', 'faces')):
        return None
    if source in ('auto', 'sface'):
        return Identity('sface', (graphs.load('sface'), graphs.load('landmarks478')))
    return Identity('arcface', load_identity(source))


def before(kind: str, weights: Any, images: jax.Array) -> Before:
    """What `distance` needs of images [b, h, h, 3] of about [-1, 1]."""
    if kind == 'arcface':
        points, face = jnp.zeros((len(images), 0, 3)), jnp.ones(len(images))
    else:
        points, logits = mesh.points_of(weights[1], jnp.clip(images, -1, 1))
        face = (logits >= mesh.LEAST).astype(jnp.float32)
    found = Before(_features(kind, weights, images, points), points, face)
    return jax.lax.stop_gradient(found)


def distance(kind: str, weights: Any, images: jax.Array, start: Before) -> jax.Array:
    """[b], 0 to 2, of edited images; 0 where there was no face."""
    seen = _features(kind, weights, images, start.points)
    return start.face * (1 - jnp.sum(seen * start.features, -1))


def _features(kind, weights, images, points):
    if kind == 'sface':
        return embed_of(weights[0], images, points)
    # The middle of the face as in the official codes: pixels 35 to 223 and 32 to 220 of 256.
    faces = area_resize(images, 256)[:, 35:223, 32:220]
    return ir_se50.identity(weights, area_resize(faces, ir_se50.IDENTITY_SIZE))
