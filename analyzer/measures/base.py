"""What a measure is: what it is handed for one image, what it stores, and how its results are summed up."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from analyzer.measures.scores import TrueClass
from analyzer.statistics import Estimate

Array = NDArray[np.float64]


class Variable(NamedTuple):
    """One variable of the results: dims in the order of the data contract, unit as CF attribute text."""

    name: str
    dims: tuple[str, ...]
    unit: str
    long_name: str
    flags: tuple[str, ...] = ()
    integer: bool = False


@dataclass(frozen=True)
class Neighbourhood:
    """Everything observed around one image; axes R radii, T trials, L layers. None where no measure needs it."""

    scores: Mapping[str, TrueClass]
    """For each family, score, log-odds and prediction of shape (R, T)."""
    input_gram: Array | None
    """(R, T, T), products of the noise actually added, grey levels squared."""
    feature_gram: Array | None
    """(R, L, T, T), products of trial-centred features."""
    feature_distance: Array | None
    """(R, T, L), L2 distance from the clean image's features."""
    feature_floor: Array | None
    """(L,), largest such distance that rounding alone makes."""
    dimension: int
    norm: str
    permutations: int
    key: int
    """Philox key of the Mantel permutations."""


class Row(NamedTuple):
    """One number of the summary: `name[@radius][/layer]`."""

    name: str
    radius: float | None
    layer: str | None
    estimate: Estimate


class Column(NamedTuple):
    """A column of the printed table: heading, name of the row it shows, format, whether the interval is shown."""

    heading: str
    name: str
    form: str
    interval: bool = False


class Measure(Protocol):
    """A module of this package that is in the registry."""

    @property
    def FAMILY(self) -> str:
        """The family it is measured on."""

    @property
    def NEEDS_FEATURES(self) -> bool:
        """Whether feature layers have to be tapped."""

    @property
    def VARIABLES(self) -> tuple[Variable, ...]:
        """What it adds to the results."""

    @property
    def TITLE(self) -> str:
        """Heading of its table."""

    @property
    def COLUMNS(self) -> tuple[Column, ...]:
        """Columns of its table, one line a radius."""

    def observe(self, around: Neighbourhood) -> dict[str, NDArray[Any]]:
        """One image's arrays by variable name, without the image axis."""

    def summarise(self, dataset: Any) -> Iterator[Row]:
        """xarray.Dataset of measured images -> rows."""

    def sentence(self, rows: Mapping[str, Estimate], suffix: str = "") -> str:
        """What the rows say, in plain words; `suffix` is the layer part of the rows' names."""


def score_variables(prefix: str, what: str) -> tuple[Variable, ...]:
    """Score, log-odds and predicted class of one family."""
    dims = ("image", "radius", "trial")
    return (
        Variable(f"{prefix}_score", dims, "1", f"probability of the true class, {what}"),
        Variable(f"{prefix}_log_odds", dims, "nat", f"log-odds of the true class, {what}"),
        Variable(f"{prefix}_predicted", dims, "1", f"predicted class index, {what}", integer=True),
    )


def observe_scores(prefix: str, seen: TrueClass) -> dict[str, NDArray[Any]]:
    """The arrays of `score_variables`."""
    return {f"{prefix}_score": seen.score, f"{prefix}_log_odds": seen.log_odds, f"{prefix}_predicted": seen.predicted}


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


def mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis of what is not NaN, NaN where nothing is known: (image, radius) -> (image,)."""
    known = np.isfinite(values)
    return np.where(
        known.any(axis=-1), np.where(known, values, 0).sum(axis=-1) / np.maximum(known.sum(axis=-1), 1), np.nan
    )


def at(rows: Mapping[str, Estimate], name: str, suffix: str = "") -> dict[float, Estimate]:
    """The rows `name@radius` + suffix, by radius."""
    start = f"{name}@"
    return {
        float(key[len(start) : len(key) - len(suffix)]): rows[key]
        for key in rows
        if key.startswith(start) and key.endswith(suffix) and "/" not in key[len(start) : len(key) - len(suffix)]
    }
