"""Line charts as inline SVG: small, sharp at any width, coloured by the page's style sheet."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import markupsafe
import numpy as np

WIDTH, HEIGHT = 520, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 10, 10, 30
MAX_POINTS = 400  # more is finer than the pixels


def svg(
    values: Any,
    names: Sequence[str],
    *,
    first_step: float = 0,
    step: float = 1.0,  # between two values
    label: str = '',
) -> str:
    """A chart of [steps] or [steps, n] with class `line c<i>` for curve i; '' if nothing is finite.

    The value axis is logarithmic if all values are positive and span more than a factor of 8.
    """
    curves = np.asarray(values, np.float64)
    curves = curves[:, None] if curves.ndim == 1 else curves
    finite = curves[np.isfinite(curves)]
    if not finite.size:
        return markupsafe.Markup('')
    low, high = float(finite.min()), float(finite.max())
    log = low > 0 and high / low > 8
    if log:
        # A few tiny values (a term that starts at zero) must not flatten the rest.
        low = max(low, float(np.percentile(finite, 5)) / 3)
        curves = np.where(curves < low, low, curves)
    if high == low:
        low, high = (low / 1.1, high * 1.1) if low > 0 else (low - 1, high + 1)
    scale = _log_scale(low, high) if log else _linear_scale(low, high)
    ticks = _log_ticks(low, high) if log else _linear_ticks(low, high)
    last = first_step + step * max(len(curves) - 1, 1)

    def x(at: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (at - first_step) / (last - first_step)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * scale(value)

    elements = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{markupsafe.escape(label)}">'
    ]
    for tick in ticks:
        elements.append(
            f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" '
            f'y2="{y(tick):.1f}"/><text x="{LEFT - 7}" y="{y(tick) + 4:.1f}" '
            f'text-anchor="end">{_short(tick)}</text>'
        )
    for tick in _linear_ticks(first_step, last, 5):
        elements.append(
            f'<text x="{x(tick):.1f}" y="{HEIGHT - 10}" text-anchor="middle">{tick:g}</text>'
        )
    for i in range(curves.shape[1]):
        name = names[i] if curves.shape[1] == len(names) else label
        points = _path(curves[:, i], lambda i: x(first_step + step * i), y)
        elements.append(
            f'<path class="line c{i % 8}" d="{points}"><title>{markupsafe.escape(name)}</title>'
            '</path>'
        )
    return markupsafe.Markup(''.join(elements) + '</svg>')


def xy(curves: Mapping[str, Sequence[tuple[float, float]]], label: str = '') -> str:
    """A chart of points (x, y), joined in their order, with class `line c<i>` for curve i.

    '' if there is no point.
    """
    points = np.array([point for own in curves.values() for point in own], np.float64)
    if not points.size:
        return markupsafe.Markup('')
    low, high = points.min(0), points.max(0)
    low, high = np.where(high > low, low, low - 1), np.where(high > low, high, high + 1)

    def place(point):
        share = (np.asarray(point) - low) / (high - low)
        x = LEFT + (WIDTH - LEFT - RIGHT) * share[0]
        return x, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share[1]

    elements = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{markupsafe.escape(label)}">'
    ]
    for tick in _linear_ticks(low[1], high[1]):
        y = place((low[0], tick))[1]
        elements.append(
            f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{_short(tick)}</text>'
        )
    for tick in _linear_ticks(low[0], high[0]):
        x = place((tick, low[1]))[0]
        elements.append(f'<text x="{x:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{tick:g}</text>')
    for i, (name, own) in enumerate(curves.items()):
        places = [place(point) for point in own]
        path = 'M' + 'L'.join(f'{x:.1f} {y:.1f}' for x, y in places) if places else ''
        dots = ''.join(
            f'<circle class="line c{i % 8}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places
        )
        elements.append(
            f'<path class="line c{i % 8}" d="{path}"><title>{markupsafe.escape(name)}</title>'
            f'</path>{dots}'
        )
    return markupsafe.Markup(''.join(elements) + '</svg>')


def _short(tick: float) -> str:
    """'0.05', '1e-5', '2e4': at most five characters."""
    text = f'{tick:g}'
    if len(text) <= 5 and 'e' not in text:
        return text
    mantissa, exponent = f'{tick:.1e}'.split('e')
    return f'{float(mantissa):g}e{int(exponent)}'


def _path(curve: np.ndarray, x: Any, y: Any) -> str:
    stride = max(1, math.ceil(len(curve) / MAX_POINTS))
    steps = sorted({*range(0, len(curve), stride), len(curve) - 1})
    text, pen_down = [], False
    for i in steps:
        if np.isfinite(curve[i]):
            text.append(f'{"L" if pen_down else "M"}{x(i):.1f} {y(curve[i]):.1f}')
        pen_down = bool(np.isfinite(curve[i]))
    return ''.join(text)


def _linear_scale(low: float, high: float) -> Any:
    return lambda value: (value - low) / (high - low)


def _log_scale(low: float, high: float) -> Any:
    return lambda value: math.log(value / low) / math.log(high / low)


def _linear_ticks(low: float, high: float, count: int = 5) -> list[float]:
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = math.log10(high / low)
    mantissas = (1, 2, 5) if decades < 2.5 else (1, 3) if decades < 4 else (1,)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [m * 10.0**e for e in exponents for m in mantissas]
    return [float(f'{t:.6g}') for t in ticks if low * 0.999 <= t <= high * 1.001]
