"""Intervals over images that hold however often one looks: confidence sequences, to stop as soon as enough is known.

Of a fixed number of images an interval may be computed once. Who looks after every image and stops at the first narrow
one is misled more often than it says; these intervals are wide enough for that: with probability 95 % they hold the
true value after every number of images at once (Ville, Étude critique de la notion de collectif, 1939; Robbins,
"Statistical methods related to the law of the iterated logarithm", Annals of Mathematical Statistics 41, 1970).
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.estimate import Estimate
from analyzer.statistics import LEVEL

_LOG = math.log(1 / (1 - LEVEL))
_PRIOR = 8.0
"""Weight of the mixture around a quantile, in images: the interval is narrowest for some 60 images."""


def log_evidence(total: Any, n: Any, p: float, a: float, b: float) -> Any:
    """Log of a beta mixture of likelihoods over that of p, of n values in 0..1 that add up to `total`.

    Under mean p it is a supermartingale that begins with 0, also of values between 0 and 1: exp(t x) is at most
    1 - x + x exp(t) there (Hoeffding 1963). So it ever exceeds log 20 with probability at most 5 %.
    """
    from scipy.special import betaln, xlog1py, xlogy

    mixture = betaln(a + total, b + n - total) - betaln(a, b)
    return mixture - xlogy(total, p) - xlog1py(n - total, -p)


def mean_share(values: NDArray[np.floating]) -> Estimate:
    """Mean of shares of the images with an interval that may be looked at after every image.

    All p are inside of which a beta mixture is not 20 times as likely (Robbins 1970; uniform over 0..1).

    Args:
        values: (image,), 0..1, in the order in which they were measured; NaN is left out.

    Returns:
        The mean, 0..1, and its interval; all NaN without any image.

    >>> value, low, high, n = mean_share(np.array([0.0, 1.0] * 20))
    >>> f"{value} ({low:.3f} to {high:.3f}) of {n}"
    '0.5 (0.273 to 0.727) of 40'
    """
    from scipy.optimize import brentq

    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    n, total = len(known), float(known.sum())
    if not n:
        return Estimate(np.nan, np.nan, np.nan, 0)
    value = total / n

    def excess(p: float) -> float:
        return float(log_evidence(total, n, p, 1.0, 1.0)) - _LOG

    edge = 1e-12
    low = 0.0 if value <= edge or excess(edge) <= 0 else brentq(excess, edge, value)
    high = 1.0 if value >= 1 - edge or excess(1 - edge) <= 0 else brentq(excess, value, 1 - edge)
    return Estimate(value, float(low), float(high), n)


def quantile(values: NDArray[np.floating], at: float, *, censored: bool = False) -> Estimate:
    """Quantile over images with an interval that may be looked at after every image, for any distribution.

    Between the order statistics whose number of smaller values is not 20 times as likely under a beta mixture as under
    the quantile's own share (Howard and Ramdas, "Sequential estimation of quantiles with applications to A/B testing
    and best-arm identification", Bernoulli 28, 2022, 3).

    Args:
        values: (image,), in any unit and in the order in which they were measured; NaN is left out.
        at: Which quantile, 0..1.
        censored: Whether infinite values count by their rank; else they are left out.

    Returns:
        In the unit of `values`; no interval where there are too few images, below 11 for the median.

    >>> value, low, high, n = quantile(np.arange(60.0), 0.5)
    >>> value, low, high, n
    (29.5, 18.0, 41.0, 60)
    """
    from analyzer.statistics import quantile_over_images

    ordered = np.sort(np.asarray(values, np.float64)[~np.isnan(values) if censored else np.isfinite(values)])
    estimate = quantile_over_images(ordered, at, censored=censored)
    places = ranks(estimate.n, at)
    if places is None:
        return estimate._replace(low=np.nan, high=np.nan)
    return estimate._replace(low=float(ordered[places[0] - 1]), high=float(ordered[places[1] - 1]))


@lru_cache(maxsize=4096)
def ranks(n: int, at: float) -> tuple[int, int] | None:
    """Ranks, from 1, of the order statistics around a quantile of n values; None where n is too small."""
    a, b = _PRIOR * at, _PRIOR * (1 - at)
    kept = np.flatnonzero(log_evidence(np.arange(n + 1.0), n, at, a, b) <= _LOG)
    low, high = int(kept[0]), int(kept[-1]) + 1
    return (low, high) if low >= 1 and high <= n else None
