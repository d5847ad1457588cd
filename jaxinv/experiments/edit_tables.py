"""Tables, curves and pictures of --config=evaluate_edits, from the numbers of each picture."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxinv.data import images as image_files
from jaxinv.experiments import (
    comparison,
    comparison_measure,
    comparison_table,
    edited_pictures,
)
from jaxinv.experiments.comparison_targets import Pictures
from jaxinv.experiments.edit_plan import Plan
from jaxinv.experiments.method_runs import Row
from jaxinv.faces import measures
from jaxinv.report import charts
from jaxinv.report import comparison as report
from jaxinv.report.text import PROTOCOLS

FOLDER = 'edited'  # in the work folder
SHOWN = 3  # pictures of each method on the page
CONSISTENCY = ('lec_w', 'lec_lpips_alex_256')


def columns_of(record: Mapping[str, Any], judges: Sequence[str]) -> dict[str, float | None]:
    """{'METRIC @ EDIT': number} of a picture; 'METRIC' alone is of the reconstruction.

    A change is named after what measured it, change_ATTRIBUTE_SOURCE: the judge first, then, as a
    cross-check, what the direction was fitted to.
    """
    found = {k: v for k, v in record.get('reconstruction', {}).items() if k != 'no_face'}
    for name, own in record.get('edits', {}).items():
        for which, key in (('judge', 'change'), ('steer', 'steered')):
            for attribute, value in own[key].items():
                source = getattr(measures.ATTRIBUTES[attribute], which).partition('/')[2]
                found[f'change_{attribute}_{source} @ {name}'] = value
        found |= {f'id_{judge} @ {name}': own[f'id_{judge}'] for judge in judges}
        found[f'outside @ {name}'] = own['outside']
    for name, own in record.get('equal', {}).items():
        where = f'measured {name}'
        found |= {f'id_{judge} @ {where}': own[f'id_{judge}'] for judge in judges}
        found[f'outside @ {where}'] = own['outside']
        found[f'strength @ {where}'] = abs(own['strength']) if own['reached'] else None
    for name, own in record.get('consistency', {}).items():
        found |= {f'{metric} @ {name} and back': own[metric] for metric in CONSISTENCY}
    return found


def add_reasons(summary: dict[str, dict], records: Mapping[str, dict], judges) -> None:
    """Adds to a method's summary why numbers are missing: 'no_face' and 'not_reached' counts."""
    for name, entry in summary.items():
        metric, _, where = name.partition(' @ ')
        kind, _, wanted = where.rpartition(' ')
        if not where:
            own = [record.get('reconstruction', {}) for record in records.values()]
        elif kind == 'measured':
            own = [record.get('equal', {}).get(wanted, {}) for record in records.values()]
            entry['not_reached'] = sum(not found.get('reached', True) for found in own)
        else:
            own = [record.get('edits', {}).get(where, {}) for record in records.values()]
        judge = metric.removeprefix('id_')
        if metric != judge and judge in judges:
            entry['no_face'] = comparison_measure.faces_not_found(own, judge)


def tables(
    config, wanted, opened, pictures: Pictures, plan: Plan, failures, records, path: pathlib.Path
) -> report.Comparison:
    """The tables of all edits, a group for each edit, and the curves."""
    values = {}
    names: dict[str, None] = {}
    for method, own in records.items():
        rows = [columns_of(record, list(plan.judges)) for record in own.values()]
        names |= dict.fromkeys(name for row in rows for name in row)
        values[method] = rows
    arrays = {
        method: {
            name: np.array([np.nan if row.get(name) is None else row[name] for row in rows])
            for name in names
        }
        for method, rows in values.items()
    }
    reference = wanted.statistics.reference or next(iter(arrays), opened.rows[0].name)
    if reference not in arrays:
        reference = next(iter(arrays), reference)
    found = comparison_table.summaries(arrays, reference, wanted.statistics, list(names))
    for method, own in records.items():
        add_reasons(found[method], own, plan.judges)
    rank = f'id_{next(iter(plan.judges))}' if plan.judges else ''
    methods = [
        report.Method(
            row.name,
            row.method.spelling,
            found.get(row.name, {}),
            failure=failures.get(row.name, ''),
            missing={
                name: record['reason']
                for name, record in records.get(row.name, {}).items()
                if 'reason' in record
            },
            strips=_strips(row, path, pictures, plan, records.get(row.name, {})),
        )
        for row in opened.rows
    ]
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.partition(' @ ')[2] or 'reconstruction', []).append(name)
    return report.Comparison(
        'Edits of several methods',
        methods,
        list(names),
        reference,
        rank,
        groups=groups,
        charts=curves_of(records, plan),
        **comparison.provenance_of(config, opened, pictures, ('alex',)),
    )


def _strips(row: Row, path, pictures: Pictures, plan: Plan, records) -> list[dict[str, Any]]:
    """The edits of the first SHOWN pictures."""
    strips = []
    for i, name in enumerate(pictures):
        if name in records and 'reason' not in records[name] and len(strips) < SHOWN:
            folder = path / FOLDER / row.folder.name / name
            files = {'reconstruction': 'reconstruction'}
            files |= {edit.name: edited_pictures.file_name(edit) for edit in plan.edits}
            cells = [{'label': 'target', 'image': pictures.read(i)[0]}]
            cells += [
                {'label': label, 'image': np.asarray(image_files.read(folder / f'{file}.png'))}
                for label, file in files.items()
            ]
            strips.append({'picture': name, 'cells': cells})
    return strips


def curves_of(records, plan: Plan) -> list[dict[str, Any]]:
    """Charts of mean identity against mean measured change, a curve for each method."""
    found = []
    for direction in plan.curves:
        attribute = measures.ATTRIBUTES[direction.name]
        for judge in plan.judges:
            points = {}
            for method, own in records.items():
                rows = [r['curves'][direction.name] for r in own.values() if 'curves' in r]
                columns = zip(*rows, strict=True)
                points[method] = [_point(c, direction.name, f'id_{judge}') for c in columns]
            lost = {method: sum(count for *_, count in own) for method, own in points.items()}
            text = ', '.join(f'{method} {count}' for method, count in lost.items() if count)
            title = f'{PROTOCOLS[f"id_{judge}"].title} against measured {direction.name}'
            note = f'Unit: {attribute.unit}. Judge: {attribute.judge}, not what was fitted.'
            note += ' Means over the pictures at each strength.'
            note += f' Not measurable and left out: {text}.' if text else ''
            curves = {
                method: [(x, y) for x, y, _ in own if x is not None and y is not None]
                for method, own in points.items()
            }
            chart = {'title': title, 'note': note, 'svg': charts.xy(curves, title)}
            found.append(chart | {'legend': list(points)})
    return found


def _point(column, attribute: str, judge: str) -> tuple[float | None, float | None, int]:
    """(mean change, mean identity, pictures without either) at one strength."""
    pairs = [(own['change'].get(attribute), own[judge]) for own in column]
    both = [pair for pair in pairs if None not in pair]
    if not both:
        return None, None, len(pairs)
    change, alike = np.mean(both, axis=0)
    return float(change), float(alike), len(pairs) - len(both)
