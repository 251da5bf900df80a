"""Departure from an affine response over the radius: is the network linear around its images?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyzer.measures import linearity
from analyzer.plots import canvas
from analyzer.plots.model import (
    Array,
    DrawnRun,
    Picture,
    alternative,
    has,
    layers,
    measured,
    number,
    over_images,
    radii,
)

_TITLE = "Linearity: departure of the response from an affine one"
_HOW = (
    "Each point is one image at one radius: N, by which part of its size the features' response to noise departs from "
    "that of an affine map, which has 0; a quadratic form has 1.5, a cubic one 0.75. The solid line is the median "
    "image, the dotted one what rounding makes of an affine map (median).{last}"
)
_LAST = " Of several layers, the last is shown here; all of them are in the profile along the depth."


class _Seen(NamedTuple):
    radius: Array
    departure: Array
    """(image, radius)."""
    floor: Array
    """(radius,), of the median image."""


def draw(runs: Sequence[DrawnRun]) -> Picture | None:
    """Points, median and what rounding makes; the last layer of each run."""
    seen_of = [_seen(run) for run in runs]
    if not any(seen_of):
        return None
    says = tuple(f"{run.label}: {_sentence(seen)}" for run, seen in zip(runs, seen_of, strict=True))
    how = _HOW.format(last=_LAST if any(len(layers(run)) > 1 for run in runs) else "")
    return Picture(
        "linearity", _TITLE, how, says, alternative(_TITLE, says), canvas.styled(lambda: _figure(runs, seen_of))
    )


def _seen(run: DrawnRun) -> _Seen | None:
    names = (*linearity.DEPARTURE.reads, "linearity_floor")
    if not has(run, *names):
        return None
    dataset = measured(run).isel(layer=-1)
    departure, floor = (np.asarray(dataset[name].values, dtype=np.float64) for name in names)
    return _Seen(radii(run), departure, over_images(floor, 0.5))


def _figure(runs: Sequence[DrawnRun], seen_of: Sequence[_Seen | None]) -> Figure:
    notes = [f"layer {layers(run)[-1]}" if len(layers(run)) > 1 else "" for run in runs]
    figure, axes = canvas.panels(runs, notes, x="radius, grey levels", y="departure N")
    drawn = [seen for seen in seen_of if seen is not None]
    shown = [values for seen in drawn for values in (seen.departure, seen.floor)]
    bottom, top = canvas.log_limits(shown, room=any((seen.departure == 0).any() for seen in drawn))
    for ax, seen in zip(axes, seen_of, strict=True):
        canvas.log_axis(ax, "y", bottom, top)
        if seen is None or not np.isfinite(seen.departure).any():
            canvas.absent(ax, "not measured" if seen is None else "undefined at every radius")
            continue
        canvas.points_and_median(ax, seen.radius, seen.departure, over_images(seen.departure, 0.5), bottom=bottom)
        rounding = np.maximum(seen.floor, bottom)
        ax.plot(seen.radius, rounding, color=canvas.GREY, linestyle=":", linewidth=1, **canvas.mark(seen.radius))
    handles = [
        Line2D([], [], color=canvas.COLOURS[0], linestyle="", marker="o", markersize=3),
        Line2D([], [], color="black"),
        Line2D([], [], color=canvas.GREY, linestyle=":"),
    ]
    canvas.legend(figure, handles, ["one image", "median image", "rounding"], columns=3)
    return figure


def _sentence(seen: _Seen | None) -> str:
    if seen is None:
        return "not measured."
    medians = over_images(seen.departure, 0.5)
    defined = np.flatnonzero(np.isfinite(medians))
    if not defined.size:
        return "N is undefined at every radius."
    ends = dict.fromkeys((int(defined[0]), int(defined[-1])))
    each = " and ".join(f"{number(medians[k])} at radius {seen.radius[k]:g}" for k in ends)
    faint = [f"{seen.radius[k]:g}" for k in defined if medians[k] <= seen.floor[k]]
    below = f"; not above rounding at radius {', '.join(faint)}" if faint else ""
    return f"the median image departs by N = {each}{below}."
