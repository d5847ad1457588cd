"""The report of a stream of pictures, from its manifest: totals, histograms and a line for each.

Only the first few are shown; the page of thousands stays a few hundred kilobytes.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image

from jaxinv.experiments import artifacts
from jaxinv.io import write_atomically
from jaxinv.report import page as report_page
from jaxinv.report import provenance
from jaxinv.report.schema import mean
from jaxinv.report.text import METRICS, column, duration, number

SHOWN = 6  # identities with pictures
SIZE = 224  # pixels
BINS = 12
PERCENTILES = (5, 25, 50, 75, 95)


def write(job, title: str, records: Sequence[dict], seconds: float) -> None:
    """Writes report.html and metrics.json into job.path. records: of the manifest, in order."""
    page = report_page.fill('stream.html.j2', _view(job, title, records, seconds))
    write_atomically(job.path / 'report.html', page.encode())
    text = json.dumps(metrics(job, records, seconds), indent=2, ensure_ascii=False) + '\n'
    # Last: a work folder that has it is finished (runtime/workdir.py).
    write_atomically(job.path / 'metrics.json', text.encode())


def metrics(job, records, seconds: float) -> dict[str, Any]:
    """The content of metrics.json; {stage: {metric: ...}} of what could be measured."""
    tables = _tables(records)
    return {
        'count': len(_finished(records)),
        'skipped': [{'file': r['file'], 'reason': r['skipped']} for r in _skipped(records)],
        'mean': {s: {m: mean(values) for m, values in t.items()} for s, t in tables.items()},
        'percentiles': {
            s: {m: _percentiles(values) for m, values in t.items()} for s, t in tables.items()
        },
        'seconds': _seconds(records),
        'seconds_of_last_start': seconds,
        'generator': provenance.generator_of(job),
        'versions': provenance.versions(),
    }


def summary(path: pathlib.Path, records, seconds: float) -> str:
    """The last lines of a run."""
    finished, lines = _finished(records), []
    for stage, table in _tables(records).items():
        shown = [f'{m} {x:.4f}' for m, v in table.items() if (x := mean(v)) is not None]
        lines.append(f'{stage:<6} {"  ".join(shown)}')
    lines.append(
        f'{len(finished)} finished, {len(_skipped(records))} skipped; {duration(seconds)} since '
        f'this start. Open {path / "report.html"}'
    )
    return '\n'.join(lines)


def _finished(records):
    return [record for record in records if 'skipped' not in record]


def _skipped(records):
    return [record for record in records if 'skipped' in record]


def _tables(records) -> dict[str, dict[str, np.ndarray]]:
    """{stage: {metric: [n]}}, NaN where something could not be measured."""
    finished = _finished(records)
    stages = finished[0]['metrics'] if finished else {}

    def value(record, stage, metric):
        found = record['metrics'][stage][metric]
        return np.nan if found is None else found

    return {
        stage: {m: np.array([value(r, stage, m) for r in finished]) for m in names}
        for stage, names in stages.items()
    }


def _percentiles(values) -> dict[str, float]:
    known = values[np.isfinite(values)]
    return {str(p): float(np.percentile(known, p)) for p in PERCENTILES} if known.size else {}


def _seconds(records) -> dict[str, float]:
    """Over all pictures, by stage."""
    total = {}
    for record in _finished(records):
        for stage, spent in record['seconds'].items():
            total[stage] = total.get(stage, 0.0) + spent
    return {stage: round(spent, 3) for stage, spent in total.items()}


def _view(job, title, records, seconds) -> dict[str, Any]:
    finished, tables = _finished(records), _tables(records)
    names = list(dict.fromkeys(m for table in tables.values() for m in table))
    columns = [column(m, METRICS) for m in names]
    last = list(tables)[-1]
    spent = sum(_seconds(records).values())

    def cells(pick, table):
        return [
            number(pick(table[m]), c) if m in table else ''
            for m, c in zip(names, columns, strict=True)
        ]

    ways = [('Mean', mean)] + [
        (f'{p} %', lambda values, p=p: _percentiles(values).get(str(p))) for p in PERCENTILES
    ]
    totals = [
        {
            'name': name,
            'rows': [{'stage': s, 'cells': cells(pick, table)} for s, table in tables.items()],
        }
        for name, pick in ways
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
    tiles = [
        {'label': 'Finished', 'value': str(len(finished)), 'note': f'{len(records)} pictures'},
        {'label': 'Skipped', 'value': str(len(_skipped(records))), 'note': 'reasons below'},
        {'label': 'Time a picture', 'value': duration(spent / len(finished)), 'note': 'mean'},
    ]
    for m in ('lpips_alex', 'psnr'):
        if m in tables[last]:
            value = number(mean(tables[last][m]), column(m, METRICS))
            tiles.append({'label': column(m, METRICS).title, 'value': value, 'note': 'mean'})
    spec = job.generator.spec
    return {
        'title': title,
        'count': len(records),
        'generator_name': f'{spec.name} at {spec.resolution} × {spec.resolution}',
        'facts': [f'{duration(seconds)} since the last start', provenance.devices()],
        'tiles': tiles,
        'columns': columns,
        'totals': totals,
        'histograms': [h for m in names if (h := _histogram(m, last, tables[last].get(m)))],
        'people': [_person(job.path, record) for record in finished[:SHOWN]],
        'rows': rows,
        'skipped': [{'file': r['file'], 'reason': r['skipped']} for r in _skipped(records)],
        'usage': _usage(job, finished[0]),
        'settings': report_page.flatten(job.config.to_dict()),
        'generator': report_page.flatten(provenance.generator_of(job)),
        'versions': provenance.versions().items(),
    }


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


def _person(path: pathlib.Path, record) -> dict[str, Any]:
    folder = path / record['folder']
    files = sorted(folder.glob('*.png'), key=lambda file: file.stat().st_mtime_ns)
    pictures = []
    for file in files:
        with PIL.Image.open(file) as image:
            label = file.stem.removeprefix('edit_').replace('_', ' ')
            pictures.append({'label': label, 'image': report_page.data_uri(image, SIZE)})
    return {'name': record['name'], 'folder': record['folder'], 'pictures': pictures}


def _usage(job, record) -> str:
    folder = job.path / record['folder']
    if (folder / artifacts.CODES).is_file():
        return (
            'import jaxinv\n'
            'from jaxinv import sam_files\n'
            'from jaxinv.inversion import sam\n'
            f'generator, weights = jaxinv.load_generator({str(job.config.generator)!r})\n'
            f'codes, masks = sam_files.load_codes({str(folder)!r})\n'
            'images = sam.synthesize(generator, weights, codes, masks)'
        )
    tuned = any(folder.glob('*.safetensors'))
    source = folder if tuned else job.config.generator
    return (
        'import jaxinv, numpy as np\n'
        f'generator, weights = jaxinv.load_generator({str(source)!r})\n'
        f"pivot = np.load({str(folder / 'pivots.npz')!r})['w']\n"
        'images, features = generator.synthesize(weights, pivot)'
    )
