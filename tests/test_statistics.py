"""Intervals: known formulas, coverage, degenerate cases."""

import numpy as np
import pytest
import scipy.stats

from analyzer import statistics as S


def test_wilson_interval_by_its_formula():
    flags = np.array([1.0] * 3 + [0.0] * 17 + [np.nan])
    z, n, p = 1.959963984540054, 20, 0.15
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert S.share(flags) == pytest.approx((p, centre - half, centre + half, 20))
    none = S.share(np.array([np.nan]))
    assert none.n == 0
    assert np.isnan(none.value)


def test_means_of_few_images_have_an_interval_only_where_it_covers(rng):
    few, skewed = rng.normal(size=12), np.array([0.0] * 10 + [1.0, 5.0])
    assert np.isnan(S.mean_over_images(few).low)  # such a sample may have missed a tail
    assert np.isnan(S.mean_over_images(skewed, near_normal=True).low)
    seen = S.mean_over_images(few, near_normal=True)
    low, high = scipy.stats.t.interval(0.95, 11, loc=few.mean(), scale=scipy.stats.sem(few))
    assert seen == pytest.approx((few.mean(), low, high, 12))
    assert np.isnan(S.mean_over_images(few[:9], near_normal=True).low)
    one = S.mean_over_images(np.array([3.0, np.nan]))
    assert one[::3] == (3.0, 1)
    assert np.isnan(S.mean_over_images(np.full(200, 2.0)).low)
    assert S.mean_over_images(np.full(3, np.nan)).n == 0


def test_means_of_many_images_hold_students_t_and_the_bootstrap_t(rng):
    values = rng.lognormal(0, 1.5, 160)
    seen = S.mean_over_images(values)
    low, high = scipy.stats.t.interval(0.95, 159, loc=values.mean(), scale=scipy.stats.sem(values))
    assert seen.low == pytest.approx(low)
    assert seen.high > high + 0.1 * (high - low)  # the bootstrap-t sees which way the tail is
    draws = rng.choice(values, (4000, 160))
    studentised = (draws.mean(1) - values.mean()) / draws.std(1)
    assert seen.high == pytest.approx(values.mean() - np.quantile(studentised, 0.025) * values.std(), rel=0.05)
    assert S.mean_over_images(values) == seen
    assert np.isnan(S.mean_over_images(values[:149]).low)
    hidden = np.zeros(160)
    hidden[0] = 1.0
    assert np.isnan(S.mean_over_images(hidden).high)  # a third of the resamples have no spread at all


def test_mean_share_is_wilsons_as_if_images_were_counted():
    assert S.mean_share(np.ones(4)) == pytest.approx(S.share(np.ones(4)))
    assert S.mean_share(np.array([0.5, 0.5, 1.0, 1.0])) == pytest.approx(S.share(np.array([0.0, 1, 1, 1])))
    assert S.mean_share(np.array([np.nan])).n == 0
    many = np.linspace(0.4, 0.6, 200)
    assert S.mean_share(many) == S.mean_over_images(many)


@pytest.mark.parametrize(("quantile", "images"), [(0.5, 12), (0.5, 40), (0.9, 40), (0.9, 100)])
def test_quantile_intervals_cover_whatever_the_distribution(rng, quantile, images):
    true = np.quantile(np.exp(rng.standard_normal(400_000)), quantile)
    hits = [S.quantile_over_images(np.exp(rng.standard_normal(images)), quantile) for _ in range(400)]
    assert np.mean([e.low <= true <= e.high for e in hits]) > 0.93


def test_quantile_intervals_that_cannot_be_had_are_not_given():
    assert np.isnan(S.quantile_over_images(np.arange(5.0), 0.5).low)
    assert np.isfinite(S.quantile_over_images(np.arange(6.0), 0.5).low)
    assert np.isnan(S.quantile_over_images(np.arange(35.0), 0.9).high)
    assert np.isfinite(S.quantile_over_images(np.arange(36.0), 0.9).high)
    assert S.quantile_over_images(np.array([1.0, np.nan, 3.0]), 0.5)[::3] == (2.0, 2)


def test_pooled_quantiles_are_exact_and_their_intervals_widen_with_image_spread(rng):
    values = rng.normal(size=(120, 200))
    values[0, :10] = np.nan
    estimates = S.pooled_quantiles(values, (0.05, 0.5, 0.95))
    for estimate, quantile in zip(estimates, (0.05, 0.5, 0.95), strict=True):
        assert estimate.value == np.quantile(values[np.isfinite(values)], quantile, method="inverted_cdf")
        assert estimate.low < estimate.value < estimate.high
        assert estimate.n == 120
    spread = S.pooled_quantiles(values + rng.normal(size=(120, 1)) * 3, (0.5,))[0]
    assert spread.high - spread.low > 5 * (estimates[1].high - estimates[1].low)
    assert np.isnan(S.pooled_quantiles(values[:99], (0.5,))[0].low)
    assert S.pooled_quantiles(np.full((3, 4), np.nan), (0.5,))[0].n == 0


def test_pooled_intervals_of_images_without_a_spread_are_those_of_the_images(rng):
    levels = rng.lognormal(size=200)
    for quantile in (0.05, 0.5, 0.95):
        (pooled,) = S.pooled_quantiles(np.repeat(levels[:, None], 7, axis=1), (quantile,))
        of_images = S.quantile_over_images(levels, quantile)
        ranks = [np.searchsorted(np.sort(levels), ends) for ends in (pooled[1:3], of_images[1:3])]
        assert np.abs(ranks[0] - ranks[1]).max() <= 1


def test_estimates_from_sums(rng):
    x = rng.normal(size=(25, 10))
    sums = np.stack([np.full(25, 10.0), x.sum(axis=1)], axis=1)
    (estimate,) = S.from_moments(sums, lambda s: s[..., 1:2] / s[..., :1])
    assert estimate.value == pytest.approx(x.mean())
    assert np.isnan(estimate.low)
    assert estimate.n == 25


def test_the_factor_of_the_noise_floor_grows_with_the_trials(rng):
    for n in (8, 100):
        assert S.expected_range(n) == pytest.approx(np.ptp(rng.normal(size=(20_000, n)), axis=1).mean(), rel=0.01)
    assert S.rounding_range_factor(3) == S.rounding_range_factor(8) == 2
    # An exactly symmetric model: both ranges are of the same rounding.
    floor = np.ptp(rng.normal(size=(4000, 8)), axis=1)
    for trials in (100, 1000):
        spread = np.ptp(rng.normal(size=(4000, trials)), axis=1)
        assert np.mean(spread > 2 * floor) > 0.3
        assert np.mean(spread > S.rounding_range_factor(trials) * floor) < 0.05
