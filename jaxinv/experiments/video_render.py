"""Renders the frames of a video with the tuned generator, pastes, encodes and measures them.

state/render/0000000/NAME.nut       some frames of each video, encoded
state/render/0000000/numbers.npz    what was measured of them; written last
videos/NAME.mp4                     all of them, with the sound of the source

BATCH frames at full size are in memory at a time.
"""

import pathlib
import shutil
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from jaxinv import edits as edits_lib
from jaxinv import metrics, pixels, rendering
from jaxinv.converters import array_files
from jaxinv.converters.file_view import UnreadableFile
from jaxinv.data import images, video, video_writer
from jaxinv.errors import JaxinvError
from jaxinv.experiments import video_flicker
from jaxinv.experiments.session import Session
from jaxinv.experiments.video_frames import CHUNK, Frames
from jaxinv.faces import align, paste
from jaxinv.faces.paste import soft_mask
from jaxinv.io import atomic_path
from jaxinv.report import slugs
from jaxinv.runtime import distributed

SHOWN = 6  # frames in the report
SHOWN_SIDE = 960  # pixels of these, the longer side at most
TUNED = 'tuned'
QUALITY = ('lpips_alex', 'psnr')  # of the tuned generator at the pivots, against the frames


class Job(NamedTuple):
    """What the frames are rendered from."""

    session: Session
    clip: video.Clip
    frames: Frames
    pivots: np.ndarray  # [m, k, w_dim], of the used frames
    weights: Any
    edits: list  # of edits.TimedEdit

    @property
    def names(self) -> list[str]:
        """Of the videos: file names for 'tuned' and each edit."""
        return slugs([TUNED, *(edit.name for edit in self.edits)])

    @property
    def keys(self) -> list[str]:
        """Of the numbers of each frame."""
        pairs = [f'{name}/{m}' for name in ('source', *self.names) for m in video_flicker.NAMES]
        return [*QUALITY, *pairs]

    @property
    def shown(self) -> list[int]:
        """Indices of the frames of the report."""
        used = self.frames.track.used
        return used[np.unique(np.linspace(0, len(used) - 1, SHOWN).round().astype(int))].tolist()


def render(job: Job) -> dict[str, np.ndarray]:
    """Writes videos/NAME.mp4, and images/INDEX/NAME.jpg of the shown frames.

    Returns what was measured of each used frame, NaN where it was not: {'lpips_alex', 'psnr': [m]
    of the tuned generator against the frames, 'NAME/lpips_alex', 'NAME/warp_rmse': [m] between a
    frame and the next, of 'source' and each video}.
    """
    session, count = job.session, len(job.frames.pts)
    folder = session.path / 'state' / 'render'
    starts = range(0, count, CHUNK)
    numbers = [_saved(folder / f'{start:07}', job, start) for start in starts]
    todo = [start for start, known in zip(starts, numbers, strict=True) if known is None]
    reader = video.frames(job.clip, todo[0]) if todo else iter(())
    for start in todo:
        number = start // CHUNK
        earlier = numbers[number - 1] if number else {}
        numbers[number] = _render_chunk(job, folder / f'{start:07}', start, reader, earlier)
        session.log(f'{min(start + CHUNK, count)} of {count} frames rendered.', flush=True)
        distributed.raise_if_preempted()
    for name in job.names:
        parts = [folder / f'{start:07}' / f'{name}.nut' for start in starts]
        parts = [part for part in parts if part.is_file()]
        sound = video_writer.join(parts, job.clip, session.path / 'videos' / f'{name}.mp4')
    session.log(f'{len(job.names)} videos written; sound: {sound}.')
    return {key: np.concatenate([own[key] for own in numbers]) for key in job.keys}


def _render_chunk(job: Job, folder: pathlib.Path, start: int, reader, earlier) -> dict:
    """Renders the frames of a chunk and returns what `_saved` reads of it."""
    session, spec = job.session, job.session.generator.spec
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    size = job.clip.size if session.settings.paste else (spec.resolution, spec.resolution)
    crf = session.settings.encode.crf
    parts = {}
    last = {key[5:]: own for key, own in earlier.items() if key.startswith('last/')}
    rows: dict[str, list] = {key: [] for key in job.keys}

    def write(name, picture, pts):
        if name not in parts:
            parts[name] = video_writer.PartWriter(folder / f'{name}.nut', job.clip, size, crf)
        parts[name].add(picture, pts)

    stop = min(start + CHUNK, len(job.frames.pts))
    for i in range(start, stop, rendering.BATCH):
        batch = _take(reader, job, range(i, min(i + rendering.BATCH, stop)))
        last = _render_batch(job, batch, last, write, rows)
    for part in parts.values():
        part.close()
    numbers = {key: np.array(own, np.float64) for key, own in rows.items()}
    numbers |= {f'last/{name}': own for name, own in last.items()}
    with atomic_path(folder / 'numbers.npz') as scratch:
        np.savez(scratch, **numbers)
    return numbers


def _take(reader, job: Job, indices: range) -> list[video.Frame]:
    found = []
    for frame in reader:
        if frame.index in indices:
            found.append(frame)
        if frame.index == indices[-1]:
            break
    if len(found) != len(indices) or any(f.pts != job.frames.pts[f.index] for f in found):
        raise JaxinvError(
            f'{job.clip.path.name} has other frames than when it was searched for faces; '
            '--overwrite starts the run anew.'
        )
    return found


def _render_batch(job: Job, batch, last, write, rows) -> dict[str, np.ndarray]:
    """Renders, writes and measures a few frames; returns the faces of the last one.

    last: the faces {name: uint8 [h, w, 3]} of the frame before, and 'index' [] of it.
    """
    session, spec = job.session, job.session.generator.spec
    row_of = {int(index): row for row, index in enumerate(job.frames.track.used)}
    used = [frame for frame in batch if frame.index in row_of]
    mine = [row_of[frame.index] for frame in used]
    codes = {name: [] for name in job.names}
    offsets = {name: [] for name in job.names}  # of styles, for each frame
    for frame, row in zip(used, mine, strict=True):
        own = job.pivots[row][None]
        seconds = job.clip.seconds(frame.pts - int(job.frames.pts[0]))
        edits = [edits_lib.Edit('', ()), *(edit.at(seconds) for edit in job.edits)]
        for name, edit in zip(job.names, edits, strict=True):
            code = edits_lib.apply(own, edit, spec.num_ws)
            codes[name].append(np.broadcast_to(code, (1, spec.num_ws, spec.w_dim))[0])
            offsets[name].append(edits_lib.style_offsets(edit, spec))
    crops = {}
    for name, own in codes.items():
        rendered = []
        if own:
            layers = offsets[name][0]  # those of an edit are the same at all times
            styles = {k: np.concatenate([each[k] for each in offsets[name]]) for k in layers}
            rendered = rendering.render(session.generator, job.weights, np.array(own), styles)
        crops[name] = pixels.to_uint8(rendered) if own else []
        if name == TUNED and own:
            targets = session.targets.images_uint8[mine]
            found = metrics.evaluate(targets, rendered, session.nets, names=QUALITY)
            for metric in QUALITY:
                rows[metric].extend(found[metric])
    faces = {name: [] for name in ('source', *job.names)}
    place = {frame.index: k for k, frame in enumerate(used)}
    for frame in batch:
        k = place.get(frame.index)
        if k is None:
            if session.settings.paste:
                for name in job.names:
                    write(name, frame.picture, frame.pts)
            continue
        results, mask = {'source': frame.picture}, _mask(job, frame.index)
        for name in job.names:
            results[name] = _composed(job, frame, crops[name][k], mask)
            write(name, results[name], frame.pts)
        for name, picture in results.items():
            faces[name].append(_face(job, frame.index, picture, name))
            if frame.index in job.shown:
                _show(session.path / 'images' / f'{frame.index:06}' / f'{name}.jpg', picture)
    return _measure(job, used, faces, last, rows)


def _mask(job: Job, index: int) -> np.ndarray:
    """What is pasted of a frame's square, by the tracked landmarks, which are smooth in time."""
    size, kind, landmarks = job.session.generator.spec.resolution, 'crop', None
    if job.frames.landmarks is not None:
        kind = job.session.settings.encode.mask
        landmarks = job.frames.landmarks[index]
        landmarks = align.into_crop(landmarks, job.frames.squares[index], size)
    return soft_mask(kind, size, landmarks)


def _composed(job: Job, frame: video.Frame, crop_uint8, mask) -> PIL.Image.Image:
    """The frame with the generator's picture in its place, or that picture alone."""
    if not job.session.settings.paste:
        return PIL.Image.fromarray(crop_uint8)
    corners, colour = job.frames.squares[frame.index], job.session.settings.encode.match_colour
    return paste(frame.picture, crop_uint8, corners, mask=mask, match_colour=colour)


def _face(job: Job, index: int, picture: PIL.Image.Image, name: str) -> np.ndarray:
    """The face in a result, uint8 [s, s, 3], cut out by the frame's square."""
    size = min(job.session.generator.spec.resolution, video_flicker.FACE)
    if name != 'source' and not job.session.settings.paste:
        return np.asarray(picture.resize((size, size), PIL.Image.Resampling.BOX))
    return np.asarray(align.warp(picture, job.frames.squares[index], size, supersample=2))


def _measure(job: Job, used, faces, last, rows) -> dict[str, np.ndarray]:
    """Adds a number for each used frame, of it and the used one before; NaN at cuts."""
    if not used:
        return last
    shot = job.frames.track.shot
    sequence = {name: list(own) for name, own in faces.items()}
    indices = [frame.index for frame in used]
    if last:
        indices = [int(last['index']), *indices]
        sequence = {name: [last[name], *own] for name, own in sequence.items()}
    found = None
    if len(indices) > 1:
        stacked = {name: np.stack(own) for name, own in sequence.items()}
        found = video_flicker.measure(job.session.nets, stacked)
    joined = [b == a + 1 and shot[a] == shot[b] for a, b in zip(indices, indices[1:], strict=False)]
    for name in sequence:
        for metric in video_flicker.NAMES:
            values = [] if last else [np.nan]
            if found is not None:
                values += np.where(joined, found[name][metric], np.nan).tolist()
            rows[f'{name}/{metric}'].extend(values)
    return {name: own[-1] for name, own in sequence.items()} | {'index': np.array(indices[-1])}


def _show(path: pathlib.Path, picture: PIL.Image.Image) -> None:
    picture = picture.copy()
    picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE), PIL.Image.Resampling.LANCZOS)
    images.save(path, picture)


def _saved(folder: pathlib.Path, job: Job, start: int) -> dict | None:
    """The numbers of a finished chunk; None if it is missing or damaged."""
    try:
        arrays, _ = array_files.read(folder / 'numbers.npz')
    except UnreadableFile:
        return None
    used = job.frames.track.used
    count = int(((used >= start) & (used < start + CHUNK)).sum())
    whole = all(key in arrays and len(arrays[key]) == count for key in job.keys)
    files = all((folder / f'{name}.nut').is_file() for name in job.names) or not count
    return dict(arrays) if whole and files else None
