"""Numbers of all methods to the tables of a comparison: means, medians, differences, intervals."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxinv.metrics import distributions, statistics
from jaxinv.metrics.statistics import NOTHING, Estimate

DISTANCES = {'frechet': distributions.frechet, 'kernel': distributions.kernel}


class Features(NamedTuple):
    """Features of a method's pictures and of their targets, for one network."""

    targets: np.ndarray  # [m, d]
    images: np.ndarray  # [m, d]
    rows: Sequence[int]  # of the targets, [m]


def summaries(
    values: Mapping[str, Mapping[str, np.ndarray]], reference: str, options, names: Sequence[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """{method: {metric: {'count', 'missing', 'mean', 'median', 'difference'}}}, JSON types.

    values: {method: {metric: [n]}} of the same n pictures, NaN where there is no number. mean and
    median are [value, low, high]; difference is {'count', 'mean', 'median'} to the reference,
    picture by picture, and is missing for the reference itself. options: settings.Statistics.
    """
    drawn = options.resamples, options.seed, options.confidence
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for method, columns in values.items():
        found[method] = {}
        for name in names:
            own = statistics.summarize(columns[name], *drawn)
            entry = {'count': own.count, 'missing': own.missing}
            entry |= {'mean': list(own.mean), 'median': list(own.median)}
            if method != reference:
                paired = statistics.difference(columns[name], values[reference][name], *drawn)
                entry['difference'] = {
                    'count': paired.count,
                    'mean': list(paired.mean),
                    'median': list(paired.median),
                }
            found[method][name] = entry
    return found


def of_method(value: float) -> dict[str, Any]:
    """An entry of `summaries` for one number of a method, not of its pictures."""
    return {'count': 1, 'missing': 0, 'mean': [float(value), None, None]}


def set_summaries(
    features: Mapping[str, Mapping[str, Features]], reference: str, total: int, options
) -> dict[str, dict[str, dict[str, Any]]]:
    """The same of distances of sets, {method: {'frechet_KIND': ..., 'kernel_KIND': ...}}.

    features: {method: {kind: Features}} of `total` pictures. A difference is between the distances
    over the pictures that both methods have.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for method, kinds in features.items():
        found[method] = {}
        for kind, own in kinds.items():
            for label, distance in DISTANCES.items():
                value = _of_set(distance, own, options)
                entry = {'count': len(own.rows), 'missing': total - len(own.rows)}
                entry['mean'] = list(value)
                if method != reference:
                    other = features[reference][kind]
                    entry['difference'] = _difference(distance, own, other, options)
                found[method][f'{label}_{kind}'] = entry
    return found


def _of_set(distance: Callable, own: Features, options) -> Estimate:
    def compute(rows):
        return distance(own.targets[rows], own.images[rows])

    if not len(own.rows):
        return NOTHING
    return statistics.of_sets(compute, len(own.rows), options.seed, options.confidence)


def _difference(distance: Callable, own: Features, other: Features, options) -> dict[str, Any]:
    both = sorted(set(own.rows) & set(other.rows))
    if not both:
        return {'count': 0, 'mean': list(NOTHING)}
    places = [np.array([list(f.rows).index(i) for i in both]) for f in (own, other)]

    def compute(rows):
        first, second = (place[rows] for place in places)
        return distance(own.targets[first], own.images[first]) - distance(
            other.targets[second], other.images[second]
        )

    value = statistics.of_sets(compute, len(both), options.seed, options.confidence)
    return {'count': len(both), 'mean': list(value)}


def best_median_worst(values, better: int) -> dict[str, int]:
    """{'best', 'median', 'worst': index} of values [n]; {} if none is known.

    With fewer than three known values the middle ones are left out.
    """
    values = np.asarray(values, np.float64)
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return {}
    order = known[np.argsort(-better * values[known], kind='stable')]
    chosen = {'best': order[0], 'median': order[(len(order) - 1) // 2], 'worst': order[-1]}
    found: dict[str, int] = {}
    for label in ('best', 'worst', 'median'):
        if int(chosen[label]) not in found.values():
            found[label] = int(chosen[label])
    return {label: found[label] for label in ('best', 'median', 'worst') if label in found}
