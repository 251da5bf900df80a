"""What a measure declares of its numbers: quantities of each image, and their statistics over images.

A `Quantity` is what one image contributes: one number for each radius, or for each trial where points are pooled. A
`Number` is a statistic of it over images, under its name in the summary. Summary, tables, comparison, gate, report and
layer profile go through these declarations and know no measure by name.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.card import EMBEDDING
from analyzer.measures.variables import Scales
from analyzer.statistics import (
    QUANTILES,
    Estimate,
    mean_over_images,
    mean_share,
    pooled_quantiles,
    quantile_over_images,
    share,
)

Array = NDArray[np.float64]
LOWER, HIGHER = "lower", "higher"
VALUE, FLAG, FRACTION = "value", "flag", "fraction"
CLASSES, LOG_ODDS = "classes", "log-odds"
REACH = 2.0
"""By which factor a radius may lie outside the measured ones and still be told."""


def lacking(kind: str, *, labelled: bool) -> frozenset[str]:
    """What a network has not that quantities may need: an embedding has no log-odds, and without labels no classes.

    >>> sorted(lacking("embedding", labelled=False)), sorted(lacking("logits", labelled=False))
    (['classes', 'log-odds'], [])
    """
    if kind != EMBEDDING:
        return frozenset()
    return frozenset({LOG_ODDS} if labelled else {LOG_ODDS, CLASSES})


@dataclass(frozen=True, eq=False)
class Quantity:
    """What an image contributes. Axes: image, then radius, trial and, always last, layer, as far as there are.

    name: less statistic, radius and layer, as in summary.json. reads: variables of the results. reduce: arrays of
    `reads` (and `scales=`, where `uses_scales`) -> the quantity, NaN where undefined. unit: "1" for a pure number.
    more_robust: LOWER, HIGHER, or None where neither direction is. kind: VALUE, FLAG (0 or 1) or FRACTION (0..1).
    radial, layered: whether it has a radius and a layer axis. points: whether it has a trial axis, whose points are
    pooled over the images, unless `within` makes one number of an image's points: (image, point), scale -> (image,).
    normalised: whether it depends on the calibration images, through the widths of h and g; scaled: in that it is
    multiplied by their ratio, which may wait until statistics are taken. uses_scales: whether `reduce` needs the
    widths, D or the radii. floor: variable of which a range over the trials has to exceed
    `statistics.rounding_range_factor` times to be more than rounding. near_normal: whether it is bounded and averages
    over much within an image, so that Student's t holds for its mean over few images. censored: whether it is a radius
    that may be known only to lie above those of the run (inf) or below (-inf), so that it has quantiles only.
    by_trials: whether it is another number with another number of trials, as a range is. needs: CLASSES or LOG_ODDS,
    see `lacking`. title: its heading where runs are compared; not compared without one.
    """

    name: str
    reads: tuple[str, ...]
    reduce: Callable[..., NDArray[Any]]
    unit: str = "1"
    more_robust: str | None = None
    kind: str = VALUE
    radial: bool = True
    layered: bool = False
    points: bool = False
    within: Callable[[NDArray[Any], float], Array] | None = None
    normalised: bool = False
    scaled: bool = False
    uses_scales: bool = False
    floor: str = ""
    near_normal: bool = False
    censored: bool = False
    by_trials: bool = False
    needs: str = ""
    title: str = ""

    def measured_in(self, dataset: Any) -> bool:
        """Whether a run's data set holds what it reads."""
        return all(name in dataset for name in self.reads)


@dataclass(frozen=True, eq=False)
class Number:
    """A number of the summary: `name[@radius][/layer]`.

    statistic: "mean", "share", a quantile of `statistics.QUANTILES`, or a function (image, ...) -> Estimate. by_radius,
    overall: whether there is one for each radius, and one over all radii: of each image's mean over the radii, or of
    all its points. least_radii: how many radii it takes. heading, form, interval: column of the printed table, format
    of its cells, and whether the interval is shown; not in the table without a heading. last: printed after the
    others. glance: its heading among the few numbers that a report begins with. deciding: what its property is called
    where one line is all that is shown of it, in up to 18 characters. block: numbers of one block stand
    together for each radius in summary.json, the next block's after them.
    """

    name: str
    quantity: Quantity
    statistic: str | Callable[[Array], Estimate]
    heading: str = ""
    form: str = ".3g"
    interval: bool = False
    by_radius: bool = True
    overall: bool = False
    least_radii: int = 1
    last: bool = False
    glance: str = ""
    deciding: str = ""
    block: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.statistic, str) and self.statistic not in (*QUANTILES, "mean", "share"):
            raise ValueError(f"{self.name}: statistic {self.statistic!r} is no mean, share or known quantile")
        if self.quantity.points and self.quantity.within is None and self.statistic in ("mean", "share"):
            raise ValueError(f"{self.name}: give its quantity a `within`: an image's points have to become one number")


@dataclass(frozen=True)
class Profile:
    """A variable shown along the depth.

    variable: its name. label: of the axis. meaning: the same in a sentence. log: whether the axis is logarithmic.
    linear: the variable that says what a linear map would have, if there is one.
    """

    variable: str
    label: str
    meaning: str
    log: bool = False
    linear: str = ""


def by_image(
    dataset: Any, names: Sequence[str], function: Callable[..., tuple[NDArray[Any], ...]], *, block: int = 16
) -> list[NDArray[Any]]:
    """`function` of some variables, a few images at a time, so that a summary never holds a whole variable.

    function: arrays of `names` with a leading image axis -> arrays with that axis; these are joined along it.
    """
    count = dataset.sizes["image"]
    joined: list[NDArray[Any]] = []
    for k in range(0, count, block):
        part = function(*(dataset[name].isel(image=slice(k, k + block)).values for name in names))
        joined = joined or [np.empty((count, *values.shape[1:]), values.dtype) for values in part]
        for whole, values in zip(joined, part, strict=True):
            whole[k : k + block] = values
    return joined


def per_image(dataset: Any, quantities: Sequence[Quantity], scales: Scales) -> list[NDArray[Any]]:
    """The quantities of every image of a data set, in one pass over it; before scaling, see `Quantity.scaled`.

    dataset: its layers are those of `scales`. Raises KeyError where it does not hold what one of them reads.
    """
    made: dict[tuple[Any, ...], int] = {}
    for quantity in quantities:
        made.setdefault((quantity.reads, quantity.reduce, quantity.uses_scales), len(made))
    names = list(dict.fromkeys(name for reads, _, _ in made for name in reads))

    def reduced(*arrays: Any) -> tuple[NDArray[Any], ...]:
        given = dict(zip(names, arrays, strict=True))
        return tuple(
            reduce(*(given[name] for name in reads), **({"scales": scales} if uses_scales else {}))
            for reads, reduce, uses_scales in made
        )

    values = by_image(dataset, names, reduced)
    return [values[made[q.reads, q.reduce, q.uses_scales]] for q in quantities]


def mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis of what is not NaN, NaN where nothing is known: (image, radius) -> (image,)."""
    finite = np.isfinite(values)
    return np.where(
        finite.any(axis=-1), np.where(finite, values, 0).sum(axis=-1) / np.maximum(finite.sum(axis=-1), 1), np.nan
    )


def contributions(quantity: Quantity, values: NDArray[Any], *, radius: int | None, scale: float) -> NDArray[Any]:
    """What each image contributes to a number: (image,), or (image, point) where points are pooled.

    values: of `per_image`, without the layer axis: (image[, radius][, trial]). radius: its place; None for all of
    them, where an image has its mean, or all its points. scale: width of h over width of g, for `within` only.
    """
    if not quantity.radial:
        return values
    if not quantity.points:
        return mean_of_known(values) if radius is None else values[:, radius]
    points = values.reshape(len(values), -1) if radius is None else values[:, radius]
    return points if quantity.within is None else quantity.within(points, scale)


def estimates(
    quantity: Quantity, values: NDArray[Any], statistics: Sequence[str | Callable[[Array], Estimate]], *, pooled: bool
) -> list[Estimate]:
    """Statistics over images of what they contribute (see `contributions`), before scaling.

    pooled: whether a flag was averaged over the radii, so that it is a fraction now.
    """
    results: dict[Any, Estimate] = {}
    quantiles = [name for name in dict.fromkeys(statistics) if isinstance(name, str) and name in QUANTILES]
    if quantity.points and values.ndim == 2 and quantiles:  # one sort of all points for all of them
        results.update(zip(quantiles, pooled_quantiles(values, tuple(QUANTILES[q] for q in quantiles)), strict=True))
    for statistic in statistics:
        if statistic in results:
            continue
        if not isinstance(statistic, str):
            results[statistic] = statistic(values)
        elif statistic in QUANTILES:
            results[statistic] = quantile_over_images(values, QUANTILES[statistic], censored=quantity.censored)
        elif quantity.kind == FLAG and not pooled:
            results[statistic] = share(values)
        else:
            results[statistic] = (
                mean_over_images(values, near_normal=quantity.near_normal)
                if quantity.kind == VALUE
                else mean_share(values)
            )
    return [results[statistic] for statistic in statistics]


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """An estimate in other units."""
    return estimate._replace(value=estimate.value * factor, low=estimate.low * factor, high=estimate.high * factor)
