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

    True or False where the interval of the median N lies on one side of LINEAR_DEPARTURE; None where it does not, or
    linearity was not measured.
    """

    figures: tuple[Figure, ...]
    text: str
    smallest: bool | None
    largest: bool | None


def departures(measured: Any, layer: int) -> Departures:
    """The departures N of a layer over the radii of measured images, judged at both ends."""
    if not linearity.DEPARTURE.measured_in(measured):
        return Departures((), "", None, None)
    suffix = layer_suffix(str(measured["layer"].values[layer]), measured.sizes["layer"])
    figures, said, verdicts = [], [], []
    for place, radius in enumerate(measured["radius"].values):
        known = quantile_over_images(measured["linearity"].values[:, place, layer], 0.5)
        around = interval_of(known)
        verdict = None if around is None else around[0] > LINEAR_DEPARTURE
        if around is not None and not verdict and around[1] > LINEAR_DEPARTURE:
            verdict = None
        figures.append(Figure(name_of("linearity_median", radius=radius, suffix=suffix), known))
        words = {True: "not linear", False: "linear within a tenth", None: "cannot be told"}[verdict]
        said.append(f"{known.value:.2g} at radius {radius_text(radius)} ({words})")
        verdicts.append(verdict)
    ends = slice(None, None, max(len(said) - 1, 1))  # the first and the last
    text = f"; its departure N from an affine response is {' and '.join(said[ends])}"
    return Departures(tuple(figures[ends]), text, verdicts[0], verdicts[-1])
