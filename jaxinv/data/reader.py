"""One picture to its targets: read, aligned by a face or cropped, with warnings on its quality."""

import hashlib
import pathlib

import numpy as np
import PIL.Image

from jaxinv import faces
from jaxinv.data import crop, discover, images, tfds
from jaxinv.data.targets import AlignOptions, Target
from jaxinv.errors import JaxinvError
from jaxinv.faces import align
from jaxinv.text import printable

MIN_SIDE = 64  # pixels of the alignment square in the photograph; below it a face is skipped
MAX_MAGNIFICATION = 1.25  # above it a target carries a warning
MAX_OUTSIDE = 0.2  # fraction of the alignment square outside the photograph; the same


class _SkipError(JaxinvError):
    """The picture cannot be used; the message is the reason in the report."""


def read_all(files, options: AlignOptions, log=None) -> tuple[list[Target], list[dict]]:
    """The targets in pictures [(name, file), ...], and {'file', 'reason'} of skipped ones."""
    targets, skipped = [], []
    for count, (stem, file) in enumerate(files, start=1):
        targets += read(stem, file, options, skipped)
        if log and count % 50 == 0:
            log(f'{count} of {len(files)} pictures read.', flush=True)
    return targets, skipped


def read(stem: str, file, options: AlignOptions, skipped: list[dict]) -> list[Target]:
    """The targets in one picture: one, or several with options.faces='all'.

    file: a pathlib.Path or a tfds.Record; in a discover.AlignedFile no face is sought. A picture
    without targets gives [] and an entry of `skipped`, {'file', 'reason'}; with 'all', so does each
    face that is too small.
    """
    try:
        picture = file.open() if isinstance(file, tfds.Record) else images.read(file)
        if options.aligned or (options.align == 'face' and isinstance(file, discover.AlignedFile)):
            results = [_take_aligned(picture, file, options.resolution)]
        elif options.align == 'none':
            results = [_take_cropped(picture, file, options.resolution, options.fit)]
        else:
            results = _take_faces(picture, file, options, skipped)
    except (images.ImageError, _SkipError) as error:
        skipped.append({'file': str(file), 'reason': str(error)})
        return []
    source = {'file': str(file), 'sha256': hashlib.sha256(file.read_bytes()).hexdigest()}
    return [
        Target(stem + suffix, pixels, mask, source | {'face': face, 'warning': warning})
        for suffix, pixels, mask, face, warning in results
    ]


def _take_aligned(picture: PIL.Image.Image, path: pathlib.Path, resolution: int):
    width, height = picture.size
    if width != height:
        raise _SkipError(f'{path.name} is {width} x {height} and not square, so it is not aligned.')
    _check_size(picture, path, resolution)
    pixels = np.asarray(crop.resize(picture, (resolution, resolution)))
    return '', pixels, np.ones(pixels.shape[:2]), None, _magnified(width, resolution)


def _take_cropped(picture: PIL.Image.Image, path: pathlib.Path, resolution: int, fit: str):
    _check_size(picture, path, resolution)
    pixels, valid = crop.square(picture, resolution, fit)
    longer_side = max(valid.any(0).sum(), valid.any(1).sum())
    side = min(picture.size) if fit == 'crop' else max(picture.size)
    return '', pixels, valid, None, _magnified(side, longer_side)


def _check_size(picture, path, resolution):
    width, height = picture.size
    least = min(MIN_SIDE, resolution)
    if min(width, height) < least:
        raise _SkipError(
            f'{path.name} is too small: {width} x {height} pixels, at least {least} are needed.'
        )


def _take_faces(picture, path: pathlib.Path, options: AlignOptions, skipped: list):
    resolution, which = options.resolution, options.faces
    wanted = None if options.chosen is None else dict(options.chosen).get(path.name, ())
    width, height = picture.size
    if min(width, height) < faces.MIN_PICTURE:
        raise _SkipError(f'{path.name} is too small to hold a face: {width} x {height} pixels.')
    detected = faces.find_faces(picture, thorough=which == 'all')
    if not detected:
        raise _SkipError(f'No face was found in {path.name} ({width} x {height} pixels).')
    results = []
    for index, face in enumerate(detected, start=1):
        if wanted is not None and index not in wanted:
            continue
        corners = align.quad(face.landmarks)
        side = align.side(corners)
        if side < MIN_SIDE:
            reason = (
                f'The face in {printable(path.name)} is too small: its square has {side:.0f} '
                f'pixels a side, at least {MIN_SIDE} are needed.'
            )
            if which == 'largest' or len(detected) == 1:
                raise _SkipError(reason)
            skipped.append({'file': f'{path} (face {index})', 'reason': reason})
            continue
        pixels = np.asarray(align.align(picture, face.landmarks, resolution))
        facts = {
            'index': index,
            'count': len(detected),
            'box': [round(value, 1) for value in face.box],
            'quad': np.round(corners, 2).tolist(),
            'side': round(side, 1),
            'score': round(face.score, 2),
        }
        suffix = f'_{index}' if which == 'all' and len(detected) > 1 else ''
        warnings = [_magnified(side, resolution), _outside(corners, picture.size)]
        warning = ' '.join(filter(None, warnings)) or None
        results.append((suffix, pixels, np.ones(pixels.shape[:2]), facts, warning))
        if which == 'largest':
            break
    return results


def _magnified(side: float, resolution: int) -> str | None:
    """A warning if fewer pixels than the target's were there."""
    if side * MAX_MAGNIFICATION >= resolution:
        return None
    return (
        f'Only {side:.0f} pixels a side were enlarged to {resolution}; fine detail will come from '
        'the generator.'
    )


def _outside(corners, size) -> str | None:
    """A warning if much of the square lies outside the picture; on a grid of 32 x 32 points."""
    steps = (np.arange(32) + 0.5) / 32
    down, across = np.meshgrid(steps, steps, indexing='ij')
    points = corners[0] + across[..., None] * (corners[3] - corners[0])
    points = points + down[..., None] * (corners[1] - corners[0])
    fraction = ((points < 0) | (points >= size)).any(-1).mean()
    if fraction < MAX_OUTSIDE:
        return None
    return f'{fraction:.0%} of its square is outside the picture and was filled in.'
