"""Decodes and saves picture files.

`read` accepts rotated phone photographs, transparency, scans and animations. It returns upright
8-bit sRGB, or raises ImageError with one sentence for the report.
"""

import io
import os
import pathlib
import stat
import warnings

import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.ImageDraw
import PIL.ImageFont
import PIL.ImageOps

from jaxinv.errors import JaxinvError
from jaxinv.io import atomic_path

# Their decoders run in this process and read only the file. Excluded: EPS and PS (start
# Ghostscript), WMF (calls the system), containers of scientific data.
FORMATS = (
    'AVIF', 'BMP', 'DIB', 'GIF', 'ICO', 'JPEG', 'JPEG2000', 'MPO', 'PCX', 'PNG', 'PPM', 'QOI',
    'TGA', 'TIFF', 'WEBP',
)  # fmt: skip
MAX_PIXELS = 178_956_970  # Pillow's own limit against decompression bombs (0.5 GB of RGB)
BACKGROUND = (255, 255, 255)  # behind transparent pixels, as in most viewers
_SIGNATURES = {
    b'\x89PNG': 'PNG',
    b'\xff\xd8\xff': 'JPEG',
    b'GIF8': 'GIF',
    b'BM': 'BMP',
    b'II*\0': 'TIFF',
    b'MM\0*': 'TIFF',
}


class ImageError(JaxinvError):
    """A file cannot be used as a picture; the message is one sentence with the reason."""


def read(path: str | os.PathLike) -> PIL.Image.Image:
    """The picture in a file as upright 8-bit sRGB (mode 'RGB').

    EXIF orientation is applied, transparency is composited over white, 16-bit values are scaled to
    8 bits, embedded colour profiles other than sRGB are converted, CMYK and palettes are resolved.
    An animation gives its first frame.

    Raises ImageError if the file is missing, not regular, empty, not an image, of an unsupported
    format, damaged, truncated, or larger than MAX_PIXELS pixels.
    """
    path = pathlib.Path(path)
    return decode(_read_bytes(path), path)


def decode(data: bytes, path: pathlib.Path) -> PIL.Image.Image:
    """`read` for the bytes of a file; `path` names it in error messages."""
    if _is_heif(data):
        _register_heif(path)
    try:
        # Own limit: other code in the process may have lifted Pillow's.
        with _open_quietly(data) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ImageError(_too_large(path, f'{width} x {height} pixels'))
            image.load()
            return _to_rgb(_upright(image))
    except ImageError:
        raise
    except PIL.Image.DecompressionBombError as error:
        raise ImageError(_too_large(path, 'it has too many pixels')) from error
    except PIL.UnidentifiedImageError as error:
        raise ImageError(_unidentified(path, data)) from error
    except MemoryError as error:
        raise ImageError(f'{path.name} needs more memory than there is.') from error
    except Exception as error:  # for damaged files decoders raise exceptions of many types
        reason = ' '.join(str(error).split())[:120] or type(error).__name__
        raise ImageError(f'{path.name} is damaged or cut short ({reason}).') from error


def _read_bytes(path: pathlib.Path) -> bytes:
    try:
        # Checked before opening: opening a pipe blocks until it has a writer.
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ImageError(f'{path.name} is a folder, not an image.')
        if not stat.S_ISREG(mode):
            raise ImageError(f'{path.name} is not a regular file.')
        data = path.read_bytes()
    except FileNotFoundError as error:
        state = 'is a link to nothing' if path.is_symlink() else 'does not exist'
        raise ImageError(f'{path} {state}.') from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, 'strerror', None) or str(error)
        if isinstance(error, ImageError):
            raise
        raise ImageError(f'{path.name} cannot be read ({reason}).') from error
    if not data:
        raise ImageError(f'{path.name} is empty (0 bytes).')
    return data


def _open_quietly(data: bytes) -> PIL.Image.Image:
    formats = [name for name in (*FORMATS, 'HEIF') if name in _known_formats()]
    with warnings.catch_warnings():
        # Pillow warns from half its limit on, and about unusual metadata.
        warnings.simplefilter('ignore')
        return PIL.Image.open(io.BytesIO(data), formats=formats)


def _known_formats() -> dict:
    PIL.Image.init()
    return PIL.Image.OPEN


def _upright(image: PIL.Image.Image) -> PIL.Image.Image:
    try:
        return PIL.ImageOps.exif_transpose(image)
    except Exception:  # damaged metadata of an intact picture: ignored
        return image


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode.startswith('I') or image.mode == 'F':
        image = _deep_grey_to_8_bit(image)
    profile = image.info.get('icc_profile')
    if image.mode == 'LAB':
        image = PIL.ImageCms.profileToProfile(
            image, PIL.ImageCms.createProfile('LAB'), _srgb(), outputMode='RGB'
        )
    elif image.mode == 'RGBX':
        image = image.convert('RGB')
    if image.mode in ('RGBA', 'LA', 'PA', 'La', 'RGBa') or 'transparency' in image.info:
        rgba = image.convert('RGBA')
        alpha = rgba.getchannel('A')
        flat = PIL.Image.new('RGB', image.size, BACKGROUND)
        flat.paste(_to_srgb(rgba.convert('RGB'), profile), mask=alpha)
        return flat
    return _to_srgb(image, profile)


def _deep_grey_to_8_bit(image: PIL.Image.Image) -> PIL.Image.Image:
    """Scales 16-bit grey by its range, 32-bit and float values by the largest one present."""
    values = np.asarray(image).astype(np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    top = values.max(initial=0.0)
    if image.mode == 'F' and top <= 1.0:
        scale = 255.0
    elif not image.mode.startswith('I;16') and top <= 255.0:
        scale = 1.0
    else:
        scale = 255.0 / (65535.0 if top <= 65535.0 else top)
    grey = np.clip(np.rint(values * scale), 0, 255).astype(np.uint8)
    return PIL.Image.fromarray(grey)


def _srgb():
    return PIL.ImageCms.createProfile('sRGB')


def _to_srgb(image: PIL.Image.Image, profile: bytes | None) -> PIL.Image.Image:
    """Converts by the embedded profile if it is a usable one, and not sRGB already."""
    if profile and image.mode in ('RGB', 'CMYK', 'L'):
        try:
            source = PIL.ImageCms.ImageCmsProfile(io.BytesIO(profile))
            name = PIL.ImageCms.getProfileDescription(source)
            colour_space = source.profile.xcolor_space.strip()
            fits = {'RGB': 'RGB', 'CMYK': 'CMYK', 'GRAY': 'L'}.get(colour_space) == image.mode
            if fits and 'srgb' not in name.lower():
                return PIL.ImageCms.profileToProfile(image, source, _srgb(), outputMode='RGB')
        except (PIL.ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # a damaged profile is ignored, as in most viewers
    return image.convert('RGB')


def _is_heif(data: bytes) -> bool:
    return data[4:8] == b'ftyp' and data[8:12] in (b'heic', b'heix', b'hevc', b'mif1', b'msf1')


def _register_heif(path: pathlib.Path) -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageError(
            f'{path.name} is a HEIC photo; convert it to JPEG, or pip install pillow-heif.'
        ) from error
    pillow_heif.register_heif_opener()


def _too_large(path: pathlib.Path, what: str) -> str:
    limit = MAX_PIXELS // 1_000_000
    return f'{path.name} is too large: {what}; at most {limit} million pixels are read.'


def _unidentified(path: pathlib.Path, data: bytes) -> str:
    for signature, name in _SIGNATURES.items():
        if data.startswith(signature):
            return f'{path.name} begins as a {name} file but is damaged.'
    if data[:4] == b'%!PS' or data[:4] == b'%PDF' or data[:5] in (b'<?xml', b'<svg '):
        return f'{path.name} holds vector graphics, which are not read; export it as PNG or JPEG.'
    is_text = all(32 <= byte < 127 or byte in b'\t\r\n' or byte >= 128 for byte in data[:512])
    kind = 'text' if is_text else 'unknown data'
    return f'{path.name} is not an image but {kind}.'


def save(path: str | os.PathLike, image_uint8) -> None:
    """Writes a uint8 picture [h, w, 3] or a PIL image, atomically.

    The suffix decides the format (PNG, JPEG, ...). Raises ValueError for another dtype or an
    unknown suffix.
    """
    path = pathlib.Path(path)
    if not isinstance(image_uint8, PIL.Image.Image):
        array = np.asarray(image_uint8)
        if array.dtype != np.uint8:
            raise ValueError(f'save takes uint8, not {array.dtype}; see to_uint8.')
        image_uint8 = PIL.Image.fromarray(np.ascontiguousarray(array))
    options = {'quality': 95} if path.suffix.lower() in ('.jpg', '.jpeg', '.webp') else {}
    with atomic_path(path) as scratch:
        image_uint8.save(scratch, **options)
