"""A value with its interval: as numbers, and as an entry of a JSON document."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict, cast

ABOVE, BELOW = "above", "below"
_CENSORED = {"value": "censored", "low": "low_censored", "high": "high_censored"}


class Estimate(NamedTuple):
    """A value with its 95 % interval and the number of images (or points) behind it; NaN where undefined.

    Infinite where a radius is only known to lie above (inf) or below (-inf) those that were measured.
    """

    value: float
    low: float
    high: float
    n: int


class Entry(TypedDict):
    """An estimate in a document, NaN where undefined.

    censored, low_censored, high_censored: where a number lies, "above" or "below" the measured radii, that is not known
    otherwise; it is NaN then.
    """

    value: float
    low: float
    high: float
    n: int
    censored: NotRequired[str]
    low_censored: NotRequired[str]
    high_censored: NotRequired[str]


def entry(estimate: Estimate) -> Entry:
    """An estimate as a document holds it.

    >>> entry(Estimate(float("inf"), 12.0, float("inf"), 9))
    {'value': nan, 'low': 12.0, 'high': nan, 'n': 9, 'censored': 'above', 'high_censored': 'above'}
    """
    made: dict[str, Any] = estimate._asdict()
    for name, flag in _CENSORED.items():
        if math.isinf(made[name]):
            made[flag] = ABOVE if made[name] > 0 else BELOW
            made[name] = math.nan
    return cast(Entry, made)


def is_entry(value: object) -> bool:
    """Whether a value of a document is an estimate."""
    return isinstance(value, Mapping) and {"value", "low", "high", "n"} <= value.keys()


def estimate_of(entry: Mapping[str, Any]) -> Estimate:
    """The estimate that an entry of a document holds, None read as NaN.

    >>> estimate_of({"value": None, "low": 12.0, "high": None, "n": 9, "censored": "above", "high_censored": "above"})
    Estimate(value=inf, low=12.0, high=inf, n=9)
    """
    ends = {ABOVE: math.inf, BELOW: -math.inf}
    value, low, high = (
        ends.get(entry.get(flag, ""), math.nan if entry[name] is None else entry[name])
        for name, flag in _CENSORED.items()
    )
    return Estimate(value, low, high, entry["n"])


def at_worst(estimate: Estimate, radii: Sequence[float], *, largest: bool) -> Estimate:
    """An estimate of a radius to be held against a bound, where it lies outside the measured radii: finite or inf.

    radii: those that were measured. largest: whether the bound is the largest value allowed, so that a value that may
    lie anywhere below the smallest radius counts as that radius, and one above the largest as infinite; else as 0, and
    as that radius.

    >>> at_worst(Estimate(float("inf"), float("inf"), float("inf"), 9), [1.0, 20.0], largest=False)
    Estimate(value=20.0, low=20.0, high=inf, n=9)
    """
    smallest, farthest = min(radii), max(radii)
    value = estimate.value
    if math.isinf(value):
        known = [farthest, estimate.low] if value > 0 else [smallest, estimate.high]
        known = [end for end in known if math.isfinite(end)]
        value = (math.inf if largest else max(known)) if value > 0 else (min(known) if largest else 0.0)
    low = {math.inf: farthest, -math.inf: 0.0}.get(estimate.low, estimate.low)
    high = {-math.inf: smallest}.get(estimate.high, estimate.high)
    return Estimate(value, low, high, estimate.n)


def outside(estimate: Estimate, radii: Sequence[float]) -> str:
    """Where a radius lies that is not among the measured ones, in words; "" where it is."""
    if not math.isinf(estimate.value):
        return ""
    if estimate.value < 0:
        return f"known only to lie below the smallest radius, {min(radii):g}"
    return f"known only to lie above the largest radius, {max(radii):g}"
