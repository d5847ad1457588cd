"""report.html: one self-contained page from a Run.

Numbers become text and pictures data URIs here; the layout is report/templates/report.html.j2. File
names, reasons and settings are escaped by the template.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import markupsafe
import numpy as np
import PIL.Image

from jaxinv.data.thumbnails import data_uri
from jaxinv.io import json_text
from jaxinv.report import charts
from jaxinv.report.schema import EditResult, Panel, Run, attribute_changes, edit_label, mean
from jaxinv.report.text import ATTRIBUTES, METRICS, duration, number
from jaxinv.report.text import column as column_of
from jaxinv.text import printable

PAGE_BYTES = 24e6  # of all pictures of a page, roughly


def render(run: Run) -> str:
    """The page as text. Raises jinja2 errors only if the template itself is wrong."""
    return fill('report.html.j2', view(run))


def fill(template: str, content: Mapping[str, Any]) -> str:
    """A page from a template of this package."""
    return _environment().get_template(template).render(**content)


def interactive(template: str, script: str, data: Any, **content: Any) -> str:
    """A page with a script of this package, the only one that its policy lets run.

    data: JSON types, which the script finds in the element #data.
    """
    environment = _environment()
    text, _, _ = environment.loader.get_source(environment, script)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    # Within a script element '<' could end it.
    encoded = json_text(data).decode().replace('<', '\\u003c')
    return fill(
        template,
        content
        | {
            'script': markupsafe.Markup(text),
            'script_hash': markupsafe.Markup(f"'sha256-{digest}'"),
            'data': markupsafe.Markup(encoded),
        },
    )


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader('jaxinv.report', 'templates'),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _printable(value: Any) -> Any:
    """Text from outside, such as file names, without characters that no page may hold."""
    if isinstance(value, str) and not isinstance(value, markupsafe.Markup):
        return printable(value, lines=True)
    return value


def view(run: Run) -> dict[str, Any]:
    """Everything that the template shows, in its order, as text and data URIs."""
    encode = _Encoder(run)
    stage_names = [stage.name for stage in run.stages]
    return {
        'run': run,
        'stages': stage_names,
        'tiles': _tiles(run),
        'people': [_person(run, i, encode) for i in range(len(run.names))],
        'table': _metric_table(run),
        'edit_table': _edit_table(run),
        'edit_texts': [(edit_label(e), e.text or e.name) for e in run.edits if e.requested],
        'drift': _drift(run, encode),
        'tables': run.tables,
        'charts': _charts(run),
        'sources': [_source(source) for source in run.sources],
        'seconds': _seconds(run.seconds),
        'compare': bool(run.stages),
        'settings': flatten(run.config),
        'generator': flatten(run.generator),
    }


class _Encoder:
    """Pictures as JPEG data URIs, in a size that keeps the page below PAGE_BYTES."""

    def __init__(self, run: Run):
        drift = run.drift.images_uint8.values() if run.drift else ()
        count = len(run.names) * (1 + len(run.stages) + len(run.edits))
        count += sum(len(pictures) for pictures in drift)
        count += sum(len(run.names) * len(panel.images_uint8) for panel in run.panels)
        budget = PAGE_BYTES / max(count, 1)
        # A JPEG of a face at quality 88 takes about 0.2 bytes a pixel, 4/3 of that in base64.
        self.size = next((s for s in (512, 384, 256, 192) if 0.27 * s * s <= budget), 128)

    def __call__(self, image_uint8: Any, size: int | None = None) -> str:
        image = PIL.Image.fromarray(np.ascontiguousarray(np.asarray(image_uint8)))
        return data_uri(image, min(size or self.size, self.size))


def _tiles(run: Run) -> list[dict[str, str]]:
    tiles = []
    if run.stages:
        first, last = run.stages[0], run.stages[-1]
        for name in ('lpips_alex', 'psnr', 'id_distance'):
            if name not in last.metrics:
                continue
            column = column_of(name, METRICS)
            note = 'mean' if len(run.names) > 1 else ''
            if first is not last and name in first.metrics:
                before = f'{first.name} {number(mean(first.metrics[name]), column)}'
                note = f'{note}; {before}' if note else before
            value = number(mean(last.metrics[name]), column)
            tiles.append({'value': value, 'label': column.title, 'note': note})
    if run.seconds:
        tiles.append(
            {
                'value': duration(sum(run.seconds.values())),
                'label': 'Time',
                'note': run.facts.get('devices', 'all stages'),
            }
        )
    return tiles


def _person(run: Run, i: int, encode: _Encoder) -> dict[str, Any]:
    pictures = [{'label': 'target', 'image': encode(run.targets_uint8[i]), 'notes': []}]
    for stage in run.stages:
        notes = [
            f'{METRICS[name].title} {number(np.asarray(stage.metrics[name])[i], METRICS[name])}'
            for name in ('lpips_alex', 'id_distance')
            if name in stage.metrics
        ]
        pictures.append(
            {'label': stage.name, 'image': encode(stage.images_uint8[i]), 'notes': notes}
        )
    return {
        'name': run.names[i],
        'pictures': pictures,
        'panels': [_panel(panel, i, encode) for panel in run.panels],
        'sweeps': [_strip(run, i, sweep, encode) for sweep in sweeps(run.edits)],
    }


def _panel(panel: Panel, i: int, encode: _Encoder) -> dict[str, Any]:
    cells = [
        {'label': label, 'image': encode(pictures[i], 320), 'note': _at(panel.notes.get(label), i)}
        for label, pictures in panel.images_uint8.items()
    ]
    return {'title': panel.title, 'note': panel.note, 'legend': panel.legend, 'cells': cells}


def _at(notes: Sequence[str] | None, i: int) -> str:
    return notes[i] if notes else ''


def sweeps(edits: Sequence[EditResult]) -> list[tuple[str, list[EditResult | None]]]:
    """Edits grouped for showing: (title, edits by strength); None stands for the unedited picture.

    Single directions come first, each from its most negative to its most positive strength; then
    every sequence with the steps that lead to it.
    """
    singles: dict[str, list[EditResult]] = {}
    for edit in edits:
        if len(edit.parts) == 1 and edit.requested:
            singles.setdefault(edit.parts[0][0], []).append(edit)
    groups: list[tuple[str, list[EditResult | None]]] = []
    for name, members in singles.items():
        members = sorted(members, key=lambda edit: edit.parts[0][1])
        lower = [edit for edit in members if edit.parts[0][1] < 0]
        groups.append((name, [*lower, None, *members[len(lower) :]]))
    by_parts = {tuple(edit.parts): edit for edit in edits}
    for edit in edits:
        if len(edit.parts) > 1 and edit.requested:
            prefixes = [by_parts.get(tuple(edit.parts[:k])) for k in range(1, len(edit.parts))]
            title = ', then '.join(name for name, _ in edit.parts)
            groups.append((title, [None, *(p for p in prefixes if p is not None), edit]))
    return groups


def _strip(run: Run, i: int, sweep: tuple, encode: _Encoder) -> dict[str, Any]:
    title, members = sweep
    cells = []
    for edit in members:
        if edit is None:
            stage = run.stages[-1]
            label, picture = stage.name, stage.images_uint8[i]
            distance = stage.metrics.get('id_distance')
            values, signed, aims = stage.attributes, False, set()
        else:
            label, picture = edit_label(edit), edit.images_uint8[i]
            distance = edit.id_distance if _with_faces(run) else None
            values, signed, aims = attribute_changes(run, edit), True, _aims(edit)
        lines = []
        if distance is not None:
            text = number(np.asarray(distance)[i], METRICS['id_distance'])
            lines.append({'name': 'identity', 'value': text, 'aim': False})
        for name, column in values.items():
            text = number(np.asarray(column)[i], column_of(name, ATTRIBUTES), signed)
            lines.append({'name': name, 'value': text, 'aim': name in aims})
        cells.append(
            {
                'label': label,
                'image': encode(picture, 320),
                'lines': lines,
                'edited': edit is not None,
            }
        )
    return {'title': title, 'cells': cells}


def _with_faces(run: Run) -> bool:
    """Whether face embeddings were measured."""
    return any('id_distance' in stage.metrics for stage in run.stages)


def _aims(edit: EditResult) -> set[str]:
    """Names of the attributes an edit is meant to change."""
    return {name.split('[')[0] for name, _ in edit.parts}


def _metric_table(run: Run) -> dict[str, Any]:
    names = list(dict.fromkeys(name for stage in run.stages for name in stage.metrics))
    columns = [column_of(name, METRICS) for name in names]
    groups = []
    for label, pick in [
        *((name, lambda values, i=i: np.asarray(values)[i]) for i, name in enumerate(run.names)),
        *([('Mean', mean)] if len(run.names) > 1 else []),
    ]:
        rows = [[pick(stage.metrics[n]) if n in stage.metrics else None for n in names]
                for stage in run.stages]  # fmt: skip
        best = [_best([row[c] for row in rows], column.better) for c, column in enumerate(columns)]
        groups.append(
            {
                'name': label,
                'rows': [
                    {
                        'stage': stage.name,
                        'cells': [
                            {
                                'text': number(row[c], column) if name in stage.metrics else '',
                                'best': best[c] == r,
                            }
                            for c, (name, column) in enumerate(zip(names, columns, strict=True))
                        ],
                    }
                    for r, (stage, row) in enumerate(zip(run.stages, rows, strict=True))
                ],
            }
        )
    return {'columns': columns, 'groups': groups}


def _best(values: Sequence[float | None], better: int) -> int | None:
    """Index of the best of several values, None if there is nothing to compare."""
    known = [(v * better, i) for i, v in enumerate(values) if v is not None and math.isfinite(v)]
    return max(known)[1] if better and len(known) > 1 else None


def _edit_table(run: Run) -> dict[str, Any]:
    """Means over identities of every edit."""
    edits = [edit for edit in run.edits if edit.requested]
    names = list(dict.fromkeys(n for edit in edits for n in attribute_changes(run, edit)))
    faces, rows = _with_faces(run), []
    for edit in edits:
        changes = attribute_changes(run, edit)
        aims = _aims(edit)
        cells = []
        if faces:
            text = number(mean(edit.id_distance), METRICS['id_distance'])
            cells.append({'text': text, 'best': False})
        for name in names:
            value = mean(changes[name]) if name in changes else None
            text = number(value, column_of(name, ATTRIBUTES), signed=True)
            cells.append({'text': text, 'best': name in aims})
        rows.append({'label': edit_label(edit), 'cells': cells})
    columns = ['identity ↓', *names] if faces else names
    return {'columns': columns, 'rows': rows}


def _drift(run: Run, encode: _Encoder) -> dict[str, Any] | None:
    if run.drift is None:
        return None
    drift = run.drift
    rows = []
    for label, pictures in drift.images_uint8.items():
        captions = drift.samples.get(label, {})
        cells = []
        for i, picture in enumerate(pictures):
            notes = [
                f'{column_of(n, METRICS).title} {number(np.asarray(v)[i], column_of(n, METRICS))}'
                for n, v in captions.items()
            ]
            cells.append({'image': encode(picture, 256), 'notes': notes})
        rows.append({'label': label, 'cells': cells})
    numbers = [
        {'label': column_of(n, METRICS).title, 'value': number(v, column_of(n, METRICS))}
        for n, v in drift.metrics.items()
    ]
    description = drift.description.rstrip('.')
    return {'rows': rows, 'numbers': numbers, 'description': description and f'{description}.'}


def _charts(run: Run) -> list[dict[str, Any]]:
    found = []
    for trace in run.traces:
        values = np.asarray(trace.values, np.float64)
        over_steps = (trace.first_step, trace.step) == (0, 1.0)
        if over_steps and not np.nan_to_num(values).any():
            continue  # a term that is switched off; over thresholds 0 is a result
        title = column_of(trace.metric, METRICS).title
        label = f'{title} during {trace.stage}'
        chart = charts.svg(
            values, run.names, first_step=trace.first_step, step=trace.step, label=label
        )
        if not chart:
            continue
        each = values.ndim == 2 and values.shape[1] == len(run.names) > 1
        found.append(
            {
                'svg': chart,
                'stage': trace.stage,
                'title': title,
                'legend': list(run.names) if each else [],
            }
        )
    return found


def _source(source: Mapping[str, Any]) -> dict[str, str]:
    """File name without its folders (pages get published), which face of how many, SHA-256."""
    face = source.get('face')
    if isinstance(face, Mapping) and {'index', 'count'} <= face.keys():
        face = f'{face["index"]} of {face["count"]}'
    return {
        'file': re.split(r'[\\/]', str(source.get('file', '')))[-1],
        'face': '' if face is None else str(face),
        'sha256': str(source.get('sha256', '')),
    }


def _seconds(seconds: Mapping[str, float]) -> list[dict[str, Any]]:
    total = sum(seconds.values()) or 1.0
    return [
        {'name': name, 'text': duration(value), 'percent': round(100 * value / total, 1)}
        for name, value in seconds.items()
    ]


def flatten(tree: Mapping[str, Any], prefix: str = '') -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in tree.items():
        name = f'{prefix}{key}'
        if isinstance(value, Mapping) and value:
            rows += flatten(value, name + '.')
        elif isinstance(value, (list, tuple)):
            rows.append((name, json.dumps(list(value), default=str, ensure_ascii=False)))
        else:
            rows.append((name, str(value)))
    return rows
