"""Figures that a claim rests on: numbers with their intervals, and what they say of linearity."""

from typing import Any, NamedTuple

import numpy as np

from analyzer.measures import linearity
from analyzer.statistics import FEW_IMAGES, Estimate, quantile_over_images
from analyzer.summary import layer_suffix, name_of, radius_text

LINEAR_DEPARTURE = 0.1
"""Departure N up to which a response counts as that of an affine map: it differs by less than a tenth of its size."""


class Figure(NamedTuple):
    """A number that a verdict rests on."""

    name: str
    estimate: Estimate


def interval_of(estimate: Estimate) -> tuple[float, float] | None:
    """The interval; None where there is none, or with too few images."""
    if estimate.n >= FEW_IMAGES and np.isfinite(estimate.low) and np.isfinite(estimate.high):
        return estimate.low, estimate.high
    return None


class Departures(NamedTuple):
    """Whether the network answers noise otherwise than an affine map does, at the smallest and the largest radius.

    True or False where the interval of the median N lies on one side of LINEAR_DEPARTURE; None where it does not, where
    N is not above what rounding makes, and where linearity was not measured.
    """

    figures: tuple[Figure, ...]
    text: str
    smallest: bool | None
    largest: bool | None


def departures(measured: Any, layer: int) -> Departures:
    """The departures N of a layer at both ends of the radii, of measured images."""
    if not linearity.DEPARTURE.measured_in(measured):
        return Departures((), "", None, None)
    suffix = layer_suffix(str(measured["layer"].values[layer]), measured.sizes["layer"])
    radii = measured["radius"].values
    figures, said, verdicts = [], [], []
    for place in dict.fromkeys((0, len(radii) - 1)):
        values, floor = (measured[name].values[:, place, layer] for name in ("linearity", "linearity_floor"))
        known, around = quantile_over_images(values, 0.5), None
        if np.isfinite(known.value):
            around = interval_of(known) if np.nanmedian(values - floor) > 0 else None
        verdict = None
        if around is not None and (around[0] > LINEAR_DEPARTURE or around[1] <= LINEAR_DEPARTURE):
            verdict = around[0] > LINEAR_DEPARTURE
        figures.append(Figure(name_of("linearity_median", radius=radii[place], suffix=suffix), known))
        words = {True: "not linear", False: "linear within a tenth", None: "cannot be told"}[verdict]
        size = f"{known.value:.2g}" if np.isfinite(known.value) else "undefined"
        said.append(f"{size} at radius {radius_text(radii[place])} ({words})")
        verdicts.append(verdict)
    text = f"; its departure N from an affine response is {' and '.join(said)}"
    return Departures(tuple(figures), text, verdicts[0], verdicts[-1])
