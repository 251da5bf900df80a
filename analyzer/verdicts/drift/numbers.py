"""Numbers of a drift: estimates over images, some of which lie outside what was measured."""

from collections.abc import Sequence
from typing import NotRequired, cast

import numpy as np
from numpy.typing import NDArray

from analyzer.estimate import ABOVE, BELOW, Entry, Estimate, entry
from analyzer.statistics import quantile_over_images

Array = NDArray[np.float64]


class Number(Entry):
    """A number of the document. not_yet: of a radius at which something begins, one at which it has not."""

    not_yet: NotRequired[float]


def number(estimate: Estimate) -> Number:
    """An estimate as a number of the document."""
    return cast(Number, entry(estimate))


def median(values: Array) -> Number:
    """Median over images with its order-statistic interval; NaN leaves an image out."""
    return number(quantile_over_images(values, 0.5))


def within_image(values: Array, quantile: float) -> Array:
    """A quantile over the trials of each image, (image, ..., trial) -> (image, ...), NaN left out."""
    known = np.isfinite(values)
    result = np.full(values.shape[:-1], np.nan)
    some = known.any(axis=-1)
    if some.any():
        result[some] = np.nanquantile(np.where(known, values, np.nan)[some], quantile, axis=-1)
    return result


def largest(values: Array) -> Number:
    """The largest value of all images, without an interval; n counts the images that have any."""
    known = np.isfinite(values).reshape(len(values), -1).any(axis=1)
    value = float(np.nanmax(values)) if known.any() else np.nan
    return {"value": value, "low": np.nan, "high": np.nan, "n": int(known.sum())}


def censored_median(radii: Array) -> Number:
    """Median over images of radii of which some are known to lie outside the measured ones only.

    Args:
        radii: (image,), -inf for below the smallest, inf for above the largest, NaN for unknown.

    Returns:
        The median of those that are known, with its order-statistic interval, which need ranks only; of a number that
        lies outside it is said on which side.
    """
    return number(quantile_over_images(radii, 0.5, censored=True))


def first_median(radii: Array, measured: Sequence[float]) -> Number:
    """`censored_median` of radii at which something is first seen: it may have begun anywhere after the one before.

    The value is the upper of the two middle ones where there are two; `not_yet` is the largest measured radius before
    the lower one, and the interval reaches down to the radius before its end.
    """
    number = censored_median(radii)
    if not np.isfinite(number["value"]):
        return number
    known = np.sort(radii[~np.isnan(radii)])
    lower, upper = known[(known.size - 1) // 2], known[known.size // 2]
    number["value"] = float(upper)
    before = [r for r in measured if r < lower]
    if before:
        number["not_yet"] = max(before)
    before = [r for r in measured if r < number["low"]]
    return {**number, "low": max(before)} if before else number


UNKNOWN: Number = {"value": np.nan, "low": np.nan, "high": np.nan, "n": 0}


def upper(radius: Number) -> float:
    """A censored median radius as a number: 0 for below the smallest, infinite for above the largest, NaN unknown."""
    return {BELOW: 0.0, ABOVE: np.inf}.get(radius.get("censored", ""), radius["value"])
