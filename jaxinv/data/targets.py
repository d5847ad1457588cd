"""Photographs in, aligned targets out. Unusable files are skipped with a reason, never fatal.

targets = load_targets('demo', resolution=512)
targets.names, targets.images_uint8   # ['grace_hopper', 'eileen_collins'], [2, 512, 512, 3]
"""

import dataclasses
import hashlib
import importlib.util
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image

from jaxinv import faces as face_finder
from jaxinv.data import crop as fitting
from jaxinv.data import discover, tfds
from jaxinv.data import images as pictures
from jaxinv.errors import JaxinvError
from jaxinv.faces import align as alignment

MIN_SIDE = 64  # pixels of the alignment square in the photo; less holds no person to find again
ENLARGED = 1.25  # a warning from this magnification on
OUTSIDE = 0.2  # a warning if this share of the alignment square is not in the photo
FACES = ('largest', 'all')
ALIGN = ('face', 'none')
WITH_FACES = ('ffhq', 'faces')  # domains of generators (GeneratorSpec) aligned as FFHQ
_DEMO = (  # name, package, file in it: public domain (US Navy; NASA)
    ('grace_hopper', 'matplotlib', 'mpl-data/sample_data/grace_hopper.jpg'),
    ('eileen_collins', 'skimage', 'data/astronaut.png'),
)


class DataError(JaxinvError):
    """A request for targets that cannot be met."""


class NoImages(DataError):
    """Nothing usable is left; the message is one sentence that names what was looked for."""


@dataclasses.dataclass(frozen=True)
class Targets:
    """What load_targets found. names, images_uint8 and sources go together."""

    names: list[str]  # unique, also where capitals don't count, and safe as file names
    images_uint8: np.ndarray  # [n, resolution, resolution, 3]
    # {'file', 'sha256' of its bytes, 'warning': None or a sentence,
    #  'face': None if not aligned here, else {'index', 'count', 'box', 'quad', 'side', 'score'}}
    sources: list[dict]
    skipped: list[dict]  # {'file', 'reason'}
    # [n, resolution, resolution, 1], 1 on the picture and 0 on bars; None = no bars anywhere
    valid: np.ndarray | None = None

    def rows(self, which, names=None) -> 'Targets':
        """Those of these numbers; names: what they are called instead."""
        return Targets(
            [self.names[i] for i in which] if names is None else names,
            self.images_uint8[which],
            [self.sources[i] for i in which],
            self.skipped,
            None if self.valid is None else self.valid[which],
        )


def load_targets(
    images: str | os.PathLike | Sequence[str | os.PathLike],
    resolution: int,
    *,
    faces: str = 'largest',  # or 'all': every face of every picture, NAME_1, NAME_2, ...
    aligned: bool = False,  # True: pictures are square crops already; nothing is detected
    align: str = 'face',  # 'none': not by faces; see `fit`
    fit: str = 'crop',  # how pictures become squares with align='none': see jaxinv/data/crop.py
) -> Targets:
    """Reads, finds faces, aligns as FFHQ, and names the targets of a run.

    images: 'demo' (two portraits that come with matplotlib and scikit-image), a file, a folder
    (searched with its subfolders), a pattern such as 'photos/*.jpg', or several of these in a list
    or separated by commas.

    aligned=True takes square pictures as they are, resized; others are skipped, since stretching,
    cropping or padding would all put the face where the generator does not expect it.
    align='none' is for what has no face: pictures of any shape, made square as `fit` says.

    Raises NoImages if nothing usable is left, DataError for an unknown `faces` or `align`.
    """
    way = AlignOptions(resolution, faces, aligned, align, fit)
    check(way)
    return load(find(images), way, discover.describe(images))


class AlignOptions(NamedTuple):
    """How pictures become targets; see load_targets."""

    resolution: int
    faces: str = 'largest'
    aligned: bool = False
    align: str = 'face'
    fit: str = 'crop'


def check(way: AlignOptions) -> None:
    if way.align not in ALIGN:
        raise DataError(f"data.align is {way.align!r}; it can be 'auto', 'face' or 'none'.")
    fitting.check(way.fit)
    if way.faces not in FACES:
        raise DataError(f"data.faces is {way.faces!r}; it can be 'largest' or 'all'.")
    if way.resolution < 1:
        raise DataError(f'resolution is {way.resolution}; it must be at least 1.')


def find(images) -> discover.Found:
    """What `images` of load_targets means, not yet opened."""
    return _demo() if images == 'demo' else discover.find(images)


class Target(NamedTuple):
    """A target to be; see Targets."""

    stem: str
    image_uint8: np.ndarray
    mask: np.ndarray  # [h, w]
    source: dict


def read_all(members, way: AlignOptions, log=None) -> tuple[list[Target], list[dict]]:
    """The targets in pictures [(name wanted, file), ...], and {'file', 'reason'} of others."""
    rows, skipped = [], []
    for count, (stem, file) in enumerate(members, start=1):
        rows += read(stem, file, way, skipped)
        if log and count % 50 == 0:
            log(f'{count} of {len(members)} pictures read.', flush=True)
    return rows, skipped


def load(
    found: discover.Found, way: AlignOptions, asked: str, log=None, reader=read_all
) -> Targets:
    """The targets of pictures that were found; asked: for them, in words. Raises NoImages.

    reader: read_all, or reading.together where there are several processes.
    """
    rows, reasons = reader(found.files, way, log)
    skipped = found.skipped + reasons
    if not rows:
        wanted = {'face': 'face', 'none': 'picture'}[way.align]
        wanted = 'square picture' if way.aligned else wanted
        raise NoImages(nothing_left(asked, found.files, skipped, wanted))
    return collect(rows, skipped)


def read(stem: str, file, way: AlignOptions, skipped: list[dict]) -> list[Target]:
    """The targets in a picture; [], and one more in `skipped`, if there are none."""
    try:
        picture = file.open() if isinstance(file, tfds.Record) else pictures.read(file)
        if way.aligned:
            results = [_take_aligned(picture, file, way.resolution)]
        elif way.align == 'none':
            results = [_take_whole(picture, file, way.resolution, way.fit)]
        else:
            results = _take_faces(picture, file, way.resolution, way.faces, skipped)
    except (pictures.ImageError, _Skip) as error:
        skipped.append({'file': str(file), 'reason': str(error)})
        return []
    source = {'file': str(file), 'sha256': hashlib.sha256(file.read_bytes()).hexdigest()}
    return [
        Target(stem + suffix, crop, mask, source | {'face': face, 'warning': warning})
        for suffix, crop, mask, face, warning in results
    ]


def collect(rows: Sequence[Target], skipped: list[dict]) -> Targets:
    """One or more rows as targets."""
    valid = np.stack([row.mask[..., None].astype(np.float32) for row in rows])
    return Targets(
        discover.unique_names([row.stem for row in rows]),
        np.stack([row.image_uint8 for row in rows]),
        [row.source for row in rows],
        skipped,
        None if valid.all() else valid,
    )


def load_for(settings, spec, log=print, reader=read_all) -> Targets:
    """The targets that config.data asks for, as the generator of this spec expects them."""
    found, asked = find_for(settings)
    return load(found, align_options(settings, spec, log), asked, log, reader)


def find_for(settings) -> tuple[discover.Found, str]:
    """What config.data asks for, not yet opened, and in words."""
    if not settings.tfds:
        return find(settings.images), discover.describe(settings.images)
    if settings.images != 'demo':
        raise DataError(
            f'data.images is {settings.images!r} and data.tfds is {settings.tfds!r}; give one of '
            'them.'
        )
    return tfds.find(settings.tfds), settings.tfds


def align_options(settings, spec, log=print) -> AlignOptions:
    """How config.data has pictures become targets; 'auto' follows the generator's domain."""
    align, fit = settings.align, settings.fit
    if align == 'auto':
        align = 'face' if spec.domain in WITH_FACES else 'none'
        if align == 'none' and not spec.domain and not settings.aligned:
            log(
                f'What {spec.name} makes is not known, so pictures are not aligned by faces; if '
                "its faces are aligned as FFHQ's, give --config.data.align=face."
            )
    if fit == 'auto':
        fit = '4:3' if spec.domain == 'cars' else 'crop'
    way = AlignOptions(spec.resolution, settings.faces, settings.aligned, align, fit)
    check(way)
    return way


class _Skip(ValueError):
    """One picture cannot be used; the message is the reason in the report."""


def _take_aligned(picture: PIL.Image.Image, path: pathlib.Path, resolution: int):
    width, height = picture.size
    if width != height:
        raise _Skip(f'{path.name} is {width} x {height} and not square, so it is not aligned.')
    _check_size(picture, path, resolution)
    pixels = np.asarray(fitting.resize(picture, (resolution, resolution)))
    return '', pixels, np.ones(pixels.shape[:2]), None, _enlarged(width, resolution)


def _take_whole(picture: PIL.Image.Image, path: pathlib.Path, resolution: int, fit: str):
    _check_size(picture, path, resolution)
    pixels, valid = fitting.square(picture, resolution, fit)
    used = max(valid.any(0).sum(), valid.any(1).sum())
    side = min(picture.size) if fit == 'crop' else max(picture.size)
    return '', pixels, valid, None, _enlarged(side, used)


def _check_size(picture, path, resolution):
    width, height = picture.size
    least = min(MIN_SIDE, resolution)
    if min(width, height) < least:
        raise _Skip(
            f'{path.name} is too small: {width} x {height} pixels, at least {least} are needed.'
        )


def _take_faces(picture, path: pathlib.Path, resolution: int, which: str, skipped: list):
    width, height = picture.size
    if min(width, height) < face_finder.MIN_PICTURE:
        raise _Skip(f'{path.name} is too small to hold a face: {width} x {height} pixels.')
    detected = face_finder.find_faces(picture, thorough=which == 'all')
    if not detected:
        raise _Skip(f'No face was found in {path.name} ({width} x {height} pixels).')
    results = []
    for index, face in enumerate(detected, start=1):
        corners = alignment.quad(face.landmarks)
        side = alignment.side(corners)
        # On too small a face: silence when only the largest counts and a larger one was taken.
        if side < MIN_SIDE:
            reason = (
                f'The face in {path.name} is too small: its square has {side:.0f} pixels a side, '
                f'at least {MIN_SIDE} are needed.'
            )
            if which == 'largest' or len(detected) == 1:
                raise _Skip(reason)
            skipped.append({'file': f'{path} (face {index})', 'reason': reason})
            continue
        crop = np.asarray(alignment.align(picture, face.landmarks, resolution))
        about = {
            'index': index,
            'count': len(detected),
            'box': [round(value, 1) for value in face.box],
            'quad': np.round(corners, 2).tolist(),
            'side': round(side, 1),
            'score': round(face.score, 2),
        }
        suffix = f'_{index}' if which == 'all' and len(detected) > 1 else ''
        warnings = [_enlarged(side, resolution), _invented(corners, picture.size)]
        warning = ' '.join(filter(None, warnings)) or None
        results.append((suffix, crop, np.ones(crop.shape[:2]), about, warning))
        if which == 'largest':
            break
    return results


def _enlarged(side: float, resolution: int) -> str | None:
    if side * ENLARGED >= resolution:
        return None
    return (
        f'Only {side:.0f} pixels a side were enlarged to {resolution}; '
        'fine detail will be the generator’s own.'
    )


def _invented(corners, size) -> str | None:
    steps = (np.arange(32) + 0.5) / 32
    down, across = np.meshgrid(steps, steps, indexing='ij')
    points = corners[0] + across[..., None] * (corners[3] - corners[0])
    points = points + down[..., None] * (corners[1] - corners[0])
    outside = ((points < 0) | (points >= size)).any(-1).mean()
    if outside < OUTSIDE:
        return None
    return f'{outside:.0%} of its square lie outside the picture and were filled in.'


def _demo() -> discover.Found:
    found = discover.Found([], [])
    for name, package, member in _DEMO:
        spec = importlib.util.find_spec(package)
        path = pathlib.Path(spec.origin).parent / member if spec and spec.origin else None
        if path is not None and path.is_file():
            found.files.append((name, path))
        else:
            reason = f'The demo portrait {name} comes with {package}, which is not installed.'
            found.skipped.append({'file': member, 'reason': reason})
    return found


def nothing_left(asked: str, found, skipped: list[dict], wanted: str) -> str:
    """The sentence of NoImages."""
    reasons = []
    for entry in skipped[:3]:
        reason = entry['reason'].rstrip('.')
        inside = reason.startswith(('No ', 'The '))
        reasons.append(reason[0].lower() + reason[1:] if inside else reason)
    if len(skipped) > 3:
        reasons.append(f'and {len(skipped) - 3} more')
    why = '; '.join(reasons)
    if not found:
        return f'There are no images: {why or discover.NOTHING_ASKED}.'
    return f'No usable {wanted} was found in {asked}: {why}.'
