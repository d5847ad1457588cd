"""Pictures with more pixels than are read: at reduced size, where the format allows."""

import io
import math

import numpy as np
import PIL.Image
import PIL.Jpeg2KImagePlugin
import PIL.JpegImagePlugin

from jaxinv.converters.file_view import Refused

MAX_PIXELS = 178_956_970  # Pillow's own limit against decompression bombs (0.5 GB of RGB)
MAX_REDUCED = 2**30  # pixels of a picture that is read at reduced size
# The decoder holds all coefficients of a progressive JPEG, 3 to 6 bytes a pixel.
MAX_PROGRESSIVE = 300_000_000
MAX_SEGMENT = 2**24  # pixels of a tile or strip of a TIFF


def open_reduced(data: bytes, kind: str) -> PIL.Image.Image | None:
    """The picture at 1/2, 1/4, ... of its size, at most MAX_PIXELS pixels.

    kind: of formats.name_of. None for a picture that is not too large, or a kind that cannot be
    read so. Raises Refused if it is too large even then.
    """
    if kind == 'JPEG':
        return _jpeg(data)
    if kind == 'JPEG2000':
        return _jpeg2000(data)
    if kind == 'TIFF':
        return _tiff(data)
    return None


def _factor(width, height, most):
    """The power of 2 by which both sides are divided. Raises Refused."""
    pixels = width * height
    if pixels <= MAX_PIXELS:
        return 1
    if pixels > MAX_REDUCED:
        raise Refused(too_large(width, height, MAX_REDUCED))
    factor = 2 ** math.ceil(math.log2(pixels / MAX_PIXELS) / 2)
    if factor > most:
        raise Refused(too_large(width, height, MAX_PIXELS))
    return factor


def too_large(width: int, height: int, limit: int = MAX_PIXELS) -> str:
    """What is wrong with a picture of this size."""
    return (
        f'is too large: {width} x {height} pixels; at most {limit // 10**6} million are read, so '
        'make it smaller'
    )


def _jpeg(data):
    # The class itself: Image.open has a limit of its own for all formats.
    image = PIL.JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    width, height = image.size
    factor = _factor(width, height, 8)
    if factor == 1:
        return None
    if image.info.get('progressive') and width * height > MAX_PROGRESSIVE:
        raise Refused(too_large(width, height, MAX_PROGRESSIVE))
    image.draft(None, (-(-width // factor), -(-height // factor)))
    return image


def _jpeg2000(data):
    image = PIL.Jpeg2KImagePlugin.Jpeg2KImageFile(io.BytesIO(data))
    factor = _factor(*image.size, 32)
    if factor == 1:
        return None
    image.reduce = factor.bit_length() - 1
    image.load()  # the size changes here
    return image


# --- TIFF -----------------------------------------------------------------------------------------


def _tiff(data):
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        width, height = page.imagewidth, page.imagelength
        factor = _factor(width, height, 64)
        if factor == 1:
            return None
        segment = (page.tilewidth or width) * (page.tilelength or page.rowsperstrip or height)
        ok = page.planarconfig == 1 and page.samplesperpixel in (1, 3, 4)
        if segment > MAX_SEGMENT or not ok or page.dtype not in ('uint8', 'uint16'):
            raise Refused(too_large(width, height))
        samples = min(page.samplesperpixel, 3)
        out = np.zeros([-(-height // factor), -(-width // factor), samples], np.uint8)
        try:
            for values, index, _ in page.segments(maxworkers=1):
                if values is not None:
                    _put(out, values[0, ..., :samples], index[-3:-1], factor)
        except (ValueError, KeyError) as error:  # a compression that tifffile cannot read alone
            reason = ' '.join(str(error).split())[:80]
            raise Refused(f'{too_large(width, height)} ({reason})') from error
    return PIL.Image.fromarray(out if samples == 3 else out[..., 0])


def _put(out, values, corner, factor):
    """Writes every `factor`-th pixel of a tile or strip at corner (row, column) of the picture."""
    row, column = (int(i) for i in corner)
    own = values[-row % factor :: factor, -column % factor :: factor]
    if own.dtype == np.uint16:
        own = (own >> 8).astype(np.uint8)
    top, left = -(-row // factor), -(-column // factor)
    own = own[: out.shape[0] - top, : out.shape[1] - left]
    out[top : top + own.shape[0], left : left + own.shape[1]] = own
