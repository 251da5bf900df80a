"""How a number of a run changed against a baseline, resampled over the images that both measured."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.errors import IncompleteError
from analyzer.measures import NUMBERS, Number
from analyzer.measures.quantities import VALUE, contributions
from analyzer.statistics import (
    FEW_IMAGES,
    LEVEL,
    POOLED_IMAGES,
    QUANTILES,
    Estimate,
    mean_over_images,
    quantile_over_images,
    resample_counts,
)
from analyzer.summary import parts
from analyzer.verdicts.gate.conditions import Change, Condition
from analyzer.verdicts.pairing import OTHER_RANGES, Array, OpenRun, paired_layers, same_calibration

_GRID = 1024


def paired_number(name: str) -> Number | None:
    """The number of this name, None where no measure has it, or where images do not contribute to it singly."""
    stem = parts(name).stem
    number = NUMBERS.get(stem)
    return number if number is not None and isinstance(number.statistic, str) else None


def change(
    condition: Condition,
    runs: tuple[OpenRun, OpenRun],
    places: tuple[NDArray[np.intp], NDArray[np.intp]],
    whole: tuple[Estimate, Estimate],
) -> Change:
    """Run minus baseline of a REGRESSION condition.

    runs, whole: the run and the baseline, and what their summaries say; places: the common images on their axes.
    Value and interval are those on the common images. Where the number
    is not one that images contribute to singly, or the runs share no image, the summaries' values stand, without an
    interval.
    """
    number = paired_number(condition.name)
    declared = NUMBERS.get(parts(condition.name).stem)
    if declared is not None and declared.quantity.normalised and not same_calibration(runs):
        return _of_summaries(condition, whole, OTHER_RANGES)
    layers = {"": [0, 0]} if declared is not None and not declared.quantity.layered else paired_layers(runs)
    suffix = parts(condition.name).suffix
    if number is not None and not len(places[0]):
        return _of_summaries(condition, whole, "no image is shared")
    if number is None or suffix not in layers:
        return _of_summaries(condition, whole, "no paired interval for this number")
    first, second = (
        _points(run, number, condition.name, layer)[where]
        for run, layer, where in zip(runs, layers[suffix], places, strict=True)
    )
    paired = _paired(condition, number, first, second, [len(run.positions) for run in runs])
    if number.quantity.censored:
        lost = int(((first == second) & np.isin(first, runs[0].reach)).sum())
        if lost:
            note = "; ".join(
                filter(None, (f"outside the radii of both runs on {lost} images, so unknown there", paired.note))
            )
            return paired._replace(estimate=_unbounded(np.asarray(paired.estimate.value), paired.estimate.n), note=note)
    return paired


def _of_summaries(condition: Condition, whole: tuple[Estimate, Estimate], why: str) -> Change:
    values = (whole[0].value, whole[1].value)
    return Change(_unbounded(_difference(*values, condition.relative), whole[0].n), *values, why)


def _paired(condition: Condition, number: Number, first: Array, second: Array, counts: list[int]) -> Change:
    """The change from what each common image contributes to either run, (image, point); counts: images of each."""
    quantile = QUANTILES.get(str(number.statistic))
    if first.shape[1] == 1 or quantile is None:  # pooled points of the two need not be the same ones
        both = np.isfinite(first) & np.isfinite(second)
        first, second = np.where(both, first, np.nan), np.where(both, second, np.nan)
    used = np.isfinite(first).any(axis=1) & np.isfinite(second).any(axis=1)
    first, second = first[used], second[used]
    n = len(first)
    note = "" if counts == [n, n] else f"on {n} shared images (run: {counts[0]}, baseline: {counts[1]})"
    if not n:
        return Change(Estimate(math.nan, math.nan, math.nan, 0), math.nan, math.nan, note)
    values = (_statistic(first, quantile), _statistic(second, quantile))
    if condition.relative and values[1] == 0 != values[0]:
        note = "; ".join(filter(None, ("the baseline is 0: allow an absolute number, not a percentage", note)))
    estimate = _unbounded(_difference(*values, condition.relative), n)
    if number.statistic == "share" and np.ptp(first - second) == 0:
        # No image tells how much the others may differ.
        return Change(estimate, *values, "; ".join(filter(None, ("all paired differences are equal", note))))
    if math.isfinite(estimate.value):
        low, high = (
            _of_means(condition, number, first[:, 0], second[:, 0])
            if quantile is None
            else _of_quantiles(condition, first, second, quantile)
        )
        estimate = estimate._replace(low=low, high=high)
    return Change(estimate, *values, note)


def _of_means(condition: Condition, number: Number, first: Array, second: Array) -> tuple[float, float]:
    """Interval of a change of means, that of `mean_over_images` of what each image adds to it: (image,) twice.

    To first order that is first - second, relative to the baseline (first - second * mean ratio) / |mean of second|.
    """
    run, baseline = float(first.mean()), float(second.mean())
    added = first - second
    if condition.relative and baseline:
        added = (first - run / baseline * second) / abs(baseline)
    change = float(_difference(run, baseline, condition.relative))
    if number.quantity.kind == VALUE and len(added) >= FEW_IMAGES and np.ptp(added) == 0:
        return change, change  # as for a median: a continuous quantity that changes alike everywhere
    around = mean_over_images(added, near_normal=number.quantity.near_normal)
    return change + (around.low - around.value), change + (around.high - around.value)


def _of_quantiles(condition: Condition, first: Array, second: Array, quantile: float) -> tuple[float, float]:
    """Percentile bootstrap over images, both resampled alike; NaN where that quantile itself has no interval.

    That is below 100 images where points are pooled.
    """
    pooled = first.shape[1] > 1 or second.shape[1] > 1
    if len(first) < POOLED_IMAGES if pooled else math.isnan(quantile_over_images(first[:, 0], quantile).low):
        return math.nan, math.nan
    one, other = (_resampled(points, quantile) for points in (first, second))
    resampled = _difference(one, other, condition.relative)
    if not np.isfinite(resampled).all():
        return math.nan, math.nan
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _points(run: OpenRun, number: Number, name: str, layer: int) -> Array:
    """What each image contributes: (image, point), one point unless points are pooled."""
    quantity = number.quantity
    if not quantity.measured_in(run.dataset):
        raise IncompleteError(
            f"{run.run.path}: damaged: its summary has {quantity.name}, its results do not\nsee `analyzer verify`"
        )
    radius = parts(name).radius
    place = None if radius is None else list(run.dataset["radius"].values).index(radius)
    scale = run.scale(layer) if quantity.layered else 1.0
    points: NDArray[Any] = contributions(quantity, run.values(quantity, layer), radius=place, scale=scale)
    points = points.astype(np.float64) * (scale if quantity.scaled else 1.0)
    return points if points.ndim == 2 else points[:, None]


def _statistic(points: Array, quantile: float | None) -> float:
    """As the summary computes it: pooled quantiles by the empirical distribution, others between neighbours."""
    defined = points[np.isfinite(points)]
    if quantile is None:
        return float(defined.mean())
    return float(np.quantile(defined, quantile, method="linear" if points.shape[1] == 1 else "inverted_cdf"))


def _resampled(points: Array, quantile: float) -> Array:
    """The quantile of each bootstrap resample of the images, the same resamples for equal numbers of images."""
    grid = _quantile_grid(np.sort(points[np.isfinite(points)])).astype(np.float64)
    return np.asarray(_resampled_quantiles(points, grid, (quantile,))[0])


def _quantile_grid(pool: NDArray[Any]) -> NDArray[Any]:
    """Up to 1,024 order statistics of sorted points, at which a resampled quantile is read off: (n,) -> (g,)."""
    return np.unique(pool[np.linspace(0, pool.size - 1, _GRID).round().astype(int)])


def _resampled_quantiles(
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


def _difference(value: Array | float, baseline: Array | float, relative: bool) -> Array:
    """Run minus baseline; as a fraction of the baseline's value infinite where that is 0 and the run's is not."""
    change = np.asarray(value, dtype=np.float64) - baseline
    if not relative:
        return change
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(change == 0, 0.0, change / np.abs(baseline))


def _unbounded(value: Array, n: int) -> Estimate:
    return Estimate(float(value), math.nan, math.nan, n)
