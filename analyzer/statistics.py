"""Intervals over images: the unit of replication is the image, not the perturbation."""

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
LEVEL = 0.95
QUANTILES = {"q05": 0.05, "median": 0.5, "q90": 0.9, "q95": 0.95}
"""Statistics that are quantiles, by their names in a summary."""
FEW_IMAGES = 10  # below these a bootstrap interval covers far less than it says: no verdict, no pooled interval
_GRID = 1024
_BATCH = 100  # resamples held at a time


class Estimate(NamedTuple):
    """A value with its 95 % interval and the number of images (or points) behind it; NaN where undefined."""

    value: float
    low: float
    high: float
    n: int


def share(flags: NDArray[Any]) -> Estimate:
    """Share of images for which a flag holds, with Wilson's interval.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.

    Args:
        flags: (image,), 0 or 1, NaN where unknown.

    Returns:
        The share, 0..1. NaN leaves an image out, also of n; without any image all is NaN.

    >>> value, low, high, n = share(np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0, np.nan]))
    >>> f"{value} ({low:.3f} to {high:.3f}) of {n}"
    '0.5 (0.237 to 0.763) of 10'
    """
    from scipy.stats import binomtest

    values = np.asarray(flags, dtype=np.float64)
    defined = values[np.isfinite(values)]
    if defined.size == 0:
        return Estimate(np.nan, np.nan, np.nan, 0)
    interval = binomtest(int(defined.sum()), defined.size).proportion_ci(LEVEL, method="wilson")
    return Estimate(float(defined.mean()), float(interval.low), float(interval.high), int(defined.size))


def over_images(values: NDArray[np.float64], statistic: Callable[..., Any], *, seed: int = 0) -> Estimate:
    """A statistic over images with its bootstrap interval.

    BCa (Efron, "Better bootstrap confidence intervals", JASA 82, 1987); the percentile interval where BCa
    degenerates. Fine for means; quantiles have `quantile_over_images`. With few images from a skewed distribution it
    is optimistic.

    Args:
        values: (image,), in any unit.
        statistic: Takes (values, axis=...), such as np.mean.
        seed: Of the resamples.

    Returns:
        In the unit of `values`. NaN leaves an image out, also of n; without any image all is NaN. No interval below
        two images, or where all are equal: equal values say nothing about their spread.

    >>> mean = over_images(np.arange(11.0), np.mean)
    >>> mean.value, mean.low < 5 < mean.high, mean.n
    (5.0, True, 11)
    >>> over_images(np.array([2.0, 2.0, np.nan]), np.mean)
    Estimate(value=2.0, low=nan, high=nan, n=2)
    """
    from scipy.stats import bootstrap

    defined = np.asarray(values, dtype=np.float64)
    defined = defined[np.isfinite(defined)]
    if defined.size == 0:
        return Estimate(np.nan, np.nan, np.nan, 0)
    value = float(statistic(defined, axis=-1))
    if defined.size < 2:
        return Estimate(value, np.nan, np.nan, int(defined.size))
    if np.ptp(defined) == 0:
        return Estimate(value, np.nan, np.nan, int(defined.size))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns where BCa degenerates, and gives NaN: looked for below
        rng = np.random.default_rng(seed)
        resampled = bootstrap((defined,), statistic, n_resamples=RESAMPLES, batch=_BATCH, method="BCa", rng=rng)
    low, high = resampled.confidence_interval
    if not (np.isfinite(low) and np.isfinite(high)):
        low, high = _percentiles(resampled.bootstrap_distribution)
    return Estimate(value, float(low), float(high), int(defined.size))


def mean_share(values: NDArray[np.float64]) -> Estimate:
    """Mean over images of a share in 0..1 within each. values: (image,); Wilson's interval where all are 0 or all 1."""
    defined = values[np.isfinite(values)]
    if defined.size and np.ptp(defined) == 0 and defined[0] in (0.0, 1.0):
        return share(values)
    return over_images(values, np.mean)


def quantile_over_images(values: NDArray[np.float64], quantile: float) -> Estimate:
    """A quantile over images with its order-statistic interval, which holds for any distribution.

    The interval runs between the order statistics that the binomial distribution names (David and Nagaraja, Order
    Statistics, 2003, 7.1).

    Args:
        values: (image,), in any unit.
        quantile: Which one, 0..1; interpolated between values.

    Returns:
        In the unit of `values`. NaN leaves an image out, also of n; without any image all is NaN. No interval where
        the sample is too small to have one: below 6 images for the median, below 36 for the 90th percentile.

    >>> quantile_over_images(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), 0.5)
    Estimate(value=3.5, low=1.0, high=6.0, n=6)
    """
    from scipy.stats import binom

    ordered = np.sort(np.asarray(values, dtype=np.float64)[np.isfinite(values)])
    n = int(ordered.size)
    if n == 0:
        return Estimate(np.nan, np.nan, np.nan, 0)
    value = float(np.quantile(ordered, quantile))
    low = int(binom.ppf((1 - LEVEL) / 2, n, quantile))
    high = int(binom.ppf((1 + LEVEL) / 2, n, quantile)) + 1
    if low < 1 or high > n:
        return Estimate(value, np.nan, np.nan, n)
    return Estimate(value, float(ordered[low - 1]), float(ordered[high - 1]), n)


def pooled_quantiles(values: NDArray[np.float64], quantiles: tuple[float, ...], *, seed: int = 0) -> list[Estimate]:
    """Quantiles of all points of all images, percentile bootstrap over images.

    The values are exact (inverse of the empirical distribution); the intervals resample images and read the quantile
    off each image's counts at 1,024 pooled order statistics, so that they cost one matrix product instead of a sort a
    resample. With few images they are optimistic in the tails.

    Args:
        values: (image, point), in any unit; NaN is left out.
        quantiles: Which ones, 0..1.
        seed: Of the resamples.

    Returns:
        One for each quantile, in the unit of `values`; n counts the images with any point. All NaN without any point,
        no interval below 10 images (FEW_IMAGES).

    >>> pooled_quantiles(np.array([[1.0, 2.0], [3.0, np.nan]]), (0.5,))
    [Estimate(value=2.0, low=nan, high=nan, n=2)]
    """
    finite = np.isfinite(values)
    pool = values[finite]
    pool.sort()
    images = int(finite.any(axis=1).sum())
    if pool.size == 0:
        return [Estimate(np.nan, np.nan, np.nan, 0)] * len(quantiles)
    exact = [pool[max(0, math.ceil(q * pool.size - 1e-9) - 1)] for q in quantiles]
    if images < FEW_IMAGES:
        return [Estimate(float(v), np.nan, np.nan, images) for v in exact]
    grid = quantile_grid(pool)
    del pool
    resampled = resampled_quantiles(values, grid, quantiles, seed=seed)
    bounds = map(_percentiles, resampled)
    return [Estimate(float(v), float(low), float(high), images) for v, (low, high) in zip(exact, bounds, strict=True)]


def quantile_grid(pool: NDArray[Any]) -> NDArray[Any]:
    """Up to 1,024 order statistics of sorted points, at which a resampled quantile is read off: (n,) -> (g,)."""
    return np.unique(pool[np.linspace(0, pool.size - 1, _GRID).round().astype(int)])


def resampled_quantiles(
    values: NDArray[Any], grid: NDArray[Any], quantiles: tuple[float, ...], *, seed: int = 0
) -> NDArray[Any]:
    """Pooled quantiles of each bootstrap resample of the images, read off the grid: (image, point) -> (quantile, 1000).

    NaN is left out.
    """
    finite = np.isfinite(values)
    counts = np.empty((len(values), len(grid)))
    for count, row, row_finite in zip(counts, values, finite, strict=True):
        count[:] = np.searchsorted(np.sort(row[row_finite]), grid, side="right")
    total = finite.sum(axis=1)
    reached = []
    for weights in resample_counts(len(values), seed=seed):
        below, totals = weights @ counts, weights @ total
        reached.append([(below >= q * totals[:, None] - 1e-9).argmax(axis=1) for q in quantiles])
    return np.asarray(grid[np.concatenate(reached, axis=1)])


def from_moments(
    moments: NDArray[np.float64], function: Callable[[NDArray[np.float64]], NDArray[np.float64]], *, seed: int = 0
) -> list[Estimate]:
    """Estimates that follow from sums over images, percentile bootstrap over images.

    moments: (image, m), summed over images and handed to `function`, (..., m) -> (..., k); one Estimate for each k.
    """
    used = moments[moments[:, 0] > 0]
    values = function(used.sum(axis=0))
    if len(used) < 2:
        return [Estimate(float(v), np.nan, np.nan, len(used)) for v in values]
    resampled = np.concatenate([function(weights @ used) for weights in resample_counts(len(used), seed=seed)])
    result = []
    for k, value in enumerate(values):
        low, high = _percentiles(resampled[:, k])
        result.append(Estimate(float(value), float(low), float(high), len(used)))
    return result


def resample_counts(images: int, *, seed: int = 0) -> Iterator[NDArray[np.float64]]:
    """How often each image is drawn in each of 1,000 bootstrap resamples, 100 at a time: (100, images) each."""
    rng = np.random.default_rng(seed)
    for _ in range(0, RESAMPLES, _BATCH):
        yield rng.multinomial(images, np.full(images, 1.0 / images), size=_BATCH).astype(np.float64)


def reference_mantel(x: NDArray[np.float64], y: NDArray[np.float64], *, permutations: int) -> tuple[float, float]:
    """scikit-bio's Mantel r and two-sided p of two (T, T) distance matrices: the independent check of our kernel."""
    from skbio.stats.distance import mantel

    r, p, _ = mantel(x, y, method="pearson", permutations=permutations, alternative="two-sided", seed=0)
    return float(r), float(p)


def _percentiles(distribution: NDArray[np.float64]) -> NDArray[np.float64]:
    finite = distribution[np.isfinite(distribution)]
    if finite.size == 0:
        return np.array([np.nan, np.nan])
    return np.asarray(np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
