"""What comes with jaxinv for a generator: each direction with its range, unit and judge.

print(jaxinv.edits.available(generator))
"""

from typing import Any, NamedTuple

from jaxinv.edits.directions import describe

SPACE = 'ffhq'  # the only latent space with packaged directions


class Entry(NamedTuple):
    name: str
    range: tuple[float, float]  # strengths, lengths in W
    unit: str  # of the measure that steered; '' for components
    per_strength: float  # change in this unit for a strength of 1
    judge_unit: str  # of the judge
    judged_per_strength: float  # the same change as the judge saw it
    judge: str  # measure of jaxinv/faces/measures.py that confirmed it; '' if there was none
    steered_by: str  # measure to which the direction was fitted


class Available(tuple):
    """Entries, attributes first; as text a table, with what was looked for in W and not found."""

    def __str__(self) -> str:
        return _table(self)

    __repr__ = __str__


def available(generator: Any = None) -> Available:
    """The packaged directions for a generator, or where it is None those of FFHQ's W.

    Empty for generators of anything else. [entry.name for entry in available()] are the names.
    """
    directions = {}
    if generator is None or generator.spec.domain == SPACE:
        directions = describe(SPACE).get('directions', {})
    ordered = sorted(directions.items(), key=lambda item: (item[1]['kind'] != 'attribute', item[0]))
    return Available(_entry(name, entry) for name, entry in ordered)


def _entry(name: str, entry: dict[str, Any]) -> Entry:
    low, high = entry['strengths']
    if entry['kind'] != 'attribute':
        return Entry(name, (low, high), '', float('nan'), '', float('nan'), '', '')
    return Entry(
        name,
        (low, high),
        entry['unit'],
        entry['per_unit_steered'],
        entry['judge_unit'],
        entry['per_unit'][name],
        entry['judge'],
        entry['steered_by'],
    )


def _table(entries: Available) -> str:
    if not entries:
        return 'no packaged directions for this generator; give your own files (docs/edits.md)'
    rows = [('name', 'strengths', 'strength 1 changes', 'steered by', 'as judged', 'judge')]
    for entry in entries:
        low, high = entry.range
        row = [entry.name, f'{low:+.2g} to {high:+.2g}', 'a component of W', '', '', '']
        if entry.unit:
            row[2:4] = f'{entry.per_strength:+.2g} {entry.unit}', entry.steered_by
            row[4:] = f'{entry.judged_per_strength:+.2g} {entry.judge_unit}', entry.judge
        rows.append(tuple(row))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ['  '.join(map(str.ljust, row, widths)).rstrip() for row in rows]
    for name, entry in sorted(describe(SPACE).get('not_found', {}).items()):
        lines.append(f'{name:<{widths[0]}}  not found: {entry["reason"]}')
    return '\n'.join(lines)
