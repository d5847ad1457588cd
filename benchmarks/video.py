"""A clip of known motion from a demo portrait, and how much an edited video of it flickers.

    python benchmarks/video.py make CLIP.mp4 --frames=12
    python -m jaxinv.launch --config=pti_video --config.data.video=CLIP.mp4 --workdir=RUN ...
    python benchmarks/video.py judge CLIP.mp4 RUN [RUN ...]

The portrait is moved, zoomed and turned by smooth curves, under a tone. `judge` undoes the known
motion of every frame, so that a perfect video is a still picture: what changes at the face is
flicker, printed as the root mean square over time, of levels 0 to 255. The clip itself has a part
of it by resampling and H.264. A second line takes each frame's difference to the next only.
"""

import argparse
import fractions
import json
import pathlib

import numpy as np
import PIL.Image
import skimage.data

from jaxinv import faces
from jaxinv.data import video
from jaxinv.faces import align

SIZE = (512, 480)  # width, height
RATE, SOUND = 25, 44_100
PERIOD = 24  # frames


def motion(frame: int) -> np.ndarray:
    """Affine [2, 3] of a frame: from its pixels to those of the portrait."""
    phase = 2 * np.pi * frame / PERIOD
    angle, zoom = np.radians(3 * np.sin(phase)), 1.06 + 0.05 * np.sin(phase / 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    centre = np.array([SIZE[0] / 2 + 12 * np.sin(phase), SIZE[1] / 2 - 6 * np.cos(phase)])
    return np.column_stack([turn, np.array([SIZE[0] / 2, SIZE[1] / 2]) - turn @ centre])


def make(path: pathlib.Path, frames: int, portrait=None) -> None:
    """Writes the clip: near lossless H.264 and a tone in AAC."""
    av = video.pyav()
    picture = PIL.Image.fromarray(skimage.data.astronaut()) if portrait is None else portrait
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=RATE, options={'crf': '10'})
        stream.width, stream.height, stream.pix_fmt = *SIZE, 'yuv420p'
        tone = container.add_stream('aac', rate=SOUND, layout='mono')
        for i in range(frames):
            moved = picture.transform(
                SIZE, PIL.Image.Transform.AFFINE, motion(i).flatten().tolist(),
                PIL.Image.Resampling.BICUBIC,
            )  # fmt: skip
            frame = av.VideoFrame.from_image(moved)
            frame.pts, frame.time_base = i, fractions.Fraction(1, RATE)
            container.mux(stream.encode(frame))
        times = np.arange(frames * SOUND // RATE) / SOUND
        wave = np.float32(0.2 * np.sin(2 * np.pi * 440 * times))[None]
        samples = av.AudioFrame.from_ndarray(wave, format='fltp', layout='mono')
        samples.rate, samples.pts = SOUND, 0
        container.mux(tone.encode(samples))
        container.mux(stream.encode())
        container.mux(tone.encode())


def still(clip: video.Clip) -> np.ndarray:
    """The frames with the known motion undone, float32 [n, h, w, 3]."""
    found = []
    for frame in video.frames(clip):
        own = np.vstack([motion(frame.index), [0, 0, 1]])
        back = np.linalg.inv(own)[:2].flatten().tolist()
        picture = frame.picture.transform(
            SIZE, PIL.Image.Transform.AFFINE, back, PIL.Image.Resampling.BICUBIC
        )
        found.append(np.asarray(picture, np.float32))
    return np.stack(found)


def flicker(frames: np.ndarray, box) -> tuple[float, float]:
    """(deviation over time, difference to the next frame): root mean squares in the box."""
    left, top, right, bottom = box
    own = frames[:, top:bottom, left:right]
    deviation = np.sqrt(np.mean((own - own.mean(0)) ** 2))
    return float(deviation), float(np.sqrt(np.mean(np.diff(own, axis=0) ** 2)))


def judge(path: pathlib.Path, runs: list[pathlib.Path]) -> None:
    clip = video.open_clip(path)
    source = still(clip)
    face = faces.find_faces(PIL.Image.fromarray(np.uint8(source[0])))[0]
    corners = align.quad(face.landmarks)
    middle, half = corners.mean(0), 0.3 * align.side(corners)
    box = [round(v) for v in (*(middle - half), *(middle + half))]
    print('clip', *(f'{value:.2f}' for value in flicker(source, box)))
    for run in runs:
        for name, file in json.loads((run / 'metrics.json').read_text())['videos'].items():
            own = still(video.open_clip(run / file))
            print(run.name, name, *(f'{value:.2f}' for value in flicker(own, box)))


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('what', choices=('make', 'judge'))
    parser.add_argument('clip', type=pathlib.Path)
    parser.add_argument('runs', type=pathlib.Path, nargs='*')
    parser.add_argument('--frames', type=int, default=12)
    given = parser.parse_args()
    if given.what == 'make':
        make(given.clip, given.frames)
    else:
        judge(given.clip, given.runs)
