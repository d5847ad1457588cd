"""Where an edit may change a picture: parts of the face, or what was painted on the page.

The edited picture is blended with the unedited one: m * edited + (1 - m) * unedited, with a soft
edge, so pixels outside the region stay exactly as they were.
"""

import base64
import io

import numpy as np
import PIL.Image
import scipy.ndimage

from jaxinv import faces
from jaxinv.errors import JaxinvError
from jaxinv.segmentation import face as face_segments

GRID = 128  # cells a side of a painted mask
PARTS = {
    'face': ('face', 'eyes', 'brows', 'nose', 'mouth'),
    'mouth': ('mouth',),
    'eyes': ('eyes', 'brows'),
    'nose': ('nose',),
    'hair': ('hair or hat',),
    'background': ('background',),
}
SIZE = 256  # pixels at which a face is divided
EDGE = 0.015  # deviation of the soft edge, in sides of the picture
LEAST = 0.002  # of the picture, below which a part counts as absent


def find(image_uint8) -> dict[str, np.ndarray]:
    """Masks bool [SIZE, SIZE] of the parts of an aligned face; {} where no face is found."""
    image = PIL.Image.fromarray(np.asarray(image_uint8))
    small = np.asarray(image.resize((SIZE, SIZE), PIL.Image.Resampling.LANCZOS))
    landmarks = faces.landmarks_aligned(small)
    if landmarks is None:
        return {}
    segments = face_segments.segment(small, landmarks)
    found = {}
    for name, members in PARTS.items():
        inside = [i for i, own in enumerate(segments.names) if own.startswith(members)]
        mask = np.isin(segments.labels, inside)
        if mask.mean() >= LEAST:
            found[name] = mask
    return found


def painted(data: bytes) -> np.ndarray:
    """A mask uint8 [GRID, GRID] of the bytes that a page sends. Raises JaxinvError."""
    if len(data) != GRID * GRID:
        raise JaxinvError(f'A mask has {GRID * GRID} bytes, not {len(data)}.')
    mask = np.frombuffer(data, np.uint8).reshape(GRID, GRID)
    if not mask.any():
        raise JaxinvError('Nothing is painted; paint where the edit may act.')
    return mask


def soft(mask, size: int) -> np.ndarray:
    """float32 [size, size, 1] in [0, 1] of a mask [n, n]: its edges are smooth."""
    mask = np.asarray(mask)
    values = np.float32(mask) / (255 if mask.dtype == np.uint8 else 1)
    image = PIL.Image.fromarray(values).resize((size, size), PIL.Image.Resampling.BILINEAR)
    blurred = scipy.ndimage.gaussian_filter(np.asarray(image), EDGE * size, mode='nearest')
    return np.clip(blurred, 0, 1)[..., None].astype(np.float32)


def blend(unedited_uint8, edited_uint8, weight) -> np.ndarray:
    """uint8 [h, w, 3]; weight [h, w, 1] of the edited picture."""
    before = np.asarray(unedited_uint8, np.float32)
    mixed = before + weight * (np.asarray(edited_uint8, np.float32) - before)
    return np.uint8(np.clip(np.rint(mixed), 0, 255))


def to_text(mask) -> str:
    """A mask as PNG in base64, for JSON."""
    file = io.BytesIO()
    PIL.Image.fromarray(np.asarray(mask)).save(file, 'PNG', optimize=True)
    return base64.b64encode(file.getvalue()).decode()
