"""Numbers of a drift: estimates over images, some of which lie outside what was measured."""

from collections.abc import Sequence
from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from analyzer.statistics import Estimate, quantile_over_images

Array = NDArray[np.float64]

BELOW, ABOVE = "below", "above"
"""Where a radius lies that is outside the radii of the run: below the smallest, above the largest."""


class Number(TypedDict):
    """A statistic over n images with its 95 % interval, NaN where undefined.

    censored: where the value lies instead. not_yet: of a radius at which something begins, one at which it has not.
    """

    value: float
    low: float
    high: float
    n: int
    censored: NotRequired[str]
    not_yet: NotRequired[float]


def number(estimate: Estimate) -> Number:
    """An estimate as a number of the document."""
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}


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


def censored_median(radii: Array, measured: Sequence[float]) -> Number:
    """Median over images of radii of which some are known to lie outside the measured ones only.

    Args:
        radii: (image,), -inf for below the smallest, inf for above the largest, NaN for unknown.
        measured: The radii of the run.

    Returns:
        The median of those that are known, with its order-statistic interval, which need ranks only; an end or a value
        outside the measured radii is NaN, and `censored` says on which side the value lies.
    """
    outside = {-np.inf: min(measured) / 2, np.inf: max(measured) * 2}
    known = radii[~np.isnan(radii)]
    placed = np.array([outside.get(radius, radius) for radius in known], dtype=np.float64)
    estimate = number(quantile_over_images(placed, 0.5))
    value = estimate["value"]
    if not np.isfinite(value):
        return estimate
    # The mean of the two middle ones is a radius only where both are.
    middle = np.sort(known)[[(known.size - 1) // 2, known.size // 2]]
    if not np.isfinite(middle).all():
        estimate["censored"] = BELOW if middle[0] == -np.inf else ABOVE
        estimate["value"] = np.nan
    for end in ("low", "high"):
        if not min(measured) <= estimate[end] <= max(measured):
            estimate[end] = np.nan
    return estimate


def first_median(radii: Array, measured: Sequence[float]) -> Number:
    """`censored_median` of radii at which something is first seen: it may have begun anywhere after the one before.

    The value is the upper of the two middle ones where there are two; `not_yet` is the largest measured radius before
    the lower one, and the interval reaches down to the radius before its end.
    """
    number = censored_median(radii, measured)
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


def outside_of(entry: Number, radii: Sequence[float]) -> str:
    """Where a radius lies that is outside those of the run, in words; "" where it is not."""
    ends = {BELOW: f"below the smallest radius, {min(radii):g}", ABOVE: f"above the largest radius, {max(radii):g}"}
    return f"known only to lie {ends[entry['censored']]}" if "censored" in entry else ""


def as_estimate(entry: Number, radii: Sequence[float]) -> Estimate:
    """A number as an estimate to be held against a bound: one below the radii is at most the smallest of them, one
    above them larger than any bound."""
    match entry.get("censored"):
        case "below":
            high = entry["high"] if np.isfinite(entry["high"]) else min(radii)
            return Estimate(min(radii), 0.0, high, entry["n"])
        case "above":
            low = entry["low"] if np.isfinite(entry["low"]) else max(radii)
            return Estimate(np.inf, low, np.inf, entry["n"])
    return Estimate(entry["value"], entry["low"], entry["high"], entry["n"])
