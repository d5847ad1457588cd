"""The report of bulk mode, from its manifest: totals, histograms and a line for each picture.

Only the first SHOWN identities have pictures: a page of thousands stays below a few megabytes.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image

from jaxinv.data.thumbnails import data_uri
from jaxinv.io import json_text, write_atomically
from jaxinv.report import page
from jaxinv.report.schema import mean
from jaxinv.report.text import METRICS, column, duration, number

SHOWN = 6  # identities with pictures
SIZE = 224  # pixels of these
BINS = 12  # of a histogram
PERCENTILES = (5, 25, 50, 75, 95)


@dataclasses.dataclass
class BulkRun:
    """A bulk run as plain data.

    records: lines of the manifest, in the order of the report. Of a finished picture: {'name',
    'file', 'sha256', 'folder' in the work folder, 'seconds' {stage: s}, 'metrics' {stage: {name:
    value or None}}, 'pictures' [{'label', 'file'}] in their order; 'drift' {name: value} and
    'warning' if there are any}. Of others: {'name', 'file', 'skipped': reason}.
    """

    title: str
    records: Sequence[Mapping[str, Any]]
    seconds: float  # since the last start
    # Of what no picture has for itself: {stage: s}.
    shared_seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    drift: Mapping[str, float] | None = None  # of one generator for all; None = means of records
    usage: str = ''  # Python lines that load a result
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    generator: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    lpips: Mapping[str, str] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seeds: Mapping[str, int] = dataclasses.field(default_factory=dict)
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def finished(self) -> list[Mapping[str, Any]]:
        return [record for record in self.records if 'skipped' not in record]

    @property
    def skipped(self) -> list[dict[str, str]]:
        """[{'file', 'reason'}]"""
        records = [record for record in self.records if 'skipped' in record]
        return [{'file': record['file'], 'reason': record['skipped']} for record in records]

    @property
    def tables(self) -> dict[str, dict[str, np.ndarray]]:
        """{stage: {metric: [n]}} of the finished ones, NaN where it could not be measured."""
        stages = self.finished[0]['metrics'] if self.finished else {}

        def value(record, stage, metric):
            found = record['metrics'][stage][metric]
            return np.nan if found is None else found

        return {
            stage: {m: np.array([value(r, stage, m) for r in self.finished]) for m in names}
            for stage, names in stages.items()
        }

    @property
    def total_seconds(self) -> dict[str, float]:
        """{stage: s} over all pictures."""
        total = dict(self.shared_seconds)
        for record in self.finished:
            for stage, spent in record['seconds'].items():
                total[stage] = total.get(stage, 0.0) + spent
        return {stage: round(spent, 3) for stage, spent in total.items()}

    @property
    def mean_drift(self) -> dict[str, float | None]:
        """{metric: value}: of the one generator, or the mean over the generators."""
        if self.drift is not None:
            return dict(self.drift)
        drifts = [record['drift'] for record in self.finished if 'drift' in record]
        names = drifts[0] if drifts else ()
        return {
            name: mean([np.nan if d[name] is None else d[name] for d in drifts]) for name in names
        }


def write(folder: pathlib.Path, run: BulkRun) -> None:
    """Writes report.html and metrics.json into the work folder."""
    write_atomically(folder / 'report.html', page.fill('bulk.html.j2', _view(folder, run)))
    text = json_text(metrics(run), indent=2) + b'\n'
    # Last: a work folder that has it is finished (runtime/workdir.py).
    write_atomically(folder / 'metrics.json', text)


def metrics(run: BulkRun) -> dict[str, Any]:
    """The content of metrics.json; null for what could not be measured."""
    tables = run.tables
    return {
        'count': len(run.finished),
        'skipped': run.skipped,
        'mean': {s: {m: mean(values) for m, values in t.items()} for s, t in tables.items()},
        'percentiles': {
            s: {m: _percentiles(values) for m, values in t.items()} for s, t in tables.items()
        },
        'drift': run.mean_drift,
        'seconds': run.total_seconds,
        'seconds_of_last_start': run.seconds,
        'generator': dict(run.generator),
        'lpips': dict(run.lpips),
        'facts': dict(run.facts),
        'seeds': dict(run.seeds),
        'versions': dict(run.versions),
    }


def summary(folder: pathlib.Path, run: BulkRun) -> str:
    """The last lines of a run."""
    lines = []
    for stage, table in run.tables.items():
        shown = [f'{m} {x:.4f}' for m, v in table.items() if (x := mean(v)) is not None]
        lines.append(f'{stage:<6} {"  ".join(shown)}')
    lines.append(
        f'{len(run.finished)} finished, {len(run.skipped)} skipped; {duration(run.seconds)} since '
        f'this start. Open {folder / "report.html"}'
    )
    return '\n'.join(lines)


def _percentiles(values) -> dict[str, float]:
    known = values[np.isfinite(values)]
    return {str(p): float(np.percentile(known, p)) for p in PERCENTILES} if known.size else {}


# --- The page -------------------------------------------------------------------------------------


def _view(folder: pathlib.Path, run: BulkRun) -> dict[str, Any]:
    """Everything that the template shows."""
    finished, tables = run.finished, run.tables
    names = list(dict.fromkeys(m for table in tables.values() for m in table))
    columns = [column(m, METRICS) for m in names]
    last = list(tables)[-1]

    def cells(pick, table):
        return [
            number(pick(table[m]), c) if m in table else ''
            for m, c in zip(names, columns, strict=True)
        ]

    kinds = [('Mean', mean)] + [
        (f'{p} %', lambda values, p=p: _percentiles(values).get(str(p))) for p in PERCENTILES
    ]
    totals = [
        {
            'name': name,
            'rows': [{'stage': s, 'cells': cells(pick, table)} for s, table in tables.items()],
        }
        for name, pick in kinds
    ]
    rows = [
        {
            'name': record['name'],
            'folder': record['folder'],
            'warning': record.get('warning', ''),
            'cells': cells(lambda values, i=i: values[i], tables[last]),
            'seconds': f'{sum(record["seconds"].values()):.1f}',
        }
        for i, record in enumerate(finished)
    ]
    return {
        'title': run.title,
        'count': len(run.records),
        'generator_name': _generator_name(run.generator),
        'facts': [
            f'{duration(run.seconds)} since the last start',
            *(f'{name} {text}' for name, text in run.facts.items()),
        ],
        'tiles': _tiles(run, tables[last]),
        'columns': columns,
        'totals': totals,
        'histograms': [h for m in names if (h := _histogram(m, last, tables[last].get(m)))],
        'people': [_person(folder, record) for record in finished[:SHOWN]],
        'rows': rows,
        'skipped': run.skipped,
        'usage': run.usage,
        'settings': page.flatten(run.config),
        'generator': page.flatten(run.generator),
        'lpips': run.lpips.items(),
        'seeds': run.seeds.items(),
        'versions': run.versions.items(),
    }


def _generator_name(generator: Mapping[str, Any]) -> str:
    resolution = generator.get('resolution')
    return f'{generator.get("name", "")} at {resolution} × {resolution}'


def _tiles(run: BulkRun, table: Mapping[str, np.ndarray]) -> list[dict[str, str]]:
    count = len(run.finished)
    pace = duration(sum(run.total_seconds.values()) / count)
    tiles = [
        {'label': 'Finished', 'value': str(count), 'note': f'{len(run.records)} pictures'},
        {'label': 'Skipped', 'value': str(len(run.skipped)), 'note': 'reasons below'},
        {'label': 'Time a picture', 'value': pace, 'note': 'mean'},
    ]
    for m in ('lpips_alex', 'psnr'):
        if m in table:
            value = number(mean(table[m]), column(m, METRICS))
            tiles.append({'label': column(m, METRICS).title, 'value': value, 'note': 'mean'})
    drift = run.mean_drift.get('lpips_alex')
    if drift is not None:
        value = number(drift, column('lpips_alex', METRICS))
        note = 'LPIPS alex of random latents'
        tiles.append({'label': 'Drift', 'value': value, 'note': note})
    return tiles


def _histogram(metric: str, stage: str, values) -> dict[str, Any] | None:
    known = np.zeros(0) if values is None else values[np.isfinite(values)]
    if known.size < 2 or known.min() == known.max():
        return None
    kind = column(metric, METRICS)
    counts, edges = np.histogram(known, BINS)
    bars = [
        {
            'range': f'{number(low, kind)} to {number(high, kind)}',
            'count': int(count),
            'percent': round(100 * count / counts.max(), 1),
        }
        for count, low, high in zip(counts, edges, edges[1:], strict=False)
    ]
    return {'title': kind.title, 'stage': stage, 'bars': bars}


def _person(folder: pathlib.Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """An identity with its pictures, in the order of its record."""
    pictures = []
    for picture in record.get('pictures', ()):
        with PIL.Image.open(folder / record['folder'] / picture['file']) as image:
            data = data_uri(image, SIZE)
        pictures.append({'label': picture['label'], 'image': data})
    return {'name': record['name'], 'folder': record['folder'], 'pictures': pictures}
