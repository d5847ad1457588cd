"""Decodes and saves picture files.

`read` accepts rotated phone photographs, transparency, scans and animations. It returns upright
8-bit sRGB, or raises ImageError with one sentence for the report. A file is judged by its content
(formats.py), its colours by the curves of their profile (colour.py), and metadata cannot spoil a
sound picture.

Memory: at most MAX_PIXELS pixels are decoded, 0.5 GB of RGB, of which two or three copies exist at
a time; larger pictures are read at reduced size where the format allows (large.py).
"""

import io
import os
import pathlib
import stat
import struct
import warnings
import zlib

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import PIL.ImageOps

from jaxinv.converters.file_view import Refused
from jaxinv.data import colour, formats, large
from jaxinv.data.large import MAX_PIXELS
from jaxinv.errors import JaxinvError
from jaxinv.io import atomic_path
from jaxinv.text import printable

# Their decoders run in this process and read only the file. Excluded: EPS and PS (start
# Ghostscript), WMF (calls the system), containers of scientific data.
FORMATS = (
    'AVIF', 'BMP', 'DIB', 'GIF', 'ICO', 'JPEG', 'JPEG2000', 'MPO', 'PCX', 'PNG', 'PPM', 'QOI',
    'TGA', 'TIFF', 'WEBP',
)  # fmt: skip
BACKGROUND = (255, 255, 255)  # behind transparent pixels, as in most viewers
_PNG = b'\x89PNG\r\n\x1a\n'


class ImageError(JaxinvError):
    """A file cannot be used as a picture; the message is one sentence with the reason."""


def read(path: str | os.PathLike) -> PIL.Image.Image:
    """The picture in a file as upright 8-bit sRGB (mode 'RGB').

    EXIF orientation is applied, transparency is composited over white, 16-bit and float values are
    scaled to 8 bits, embedded colour profiles are converted to sRGB, CMYK and palettes are
    resolved. An animation gives its first frame. JPEG, JPEG 2000 and TIFF pictures of more than
    MAX_PIXELS pixels are read at 1/2, 1/4, ... of their size.

    Raises ImageError if the file is missing, not regular, empty, not an image, of an unsupported
    format, damaged, truncated, or larger than MAX_PIXELS pixels in another format.
    """
    path = pathlib.Path(path)
    return decode(_read_bytes(path), path)


def decode(data: bytes, path: pathlib.Path) -> PIL.Image.Image:
    """`read` for the bytes of a file; `path` names it in error messages."""
    name = printable(path.name, 120)
    kind = formats.name_of(data)
    try:
        with warnings.catch_warnings():
            # Pillow warns from half its limit on, and about unusual metadata.
            warnings.simplefilter('ignore')
            formats.check(data)
            if kind == 'HEIC':
                _register_heif(name)
            return _decode(data, kind)
    except Refused as refusal:
        raise ImageError(f'{name} {refusal}.') from None
    except ImageError:
        raise
    except PIL.UnidentifiedImageError as error:
        raise ImageError(_unidentified(name, data, kind)) from error
    except MemoryError as error:
        raise ImageError(f'{name} needs more memory than there is.') from error
    except Exception as error:  # for damaged files decoders raise exceptions of many types
        reason = ' '.join(str(error).split())[:120] or type(error).__name__
        raise ImageError(f'{name} is damaged or cut short ({reason}).') from error


def _decode(data, kind):
    profile = None
    if kind == 'PNG':
        data, profile = _without_metadata(data)
    image = large.open_reduced(data, kind)
    if image is None:
        try:
            image = _open(data)
        except PIL.UnidentifiedImageError:
            if kind != 'TIFF':
                raise
            image = _float_tiff(data)
    with image:
        # Own limit: other code in the process may have lifted Pillow's.
        if image.width * image.height > MAX_PIXELS:
            raise Refused(large.too_large(*image.size))
        profile = profile or image.info.get('icc_profile')
        image.load()
        return _to_rgb(_upright(image), profile)


def _read_bytes(path: pathlib.Path) -> bytes:
    name = printable(path.name, 120)
    try:
        # Checked before opening: opening a pipe blocks until it has a writer.
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ImageError(f'{name} is a folder, not an image.')
        if not stat.S_ISREG(mode):
            raise ImageError(f'{name} is not a regular file.')
        data = path.read_bytes()
    except FileNotFoundError as error:
        state = 'is a link to nothing' if path.is_symlink() else 'does not exist'
        raise ImageError(f'{path} {state}.') from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, 'strerror', None) or str(error)
        if isinstance(error, ImageError):
            raise
        raise ImageError(f'{name} cannot be read ({reason}).') from error
    if not data:
        raise ImageError(f'{name} is empty (0 bytes).')
    return data


def _open(data: bytes) -> PIL.Image.Image:
    known = [name for name in (*FORMATS, 'HEIF') if name in _known_formats()]
    try:
        return PIL.Image.open(io.BytesIO(data), formats=known)
    except PIL.Image.DecompressionBombError:
        raise Refused(
            f'is too large: at most {MAX_PIXELS // 10**6} million pixels are read, so make it '
            'smaller'
        ) from None


def _known_formats() -> dict:
    PIL.Image.init()
    return PIL.Image.OPEN


def _without_metadata(data: bytes) -> tuple[bytes, bytes | None]:
    """A PNG without its texts and colour profile, and the profile.

    Pillow refuses files with long texts or profiles, whose pictures are sound.
    """
    kept, profile, start = [_PNG], None, len(_PNG)
    while start + 8 <= len(data):
        length, name = struct.unpack_from('>I4s', data, start)
        end = start + 12 + length
        if name == b'iCCP' and profile is None:
            profile = _profile_of(data[start + 8 : start + 8 + length])
        if name not in (b'tEXt', b'zTXt', b'iTXt', b'iCCP'):
            kept.append(data[start:end])
        if name == b'IEND':
            break
        start = end
    return b''.join(kept), profile


def _profile_of(chunk: bytes) -> bytes | None:
    _, _, rest = chunk[:81].partition(b'\0')
    packed = chunk[len(chunk[:81]) - len(rest) + 1 :]
    try:
        unpacker = zlib.decompressobj()
        profile = unpacker.decompress(packed, colour.MAX_PROFILE + 1)
    except zlib.error:
        return None
    return profile if len(profile) <= colour.MAX_PROFILE else None


def _float_tiff(data: bytes) -> PIL.Image.Image:
    """A TIFF of values that Pillow does not read, such as float RGB; 8-bit."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        width, height, samples = page.imagewidth, page.imagelength, page.samplesperpixel
        if width * height * samples > MAX_PIXELS:
            raise Refused(large.too_large(width, height, MAX_PIXELS // samples))
        if page.dtype is None or page.dtype.kind not in 'fui':
            raise Refused('is a TIFF file of values that are not read; export it as PNG or JPEG')
        values = page.asarray(maxworkers=1)
        if page.planarconfig == 2 and values.ndim == 3:
            values = np.moveaxis(values, 0, -1)
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[-1] not in (1, 2, 3, 4):
        raise Refused('is a TIFF file of values that are not read; export it as PNG or JPEG')
    alpha = values.shape[-1] in (2, 4)
    colours = _to_8_bit(values[..., :-1] if alpha else values, values.dtype.kind == 'f')
    picture = PIL.Image.fromarray(colours[..., 0] if colours.shape[-1] == 1 else colours)
    if alpha:
        opaque = _to_8_bit(values[..., -1], values.dtype.kind == 'f')
        picture.putalpha(PIL.Image.fromarray(opaque))
    return picture


def _upright(image: PIL.Image.Image) -> PIL.Image.Image:
    try:
        return PIL.ImageOps.exif_transpose(image)
    except Exception:  # damaged metadata of an intact picture: ignored
        return image


def _to_rgb(image: PIL.Image.Image, profile: bytes | None) -> PIL.Image.Image:
    if image.mode.startswith('I') or image.mode == 'F':
        deep = not image.mode.startswith('I;16')
        values = _to_8_bit(np.asarray(image), image.mode == 'F', deep)
        image = PIL.Image.fromarray(values)
    elif image.mode == 'RGBX':
        image = image.convert('RGB')
    if image.mode in ('RGBA', 'LA', 'PA', 'La', 'RGBa') or 'transparency' in image.info:
        alpha = image.convert('RGBA').getchannel('A')
        if image.mode in ('P', 'PA'):
            image = image.convert('RGBA').convert('RGB')
        flat = PIL.Image.new('RGB', image.size, BACKGROUND)
        flat.paste(colour.to_srgb(image, profile), mask=alpha)
        return flat
    return colour.to_srgb(image, profile)


def _to_8_bit(values: np.ndarray, is_float: bool, deep: bool = True) -> np.ndarray:
    """Scales 16-bit values by their range, 32-bit and float ones by the largest one present."""
    values = np.asarray(values).astype(np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    top = values.max(initial=0.0)
    if is_float and top <= 1.0:
        scale = 255.0
    elif deep and top <= 255.0:
        scale = 1.0
    else:
        scale = 255.0 / (65535.0 if top <= 65535.0 else top)
    return np.clip(np.rint(values * scale), 0, 255).astype(np.uint8)


def _register_heif(name: str) -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageError(
            f'{name} is a HEIC photo; convert it to JPEG, or pip install pillow-heif.'
        ) from error
    pillow_heif.register_heif_opener()


def _unidentified(name: str, data: bytes, kind: str | None) -> str:
    if kind is not None:
        return f'{name} begins as a {kind} file but is damaged.'
    is_text = all(32 <= byte < 127 or byte in b'\t\r\n' or byte >= 128 for byte in data[:512])
    kind = 'text' if is_text else 'unknown data'
    return f'{name} is not an image but {kind}.'


def kept_suffix(file: str | os.PathLike) -> str:
    """The suffix under which an edited photograph is written: its own, or .png."""
    suffix = pathlib.Path(file).suffix.lower()
    return suffix if suffix in ('.jpg', '.jpeg', '.webp', '.png') else '.png'


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
