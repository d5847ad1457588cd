"""Writes videos: H.264 in mp4, in parts that a rerun keeps, joined with the sound of the source.

A part (NUT, whose times are exact) holds some frames at their own times. There are no frames that
refer to later ones, so parts follow each other without re-encoding. Sound is copied packet by
packet, or encoded as AAC where players do not expect its codec in mp4. No metadata of the source is
written: no place, no camera.
"""

import contextlib
import heapq
import itertools
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
import PIL.Image

from jaxinv.data.targets import DataError
from jaxinv.data.video import Clip, exact_conversion, pyav
from jaxinv.io import atomic_path

ENCODER, PRESET = 'libx264', 'medium'
# As most players expect: BT.709 for large pictures, BT.601 for small ones (ITU's numbers).
HD_HEIGHT = 720
# Sound that players expect in mp4.
COPIED = {'aac', 'mp3', 'mp3float', 'ac3', 'eac3', 'opus', 'libopus', 'flac', 'alac'}
_BT709, _BT601 = 1, 6
AAC_SAMPLES = 1024  # of a frame of AAC


def check() -> None:
    """Raises DataError if this FFmpeg has no x264, before anything is computed."""
    if ENCODER not in pyav().codecs_available:
        raise DataError(
            f'This installation of PyAV has no {ENCODER}, which writes H.264; pip install av, '
            'whose wheels have it.'
        )


class PartWriter:
    """Encodes pictures at their times into one part."""

    def __init__(self, path: pathlib.Path, clip: Clip, size: tuple[int, int], crf: int):
        """size: (width, height) of the pictures; an odd side gets one more row or column."""
        av = pyav()
        self._size = size
        self._container = av.open(str(path), 'w', format='nut')
        options = {'crf': str(crf), 'preset': PRESET, 'bf': '0'}
        stream = self._container.add_stream(ENCODER, rate=clip.rate, options=options)
        stream.width, stream.height = (side + side % 2 for side in size)
        stream.pix_fmt = 'yuv420p'
        stream.time_base = stream.codec_context.time_base = clip.time_base
        number = _BT709 if size[1] >= HD_HEIGHT else _BT601
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = number
        context.color_range = 1  # of television, 16 to 235
        self._number, self._stream, self._time_base = number, stream, clip.time_base

    def add(self, picture: PIL.Image.Image, pts: int) -> None:
        av = pyav()
        width, height = self._size
        pixels = np.asarray(picture)
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode='edge')
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format='rgb24')
        spaces = {_BT709: 'ITU709', _BT601: 'ITU601'}
        frame = frame.reformat(
            format='yuv420p',
            dst_colorspace=spaces[self._number],
            dst_color_range='MPEG',
            interpolation=exact_conversion(av),
        )
        frame.pts, frame.time_base = pts, self._time_base
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()


def join(parts: Sequence[pathlib.Path], clip: Clip, path: pathlib.Path, sound: bool = True) -> str:
    """Writes the parts as one video, with the source's sound; atomically.

    Returns what became of the sound: 'none', 'copied' or 'encoded as AAC'.
    """
    av = pyav()
    with atomic_path(path) as scratch, contextlib.ExitStack() as stack:
        output = stack.enter_context(
            av.open(str(scratch), 'w', format='mp4', options={'movflags': 'faststart'})
        )
        first = stack.enter_context(av.open(str(parts[0])))
        video = output.add_stream_from_template(first.streams.video[0])
        video.time_base = clip.time_base
        streams, how = [_video_packets(parts, video)], 'none'
        if sound and not clip.files:
            source = stack.enter_context(av.open(f'file:{clip.path}'))
            for stream in source.streams.audio:
                if stream.codec_context is None:
                    continue
                # A container each, since it is read at one position.
                own = stack.enter_context(av.open(f'file:{clip.path}')).streams[stream.index]
                if stream.codec_context.name in output.supported_codecs & COPIED:
                    made, packets = output.add_stream_from_template(own), _copied
                    how = 'copied'
                else:
                    layout = {1: 'mono'}.get(own.layout.nb_channels, 'stereo')
                    made = output.add_stream('aac', rate=own.rate, layout=layout)
                    packets = _encoded
                    how = 'encoded as AAC'
                streams.append(packets(own, made))
        end = _end(parts[-1], clip) if clip.max_frames else None
        for time, _, packet in heapq.merge(*streams, key=lambda item: item[:2]):
            if end is None or time < end:
                output.mux(packet)
    return how


def _video_packets(parts, stream) -> Iterator[tuple]:
    av = pyav()
    for part in parts:
        with av.open(str(part)) as container:
            for packet in container.demux(container.streams.video[0]):
                if packet.dts is None:  # the flush at the end
                    continue
                time = float(packet.pts * packet.time_base)
                packet.stream = stream
                yield time, 0, packet


def _packets(track) -> Iterator:
    """The packets of a stream, up to one that cannot be read."""
    av = pyav()
    with contextlib.suppress(av.FFmpegError):
        yield from track.container.demux(track)


def _copied(track, stream) -> Iterator[tuple]:
    for packet in _packets(track):
        if packet.dts is None:
            continue
        time = float(packet.dts * packet.time_base)
        packet.stream = stream
        yield time, stream.index, packet


def _decoded(track) -> Iterator:
    """The samples of a stream; packets that cannot be decoded are left out."""
    av = pyav()
    for packet in _packets(track):
        with contextlib.suppress(av.FFmpegError):
            yield from packet.decode()


def _encoded(track, stream) -> Iterator[tuple]:
    av = pyav()
    resampler = av.AudioResampler('fltp', stream.layout.name, track.rate, frame_size=AAC_SAMPLES)
    for frame in itertools.chain(_decoded(track), [None]):
        for samples in resampler.resample(frame):
            for packet in stream.encode(samples):
                yield float(packet.dts * packet.time_base), stream.index, packet
    for packet in stream.encode():
        yield float(packet.dts * packet.time_base), stream.index, packet


def _end(part, clip: Clip) -> float:
    """Seconds at which the last frame ends."""
    av = pyav()
    with av.open(str(part)) as container:
        last = max(p.pts * p.time_base for p in container.demux(video=0) if p.pts is not None)
    return float(last + 1 / clip.rate)
