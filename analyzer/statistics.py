"""Intervals over images: the unit of replication is the image, not the perturbation."""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.estimate import Estimate as Estimate

RESAMPLES = 1000
LEVEL = 0.95
QUANTILES = {"q05": 0.05, "median": 0.5, "q90": 0.9, "q95": 0.95}
"""Statistics that are quantiles, by their names in a summary."""
FEW_IMAGES = 10
"""Below these, no verdict in words and no interval of a mean."""
MEAN_IMAGES = 150
"""From these on, an interval of a mean covers 93 % also of lognormal(1.5) values (docs/statistics.md)."""
POOLED_IMAGES = 100
"""From these on, an interval of a quantile of pooled points covers."""
FLOOR_COPIES = 8
"""Copies of the clean image, over which the noise floor of the log-odds is a range."""
_SKEWED = 0.01
_BATCH = 100  # resamples held at a time
_KEPT = 2000  # images up to which the resamples are kept, 16 MB: every number of a summary takes the same


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


def mean_over_images(values: NDArray[np.float64], *, near_normal: bool = False, seed: int = 0) -> Estimate:
    """Mean over images with its interval, where there is one that covers (docs/statistics.md has the measured table).

    No interval of a mean covers whatever the distribution (Bahadur and Savage, "The nonexistence of certain
    statistical procedures", Annals of Mathematical Statistics 27, 1956), and a small sample that missed the tail looks
    like one without a tail. From 150 images on (MEAN_IMAGES), the interval holds both Student's t and the bootstrap-t
    interval (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, 12.5): the wider claim on either side. From
    10 images on (FEW_IMAGES) Student's t alone, for a quantity that is known to be nearly normal from image to image.

    Args:
        values: (image,), in any unit.
        near_normal: Whether the quantity is bounded and averages over much within an image, as Mantel's r does.
        seed: Of the resamples.

    Returns:
        In the unit of `values`. NaN leaves an image out, also of n; without any image all is NaN. No interval with
        fewer images; where all are equal, which says nothing about their spread; where resamples without any spread
        leave the bootstrap-t unbounded; and, below 150 images, where the skewness test (D'Agostino, Biometrika 57,
        1970) rejects what `near_normal` says, p < 0.01.

    >>> mean = mean_over_images(np.arange(11.0), near_normal=True)
    >>> mean.value, mean.low < 5 < mean.high, mean.n
    (5.0, True, 11)
    >>> mean_over_images(np.arange(11.0))
    Estimate(value=5.0, low=nan, high=nan, n=11)
    """
    from scipy.special import stdtrit
    from scipy.stats import skewtest

    defined = np.asarray(values, dtype=np.float64)
    defined = defined[np.isfinite(defined)]
    n = int(defined.size)
    if n == 0:
        return Estimate(np.nan, np.nan, np.nan, 0)
    value = float(defined.mean())
    none = Estimate(value, np.nan, np.nan, n)
    if n < (FEW_IMAGES if near_normal else MEAN_IMAGES) or np.ptp(defined) == 0:
        return none
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2) * defined.std(ddof=1) / math.sqrt(n))
    if n < MEAN_IMAGES:
        return Estimate(value, value - half, value + half, n) if skewtest(defined).pvalue >= _SKEWED else none
    low, high = _bootstrap_t(defined, seed)
    if not (math.isfinite(low) and math.isfinite(high)):
        return none
    return Estimate(value, min(low, value - half), max(high, value + half), n)


def _bootstrap_t(values: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Ends of the bootstrap-t interval of the mean; infinite or NaN where too many resamples are constant."""
    n, deviations = len(values), values - values.mean()
    studentised = []
    for weights in resample_counts(n, seed=seed):
        shift = weights @ deviations / n
        spread = np.sqrt(np.maximum(weights @ deviations**2 / n - shift**2, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            studentised.append(np.where(spread > 1e-6 * np.abs(shift), shift / spread, np.copysign(np.inf, shift)))
    with np.errstate(invalid="ignore"):
        first, last = np.quantile(np.concatenate(studentised), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(values.mean() - last * deviations.std()), float(values.mean() - first * deviations.std())


def mean_share(values: NDArray[np.float64]) -> Estimate:
    """Mean over images of a share in 0..1 within each: values (image,), NaN left out.

    Below 150 images, or where that has no interval, Wilson's interval as if whole images were counted: of all values in
    0..1 with a given mean, 0 and 1 spread most (Hoeffding, "On the distribution of the number of successes in
    independent trials", Annals of Mathematical Statistics 27, 1956), so it is at least as wide as need be. From 150
    images on that of `mean_over_images`. All NaN without any image.

    >>> value, low, high, n = mean_share(np.full(12, 1.0))
    >>> f"{value} ({low:.3f} to {high:.3f}) of {n}"
    '1.0 (0.758 to 1.000) of 12'
    """
    from scipy.special import ndtri

    estimate = mean_over_images(values)
    if estimate.n == 0 or math.isfinite(estimate.low):
        return estimate
    value, n, square = estimate.value, estimate.n, float(ndtri((1 + LEVEL) / 2)) ** 2
    centre = (value + square / (2 * n)) / (1 + square / n)
    half = math.sqrt(square * value * (1 - value) / n + square**2 / (4 * n * n)) / (1 + square / n)
    return Estimate(value, max(centre - half, 0.0), min(centre + half, 1.0), n)


def quantile_over_images(values: NDArray[np.float64], quantile: float, *, censored: bool = False) -> Estimate:
    """A quantile over images with its order-statistic interval, which holds for any distribution.

    The interval runs between the order statistics that the binomial distribution names (David and Nagaraja, Order
    Statistics, 2003, 7.1).

    Args:
        values: (image,), in any unit.
        quantile: Which one, 0..1; interpolated between values.
        censored: Whether infinite values lie above or below all others and count by their rank; else they are left out.

    Returns:
        In the unit of `values`. NaN leaves an image out, also of n; without any image all is NaN. No interval where
        the sample is too small to have one: below 6 images for the median, below 36 for the 90th percentile. Infinite
        where it is that of infinite values.

    >>> quantile_over_images(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), 0.5)
    Estimate(value=3.5, low=1.0, high=6.0, n=6)
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64)[~np.isnan(values) if censored else np.isfinite(values)])
    n = int(ordered.size)
    if n == 0:
        return Estimate(np.nan, np.nan, np.nan, 0)
    place = quantile * (n - 1)
    lower, upper = float(ordered[math.floor(place)]), float(ordered[math.ceil(place)])
    if lower != upper and math.isfinite(lower) and math.isfinite(upper):
        value = float(np.quantile(ordered, quantile))
    else:
        value = lower if lower == -np.inf else upper
    ranks = _ranks(n, quantile)
    if ranks is None:
        return Estimate(value, np.nan, np.nan, n)
    return Estimate(value, float(ordered[ranks[0] - 1]), float(ordered[ranks[1] - 1]), n)


def pooled_quantiles(values: NDArray[np.float64], quantiles: tuple[float, ...]) -> list[Estimate]:
    """Quantiles of all points of all images, with intervals by Woodruff's method.

    Woodruff, "Confidence intervals for medians and other position measures", JASA 47, 1952: the share of all points
    that lie at or below the quantile q is a ratio of sums over images; from its variance v follow the q (1 - q) / v
    independent points that the images are worth, and from these the order statistics, as in `quantile_over_images`.

    Args:
        values: (image, point), in any unit; NaN is left out.
        quantiles: Which ones, 0..1.

    Returns:
        One for each quantile (inverse of the empirical distribution), in the unit of `values`; n counts the images with
        any point. All NaN without any point, no interval below 100 images (POOLED_IMAGES): it would claim too much.

    >>> pooled_quantiles(np.array([[1.0, 2.0], [3.0, np.nan]]), (0.5,))
    [Estimate(value=2.0, low=nan, high=nan, n=2)]
    """
    finite = np.isfinite(values)
    pool = np.sort(values[finite])
    points = finite.sum(axis=1)
    images = int((points > 0).sum())
    if pool.size == 0:
        return [Estimate(np.nan, np.nan, np.nan, 0)] * len(quantiles)
    result = []
    for quantile in quantiles:
        value = pool[_place(quantile, pool.size)]
        low = high = np.nan
        if images >= POOLED_IMAGES:
            excess = ((values <= value) & finite).sum(axis=1) - quantile * points
            excess = (excess - excess.mean())[points > 0]
            variance = float((excess**2).sum()) * images / (images - 1) / pool.size**2
            worth = int(min(quantile * (1 - quantile) / variance, pool.size)) if variance > 0 else pool.size
            ranks = _ranks(worth, quantile)
            if ranks is not None:
                low, high = (float(pool[_place(rank / worth, pool.size)]) for rank in ranks)
        result.append(Estimate(float(value), low, high, images))
    return result


def _place(share: float, size: int) -> int:
    """Index of the order statistic at which a share of `size` sorted points is reached."""
    return min(max(0, math.ceil(share * size - 1e-9) - 1), size - 1)


@lru_cache(maxsize=1024)
def _ranks(n: int, quantile: float) -> tuple[int, int] | None:
    """Ranks, from 1, of the order statistics around a quantile of n values; None where n is too small."""
    from scipy.stats import binom

    low = int(binom.ppf((1 - LEVEL) / 2, n, quantile)) if n else 0
    high = int(binom.ppf((1 + LEVEL) / 2, n, quantile)) + 1 if n else 1
    return (low, high) if low >= 1 and high <= n else None


def from_moments(
    moments: NDArray[np.float64], function: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> list[Estimate]:
    """Values that follow from sums over images, without an interval.

    moments: (image, m), summed over images and handed to `function`, (m,) -> (k,); one Estimate for each k, n the
    images whose first moment is above 0.
    """
    used = moments[moments[:, 0] > 0]
    return [Estimate(float(value), np.nan, np.nan, len(used)) for value in function(used.sum(axis=0))]


def resample_counts(images: int, *, seed: int = 0) -> Iterator[NDArray[np.float64]]:
    """How often each image is drawn in each of 1,000 bootstrap resamples, 100 at a time: (100, images) each."""
    if images <= _KEPT:
        yield from _kept_counts(images, seed)
    else:
        yield from _drawn_counts(images, seed)


@lru_cache(maxsize=2)
def _kept_counts(images: int, seed: int) -> tuple[NDArray[np.float64], ...]:
    return tuple(_drawn_counts(images, seed))


def _drawn_counts(images: int, seed: int) -> Iterator[NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    for _ in range(0, RESAMPLES, _BATCH):
        yield rng.multinomial(images, np.full(images, 1.0 / images), size=_BATCH).astype(np.float64)


def reference_mantel(x: NDArray[np.float64], y: NDArray[np.float64], *, permutations: int) -> tuple[float, float]:
    """scikit-bio's Mantel r and two-sided p of two (T, T) distance matrices: the independent check of our kernel."""
    from skbio.stats.distance import mantel

    r, p, _ = mantel(x, y, method="pearson", permutations=permutations, alternative="two-sided", seed=0)
    return float(r), float(p)


@lru_cache(maxsize=64)
def expected_range(n: int) -> float:
    """Mean of the largest minus the smallest of n standard normal values: integral of 1 - F^n - (1 - F)^n.

    Tippett, "On the extreme individuals and the range of samples taken from a normal population", Biometrika 17, 1925.

    >>> round(expected_range(2), 4), round(expected_range(100), 4)
    (1.1284, 5.0152)
    """
    from scipy.integrate import quad
    from scipy.stats import norm

    return float(2 * quad(lambda x: 1 - norm.cdf(x) ** n - norm.sf(x) ** n, 0, 40, limit=200)[0])


def rounding_range_factor(trials: int) -> float:
    """How many noise floors a range over so many trials has to exceed to be more than rounding.

    Twice the floor, which is a range over 8 copies of the clean image, times the expected range of so many normal
    values over that of 8: 2 up to 8 trials, 3.5 for 100, 4.6 for 1,000.

    >>> [round(rounding_range_factor(trials), 2) for trials in (3, 8, 100, 1000)]
    [2.0, 2.0, 3.52, 4.55]
    """
    return 2 * max(1.0, expected_range(trials) / expected_range(FLOOR_COPIES))
