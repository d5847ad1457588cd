"""The report of a video: its page, metrics.json and a line for each frame."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image

from jaxinv.io import json_text, write_atomically
from jaxinv.report import charts, page
from jaxinv.report.schema import mean
from jaxinv.report.text import duration
from jaxinv.text import printable

SIZE = 480  # pixels of the longer side of a frame on the page
PAIRS = {  # of experiments/video_flicker.py: title, digits
    'lpips_alex': ('LPIPS alex to the next frame', 4),
    'warp_rmse': ('Warping error, of 255', 2),
}


@dataclasses.dataclass
class VideoRun:
    """A finished video as plain data; m is the number of frames with a face."""

    title: str
    names: Mapping[str, str]  # {file name: what it is}; the first is the reconstruction
    track: Mapping[str, Any]  # counts of frames, jitter of the alignment square
    clip: Mapping[str, Any]  # file, width, height, frames_per_second, seconds
    frames: Sequence[int]  # [m] indices
    numbers: Mapping[str, Any]  # {name: [m]}, see experiments/video_render.py
    shown: Sequence[int]  # frames with pictures in images/INDEX/
    seconds: Mapping[str, float]
    usage: str = ''
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    generator: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    lpips: Mapping[str, str] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seeds: Mapping[str, int] = dataclasses.field(default_factory=dict)
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def flicker(self) -> dict[str, dict[str, float | None]]:
        """{'source' or video: {'lpips_alex', 'warp_rmse'}}: means over the pairs of frames."""
        return {
            name: {metric: mean(self.numbers[f'{name}/{metric}']) for metric in PAIRS}
            for name in ('source', *self.names)
        }


def write(folder: pathlib.Path, run: VideoRun) -> None:
    """Writes frames.jsonl, report.html and metrics.json into the work folder."""
    lines = []
    for row, index in enumerate(run.frames):
        values = {key: _plain(own[row]) for key, own in run.numbers.items()}
        lines.append(json_text({'frame': index} | values) + b'\n')
    write_atomically(folder / 'frames.jsonl', b''.join(lines))
    write_atomically(folder / 'report.html', page.fill('video.html.j2', _view(folder, run)))
    # Last: a work folder that has it is finished (runtime/workdir.py).
    write_atomically(folder / 'metrics.json', json_text(metrics(run), indent=2) + b'\n')


def metrics(run: VideoRun) -> dict[str, Any]:
    """The content of metrics.json; null for what could not be measured."""
    return {
        'clip': {**run.clip, 'file': printable(run.clip['file'])},
        'track': {key: _plain(value) for key, value in run.track.items()},
        'videos': {name: f'videos/{name}.mp4' for name in run.names},
        'edits': dict(run.names),
        'mean': {'tuned': {key: mean(run.numbers[key]) for key in ('lpips_alex', 'psnr')}},
        'flicker': run.flicker,
        'pairs': int(np.isfinite(run.numbers['source/lpips_alex']).sum()),
        'seconds': dict(run.seconds),
        'generator': dict(run.generator),
        'lpips': dict(run.lpips),
        'facts': dict(run.facts),
        'seeds': dict(run.seeds),
        'versions': dict(run.versions),
    }


def summary(folder: pathlib.Path, run: VideoRun) -> str:
    """The last lines of a run."""
    found = metrics(run)
    lines = [f'tuned  {"  ".join(f"{k} {v:.4f}" for k, v in found["mean"]["tuned"].items())}']
    for name, values in run.flicker.items():
        known = [f'{k} {v:.4f}' for k, v in values.items() if v is not None]
        lines.append(f'{name:<12} frame to frame: {"  ".join(known) or "one frame"}')
    total = duration(sum(run.seconds.values()))
    lines.append(f'{total} in all. Videos: {folder / "videos"}; open {folder / "report.html"}')
    return '\n'.join(lines)


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _view(folder: pathlib.Path, run: VideoRun) -> dict[str, Any]:
    """Everything that the template shows."""
    source = run.flicker['source']
    rows = []
    for name, values in run.flicker.items():
        cells = []
        for metric, (_, digits) in PAIRS.items():
            value, own = values[metric], source[metric]
            ratio = f' ({value / own:.2f} ×)' if value and own and name != 'source' else ''
            cells.append('not measured' if value is None else f'{value:.{digits}f}{ratio}')
        rows.append({'name': run.names.get(name, name), 'cells': cells})
    columns = [('source', 'source'), *run.names.items()]
    strips = []
    for index in run.shown:
        pictures = []
        for name, label in columns:
            with PIL.Image.open(folder / 'images' / f'{index:06}' / f'{name}.jpg') as picture:
                pictures.append({'label': label, 'image': page.data_uri(picture, SIZE)})
        strips.append({'index': index, 'pictures': pictures})
    curves = []
    for metric, (title, _) in PAIRS.items():
        values = np.stack([run.numbers[f'{name}/{metric}'] for name, _ in columns], 1)
        labels = [label for _, label in columns]
        chart = charts.svg(values, labels, label=f'{title} over the frames')
        if chart:
            curves.append({'svg': chart, 'title': title, 'legend': labels})
    return {
        'title': run.title,
        'clip': run.clip,
        'track': {key: _plain(value) for key, value in run.track.items()},
        'generator_name': run.generator.get('name', ''),
        'facts': [f'{duration(sum(run.seconds.values()))} in all']
        + [f'{name} {text}' for name, text in run.facts.items()],
        'videos': [(f'videos/{name}.mp4', label) for name, label in run.names.items()],
        'titles': [title for title, _ in PAIRS.values()],
        'rows': rows,
        'quality': metrics(run)['mean']['tuned'],
        'pairs': metrics(run)['pairs'],
        'strips': strips,
        'charts': curves,
        'usage': run.usage,
        'settings': page.flatten(run.config),
        'generator': page.flatten(run.generator),
        'lpips': run.lpips.items(),
        'seeds': run.seeds.items(),
        'versions': run.versions.items(),
    }
