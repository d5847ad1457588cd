"""Faces: detection, landmarks, FFHQ alignment, identity embeddings, attributes."""

from jaxinv.faces.detect import (
    MIN_PICTURE,
    SAME_PERSON,
    embed,
    find_faces,
    identity_distance,
    landmarks_aligned,
    mirror,
    misalignment,
)
from jaxinv.faces.identity import embed as sface
from jaxinv.faces.mesh import BLENDSHAPES, blendshapes, landmarks478
from jaxinv.faces.paste import paste

__all__ = [
    'BLENDSHAPES', 'MIN_PICTURE', 'SAME_PERSON', 'blendshapes', 'embed', 'find_faces',
    'identity_distance', 'landmarks478', 'landmarks_aligned', 'mirror', 'misalignment', 'paste',
    'sface',
]  # fmt: skip
