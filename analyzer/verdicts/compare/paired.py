"""Paired statistics over images: the sign test, Holm's correction, and what may be said of a difference."""

from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np

from analyzer.measures.quantities import Array
from analyzer.statistics import FEW_IMAGES, Estimate, quantile_over_images

ALPHA = 0.05


class PairedDifference(NamedTuple):
    """second - first: its median over images with the interval; on how many images it is above and below 0; p."""

    estimate: Estimate
    above: int
    below: int
    p: float


class Difference(TypedDict):
    """The same as JSON, with p after Holm and whether it is one; NaN where undefined."""

    difference: float
    low: float
    high: float
    n: int
    above: int
    below: int
    p: float
    p_holm: float
    distinguishable: bool | None


class Judged(Difference):
    """A difference, and why there is no verdict on it."""

    reason: str | None


class Pair(Judged):
    """A difference of two runs, by their names."""

    first: str
    second: str


class Entry(TypedDict):
    """All runs at one radius, or over all: images, median (of shares: mean) of each run, every pair's difference."""

    n: int
    values: dict[str, float]
    pairs: list[Pair]


def sign_test_p(above: int, below: int) -> float:
    """Two-sided p of as many differences above 0 as below: exact, whatever the distribution.

    Binomial with share 1/2, differences of 0 left out (Arbuthnott 1710; Dixon and Mood, "The statistical sign test",
    JASA 41, 1946). For a flag it is McNemar's test. 1 where all differences are 0.

    >>> sign_test_p(10, 2) == sign_test_p(2, 10), round(sign_test_p(10, 2), 4), sign_test_p(0, 0)
    (True, 0.0386, 1.0)
    """
    from scipy.stats import binomtest

    return float(binomtest(above, above + below).pvalue) if above + below else 1.0


def centre(values: Array, *, shares: bool) -> float:
    """Median of the known values, (image,) -> number; of shares the mean. NaN where none is known."""
    defined = values[np.isfinite(values)]
    if not defined.size:
        return np.nan
    return float(defined.mean() if shares else np.median(defined))


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm, Scandinavian Journal of Statistics 6, 1979); NaN stays, uncounted."""
    values = np.asarray(p, dtype=np.float64)
    order = [k for k in np.argsort(values, kind="stable") if np.isfinite(values[k])]
    corrected, highest = values.copy(), 0.0
    for rank, k in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * float(values[k])))
        corrected[k] = highest
    return [float(v) for v in corrected]


def differences(first: Array, second: Array, *, shares: bool = False) -> list[PairedDifference]:
    """Paired difference second - first of each column: (image, k) twice -> k of them. NaN is left out.

    The estimate is the median with its order-statistic interval; of shares the mean, without an interval: the sign test
    alone tells. p is NaN where no difference is known.
    """
    result = []
    for column in (second - first).T:
        known = column[np.isfinite(column)]
        estimate = quantile_over_images(known, 0.5)
        if shares:
            estimate = Estimate(centre(known, shares=True), np.nan, np.nan, int(known.size))
        above, below = int((known > 0).sum()), int((known < 0).sum())
        result.append(PairedDifference(estimate, above, below, sign_test_p(above, below) if known.size else np.nan))
    return result


def distinguishable(estimate: Estimate, p: float) -> bool | None:
    """Whether a difference is one: corrected p at most 0.05 and an interval without 0. None: too few images to tell.

    Where there is no interval, as for shares, p decides.
    """
    if estimate.n < FEW_IMAGES:
        return None
    straddles = bool(np.isfinite(estimate.low) and estimate.low <= 0 <= estimate.high)
    return bool(p <= ALPHA) and not straddles


def compared(
    values: Sequence[Array], pairs: Sequence[tuple[int, int]], *, shares: bool = False
) -> list[list[Difference]]:
    """Every pair of runs in every column: (image, k) a run -> for each column one entry a pair, Holm over the pairs."""
    by_pair = [differences(values[a], values[b], shares=shares) for a, b in pairs]
    columns: list[list[Difference]] = []
    for column in zip(*by_pair, strict=True):
        corrected = holm([difference.p for difference in column])
        columns.append(
            [
                {
                    "difference": d.estimate.value,
                    "low": d.estimate.low,
                    "high": d.estimate.high,
                    "n": d.estimate.n,
                    "above": d.above,
                    "below": d.below,
                    "p": d.p,
                    "p_holm": q,
                    "distinguishable": distinguishable(d.estimate, q),
                }
                for d, q in zip(column, corrected, strict=True)
            ]
        )
    return columns
