"""What comes with jaxinv for a latent space: each direction with its range, unit and judge.

print(edits.table())
"""

from typing import Any, NamedTuple

from jaxinv.edits.directions import describe


class Entry(NamedTuple):
    name: str
    range: tuple[float, float]  # strengths, lengths in W
    unit: str  # of the attribute; '' for components
    per_strength: float  # change in units for a strength of 1, as the judge saw it
    judge: str  # measure of jaxinv/faces/measures.py that confirmed it; '' if there was none
    steered_by: str  # measure to which the direction was fitted


def catalogue(space: str = 'ffhq') -> list[Entry]:
    """The packaged directions of a latent space, attributes first."""
    directions = describe(space).get('directions', {})
    ordered = sorted(directions.items(), key=lambda item: (item[1]['kind'] != 'attribute', item[0]))
    return [_entry(name, entry) for name, entry in ordered]


def _entry(name: str, entry: dict[str, Any]) -> Entry:
    low, high = entry['strengths']
    if entry['kind'] != 'attribute':
        return Entry(name, (low, high), '', float('nan'), '', '')
    return Entry(
        name,
        (low, high),
        entry.get('unit', ''),
        entry['per_unit'][name],
        entry.get('judge', ''),
        entry.get('steered_by', ''),
    )


def table(space: str = 'ffhq') -> str:
    """The catalogue as text, and what was looked for in W and not found."""
    lines = [f'{"name":<13}{"strengths":<16}{"strength 1 changes":<34}{"judge":<26}steered by']
    for entry in catalogue(space):
        low, high = entry.range
        change = f'{entry.per_strength:+.3g} {entry.unit}' if entry.unit else 'a component of W'
        lines.append(
            f'{entry.name:<13}{f"{low:+.2g} to {high:+.2g}":<16}{change:<34}{entry.judge:<26}'
            f'{entry.steered_by}'.rstrip()
        )
    for name, entry in sorted(describe(space).get('not_found', {}).items()):
        lines.append(f'{name:<13}not found: {entry["reason"]}')
    return '\n'.join(lines)
