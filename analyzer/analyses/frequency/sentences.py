"""The frequency argument's numbers in words."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analyzer.analyses.frequency.documents import OverFilters

_FAMILIES = ("permutation", "noise")


def sentence(over_filters: Mapping[str, "OverFilters"]) -> str:
    """What the argument of section 2.2 amounts to for this layer: the median filter."""
    median = {name: values["median"] for name, values in over_filters.items()}
    if math.isnan(median["permutation_map_difference"]):
        return "Every filter is 0: there is no response to compare."
    predicted = median["permutation_norm_difference_predicted"]
    expected = f"; the kernels' spectra predict {predicted:.2%} (median filter)." if math.isfinite(predicted) else "."
    if not all(
        math.isfinite(median[f"{family}_{what}_difference"]) for family in _FAMILIES for what in ("map", "norm")
    ):
        return "The responses of the median filter are undefined: nothing can be compared."
    return (
        "Reordering the noise gives another response map: the two differ by "
        f"{median['permutation_map_difference']:.2f} times their norm, and those of fresh noise by "
        f"{median['noise_map_difference']:.2f} (unrelated maps: 1.41). The norms of the maps differ by "
        f"{median['permutation_norm_difference']:.2%}, and by {median['noise_norm_difference']:.2%} under fresh noise"
        f"{expected}"
    )
