"""Tables of a comparison of methods: table.csv, table.tex, page.html and metrics.json."""

import csv
import dataclasses
import io
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image

from jaxinv.io import json_text, write_atomically
from jaxinv.report import page
from jaxinv.report.schema import plain
from jaxinv.report.text import Column, duration, number, protocol
from jaxinv.text import printable

COST = 'Sets and cost'
SIZE = 256  # pixels of a picture on the page
MINUS = '\N{MINUS SIGN}'
NO_FACE = ('target', 'picture', 'both')  # where no face was found
COLUMNS = {  # of what is no metric of a picture
    'drift_lpips_alex': Column(
        'Drift, LPIPS alex',
        3,
        -1,
        help='of images at random codes before and after the tuning, full resolution; of the '
        "picture's own generator, or of the one for all pictures",
    ),
    'peak_memory_host': Column(
        'Peak memory of the host, GB', 1, 0, help='largest resident set while the method ran'
    ),
    'peak_memory_device': Column(
        'Peak memory of a device, GB',
        1,
        0,
        help='of the fullest one; empty where an earlier method of the same start took as much',
    ),
}


@dataclasses.dataclass
class Method:
    """A row. summary: {metric: entry of experiments/comparison_table.py}."""

    name: str
    spelling: str
    summary: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    # [{'label': 'best', 'picture', 'value', 'target', 'image'}], pictures uint8 [h, w, 3].
    examples: Sequence[Mapping[str, Any]] = ()
    # As it was recorded; a summary has both as numbers.
    memory: Mapping[str, int] = dataclasses.field(default_factory=dict)  # {'host': bytes}
    drift: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)  # {picture: reason}
    # [{'picture', 'cells': [{'label', 'image'}]}]
    strips: Sequence[Mapping[str, Any]] = ()
    failure: str = ''  # why the method has no numbers


@dataclasses.dataclass
class Comparison:
    """Everything that is written; plain data."""

    title: str
    methods: Sequence[Method]
    metrics: Sequence[str]  # columns, in their order
    reference: str
    rank_by: str
    pictures: Sequence[str]
    statistics: Mapping[str, Any]  # {'resamples', 'confidence', 'seed'}
    skipped: Sequence[Mapping[str, str]] = ()  # {'file', 'reason'}
    sources: Sequence[Mapping[str, Any]] = ()
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    generator: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    lpips: Mapping[str, str] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seeds: Mapping[str, int] = dataclasses.field(default_factory=dict)
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    groups: Mapping[str, Sequence[str]] = dataclasses.field(
        default_factory=dict
    )  # {title: metrics}
    charts: Sequence[Mapping[str, Any]] = ()  # {'title', 'note', 'svg', 'legend'}


def write(folder: pathlib.Path, run: Comparison, finished: bool = True) -> None:
    """Writes tables and page; if `finished`, metrics.json last, by which a run is finished."""
    write_atomically(folder / 'table.csv', csv_text(run))
    write_atomically(folder / 'table.tex', latex(run))
    write_atomically(folder / 'page.html', page.fill('comparison.html.j2', _view(run)))
    if finished:
        write_atomically(folder / 'metrics.json', json_text(content(run), indent=1) + b'\n')


def content(run: Comparison) -> dict[str, Any]:
    """The content of metrics.json; null for what could not be measured."""
    methods = {
        method.name: {
            'spelling': method.spelling,
            'metrics': method.summary,
            'missing': method.missing,
            'drift': method.drift,
            'peak_memory': method.memory,
            'examples': [
                {key: example[key] for key in ('label', 'picture', 'value')}
                for example in method.examples
            ],
        }
        | ({'failure': method.failure} if method.failure else {})
        for method in run.methods
    }
    names = ('reference', 'rank_by', 'statistics', 'pictures', 'skipped', 'sources', 'generator')
    names += ('lpips', 'seeds', 'versions', 'facts')
    found = {'methods': methods} | {name: getattr(run, name) for name in names}
    return plain(found)


def kind_of(name: str) -> Column:
    """How the numbers of a summary's entry are shown."""
    return COLUMNS.get(name) or protocol(name)


def csv_text(run: Comparison) -> str:
    """One line for each method and metric."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator='\n')
    bounds = ('', '_low', '_high')
    columns = [f'{kind}{bound}' for kind in ('mean', 'median') for bound in bounds]
    differences = [f'difference_{name}' for name in ('count', *columns)]
    lost = [*(f'no_face_{where}' for where in NO_FACE), 'not_reached']
    head = ['method', 'metric', 'better', 'count', 'missing', *columns, *differences, *lost]
    writer.writerow(head)
    for method in run.methods:
        for name, entry in method.summary.items():
            better = {-1: 'lower', 0: '', 1: 'higher'}[kind_of(name).better]
            cells = [*_three(entry.get('mean')), *_three(entry.get('median'))]
            paired = entry.get('difference') or {}
            cells += [paired.get('count', '')]
            cells += [*_three(paired.get('mean')), *_three(paired.get('median'))]
            cells += [entry.get('no_face', {}).get(where, '') for where in NO_FACE]
            cells += [entry.get('not_reached', '')]
            own = [_cell(method.name), name, better, entry['count'], entry['missing']]
            writer.writerow([*own, *cells])
    return file.getvalue()


def _cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    text = printable(text)
    return f"'{text}" if text[:1] in '=+-@' else text


def _three(values) -> list[str]:
    return ['' if value is None else repr(float(value)) for value in values or [None] * 3]


def latex(run: Comparison) -> str:
    """Tables for booktabs: means with intervals, the best in bold; then every statistic."""
    lines = [
        f'% {len(run.pictures)} pictures; mean and {_percent(run)} interval, '
        f'{run.statistics["resamples"]} bootstrap resamples (jackknife for distances of sets), '
        f'seed {run.statistics["seed"]}.',
        '% A raised number counts the pictures that have no number and are not in the mean.',
    ]
    for title, names in _groups(run).items():
        lines += _tabular(run, title, names)
    lines += [f'% Every number with its median and its difference to {printable(run.reference)}.']
    for title, names in _groups(run).items():
        lines += _statistics(run, title, names)
    return '\n'.join([*lines, ''])


def _groups(run: Comparison) -> Mapping[str, Sequence[str]]:
    return run.groups or {'': run.metrics}


def _tabular(run: Comparison, title: str, names: Sequence[str]) -> list[str]:
    columns = {name: kind_of(name) for name in names}
    best = {name: _best(run, name, kind.better) for name, kind in columns.items()}
    arrow = {-1: r' $\downarrow$', 0: '', 1: r' $\uparrow$'}
    heads = [_tex(kind.title) + arrow[kind.better] for kind in columns.values()]
    lines = [r'\begin{tabular}{l' + 'c' * len(columns) + '}', r'\toprule']
    lines += [' & '.join([_tex(title), *heads]) + r' \\', r'\midrule']
    for method in run.methods:
        cells = [_tex(method.name)]
        for name, kind in columns.items():
            entry = method.summary.get(name)
            if entry is None or entry['mean'][0] is None:
                cells.append('--')
                continue
            value, low, high = entry['mean']
            text = f'{value:.{kind.digits}f}'
            text = rf'\textbf{{{text}}}' if method.name in best[name] else text
            if low is not None:
                bounds = f'{low:.{kind.digits}f}, {high:.{kind.digits}f}'
                text += rf' {{\scriptsize [{bounds}]}}'
            if entry['missing']:
                text += rf'$^{{{entry["missing"]}}}$'
            cells.append(text)
        lines.append(' & '.join(cells) + r' \\')
    return [*lines, r'\bottomrule', r'\end{tabular}']


def _statistics(run: Comparison, title: str, names: Sequence[str]) -> list[str]:
    """Mean, median and paired difference of every number, a line for each method."""
    reference = _tex(f'minus {run.reference}')
    heads = ['', '$n$', 'mean', 'median', f'mean {reference}', f'median {reference}']
    lines = [r'\begin{tabular}{lr' + 'c' * (len(heads) - 2) + '}', r'\toprule']
    lines += [' & '.join([_tex(title), *heads[1:]]) + r' \\']
    for name in names:
        kind = kind_of(name)
        title_of = rf'\multicolumn{{{len(heads)}}}{{l}}{{{_tex(kind.title)}}}'
        lines += [r'\midrule', title_of + r' \\']
        for method in run.methods:
            entry = method.summary.get(name)
            if entry is None:
                continue
            paired = entry.get('difference') or {}
            values = [entry.get('mean'), entry.get('median')]
            values += [paired.get('mean'), paired.get('median')]
            cells = [_tex(method.name), str(entry['count'])]
            cells += [_bracketed(own, kind) for own in values]
            lines.append(' & '.join(cells) + r' \\')
    return [*lines, r'\bottomrule', r'\end{tabular}']


def _bracketed(values: Sequence[float | None] | None, kind: Column) -> str:
    """'0.12 [0.1, 0.2]' for LaTeX."""
    if values is None or values[0] is None:
        return '--'
    value, low, high = (x if x is None else f'{x:.{kind.digits}f}' for x in values)
    value = f'${value}$'
    return value if low is None else rf'{value} {{\scriptsize [${low}$, ${high}$]}}'


_TEX = {
    '\\': r'\textbackslash{}', '{': r'\{', '}': r'\}', '_': r'\_', '&': r'\&', '%': r'\%',
    '#': r'\#', '$': r'\$', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}',
    # A raw one is another letter in LaTeX's first encoding, OT1, or active in babel's German.
    '<': r'\textless{}', '>': r'\textgreater{}', '|': r'\textbar{}', '"': r'\textquotedblright{}',
}  # fmt: skip


def _tex(text: str) -> str:
    return ''.join(_TEX.get(letter, letter) for letter in printable(text))


def _percent(run: Comparison) -> str:
    return f'{100 * run.statistics["confidence"]:g} %'


def _best(run: Comparison, name: str, better: int) -> set[str]:
    """The methods with the best mean, if there are several.

    Of those with the fewest missing pictures: means over fewer, perhaps easier ones do not compete.
    """
    entries = {method.name: method.summary.get(name) for method in run.methods}
    known = {method: e for method, e in entries.items() if e and e['mean'][0] is not None}
    if not better or len(known) < 2:
        return set()
    fewest = min(entry['missing'] for entry in known.values())
    values = {m: better * e['mean'][0] for m, e in known.items() if e['missing'] == fewest}
    return {method for method, value in values.items() if value == max(values.values())}


# --- The page -------------------------------------------------------------------------------------


def _view(run: Comparison) -> dict[str, Any]:
    groups = [_group(run, title, names) for title, names in _groups(run).items()]
    rank = protocol(run.rank_by)
    sections = [
        {
            'name': method.name,
            'examples': [
                {
                    'label': example['label'],
                    'picture': example['picture'],
                    'value': number(example['value'], rank),
                    'target': _encoded(example['target']),
                    'image': _encoded(example['image']),
                }
                for example in method.examples
            ],
            'missing': list(method.missing.items()),
            'strips': [
                {
                    'picture': strip['picture'],
                    'cells': [
                        {'label': cell['label'], 'image': _encoded(cell['image'])}
                        for cell in strip['cells']
                    ],
                }
                for strip in method.strips
            ],
        }
        for method in run.methods
        if method.examples or method.missing or method.strips
    ]
    resolution = run.generator.get('resolution')
    return {
        'title': run.title,
        'count': len(run.pictures),
        'generator_name': f'{run.generator.get("name", "")} at {resolution} × {resolution}',
        'facts': [f'{name} {text}' for name, text in run.facts.items()],
        'groups': groups,
        'methods': len(run.methods),
        'reference': run.reference,
        'percent': _percent(run),
        'statistics': run.statistics,
        'rank': rank.title if any(method.examples for method in run.methods) else '',
        'sections': sections,
        'skipped': run.skipped,
        'charts': run.charts,
        'settings': page.flatten(run.config),
        'generator': page.flatten(run.generator),
        'lpips': list(run.lpips.items()),
        'seeds': list(run.seeds.items()),
        'versions': list(run.versions.items()),
        'resamples': run.statistics['resamples'],
    }


def _group(run: Comparison, title: str, names: Sequence[str]) -> dict[str, Any]:
    """A table of the page."""
    columns = {name: kind_of(name) for name in names}
    best = {name: _best(run, name, kind.better) for name, kind in columns.items()}
    rows = []
    for method in run.methods:
        cells = []
        for name, kind in columns.items():
            entry = method.summary.get(name)
            cell = {} if entry is None else _numbers(entry, kind)
            cells.append(cell | {'best': method.name in best[name]})
        rows.append(
            {
                'name': method.name,
                'spelling': method.spelling if method.spelling != method.name else '',
                'reference': method.name == run.reference,
                'failure': method.failure,
                'cells': cells,
            }
        )
    return {'title': title, 'columns': list(columns.values()), 'rows': rows}


def _numbers(entry: Mapping[str, Any], kind: Column) -> dict[str, Any]:
    """The texts of a cell."""
    found = {
        'mean': _shown(entry['mean'][0], kind),
        'interval': _interval(entry['mean'], kind),
        'median': _shown(entry['median'][0], kind) if 'median' in entry else '',
        'missing': entry['missing'],
        'why': _why_missing(entry),
    }
    paired = entry.get('difference')
    if paired and paired['mean'][0] is not None:
        found['difference'] = number(paired['mean'][0], kind._replace(unit=''), signed=True)
        found['difference_interval'] = _interval(paired['mean'], kind)
        low, high = paired['mean'][1:]
        # Whether the interval excludes no difference, and on which side.
        sure = low is not None and (low > 0 or high < 0)
        found['sign'] = int(math.copysign(1, low)) * kind.better if sure else 0
    return found


def _shown(value: float | None, kind: Column) -> str:
    return '' if value is None else number(value, kind._replace(unit=''))


def _interval(values: Sequence[float | None], kind: Column) -> str:
    if values[1] is None:
        return ''
    low, high = (f'{value:.{kind.digits}f}'.replace('-', MINUS) for value in values[1:])
    return f'{low} … {high}'


def _why_missing(entry: Mapping[str, Any]) -> str:
    """'change not reached 1, no face in the target 2, in both 1', or ''."""
    places = {'target': 'in the target', 'picture': 'in the picture', 'both': 'in both'}
    counts = entry.get('no_face', {})
    faces = ', '.join(f'{places[where]} {counts[where]}' for where in NO_FACE if counts.get(where))
    reached = entry.get('not_reached', 0)
    parts = [f'change not reached {reached}'] if reached else []
    return ', '.join(parts + ([f'no face {faces}'] if faces else []))


def _encoded(image_uint8) -> str:
    return page.data_uri(PIL.Image.fromarray(np.ascontiguousarray(image_uint8)), SIZE)


def summary(run: Comparison, folder: pathlib.Path, seconds: float) -> str:
    """The last lines of a run."""
    width = max(len(method.name) for method in run.methods)
    lines = []
    for method in run.methods:
        shown = []
        for name, entry in method.summary.items():
            value = 'none' if entry['mean'][0] is None else f'{entry["mean"][0]:.4g}'
            lost = f' ({entry["missing"]} missing)' if entry['missing'] else ''
            shown.append(f'{name} {value}{lost}')
        lines.append(f'{printable(method.name):<{width}}  {method.failure or "  ".join(shown)}')
    return '\n'.join([*lines, f'{duration(seconds)} since this start. Open {folder / "page.html"}'])
