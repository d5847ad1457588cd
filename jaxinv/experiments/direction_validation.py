"""What the measures that judge say of directions (experiments/fit_directions.py)."""

from typing import Any, NamedTuple

import numpy as np

from jaxinv.experiments import direction_regression
from jaxinv.experiments.sampling import Pipeline

SIDE_EFFECT = 0.25  # standard deviations, for one of the attribute; smaller ones are not listed


class Direction(NamedTuple):
    name: str
    target: str  # attribute
    kind: str  # of direction_regression.COSTS
    vector: np.ndarray  # [w_dim], length 1
    strengths: np.ndarray  # lengths in W to measure


def effect_of(d: Direction, results, table, role: str, pipeline: Pipeline):
    """The Effect of a direction by the measures that steer, or that judge."""
    found = results[d.name]
    names = {name: getattr(entry, role) for name, entry in table.items()}
    return direction_regression.effect(
        d.strengths,
        {name: found['base'][measure] for name, measure in names.items()},
        {name: found['edited'][measure] for name, measure in names.items()},
        found['distance'],
        d.target,
        pipeline.same_person[role == 'judge'],
    )


def entry_of(config, d: Direction, validated, table, deviations, pipeline) -> dict[str, Any]:
    """What directions.json says of a direction; changes are the judge's, per length 1 in W."""
    attribute = table[d.target]
    judge = effect_of(d, validated, table, 'judge', pipeline)
    steering = effect_of(d, validated, table, 'steer', pipeline)
    distances = np.array([judge.identity_distance[f'{s:g}'] for s in d.strengths])
    changes = changes_of(d, validated, attribute.judge)
    limit = config.validate.identity
    low, high = direction_regression.reach(d.strengths, distances, changes, limit)
    slope = judge.per_unit[d.target]
    sides = {
        name: value * deviations[d.target] / (deviations[name] * abs(slope))
        for name, value in judge.per_unit.items()
        if name != d.target and slope
    }
    return {
        'kind': 'attribute',
        'fit': d.kind,
        'strengths': [float(f'{low:.2g}'), float(f'{high:.2g}')],
        'unit': attribute.unit,
        'judge_unit': attribute.judge_unit or attribute.unit,
        'steered_by': attribute.steer,
        'judge': attribute.judge,
        **judge._asdict(),
        'per_unit_steered': steering.per_unit[d.target],
        'judged_change': {
            f'{s:g}': float(change) for s, change in zip(d.strengths, changes, strict=True)
        },
        # In standard deviations, for one standard deviation of the attribute; the largest ones.
        'side_effects': {
            name: value
            for name, value in sorted(sides.items(), key=lambda item: -abs(item[1]))
            if abs(value) >= SIDE_EFFECT
        },
    }


def changes_of(d: Direction, results, measure: str) -> np.ndarray:
    """Mean change [s] of a measure at each strength, over the faces that were measured."""
    found = results[d.name]
    return np.array(
        [
            np.nanmean(column) if np.isfinite(column).any() else np.nan
            for column in (found['edited'][measure] - found['base'][measure][:, None]).T
        ]
    )


def refusal(config, entry, target: str, deviations) -> str:
    """Why the judge does not confirm a direction, by its entry; '' if it does."""
    correlation = entry['correlation']
    if not correlation >= config.validate.correlation:
        return (
            f'the judge {entry["judge"]} sees a correlation of {correlation:.2f} with the '
            f'strength; at least {config.validate.correlation:g} is needed'
        )
    low, high = entry['strengths']
    if not low < 0 < high:
        shown = ', '.join(f'{c:+.3g}' for c in entry['judged_change'].values())
        return f'the judge {entry["judge"]} sees no steady change: {shown} at rising strengths'
    change = (high - low) * entry['per_unit'][target] / deviations[target]
    if not change >= config.validate.effect:
        return (
            f'within the identity distance of {config.validate.identity:g} it changes the '
            f'attribute by {change:.2f} standard deviations only'
        )
    return ''


def agreement(a, b) -> float:
    known = np.isfinite(a) & np.isfinite(b)
    return float(np.corrcoef(a[known], b[known])[0, 1]) if known.sum() > 2 else float('nan')
