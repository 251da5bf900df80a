"""The frequency argument's numbers as a document: what `analyzer frequency --json` prints."""

from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from analyzer.analyses.frequency.sentences import sentence
from analyzer.analyses.types import FloatOrNaN

if TYPE_CHECKING:
    from analyzer.analyses.frequency import Frequency
    from analyzer.graph.kernel import Convolution

FAMILIES = ("permutation", "noise")
"""By the first axis of a `Frequency`'s arrays: one vector reordered, or drawn anew."""


class OverFilters(TypedDict):
    """Over the filters that are not 0 everywhere; NaN where all are."""

    median: FloatOrNaN
    low: FloatOrNaN
    high: FloatOrNaN


class FrequencyDocument(TypedDict):
    """over_filters, filters: by the name of a quantity, over all filters and of each one (NaN for a filter that is 0).

    Names: participation, and <family>_<map|norm>_difference[_predicted] for the families "permutation" and "noise".
    """

    positions: int
    dimension: int
    over_filters: dict[str, OverFilters]
    filters: dict[str, list[FloatOrNaN]]
    sentence: str


class LayerDocument(FrequencyDocument):
    """The same with the layer that was looked at. kernel: height, width. folded: operators before it."""

    layer: str
    kernel: list[int]
    strides: list[int]
    folded: list[str]
    trials: int
    seed: int


def document(frequency: "Frequency") -> FrequencyDocument:
    """Median, smallest and largest value over the filters, and each filter's values."""
    columns = {"participation": frequency.participation}
    for number, family in enumerate(FAMILIES):
        columns[f"{family}_map_difference"] = frequency.map_difference[number]
        columns[f"{family}_map_difference_predicted"] = frequency.map_difference_predicted[number]
        columns[f"{family}_norm_difference"] = frequency.norm_difference[number]
        columns[f"{family}_norm_difference_predicted"] = frequency.norm_difference_predicted[number]
    over_filters = {name: _over_filters(values) for name, values in columns.items()}
    return {
        "positions": frequency.positions,
        "dimension": frequency.dimension,
        "over_filters": over_filters,
        "filters": {name: values.tolist() for name, values in columns.items()},
        "sentence": sentence(over_filters),
    }


def layer_document(layer: "Convolution", frequency: "Frequency", *, trials: int, seed: int) -> LayerDocument:
    """`document` with the layer, and with how it was measured."""
    return {
        "layer": layer.name,
        "kernel": list(layer.weights.shape[2:]),
        "strides": list(layer.strides),
        "folded": list(layer.folded),
        "trials": trials,
        "seed": seed,
        **document(frequency),
    }


def _over_filters(values: NDArray[np.float64]) -> OverFilters:
    defined = values[np.isfinite(values)]
    if not defined.size:
        return {"median": np.nan, "low": np.nan, "high": np.nan}
    return {"median": float(np.median(defined)), "low": float(defined.min()), "high": float(defined.max())}
