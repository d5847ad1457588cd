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
from jaxinv.faces.paste import paste

__all__ = [
    'MIN_PICTURE', 'SAME_PERSON', 'embed', 'find_faces', 'identity_distance', 'landmarks_aligned',
    'mirror', 'misalignment', 'paste',
]  # fmt: skip
