"""Intervals and distances of sets equal slow versions and SciPy."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from jaxinv import settings
from jaxinv.errors import JaxinvError
from jaxinv.experiments import comparison_table
from jaxinv.metrics import distributions, statistics


def slow_bootstrap(values, resamples, seed, confidence):
    """One resample after the other, with what is not known left out."""
    drawn = np.random.default_rng(seed).integers(
        len(values), size=(resamples, len(values)), dtype=np.int32
    )
    means, medians = [], []
    for rows in drawn:
        known = [values[i] for i in rows if math.isfinite(values[i])]
        if known:
            means.append(sum(known) / len(known))
            medians.append(np.median(known))
    # Hesterberg 2015: Phi(-sqrt(n / (n - 1)) t) on each side.
    count = np.isfinite(values).sum()
    t = scipy.stats.t(count - 1).isf((1 - confidence) / 2)
    low = scipy.stats.norm.sf(t * np.sqrt(count / (count - 1)))
    tails = [low, 1 - low]
    return np.quantile(means, tails), np.quantile(medians, tails)


def test_intervals_equal_the_slow_bootstrap():
    values = np.random.RandomState(0).randn(17)
    values[[3, 8]] = np.nan
    found = statistics.summarize(values, 301, 5, 0.9)
    mean, median = slow_bootstrap(values, 301, 5, 0.9)
    np.testing.assert_allclose(found.mean[1:], mean, rtol=1e-12)
    np.testing.assert_allclose(found.median[1:], median, rtol=1e-12)
    assert (found.count, found.missing) == (15, 2)
    assert found.mean.value == pytest.approx(np.nanmean(values))
    assert found.median.value == pytest.approx(np.nanmedian(values))


def test_infinite_values_are_missing_and_nothing_is_none():
    found = statistics.summarize([np.inf, 2.0], 50, 0)
    assert (found.count, found.missing, found.mean) == (1, 1, (2.0, None, None))
    none = statistics.summarize([np.nan, np.nan], 50, 0)
    assert none == (0, 2, statistics.NOTHING, statistics.NOTHING)


def test_equal_values_have_no_interval():
    found = statistics.summarize([101.5, np.nan, 101.5, 101.5], 50, 0)
    assert (found.count, found.missing) == (3, 1)
    assert found.mean == found.median == (101.5, None, None)
    assert statistics.summarize([101.5, 101.6], 50, 0).mean.low is not None


def test_intervals_hold_the_truth_as_often_as_they_say():
    random = np.random.RandomState(1)
    held = 0
    for i in range(200):
        found = statistics.summarize(random.randn(40) + 3, 400, i, 0.9)
        held += found.mean.low <= 3 <= found.mean.high
    assert 0.82 <= held / 200 <= 0.96


@pytest.mark.parametrize('count, least', [(4, 0.85), (6, 0.92)])
def test_intervals_of_few_pictures_hold_the_truth_almost_as_often(count, least):
    random = np.random.RandomState(3)
    held = 0
    for i in range(250):  # plain percentiles: 0.79 of four, 0.86 of six
        found = statistics.summarize(random.randn(count), 1000, i)
        held += found.mean.low <= 0 <= found.mean.high
    assert least <= held / 250 <= 0.98


def test_the_difference_is_paired():
    random = np.random.RandomState(2)
    base = 10 * random.randn(30)  # spread of the pictures, far above the difference
    other = base + 0.1 + 0.01 * random.randn(30)
    other[4] = np.nan
    found = statistics.difference(other, base, 500, 0)
    assert found.count == 29 and found.missing == 1
    assert 0.09 < found.mean.low < found.mean.value < found.mean.high < 0.11
    assert statistics.difference(base, base, 50, 0).mean == (0.0, None, None)


@pytest.mark.parametrize(('n', 'm', 'd'), [(40, 30, 5), (6, 9, 20), (50, 50, 8)])
def test_frechet_equals_scipys_matrix_square_root(n, m, d):
    random = np.random.RandomState(n)
    x, y = random.randn(n, d) @ random.randn(d, d), random.randn(m, d) + 0.5
    first, second = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    # The square root of a symmetric matrix inside: stable where the product is singular.
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    values = np.linalg.eigvalsh(root @ second @ root)
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(first) + np.trace(second)
    expected -= 2 * np.sqrt(np.maximum(values, 0)).sum()
    assert distributions.frechet(x, y) == pytest.approx(expected, rel=1e-6)
    if min(n, m) > d:
        product = scipy.linalg.sqrtm(first @ second)
        other = np.sum((x.mean(0) - y.mean(0)) ** 2)
        other += np.trace(first + second - 2 * np.real(product))
        assert distributions.frechet(x, y) == pytest.approx(other, rel=1e-8)
    assert distributions.frechet(x, x) == pytest.approx(0, abs=1e-9 * np.trace(first))


def test_the_kernel_distance_equals_the_sum_over_pairs():
    random = np.random.RandomState(3)
    x, y = random.randn(7, 4), random.randn(5, 4) + 0.3

    def kernel(a, b):
        return (a @ b / 4 + 1) ** 3

    expected = sum(kernel(x[i], x[j]) for i in range(7) for j in range(7) if i != j) / 42
    expected += sum(kernel(y[i], y[j]) for i in range(5) for j in range(5) if i != j) / 20
    expected -= 2 * np.mean([kernel(a, b) for a in x for b in y])
    assert distributions.kernel(x, y) == pytest.approx(expected, rel=1e-12)
    many = [distributions.kernel(random.randn(10, 4), random.randn(10, 4)) for _ in range(300)]
    assert abs(np.mean(many)) < 4 * np.std(many) / np.sqrt(300)  # unbiased
    assert math.isnan(distributions.kernel(x[:1], y)) and math.isnan(
        distributions.frechet(x[:1], y)
    )
    with pytest.raises(JaxinvError, match=r'\[7, 4\] and \[5, 3\]'):
        distributions.frechet(x, y[:, :3])


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.RandomState(4).randn(15)
    found = statistics.of_sets(lambda rows: values[rows].mean(), 15, 0)
    reach = 1.959964 * values.std(ddof=1) / np.sqrt(15)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.value == pytest.approx(reach, rel=1e-6)
    assert statistics.of_sets(lambda rows: float(len(rows)), 3, 0) == (3.0, None, None)


def test_differences_of_sets_are_over_the_pictures_of_both():
    random = np.random.RandomState(5)
    targets = random.randn(12, 3)
    good, bad = targets + 0.1 * random.randn(12, 3), targets + 2.0
    rows = list(range(12))
    features = {
        'good': {'net': comparison_table.Features(targets, good, rows)},
        'bad': {'net': comparison_table.Features(targets[2:], bad[2:], rows[2:])},
    }
    found = comparison_table.set_summaries(features, 'good', 12, settings.Statistics())
    entry = found['bad']['frechet_net']
    assert (entry['count'], entry['missing'], entry['difference']['count']) == (10, 2, 10)
    expected = distributions.frechet(targets[2:], bad[2:])
    expected -= distributions.frechet(targets[2:], good[2:])
    assert entry['difference']['mean'][0] == pytest.approx(expected)
    assert entry['difference']['mean'][1] > 0
    assert 'difference' not in found['good']['kernel_net']


def test_best_median_and_worst():
    chosen = comparison_table.best_median_worst
    assert chosen([3.0, np.nan, 1.0, 2.0], -1) == {'best': 2, 'median': 3, 'worst': 0}
    assert chosen([3.0, np.nan, 1.0, 2.0], 1) == {'best': 0, 'median': 3, 'worst': 2}
    assert chosen([3.0, 1.0], -1) == {'best': 1, 'worst': 0}
    assert chosen([3.0], -1) == {'best': 0} and chosen([np.nan], -1) == {}
