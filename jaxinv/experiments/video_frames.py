"""The frames of a video to aligned targets, in two passes over it, each in saved chunks.

state/track/START_STOP.npz   times, landmarks and boxes of some frames
state/targets.npy            the aligned frames, uint8 [n, h, w, 3], mapped into memory
state/targets.json           how many of them are written

One frame at full size is in memory at a time.
"""

import json
import pathlib
from typing import NamedTuple

import numpy as np

from jaxinv.converters import array_files
from jaxinv.converters.file_view import UnreadableFile
from jaxinv.data import NoImages, crop, video
from jaxinv.data.targets import Targets
from jaxinv.errors import JaxinvError
from jaxinv.faces import align, detect, track
from jaxinv.io import atomic_path, read_json, write_atomically
from jaxinv.text import printable

CHUNK = 50  # frames between two saves


class Frames(NamedTuple):
    """What is known of the n frames of a clip."""

    pts: np.ndarray  # int64 [n]
    track: track.Track
    squares: np.ndarray  # [n, 4, 2] corners in pixels of the frame, NaN where left out
    landmarks: np.ndarray | None  # [n, 68, 2], smoothed; None = squares without faces


class Rows:
    """Some rows of an array that is mapped into memory, in any order; read when indexed."""

    def __init__(self, array, rows):
        self._array, self._rows = array, np.asarray(rows)
        self.shape, self.dtype = (len(self._rows), *array.shape[1:]), array.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index):
        return self._array[self._rows[index]]


def select(targets: Targets, rows) -> Targets:
    """The targets `rows`, whose pictures stay on disk until they are used."""
    names = [targets.names[i] for i in rows]
    return Targets(names, Rows(targets.images_uint8, rows), [targets.sources[i] for i in rows], [])


def find(clip: video.Clip, path: pathlib.Path, options, align_by: str, log) -> Frames:
    """The face in every frame, tracked, and the square that follows it.

    options: settings.Track. align_by: 'face', or 'none' = the central square of every frame.
    """
    pts, landmarks, boxes = _scan(clip, path / 'state' / 'track', align_by, log)
    if align_by == 'none':
        n, (width, height) = len(pts), clip.size
        side, middle = min(clip.size), np.array([width, height]) / 2 - 0.5
        unit = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) / 2
        squares = np.tile(middle + side * unit, (n, 1, 1))
        shot = np.zeros(n, int)
        return Frames(pts, track.Track(landmarks, shot == 0, shot), squares, None)
    found = track.connect(landmarks, boxes, options.max_gap)
    if not len(found.used):
        raise NoImages(f'No face was found in any frame of {printable(clip.path.name)}.')
    squares = track.squares(found, options.centre_sigma, options.axes_sigma)
    smoothed = track.smooth(found.landmarks, found.shot, options.axes_sigma)
    return Frames(pts, found, squares, smoothed)


def _scan(clip, folder, align_by, log):
    """(pts [n], landmarks [n, 68, 2], boxes [n, 4]) of all frames."""
    saved = _saved_chunks(folder)
    done = sum(len(chunk['pts']) for chunk in saved)
    before, identity = None, np.full([128], np.nan)
    if saved:
        identity = saved[-1]['identity']
        known = np.isfinite(saved[-1]['boxes'][:, 0])
        if known.any():
            i = np.flatnonzero(known)[-1]
            before = detect.Face(tuple(saved[-1]['boxes'][i]), saved[-1]['landmarks'][i], 0.0)
    rows: list[tuple] = []

    def save() -> None:
        start, stop = done, done + len(rows)
        names = ('pts', 'landmarks', 'boxes')
        chunk = {k: np.array(v) for k, v in zip(names, zip(*rows, strict=True), strict=True)}
        chunk['identity'] = identity
        with atomic_path(folder / f'{start:07}_{stop:07}.npz') as scratch:
            np.savez(scratch, **chunk)
        saved.append(chunk)
        missing = int(np.isnan(chunk['boxes'][:, 0]).sum()) if align_by == 'face' else 0
        of = f' of {clip.estimate}' if clip.estimate and not clip.max_frames else ''
        without = f', {missing} of the last {len(rows)} without a face' if missing else ''
        log(f'{stop}{of} frames searched{without}.', flush=True)
        rows.clear()

    for frame in video.frames(clip, done):
        if frame.picture is None:
            continue
        face = None
        if align_by == 'face':
            face = track.follow(frame.picture, before, identity)
            if before is None and face is not None:
                identity = detect.identity(frame.picture, face.landmarks)
            before = face or before
        empty = np.full([68, 2], np.nan), np.full([4], np.nan)
        rows.append((frame.pts, *(empty if face is None else (face.landmarks, face.box))))
        if len(rows) == CHUNK:
            save()
            done += CHUNK
    if rows:
        save()
    if not saved:
        raise JaxinvError(f'{printable(clip.path.name)} has no frames.')
    return tuple(np.concatenate([own[k] for own in saved]) for k in ('pts', 'landmarks', 'boxes'))


def _saved_chunks(folder) -> list[dict]:
    """The whole chunks from the first frame on; a last one that is shorter is made anew."""
    chunks: list[dict] = []
    for file in sorted(folder.glob('*.npz')):
        start, _, stop = file.stem.partition('_')
        if int(start) != CHUNK * len(chunks) or int(stop) - int(start) != CHUNK:
            break
        try:
            arrays, _ = array_files.read(file)
        except UnreadableFile:
            break
        shapes = {'pts': (CHUNK,), 'landmarks': (CHUNK, 68, 2), 'boxes': (CHUNK, 4)}
        if {k: v.shape for k, v in arrays.items()} != shapes | {'identity': (128,)}:
            break
        chunks.append(arrays)
    return chunks


def read_targets(
    clip: video.Clip, path: pathlib.Path, frames: Frames, resolution: int, log
) -> Targets:
    """The aligned frames, mapped into memory; named by their index, as 000012."""
    used = frames.track.used
    file, progress = path / 'state' / 'targets.npy', path / 'state' / 'targets.json'
    shape = (len(used), resolution, resolution, 3)
    array, done = _opened(file, shape), read_json(progress)
    if array is None or not isinstance(done, int):
        done = 0
        progress.unlink(missing_ok=True)
        with atomic_path(file) as scratch:
            np.lib.format.open_memmap(scratch, 'w+', np.uint8, shape).flush()
        array = _opened(file, shape)
    if done < len(used):
        place = {int(index): row for row, index in enumerate(used)}
        for frame in video.frames(clip, int(used[done])):
            row = place.get(frame.index, -1)
            if frame.picture is None or row < done:
                continue
            array[row] = aligned(frame.picture, frames, frame.index, resolution)
            if (row + 1) % CHUNK == 0 or row + 1 == len(used):
                array.flush()
                done = row + 1
                write_atomically(progress, json.dumps(done))
                log(f'{done} of {len(used)} frames aligned.', flush=True)
    if done != len(used):
        raise JaxinvError(
            f'{printable(clip.path.name)} had {len(frames.pts)} frames and has fewer now; '
            '--overwrite starts the run anew.'
        )
    facts = {'file': str(clip.path), 'sha256': '', 'face': None, 'warning': None}
    names = [f'{index:06}' for index in used]
    return Targets(names, np.load(file, mmap_mode='r'), [facts] * len(names), [])


def aligned(picture, frames: Frames, index: int, size: int) -> np.ndarray:
    """The square of a frame, uint8 [size, size, 3]."""
    if frames.landmarks is None:
        return crop.square(picture, size)[0]
    return np.asarray(align.warp(picture, frames.squares[index], size))


def _opened(file, shape) -> np.ndarray | None:
    try:
        array = np.load(file, mmap_mode='r+', allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return array if array.shape == shape and array.dtype == np.uint8 else None


def anchors(shot, every: int) -> np.ndarray:
    """Rows [m] whose pivots are searched: of each shot the first, every so many, and the last.

    shot [m]: of the used frames. every: 0 = the middle one of each shot.
    """
    chosen = []
    for number in np.unique(shot):
        rows = np.flatnonzero(shot == number)
        chosen += [*rows[::every], rows[-1]] if every else [rows[len(rows) // 2]]
    return np.unique(chosen)


def between(rows, codes, shot) -> np.ndarray:
    """Codes [m, k, w_dim] of all used frames: those of the anchors `rows`, linear in between."""
    result = np.empty([len(shot), *codes.shape[1:]], np.float32)
    for number in np.unique(shot):
        own, mine = np.flatnonzero(shot == number), np.flatnonzero(shot[rows] == number)
        at = np.interp(own, rows[mine], np.arange(len(mine)))
        low = np.floor(at).astype(int)
        high, share = np.minimum(low + 1, len(mine) - 1), (at - low)[:, None, None]
        result[own] = (1 - share) * codes[mine][low] + share * codes[mine][high]
    return result


def spread(count: int, batch_size: int) -> np.ndarray:
    """An order of the frames in which each batch is from all over the video."""
    batches = -(-count // batch_size) if batch_size else 1
    return np.concatenate([np.arange(first, count, batches) for first in range(batches)])


def track_facts(frames: Frames) -> dict:
    """Of metrics.json: counts of frames, and how much the square shakes before and after."""
    found, shot = frames.track.found, frames.track.shot
    facts = {
        'frames': len(shot),
        'with_face': int(found.sum()),
        'interpolated': int((~found & (shot >= 0)).sum()),
        'left_out': int((shot < 0).sum()),
        'shots': int(shot.max()) + 1,
    }
    if frames.landmarks is None:
        return facts
    raw = track.squares(frames.track, 0, 0)
    return facts | {
        'jitter_of_landmarks_px': track.jitter(raw, shot),
        'jitter_px': track.jitter(frames.squares, shot),
        'side_px': float(np.mean([align.side(frames.squares[i]) for i in frames.track.used])),
    }
