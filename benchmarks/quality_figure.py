"""Tables and figure of what time_to_quality.py has written."""

import pathlib
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

# Okabe and Ito's colours, which colour-blind readers tell apart, without the yellow.
COLOURS = ('#000000', '#D55E00', '#0072B2', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
MARKERS = 'osD^vPX'


class Panel(NamedTuple):
    title: str
    metric: str  # of a point's values, or of its drift
    drift: bool = False


PANELS = (
    Panel('LPIPS alex, lower is better', 'lpips_alex'),
    Panel('identity distance (dlib), lower is better', 'id_distance'),
    Panel('PSNR in dB, higher is better', 'psnr'),
    Panel('drift of random codes, LPIPS alex, lower is better', 'lpips_alex', True),
)
REACHED = {'lpips_alex': 'LPIPS alex', 'id_distance': 'identity'}  # of the second table


def mean(point: dict, panel: Panel) -> float:
    """Over the pictures that have the number, or over generators; NaN if none has."""
    values = point['drift' if panel.drift else 'values'][panel.metric]
    known = [x for x in values if x is not None]
    return float(np.mean(known)) if known else np.nan


# --- Tables ---------------------------------------------------------------------------------------


def tables(results: dict) -> str:
    """Markdown: each method's stages, then the methods against the first."""
    return '\n'.join([*_stages(results['methods']), '', *_against_first(results['methods'])]) + '\n'


def _row(*cells) -> str:
    return f'| {" | ".join(cells)} |'


def _head(*cells) -> list[str]:
    return [_row(*cells), _row(*['---'] * len(cells))]


def _stages(methods: dict) -> list[str]:
    lines = _head(
        'method', 'stage', 'steps', 'seconds', 'of steps', 'processor seconds', 'LPIPS alex',
        'LPIPS vgg', 'MSE', 'PSNR', 'identity', 'drift',
    )  # fmt: skip
    for name, method in methods.items():
        runs = method['runs']
        for i, stage in enumerate(runs[0]['stages']):
            own = [run['stages'][i] for run in runs]
            before = [run['stages'][i - 1] if i else None for run in runs]
            lines.append(
                _row(
                    name,
                    stage['stage'],
                    f'{np.mean([s["steps"] for s in own]):.0f}',
                    _mean_of(own, before, 'end'),
                    f'{np.mean([s["step_seconds"] for s in own]):.1f}',
                    _mean_of(own, before, 'processor_end'),
                    *_quality([last_point(run, stage['stage']) for run in runs]),
                )
            )
        total = [run['stages'][-1] for run in runs]
        steps = [sum(s['step_seconds'] for s in run['stages']) for run in runs]
        lines.append(
            _row(
                name,
                'all',
                f'{np.mean([sum(s["steps"] for s in run["stages"]) for run in runs]):.0f}',
                f'{np.mean([s["end"] for s in total]):.1f}',
                f'{np.mean(steps):.1f}',
                f'{np.mean([s["processor_end"] for s in total]):.1f}',
                *_quality([run['points'][-1] for run in runs]),
            )
        )
    return lines


def _mean_of(stages, before, key: str) -> str:
    spent = [s[key] - (b[key] if b else 0.0) for s, b in zip(stages, before, strict=True)]
    return f'{np.mean(spent):.1f}'


def last_point(run: dict, stage: str) -> dict | None:
    """The last checkpoint of a stage; None of one that only measures for a later one."""
    own = [point for point in run['points'] if point['stage'] == stage]
    return own[-1] if own else None


def _quality(points) -> list[str]:
    """Cells of the numbers of one point in each run; empty without points."""
    if None in points:
        return [''] * 6
    specs = {'lpips_alex': '.4f', 'lpips_vgg': '.4f', 'mse': '.4f', 'psnr': '.2f'}
    cells = [_number(points, Panel('', name), spec) for name, spec in specs.items()]
    identity = _number(points, Panel('', 'id_distance'), '.3f')
    missing = sum(x is None for point in points for x in point['values']['id_distance'])
    if missing and identity:
        identity += f' ({missing} without a face)'
    return [*cells, identity, _number(points, PANELS[-1], '.4f')]


def _number(points, panel, spec) -> str:
    known = [x for x in (mean(point, panel) for point in points) if np.isfinite(x)]
    return format(np.mean(known), spec) if known else ''


def _against_first(methods: dict) -> list[str]:
    """Seconds of each method, and when it reaches what the first one has at its end."""
    first, *_ = methods
    goals = {}
    for metric in REACHED:
        ends = [mean(run['points'][-1], Panel('', metric)) for run in methods[first]['runs']]
        goals[metric] = np.mean(ends)
    titles = [
        f'seconds to {REACHED[metric]} {goal:.4g}'
        for metric, goal in goals.items()
        if np.isfinite(goal)
    ]
    lines = _head(
        'method', 'seconds', f'of {first}', 'processor seconds', f'of {first}', *titles
    )  # fmt: skip
    base = _totals(methods[first])
    for name, method in methods.items():
        own = _totals(method)
        cells = [name]
        for seconds, whole in zip(own, base, strict=True):
            cells += [f'{seconds:.1f}', f'{seconds / whole:.2f}' if whole else '']
        for metric, goal in goals.items():
            if np.isfinite(goal):
                times = [seconds_to(run, metric, goal) for run in method['runs']]
                cells.append('not reached' if None in times else f'{np.mean(times):.1f}')
        lines.append(_row(*cells))
    return lines


def _totals(method: dict) -> tuple[float, float]:
    """Seconds and processor seconds of a method, means over its runs."""
    last = [run['stages'][-1] for run in method['runs']]
    return tuple(float(np.mean([s[key] for s in last])) for key in ('end', 'processor_end'))


def seconds_to(run: dict, metric: str, goal: float) -> float | None:
    """Of the first checkpoint whose mean is at `goal` or below; None if there is none."""
    for point in run['points']:
        if mean(point, Panel('', metric)) <= goal:
            return point['seconds']
    return None


# --- Figure ---------------------------------------------------------------------------------------


def curve(run: dict, panel: Panel) -> list[tuple[float, float, bool]]:
    """[(seconds, number, whether it ends a stage)] of a run.

    While a stage measures for a later one, or prepares, the number stays as it was. The first point
    is that of an encoder, or that after the first steps: the mean of W is nobody's result.
    """
    points, found, last = run['points'], [], None
    for stage in run['stages']:
        own = [p for p in points if p['stage'] == stage['stage']]
        own = [p for p in own if p['step'] or run['from_encoder']]
        if not own:
            continue
        if last is not None:
            found.append((stage['begin'], last, False))
        found += [(p['seconds'], mean(p, panel), p is own[-1]) for p in own]
        last = found[-1][1]
    return [point for point in found if point[0] > 0]  # the axis is logarithmic


def draw(results: dict, file: pathlib.Path) -> None:
    """Writes the figure: a line for each run, a panel for each of PANELS."""
    figure = Figure(figsize=(11, 8.2), layout='constrained', facecolor='white')
    axes = figure.subplots(2, 2, sharex=True)
    for panel, ax in zip(PANELS, axes.flat, strict=True):
        ax.set_xscale('log')
        ax.xaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
        ax.set_title(panel.title, fontsize=11, loc='left')
        ax.grid(True, which='major', color='#dddddd', linewidth=0.8)
        ax.spines[['top', 'right']].set_visible(False)
        for i, (name, method) in enumerate(results['methods'].items()):
            colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
            for j, run in enumerate(method['runs']):
                points = curve(run, panel)
                if not points:
                    continue
                x, y, ends = (np.array(own) for own in zip(*points, strict=True))
                ax.plot(
                    x, y, color=colour, linewidth=1.6, marker=marker, markersize=3.5,
                    alpha=1 if j == 0 else 0.4, label=name if j == 0 else None,
                )  # fmt: skip
                ax.plot(
                    x[ends], y[ends], linestyle='', color=colour, marker=marker, markersize=8,
                    markerfacecolor='white', markeredgewidth=1.6,
                )  # fmt: skip
        if not ax.lines or not any(np.isfinite(line.get_ydata()).any() for line in ax.lines):
            ax.text(0.5, 0.5, 'no faces', transform=ax.transAxes, ha='center')
    for ax in axes[1]:
        ax.set_xlabel('seconds')
    handles = {line.get_label(): line for line in axes[0, 0].lines}
    handles = {name: line for name, line in handles.items() if not name.startswith('_')}
    figure.legend(
        handles.values(), handles.keys(), loc='outside lower center', ncols=min(len(handles), 5),
        frameon=False, fontsize=11,
    )  # fmt: skip
    figure.suptitle(_caption(results), fontsize=11)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120, metadata={'Software': None})


def _caption(results: dict) -> str:
    """On what was measured, and how the figure is read."""
    machines = [run['machine'] for method in results['methods'].values() for run in method['runs']]
    machines = [f'{m["processor"] or m["devices"]}, {m["cores"]} cores' for m in machines]
    generator, count = results['generator'], len(results['pictures'])
    return (
        f'Means of {count} picture{"s" * (count != 1)} at {generator["resolution"]} pixels, '
        f'{generator["name"]}, on {" and ".join(dict.fromkeys(machines))}.\n'
        'Seconds without compilation, reading and measuring; large open marks end a stage.'
    )
