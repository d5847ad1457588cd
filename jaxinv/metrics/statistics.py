"""Means, medians and paired differences over pictures, with intervals.

Numbers of pictures: expanded percentile intervals of the bootstrap over pictures (Efron and
Tibshirani 1993, chapter 13; Hesterberg 2015, arXiv:1411.5279: plain percentiles are too narrow for
few pictures). A resample draws the same pictures for every metric and method, so that the
difference of two methods is paired. Numbers of a whole set (Fréchet, kernel): the jackknife over
groups of pictures (chapter 11), as a set with repeated pictures has another distance.

A value that is not finite is one that could not be measured. It is left out and counted.
"""

import functools
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

GROUPS = 20  # that the jackknife leaves out in turn
_CHUNK = 250  # resamples at a time, which bounds memory


class Estimate(NamedTuple):
    """A number with its interval; None where it could not be computed."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Summary(NamedTuple):
    """What a table says of a metric of one method."""

    count: int  # pictures that were measured
    missing: int  # pictures without a number
    mean: Estimate
    median: Estimate


NOTHING = Estimate(None)


@functools.lru_cache(8)
def _resamples(count: int, resamples: int, seed: int) -> np.ndarray:
    """Indices [resamples, count] of pictures, the same for every metric and method."""
    drawn = np.random.default_rng(seed).integers(count, size=(resamples, count), dtype=np.int32)
    drawn.flags.writeable = False
    return drawn


def summarize(values, resamples: int, seed: int, confidence: float = 0.95) -> Summary:
    """Mean and median of values [n] with expanded percentile intervals of `resamples` resamples.

    A single known value has no interval, and neither have equal ones (the time of a whole run,
    divided among its pictures): a resample of them never differs.
    """
    values = np.asarray(values, np.float64)
    known = np.isfinite(values)
    count, missing = int(known.sum()), int((~known).sum())
    if not count:
        return Summary(0, missing, NOTHING, NOTHING)
    if np.ptp(values[known]) == 0:
        only = Estimate(float(values[known][0]))
        return Summary(count, missing, only, only)
    values = np.where(known, values, np.nan)
    drawn = _resamples(len(values), resamples, seed)
    found = []
    for start in range(0, resamples, _CHUNK):
        rows = values[drawn[start : start + _CHUNK]]
        rows = rows[np.isfinite(rows).any(1)]  # else a resample without a number
        if len(rows):
            found.append(np.stack([np.nanmean(rows, 1), np.nanmedian(rows, 1)]))
    means, medians = np.concatenate(found, 1) if found else np.zeros((2, 0))
    return Summary(
        count,
        missing,
        _estimate(np.nanmean(values), means, count, confidence),
        _estimate(np.nanmedian(values), medians, count, confidence),
    )


def difference(values, reference, resamples: int, seed: int, confidence: float = 0.95) -> Summary:
    """`summarize` of values - reference, both [n] of the same pictures, where both are known."""
    values, reference = np.asarray(values, np.float64), np.asarray(reference, np.float64)
    known = np.isfinite(values) & np.isfinite(reference)
    paired = np.where(known, np.where(known, values, 0) - np.where(known, reference, 0), np.nan)
    return summarize(paired, resamples, seed, confidence)


def of_sets(
    function: Callable[[np.ndarray], float], count: int, seed: int, confidence: float = 0.95
) -> Estimate:
    """function(rows) over all pictures 0 ... count - 1, with the interval of the jackknife.

    function: a number of the pictures at the indices `rows`, e.g. a Fréchet distance, or the
    difference of two. The pictures are divided at random into GROUPS groups (one picture each if
    there are fewer), each of which is left out in turn; the interval is normal, and None below four
    pictures.
    """
    everything = np.arange(count)
    value = float(function(everything))
    if not np.isfinite(value):
        return NOTHING
    if count < 4:
        return Estimate(value)
    shuffled = np.random.default_rng(seed).permutation(count)
    groups = np.array_split(shuffled, min(GROUPS, count))
    without = np.array([function(np.setdiff1d(everything, group)) for group in groups])
    if not np.isfinite(without).all():
        return Estimate(value)
    g = len(groups)
    error = np.sqrt((g - 1) / g * np.sum((without - without.mean()) ** 2))
    reach = statistics.NormalDist().inv_cdf((1 + confidence) / 2) * error
    return Estimate(value, value - reach, value + reach)


def tail(count: int, confidence: float) -> float:
    """The share of resamples left out on each side, of `count` pictures (Hesterberg 2015).

    That of a normal interval whose length is the one of Student's t with the unbiased variance.
    """
    reach = scipy.stats.t.ppf((1 + confidence) / 2, count - 1) * np.sqrt(count / (count - 1))
    return float(scipy.stats.norm.cdf(-reach))


def _estimate(value: Any, resampled: np.ndarray, count: int, confidence: float) -> Estimate:
    if not len(resampled):
        return Estimate(float(value))
    left_out = tail(count, confidence)
    low, high = np.quantile(resampled, (left_out, 1 - left_out))
    return Estimate(float(value), float(low), float(high))
