"""How a number of a run changed against a baseline, resampled over the images that both measured."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer.compare.quantities import QUANTITIES, per_image
from analyzer.compare.runs import OTHER_RANGES, Measured, paired_layers, same_calibration
from analyzer.errors import IncompleteError
from analyzer.gate.conditions import Change, Condition
from analyzer.measures.base import Array, mean_of_known
from analyzer.statistics import FEW_IMAGES, LEVEL, Estimate, quantile_grid, resample_counts, resampled_quantiles

_QUANTILES = {"median": 0.5, "q05": 0.05, "q90": 0.9, "q95": 0.95}


class Name(NamedTuple):
    """A summary name in its parts; quantile None for means and shares."""

    quantity: str
    quantile: float | None
    radius: float | None
    layer: str


def parts(name: str) -> Name | None:
    """`<quantity>_<statistic>[@radius][/layer]`, None where it is not made from one number an image and radius."""
    head, slash, layer = name.partition("/")
    base, at, radius = head.partition("@")
    quantity, _, statistic = base.rpartition("_")
    if quantity not in QUANTITIES or statistic not in (*_QUANTILES, "mean", "share"):
        return None
    return Name(quantity, _QUANTILES.get(statistic), float(radius) if at else None, slash + layer)


def change(
    condition: Condition,
    runs: tuple[Measured, Measured],
    places: tuple[NDArray[np.intp], NDArray[np.intp]],
    whole: tuple[Estimate, Estimate],
) -> Change:
    """Run minus baseline of a REGRESSION condition.

    runs, whole: the run and the baseline, and what their summaries say; places: the common images on their axes.
    Value and interval (percentile bootstrap, both resampled alike) are those on the common images. Where the number
    is not one that images contribute to singly, or the runs share no image, the summaries' values stand, without an
    interval.
    """
    name = parts(condition.name)
    layers = paired_layers(runs)
    if _normalised(condition.name) and not same_calibration(runs):
        values = (whole[0].value, whole[1].value)
        return Change(_unbounded(_difference(*values, condition.relative), whole[0].n), *values, OTHER_RANGES)
    if name is None or name.layer not in layers or not len(places[0]):
        values = (whole[0].value, whole[1].value)
        why = "no image is shared" if name and not len(places[0]) else "no paired interval for this number"
        return Change(_unbounded(_difference(*values, condition.relative), whole[0].n), *values, why)
    first, second = (
        _points(run, name, layer)[where] for run, layer, where in zip(runs, layers[name.layer], places, strict=True)
    )
    if first.shape[1] == 1 or name.quantile is None:  # pooled points of the two need not be the same ones
        both = np.isfinite(first) & np.isfinite(second)
        first, second = np.where(both, first, np.nan), np.where(both, second, np.nan)
    used = np.isfinite(first).any(axis=1) & np.isfinite(second).any(axis=1)
    first, second = first[used], second[used]
    n = len(first)
    counts = [len(run.positions) for run in runs]
    note = "" if counts == [n, n] else f"on {n} shared images (run: {counts[0]}, baseline: {counts[1]})"
    if not n:
        return Change(Estimate(math.nan, math.nan, math.nan, 0), math.nan, math.nan, note)
    values = (_statistic(first, name.quantile), _statistic(second, name.quantile))
    if condition.relative and values[1] == 0 != values[0]:
        note = "; ".join(filter(None, ("the baseline is 0: allow an absolute number, not a percentage", note)))
    estimate = _unbounded(_difference(*values, condition.relative), n)
    if condition.name.partition("@")[0].partition("/")[0].endswith("_share") and np.ptp(first - second) == 0:
        # As a share of 0 or 1 has no bootstrap interval: no image tells how much the others may differ.
        return Change(estimate, *values, "; ".join(filter(None, ("all paired differences are equal", note))))
    if n >= FEW_IMAGES and math.isfinite(estimate.value):
        one, other = (_resampled(points, name.quantile) for points in (first, second))
        resampled = _difference(one, other, condition.relative)
        if np.isfinite(resampled).all():
            low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            estimate = estimate._replace(low=float(low), high=float(high))
    return Change(estimate, *values, note)


def _normalised(name: str) -> bool:
    """Whether the ranges of g and h are in this number; from one radius to another they cancel."""
    return name.startswith("lipschitz_") and not name.startswith(("lipschitz_raw_", "lipschitz_growth_"))


def _points(run: Measured, name: Name, layer: int) -> Array:
    """What each image contributes: (image, point), one point unless points are pooled."""
    values = per_image(run, name.quantity, layer)
    if values is None:
        raise IncompleteError(
            f"{run.path}: damaged: its summary has {name.quantity}, its results do not\nsee `analyzer verify`"
        )
    if name.radius is not None:
        values = values[:, list(run.dataset["radius"].values).index(name.radius)]
        return values if values.ndim == 2 else values[:, None]
    return values.reshape(len(values), -1) if QUANTITIES[name.quantity].points else mean_of_known(values)[:, None]


def _statistic(points: Array, quantile: float | None) -> float:
    """As the summary computes it: pooled quantiles by the empirical distribution, others between neighbours."""
    known = points[np.isfinite(points)]
    if quantile is None:
        return float(known.mean())
    return float(np.quantile(known, quantile, method="linear" if points.shape[1] == 1 else "inverted_cdf"))


def _resampled(points: Array, quantile: float | None) -> Array:
    """The statistic of each bootstrap resample of the images, the same resamples for equal numbers of images."""
    known = np.isfinite(points)
    if quantile is None:
        total, sums = known.sum(axis=1), np.where(known, points, 0.0).sum(axis=1)
        return np.concatenate([weights @ sums / (weights @ total) for weights in resample_counts(len(points))])
    grid = quantile_grid(np.sort(points[known])).astype(np.float64)
    return np.asarray(resampled_quantiles(points, grid, (quantile,))[0])


def _difference(value: Array | float, baseline: Array | float, relative: bool) -> Array:
    """Run minus baseline; as a fraction of the baseline's value infinite where that is 0 and the run's is not."""
    change = np.asarray(value, dtype=np.float64) - baseline
    if not relative:
        return change
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(change == 0, 0.0, change / np.abs(baseline))


def _unbounded(value: Array, n: int) -> Estimate:
    return Estimate(float(value), math.nan, math.nan, n)
