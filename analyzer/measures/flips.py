"""How far an image is from a flip, where noise would change its class: no measure, but what the noise's rows tell.

The margin m is the log-odds against the runner-up, the logit of the true class minus the largest other one: it changes
its sign where the class flips. In units of the standard deviation that noise gives it, it does not depend on the scale
of the logits, so that networks can be compared in it; log-odds and their ranges do.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.special import betainc, ndtri

from analyzer.measures import isotropy
from analyzer.measures.base import Table
from analyzer.measures.quantities import FRACTION, HIGHER, LOG_ODDS, LOWER, REACH, Array, Number, Quantity
from analyzer.measures.ranges import misclassified, score_range, within_rounding
from analyzer.measures.variables import Scales
from analyzer.statistics import LEVEL, Estimate

_UPPER = 0.5
"""Radii from this part of the largest one on tell how the margin goes on beyond it."""


def margin_noise_units(margins: NDArray[np.floating]) -> Array:
    """Mean margin over its standard deviation, of the same radius.

    Args:
        margins: (..., trial), log-odds against the runner-up under noise, nat.

    Returns:
        Shape (...), a pure number. Below 0 where most trials are flipped. NaN where a trial is unknown, or all are
        equal.

    >>> margin_noise_units(np.array([2.0, 3.0, 4.0])).tolist()
    3.0
    """
    values = np.asarray(margins, np.float64)
    spread = values.std(axis=-1, ddof=1)
    return np.asarray(values.mean(axis=-1) / np.where(spread > 0, spread, np.nan))


def flip_radius(margins: NDArray[np.floating], clean: float, radii: NDArray[np.floating]) -> float:
    """Radius at which noise would flip one of an image's T trials, by the normal tail.

    There q times the standard deviation of the margin is its mean, q the normal quantile of 1 - 1/T. Of a linear map
    the standard deviation grows in proportion to the radius, so that q * deviation - mean is a straight line from minus
    the clean margin on. Between the measured radii it is interpolated, after an isotonic regression (weights 1/r^2: the
    error of a deviation grows with it), since of T trials it is known with an error of its own at each radius. Beyond
    the largest radius it goes on with the slope of the straight line that fits from half that radius on.

    Args:
        margins: (radius, trial), log-odds against the runner-up under noise, nat.
        clean: That of the clean image, nat.
        radii: (radius,), ascending, grey levels.

    Returns:
        Grey levels. Infinite where it lies above twice the largest radius, minus infinity where below half the
        smallest; NaN where no radius has known margins, or they end too early to tell.

    >>> radii = np.array([1.0, 2.0, 4.0])
    >>> noise = np.linspace(-1.7, 1.7, 101)  # standard deviation 0.995, q = 2.33
    >>> round(flip_radius(6 + radii[:, None] * noise, 6.0, radii), 2)
    2.58
    """
    known = np.isfinite(margins).all(axis=-1)
    if not known.any() or not np.isfinite(clean):
        return np.nan
    values, at = np.asarray(margins, np.float64)[known], np.asarray(radii, np.float64)[known]
    beyond = float(ndtri(1 - 1 / values.shape[1])) * values.std(axis=-1, ddof=1) - values.mean(axis=-1)
    beyond = isotonic_regression(beyond, weights=1 / np.square(at)).x
    crossed = np.flatnonzero(beyond >= 0)
    if crossed.size:
        last = int(crossed[0])
        ends, there = np.array([0.0, *at])[last : last + 2], np.array([-max(clean, 0.0), *beyond])[last : last + 2]
        slope = (there[1] - there[0]) / (ends[1] - ends[0])
        radius = ends[1] - there[1] / slope if slope > 0 else ends[0]
    else:
        upper = at >= _UPPER * at[-1]
        x, y = (
            (at[upper], beyond[upper])
            if upper.sum() > 1
            else (np.array([0.0, at[-1]]), np.array([-clean, *beyond[-1:]]))
        )
        slope = np.polyfit(x, y, 1)[0]
        radius = at[-1] - beyond[-1] / slope if slope > 0 else np.inf
    if radius > REACH * at[-1]:
        return np.inf if at[-1] == radii[-1] else np.nan
    return -np.inf if radius < radii[0] / REACH else float(radius)


def tail_probability(margins: NDArray[np.floating]) -> Array:
    """Probability that noise flips the class, estimated from the margin's mean and deviation as if it were normal.

    The unbiased estimate of Lieberman and Resnikoff, "Sampling plans for inspection by variables", JASA 50, 1955: of n
    trials with mean z deviations above 0, the regularised incomplete beta function at 1/2 - z sqrt(n) / (2 (n - 1)),
    both its parameters n/2 - 1. It is 0 for z above (n - 1) / sqrt(n).

    Args:
        margins: (..., trial), log-odds against the runner-up under noise, nat.

    Returns:
        Shape (...), 0..1. NaN where a trial is unknown; where all are equal 0, 1 or, at a margin of 0, 1/2.

    >>> margins = 2.0 + np.random.default_rng(0).standard_normal(1000)
    >>> f"{tail_probability(margins):.3f}"
    '0.023'
    """
    values = np.asarray(margins, np.float64)
    n = values.shape[-1]
    mean, spread = values.mean(axis=-1), values.std(axis=-1, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(spread > 0, mean / spread, np.where(mean == 0, 0.0, np.copysign(np.inf, mean)))
    place = np.clip(0.5 - z * np.sqrt(n) / (2 * (n - 1)), 0.0, 1.0)
    return np.where(np.isnan(mean), np.nan, betainc(n / 2 - 1, n / 2 - 1, place))


def most_probable(flipped: int, rows: int) -> float:
    """Largest mean probability of a flip that so few flips leave possible, at 95 %: Clopper and Pearson's bound.

    Clopper and Pearson, Biometrika 26, 1934, one-sided; about 3 / rows where none flipped. Of images that each have a
    probability of their own it bounds the mean, as if all had it (Hoeffding 1956, see `statistics.mean_share`).

    >>> f"{most_probable(0, 1200):.4f} {most_probable(2, 1200):.4f}"
    '0.0025 0.0052'
    """
    from scipy.special import betaincinv

    return float(betaincinv(flipped + 1, rows - flipped, LEVEL)) if flipped < rows else 1.0


def _units(margins: Any, floor: Any) -> Array:
    faint = within_rounding(score_range(margins), floor[:, None], trials=margins.shape[-1])
    return np.where(faint, np.nan, margin_noise_units(margins))


def _radius(margins: Any, clean: Any, *, scales: Scales) -> Array:
    radii = np.asarray(scales.radii)
    each = (flip_radius(of_image, float(own), radii) for of_image, own in zip(margins, clean, strict=True))
    return np.fromiter(each, np.float64, len(margins))


def _flipped(predicted: Any, label: Any, margins: Any) -> Array:
    return misclassified(predicted, label[:, None])


def _counts(predicted: Any, label: Any, margins: Any) -> Array:
    """How many of an image's trials are flipped, and of how many: (image, radius, 2)."""
    share, trials = _flipped(predicted, label, margins), predicted.shape[-1]
    return np.stack([share * trials, np.where(np.isnan(share), np.nan, trials)], axis=-1)


def _bound(counts: Array) -> Estimate:
    known = counts[np.isfinite(counts).all(axis=-1)]
    if not len(known):
        return Estimate(np.nan, np.nan, np.nan, 0)
    flipped, rows = (round(float(total)) for total in known.sum(axis=0))
    return Estimate(most_probable(flipped, rows), np.nan, np.nan, len(known))


_MARGIN = isotropy.SCORES.runner_up
_CLASS = (isotropy.SCORES.predicted, "label", _MARGIN)  # runs by earlier versions, without margins, have no flips
UNITS = Quantity(
    "margin_noise_units",
    (_MARGIN, "log_odds_noise_floor"),
    _units,
    more_robust=HIGHER,
    needs=LOG_ODDS,
    title="Margin to the runner-up, in units of what noise does to it",
)
RADIUS = Quantity(
    "flip_radius",
    (_MARGIN, "clean_runner_up_log_odds"),
    _radius,
    "grey level",
    more_robust=HIGHER,
    radial=False,
    uses_scales=True,
    censored=True,
    by_trials=True,
    needs=LOG_ODDS,
    title="Flip radius: where noise would flip one trial",
)
_SHARE = Quantity("flip_probability", _CLASS, _flipped, more_robust=LOWER, kind=FRACTION, needs=LOG_ODDS)
_COUNTED = Quantity("flip_probability_bound", _CLASS, _counts, more_robust=LOWER, points=True, needs=LOG_ODDS)
_TAIL = Quantity("flip_probability_tail", (_MARGIN,), tail_probability, more_robust=LOWER, needs=LOG_ODDS)
TABLE = Table(
    title="How far from a flip: margin to the runner-up, and trials that flip",
    numbers=(
        Number(
            "flip_radius_median",
            RADIUS,
            "median",
            by_radius=False,
            overall=True,
            form=".2g",
            interval=True,
            glance="flip radius",
        ),
        Number(
            "margin_noise_units_median",
            UNITS,
            "median",
            "margin, noise units",
            ".3g",
            interval=True,
            glance="margin, noise units",
            deciding="margin / std dev",
            block=1,
        ),
        Number("margin_noise_units_q05", UNITS, "q05", block=1),
        Number("flip_probability_mean", _SHARE, "mean", "flipped trials", ".2g", block=1),
        Number("flip_probability_bound", _COUNTED, _bound, "at most (95 %)", ".2g", block=1),
        Number("flip_probability_tail_mean", _TAIL, "mean", "by the normal tail", ".2g", block=1),
    ),
    compared=(UNITS, RADIUS),
)
