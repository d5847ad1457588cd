"""Reads videos frame by frame: files by PyAV (FFmpeg), or folders of pictures.

    clip = video.open_clip('talk.mp4')
    for frame in video.frames(clip):
        frame.index, frame.seconds, frame.picture

One frame is held at a time. Pictures are upright 8-bit RGB; the matrix of the file's colours is
undone, its transfer curve is kept. A file is opened by the demuxers of FORMATS alone and as a file
alone, so that no playlist in it can open others or an address.
"""

import contextlib
import fractions
import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from jaxinv import io
from jaxinv.data import discover, images
from jaxinv.data.targets import DataError
from jaxinv.text import printable

FORMATS = ('mov', 'mp4', 'matroska', 'webm', 'avi', 'mpegts', 'mpeg', 'flv', 'ogg', 'asf', 'gif')
MAX_PIXELS = 8192 * 4320  # of a frame
MAX_FRAMES = 1_000_000


class Frame(NamedTuple):
    index: int
    pts: int  # in units of Clip.time_base
    picture: PIL.Image.Image | None  # None before the frame that reading started from


class Clip(NamedTuple):
    """A video that was found and can be read."""

    path: pathlib.Path
    files: tuple[pathlib.Path, ...]  # of a folder; () = a video file
    size: tuple[int, int]  # width, height of the upright frames, pixels
    rate: fractions.Fraction  # frames a second; of a file with varying times, their mean
    time_base: fractions.Fraction  # seconds
    estimate: int  # frames, as the file says; 0 = unknown
    max_frames: int  # 0 = all

    def seconds(self, pts: int) -> float:
        return float(pts * self.time_base)


def pyav() -> Any:
    """The module av. Raises DataError if it is not installed."""
    try:
        import av
    except ImportError as error:
        raise DataError(
            'Videos are read and written by PyAV, which is not installed; pip install '
            '"jaxinv[video]" (or pip install av).'
        ) from error
    return av


def exact_conversion(av) -> Any:
    """Flags of FFmpeg's conversion of colours: rounded, not cut off, which darkens pictures."""
    kinds = av.video.reformatter.Interpolation
    return kinds.BICUBIC | kinds.ACCURATE_RND | kinds.FULL_CHR_H_INT


def open_clip(source, fps: float = 25.0, max_frames: int = 0) -> Clip:
    """The clip of a video file, or of a folder of pictures at `fps`. Raises DataError."""
    if not str(source):
        raise DataError(
            'data.video is empty; give a video file or a folder of frames, as '
            '--config.data.video=CLIP.mp4.'
        )
    path = io.expanded(source)
    if path.is_dir():
        return _open_folder(path, fps, max_frames)
    if not path.is_file():
        raise DataError(f'data.video is {printable(path)!r}, and there is no such file or folder.')
    with _container(path) as container:
        stream = container.streams.video[0]
        first = next(_decoded(container, stream, path), None)
        if first is None:
            raise DataError(f'{printable(path.name)} has no frame that can be decoded.')
        rate = stream.average_rate or stream.guessed_rate or fractions.Fraction(25)
        size = _picture(first).size
        _check_size(path, size)
        time_base = stream.time_base or 1 / rate
        return Clip(path, (), size, fractions.Fraction(rate), time_base, stream.frames, max_frames)


def frames(clip: Clip, start: int = 0) -> Iterator[Frame]:
    """The frames in their order; those before `start` without pictures. Raises DataError.

    Packets that cannot be decoded are left out, the same ones each time.
    """
    limit = clip.max_frames or MAX_FRAMES
    if clip.files:
        for index, file in enumerate(clip.files[:limit]):
            if index < start:
                yield Frame(index, index, None)
                continue
            try:
                picture = images.read(file)
            except images.ImageError as error:
                raise DataError(f'Frame {index} cannot be read: {error}') from None
            yield Frame(index, index, _of_size(picture, clip, index))
        return
    with _container(clip.path) as container:
        stream = container.streams.video[0]
        stream.thread_type = 'AUTO'
        last = None
        for index, frame in enumerate(_decoded(container, stream, clip.path)):
            if index >= limit:
                return
            pts = frame.pts
            if pts is None or (last is not None and pts <= last):  # a file without times
                pts = (last or 0) + max(1, round(1 / (clip.rate * clip.time_base)))
            last = pts
            picture = None if index < start else _of_size(_picture(frame), clip, index)
            yield Frame(index, pts, picture)


def fingerprint(clip: Clip) -> str:
    """SHA-256 of the file, or of the names and contents of a folder's pictures."""
    if not clip.files:
        return io.sha256(clip.path)
    total = hashlib.sha256()
    for file in clip.files[: clip.max_frames or None]:
        total.update(f'{file.name.encode("utf-8", "replace")!r} {io.sha256(file)}\n'.encode())
    return total.hexdigest()


def _open_folder(path, fps, max_frames) -> Clip:
    listing = discover.find(path)
    files = tuple(file for _, file in listing.files)
    if not files:
        reason = listing.skipped[0]['reason'] if listing.skipped else 'It is empty.'
        raise DataError(f'data.video has no frames: {reason}')
    try:
        size = images.read(files[0]).size
    except images.ImageError as error:
        raise DataError(f'The first frame of data.video cannot be read: {error}') from None
    _check_size(path, size)
    rate = fractions.Fraction(fps).limit_denominator(100_000)
    return Clip(path, files, size, rate, 1 / rate, len(files), max_frames)


@contextlib.contextmanager
def _container(path: pathlib.Path):
    av = pyav()
    options = {'protocol_whitelist': 'file', 'format_whitelist': ','.join(_demuxers(av))}
    name = printable(path.name, 120)
    try:
        container = av.open(f'file:{path}', options=options)
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = ' '.join(str(getattr(error, 'strerror', '') or error).split())[:120]
        raise DataError(f'{name} is not a video that can be read ({printable(reason)}).') from None
    with container:
        if not container.streams.video:
            raise DataError(f'{name} has no video stream.')
        context = container.streams.video[0].codec_context
        if context is None:
            raise DataError(f'{name} has a video stream of an unknown codec.')
        _check_size(path, (context.width, context.height))
        yield container


def _demuxers(av) -> list[str]:
    """FORMATS in the spelling of FFmpeg, whose names are lists such as 'mov,mp4,m4a'."""
    return [name for name in av.formats_available if set(name.split(',')) & set(FORMATS)]


def _decoded(container, stream, path):
    av = pyav()
    try:
        for packet in container.demux(stream):
            try:
                found = packet.decode()
            except av.FFmpegError:
                continue
            yield from found
    except av.FFmpegError:  # the file ends within a packet
        return


def _picture(frame) -> PIL.Image.Image:
    converted = frame.reformat(format='rgb24', interpolation=exact_conversion(pyav()))
    pixels = converted.to_ndarray()
    turns = round(getattr(frame, 'rotation', 0) / 90) % 4  # counterclockwise
    return PIL.Image.fromarray(np.ascontiguousarray(np.rot90(pixels, turns)))


def _of_size(picture: PIL.Image.Image, clip: Clip, index: int) -> PIL.Image.Image:
    if picture.size != clip.size:
        raise DataError(
            f'Frame {index} of {printable(clip.path.name)} has {picture.width} x {picture.height} '
            f'pixels and the first {clip.size[0]} x {clip.size[1]}; all must have one size.'
        )
    return picture


def _check_size(path, size) -> None:
    width, height = size
    if not 0 < width * height <= MAX_PIXELS:
        raise DataError(
            f'{printable(path.name)} has frames of {width} x {height} pixels; at most '
            f'{MAX_PIXELS // 10**6} million pixels are read, so make it smaller.'
        )
