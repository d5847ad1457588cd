"""Colour profiles of pictures, by what they do to colours and not by their names."""

import io

import numpy as np
import PIL.Image
import PIL.ImageCms

MAX_PROFILE = 2**24  # bytes
SAME = 3  # of 255: largest difference of a profile that counts as sRGB; rounding makes 1 or 2
_SPACES = {'RGB': 'RGB', 'CMYK': 'CMYK', 'GRAY': 'L'}  # of profiles: mode of pictures
# Modes whose colours are grey values.
_GREY = ('1', 'L', 'LA', 'La')


def to_srgb(image: PIL.Image.Image, profile: bytes | None) -> PIL.Image.Image:
    """The colours of a picture as 8-bit sRGB (mode 'RGB'), without its transparency.

    profile: an ICC profile. It is ignored if it is damaged, or of another kind of colours than the
    picture's, as in most viewers.
    """
    if image.mode == 'La':
        image = image.convert('LA')
    elif image.mode == 'RGBa':
        image = image.convert('RGBA')
    if image.mode == 'LAB':
        lab = PIL.ImageCms.createProfile('LAB')
        return PIL.ImageCms.profileToProfile(image, lab, _srgb(), outputMode='RGB')
    source = _usable(profile)
    if source is None:
        return image.convert('RGB')
    space = _SPACES.get(source.profile.xcolor_space.strip())
    if space == 'L' and image.mode in _GREY:
        colours = image.convert('L')
    elif space == 'RGB' and image.mode not in (*_GREY, 'CMYK'):
        colours = image.convert('RGB')
    elif space == 'CMYK' == image.mode:
        colours = image
    else:
        return image.convert('RGB')
    # Tables that LittleCMS computes in advance are coarse for dark greys: 7 of 255.
    flags = PIL.ImageCms.Flags.NOOPTIMIZE if space == 'L' else PIL.ImageCms.Flags.NONE
    try:
        transform = PIL.ImageCms.buildTransform(source, _srgb(), space, 'RGB', flags=flags)
        if space != 'CMYK' and _changes_little(transform, space):
            return colours.convert('RGB')
        return PIL.ImageCms.applyTransform(colours, transform)
    except (PIL.ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image.convert('RGB')


def _usable(profile):
    if not profile or len(profile) > MAX_PROFILE:
        return None
    try:
        source = PIL.ImageCms.ImageCmsProfile(io.BytesIO(profile))
        source.profile.xcolor_space.strip()
        return source
    except (PIL.ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
        return None


def _changes_little(transform, mode):
    """Whether the transform is that of an sRGB profile, whatever its name: up to rounding."""
    levels = np.linspace(0, 255, 18).round().astype(np.uint8)
    if mode == 'L':
        before = levels[None]
        after = before[..., None].repeat(3, -1)
    else:
        corners = np.stack(np.meshgrid(levels[::3], levels[::3], levels[::3]), -1).reshape(-1, 3)
        greys = levels[:, None].repeat(3, 1)
        before = after = np.concatenate([corners, greys])[None]
    found = PIL.ImageCms.applyTransform(PIL.Image.fromarray(before), transform)
    return np.abs(np.asarray(found, int) - after).max() <= SAME


def _srgb():
    return PIL.ImageCms.createProfile('sRGB')
