"""Pictures in and out: safe reading, value ranges, area averaging, labelled grids, saving.

`read` takes what people have (phone photos that lie on their side, cut-outs, scans, animations) and
returns plain upright 8-bit RGB, or raises ImageError with one sentence fit for a report.
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

# Decoders of these run in-process on the file alone. Left out on purpose: EPS and PS (start
# Ghostscript), WMF (asks the system), containers of scientific data.
FORMATS = (
    'AVIF', 'BMP', 'DIB', 'GIF', 'ICO', 'JPEG', 'JPEG2000', 'MPO', 'PCX', 'PNG', 'PPM', 'QOI',
    'TGA', 'TIFF', 'WEBP',
)  # fmt: skip
MAX_PIXELS = 178_956_970  # Pillow's own limit against decompression bombs (0.5 GB of RGB)
BACKGROUND = (255, 255, 255)  # shows through where a picture is transparent, as in most viewers
_SIGNATURES = {
    b'\x89PNG': 'PNG',
    b'\xff\xd8\xff': 'JPEG',
    b'GIF8': 'GIF',
    b'BM': 'BMP',
    b'II*\0': 'TIFF',
    b'MM\0*': 'TIFF',
}


class ImageError(JaxinvError):
    """A file is not a usable picture; the message is one sentence that says why."""


def read(path: str | os.PathLike) -> PIL.Image.Image:
    """The picture in a file as upright 8-bit sRGB (mode 'RGB').

    EXIF orientation is applied. Transparency is laid over white. 16-bit values are scaled to 8,
    embedded colour profiles other than sRGB converted, CMYK and palettes resolved; of an animation
    the first frame is taken.

    Raises ImageError: missing, not a regular file, empty, not an image whatever its name says, of a
    format that is not read, damaged or cut short, or more than MAX_PIXELS pixels.
    """
    path = pathlib.Path(path)
    return decode(_read_bytes(path), path)


def decode(data: bytes, path: pathlib.Path) -> PIL.Image.Image:
    """The same of a file's content; path: what error messages call it."""
    if _is_heif(data):
        _register_heif(path)
    try:
        # A limit of our own: other code in the process may have lifted Pillow's.
        with _open_quietly(data) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ImageError(_too_large(path, f'{width} x {height} pixels'))
            image.load()
            return _to_rgb(_upright(image))
    except ImageError:
        raise
    except PIL.Image.DecompressionBombError as error:
        raise ImageError(_too_large(path, 'too many pixels')) from error
    except PIL.UnidentifiedImageError as error:
        raise ImageError(_unidentified(path, data)) from error
    except MemoryError as error:
        raise ImageError(f'{path.name} needs more memory than there is.') from error
    except Exception as error:  # decoders of damaged files raise almost anything
        reason = ' '.join(str(error).split())[:120] or type(error).__name__
        raise ImageError(f'{path.name} is damaged or cut short ({reason}).') from error


def _read_bytes(path: pathlib.Path) -> bytes:
    try:
        # Checked before opening: opening a pipe would wait for a writer for ever.
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
        # Half the limit already makes Pillow warn, and odd metadata does; neither is news here.
        warnings.simplefilter('ignore')
        return PIL.Image.open(io.BytesIO(data), formats=formats)


def _known_formats() -> dict:
    PIL.Image.init()
    return PIL.Image.OPEN


def _upright(image: PIL.Image.Image) -> PIL.Image.Image:
    try:
        return PIL.ImageOps.exif_transpose(image)
    except Exception:  # damaged metadata in front of a sound picture: take it as it lies
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
    """16-bit grey by its full range; 32-bit and float, which have none, by what they hold."""
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
            pass  # a damaged profile: the plain conversion below is what most programs show
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
    return f'{path.name} is refused: {what}, and at most {limit} million are read.'


def _unidentified(path: pathlib.Path, data: bytes) -> str:
    for signature, name in _SIGNATURES.items():
        if data.startswith(signature):
            return f'{path.name} begins like a {name} file but is damaged.'
    if data[:4] == b'%!PS' or data[:4] == b'%PDF' or data[:5] in (b'<?xml', b'<svg '):
        return f'{path.name} holds vector graphics, which are not read; export it as PNG or JPEG.'
    is_text = all(32 <= byte < 127 or byte in b'\t\r\n' or byte >= 128 for byte in data[:512])
    kind = 'text' if is_text else 'unknown data'
    return f'{path.name} is not an image but {kind}, whatever its name says.'


def save(path: str | os.PathLike, image_uint8) -> None:
    """Writes [h, w, 3] uint8 or a PIL picture; the format follows the name (PNG, JPEG, ...).

    Whole file or nothing: written beside the target and renamed, so that a killed run leaves no
    half picture.
    """
    path = pathlib.Path(path)
    if not isinstance(image_uint8, PIL.Image.Image):
        array = np.asarray(image_uint8)
        if array.dtype != np.uint8:
            raise ValueError(f'save takes uint8, not {array.dtype}; see to_uint8.')
        image_uint8 = PIL.Image.fromarray(np.ascontiguousarray(array))
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f'.{path.stem}.{os.getpid()}{path.suffix}')
    options = {'quality': 95} if path.suffix.lower() in ('.jpg', '.jpeg', '.webp') else {}
    try:
        image_uint8.save(scratch, **options)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
