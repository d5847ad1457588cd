"""Where an edit may change a picture: named regions, or what was painted on the page.

As inversion/region_render.py, at the price of one synthesis: the unedited features and picture are
given, since an editor has them already.
"""

import functools
import io
from typing import Any, NamedTuple

import jax
import numpy as np
import PIL.Image

from jaxinv.errors import JaxinvError
from jaxinv.inversion import region_render
from jaxinv.pixels import to_uint8
from jaxinv.rendering import full_precision
from jaxinv.segmentation import regions
from jaxinv.types import Generator

GRID = 128  # cells a side of a painted mask
PARTS = (
    'face', 'mouth', 'lips', 'eyes', 'irises', 'brows', 'nose', 'hair', 'clothes', 'background',
)  # fmt: skip


class Unedited(NamedTuple):
    """Of a code, what edits in regions are blended with."""

    image: Any  # [1, h, w, 3]
    feature: Any  # [1, n, n, c]; None for a generator without features


def plain(generator: Generator, weights, w, offsets=None) -> Unedited:
    """w [1, num_ws, w_dim]; offsets: of styles {layer: [1, channels]}, or None."""
    with full_precision():
        image, features = _plain(generator)(weights, w, offsets or {})
    return Unedited(image, features.get(region_render.feature_of(generator.spec, None)))


def render(generator: Generator, weights, w, offsets, before: Unedited, mask) -> np.ndarray:
    """uint8 [h, w, 3] of an edited code (w and offsets as of `plain`) in a mask bool [h, w]."""
    spec = generator.spec
    soft = regions.soft(mask, region_render.FEATHER * spec.resolution)
    small = None
    if before.feature is not None:
        small = regions.shrink(soft, before.feature.shape[1:3])[None, ..., None]
    with full_precision():
        image = _within(generator)(weights, w, offsets, before, soft[None, ..., None], small)
    return to_uint8(image)[0]


@functools.lru_cache(maxsize=4)
def _plain(generator):
    def run(weights, w, offsets):
        styles = {'style_offsets': offsets} if offsets else {}
        return generator.synthesize(weights, w, **styles)

    return jax.jit(run)


@functools.lru_cache(maxsize=4)
def _within(generator):
    name = region_render.feature_of(generator.spec, None)

    def run(weights, w, offsets, before, mask, small):
        def tap(x):
            return (before.feature + small * (x - before.feature)).astype(x.dtype)

        taps = {} if before.feature is None else {name: tap}
        styles = {'style_offsets': offsets} if offsets else {}
        image = generator.synthesize(weights, w, taps=taps, **styles)[0]
        return before.image + mask * (image - before.image)

    return jax.jit(run)


def painted(data: bytes) -> np.ndarray:
    """A mask bool [GRID, GRID] of the bytes that a page sends, 0 or more. Raises JaxinvError."""
    if len(data) != GRID * GRID:
        raise JaxinvError(f'A mask has {GRID * GRID} bytes, not {len(data)}.')
    mask = np.frombuffer(data, np.uint8).reshape(GRID, GRID) > 127
    if not mask.any():
        raise JaxinvError('Nothing is painted; paint where the edit may act.')
    return mask


def resize(mask, size: int) -> np.ndarray:
    """bool [size, size] of a painted mask, with smooth edges."""
    image = PIL.Image.fromarray(np.float32(mask))
    return np.asarray(image.resize((size, size), PIL.Image.Resampling.BILINEAR)) > 0.5


def to_png(mask, size: int) -> bytes:
    """A painted mask as the file that --config.edits='smile=1@FILE.png' reads."""
    file = io.BytesIO()
    PIL.Image.fromarray(np.uint8(resize(mask, size)) * 255).save(file, 'PNG', optimize=True)
    return file.getvalue()
