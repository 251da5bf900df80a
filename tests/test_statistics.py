"""Intervals: known formulas, coverage, degenerate cases."""

import numpy as np
import pytest

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


def test_bootstrap_interval_covers_the_mean(rng):
    hits = sum(
        low <= 0 <= high
        for low, high in ((e.low, e.high) for e in (S.over_images(rng.normal(size=40), np.mean) for _ in range(200)))
    )
    assert 180 <= hits <= 199


def test_too_few_images_have_no_interval_and_equal_ones_a_point():
    one = S.over_images(np.array([3.0, np.nan]), np.median)
    assert one[:1] + one[3:] == (3.0, 1)
    assert np.isnan(one.low)
    equal = S.over_images(np.full(5, 2.0), np.mean)
    assert equal.value == 2.0
    assert np.isnan(equal.low)
    assert S.over_images(np.full(3, np.nan), np.mean).n == 0
    assert np.isfinite(S.over_images(np.array([1.0, 1.0, 1.0, 2.0]), np.median).high)


def test_mean_share_is_wilsons_where_all_agree():
    assert S.mean_share(np.ones(4)) == S.share(np.ones(4))
    assert S.mean_share(np.array([0.5, 1.0, 1.0])).low < 1


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
    values = rng.normal(size=(50, 200))
    values[0, :10] = np.nan
    estimates = S.pooled_quantiles(values, (0.05, 0.5, 0.95))
    for estimate, quantile in zip(estimates, (0.05, 0.5, 0.95), strict=True):
        assert estimate.value == np.quantile(values[np.isfinite(values)], quantile, method="inverted_cdf")
        assert estimate.low < estimate.value < estimate.high
        assert estimate.n == 50
    spread = S.pooled_quantiles(values + rng.normal(size=(50, 1)) * 3, (0.5,))[0]
    assert spread.high - spread.low > 5 * (estimates[1].high - estimates[1].low)
    assert np.isnan(S.pooled_quantiles(values[:1], (0.5,))[0].low)
    assert S.pooled_quantiles(np.full((3, 4), np.nan), (0.5,))[0].n == 0


def test_pooled_interval_agrees_with_resampling_the_points_themselves(rng):
    values = rng.lognormal(size=(30, 40)) * rng.lognormal(size=(30, 1))
    fast = S.pooled_quantiles(values, (0.5,))[0]
    slow = [np.median(values[rng.integers(0, 30, 30)]) for _ in range(2000)]
    low, high = np.quantile(slow, [0.025, 0.975])
    assert fast.low == pytest.approx(low, rel=0.08)
    assert fast.high == pytest.approx(high, rel=0.08)


def test_estimates_from_sums(rng):
    x = rng.normal(size=(25, 10))
    sums = np.stack([np.full(25, 10.0), x.sum(axis=1)], axis=1)
    (estimate,) = S.from_moments(sums, lambda s: s[..., 1:2] / s[..., :1])
    assert estimate.value == pytest.approx(x.mean())
    assert estimate.low < estimate.value < estimate.high
    (alone,) = S.from_moments(sums[:1], lambda s: s[..., 1:2] / s[..., :1])
    assert np.isnan(alone.low)
