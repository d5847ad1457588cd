"""Sliders: the edits that a generator has, each with its range and unit.

Ranges of packaged directions are those in which they were measured (jaxinv.edits.describe). Of the
user's own files (--directions) nothing was measured, and their range says so.
"""

import dataclasses
import pathlib
from typing import Any

from jaxinv import edits as edits_lib
from jaxinv.converters import array_files, safe_pickle
from jaxinv.edits.directions import split_key
from jaxinv.errors import JaxinvError
from jaxinv.text import printable
from jaxinv.types import GeneratorSpec

OWN_RANGE = 3.0  # strengths of a direction without a measured range
MAX_FOUND = 1.5  # strength of what a search found
MAX_OWN = 200  # directions of a file
# What one unit of an effect is called on the page: by the unit of its entry, or by its name.
SHOWN = {'degree': '°', 'year': ' years', 'stop': ' stops', 'smile': '', 'log-odds': ''}
UNITS = {'yaw': '°', 'pitch': '°', 'roll': '°', 'age': ' years'}
STEPS = 100  # of a slider


@dataclasses.dataclass(frozen=True, eq=False)
class Control:
    """A slider; its position is a strength, what it shows is strength * effect + unit."""

    name: str
    title: str
    low: float
    high: float
    step: float
    group: str  # 'attribute', 'component', 'own' or 'found'
    effect: float = 1.0  # of one unit of strength
    unit: str = ''
    note: str = ''  # side effects, or what was not measured
    spelling: str = ''  # in --config.edits, where it is not the name
    direction: edits_lib.Direction | None = dataclasses.field(default=None, repr=False)

    def public(self) -> dict[str, Any]:
        """What the page gets."""
        hidden = ('direction', 'spelling')
        names = [field.name for field in dataclasses.fields(self) if field.name not in hidden]
        return {name: getattr(self, name) for name in names}


def controls_of(spec: GeneratorSpec, files: list[str]) -> dict[str, Control]:
    """The sliders of a generator, {name: Control}: packaged ones first, then those of files.

    Raises JaxinvError for a file that holds no directions of this generator.
    """
    found = _packaged() if spec.domain == 'ffhq' and spec.w_dim == 512 else []
    for file in files:
        found += _own(file, spec)
    return {control.name: control for control in found}


def of_search(name: str, direction: edits_lib.Direction) -> Control:
    """The slider of what a drag or a text found; strength 1 is what was found."""
    low, high, title = 0.0, MAX_FOUND, direction.name
    return Control(name, title, low, high, 0.05, 'found', 100.0, ' %', direction=direction)


def _packaged() -> list[Control]:
    known = edits_lib.describe('ffhq').get('directions', {})
    found = []
    for name in edits_lib.packaged('ffhq'):
        facts = known.get(name, {})
        low, high = _range(facts)
        effects = {key: float(value) for key, value in facts.get('per_unit', {}).items()}
        component = facts.get('kind') == 'ganspace'
        found.append(
            Control(
                name,
                f'Component {name.removeprefix("pc")}' if component else _title(name),
                low,
                high,
                (high - low) / STEPS,
                'component' if component else 'attribute',
                effects.get(name, 1 / facts.get('std', 1.0)),
                _unit(name, facts) if name in effects else ' deviations' * ('std' in facts),
                '' if component else _note(name, facts, effects, high),
                direction=edits_lib.Direction(
                    name, edits_lib.load_direction(name, 'ffhq'), limits=(low, high)
                ),
            )
        )
    order = list(known)
    return sorted(found, key=lambda c: (c.group, order.index(c.name) if c.name in order else 0))


def _range(facts) -> tuple[float, float]:
    values = facts.get('range') or facts.get('strengths') or (-OWN_RANGE, OWN_RANGE)
    return float(min(values)), float(max(values))


def _title(name: str) -> str:
    return (name[:1].upper() + name[1:]).replace('_', ' ')


def _unit(name: str, facts) -> str:
    unit = facts.get('unit')
    if unit is None:
        return UNITS.get(name, '')
    return ' %' if unit.startswith('%') else SHOWN.get(unit, f' {unit}')


def _note(name: str, facts, effects: dict[str, float], strength: float) -> str:
    """'At its right end also age +1.2 years.', of side effects that can be seen."""
    if 'side_effects' in facts:  # the largest first
        unit = facts.get('unit', '')
        note = f'In {unit}. ' if unit == 'log-odds' or len(unit) > 2 and unit[0] == '%' else ''
        names = [_title(key).lower() for key in list(facts['side_effects'])[:3]]
        return note + (f'Also moves {", ".join(names)}.' if names else '')
    parts = [
        f'{key} {value * strength:+.1f}{UNITS.get(key, "")}'.replace('-', '\N{MINUS SIGN}')
        for key, value in effects.items()
        if key != name and abs(value * strength) >= (1.0 if key in UNITS else 0.1)
    ]
    return f'At its right end also {", ".join(parts)}.' if parts else ''


def _own(file: str, spec: GeneratorSpec) -> list[Control]:
    path, key = split_key(file)
    names = [key] if key else _names(path)
    found = []
    for name in names:
        array = edits_lib.load_direction(f'{path}:{name}' if name else str(path))
        if array.shape[1] != spec.w_dim or array.shape[0] not in (1, spec.num_ws):
            raise JaxinvError(
                f'{file} holds {printable(name or path.stem)} {list(array.shape)}; {spec.name} '
                f'takes [1 or {spec.num_ws}, {spec.w_dim}].'
            )
        title = printable(name or path.stem, 60)
        found.append(
            Control(
                f'own:{title}',
                title,
                -OWN_RANGE,
                OWN_RANGE,
                2 * OWN_RANGE / STEPS,
                'own',
                1.0,
                ' times',
                'The effect and range of this direction were not measured.',
                f'{path.name}:{name}' if name else path.name,
                edits_lib.Direction(title, array),
            )
        )
    return found


def _names(path: pathlib.Path) -> list[str]:
    """Keys of the arrays in a file; [''] of a file of one array."""
    if path.suffix.lower() in ('.npz', '.safetensors') and path.is_file():
        return list(array_files.read(path)[0])[:MAX_OWN]
    if path.suffix.lower() in ('.pt', '.pth') and path.is_file():
        value = safe_pickle.load(path)
        return list(value)[:MAX_OWN] if isinstance(value, dict) else ['']
    return ['']
