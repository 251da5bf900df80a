"""The margin to the runner-up in units of what noise does to it: how far are the images from a flip?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.special import ndtri

from analyzer.card import EMBEDDING
from analyzer.measures import flips
from analyzer.measures.quantities import per_image
from analyzer.plots import canvas
from analyzer.plots.model import (
    Array,
    DrawnRun,
    Picture,
    absent,
    alternative,
    has,
    measured,
    number,
    over_images,
    radii,
    trials,
)
from analyzer.store import scales_of

_TITLE = "How far from a flip: the margin to the runner-up, over what noise does to it"
_HOW = (
    "Each point is one image at one radius: the mean of its log-odds against the runner-up over their standard "
    "deviation under noise, which does not depend on the scale of the logits. The solid line is the median image. On "
    "the dotted line, noise would flip one of the image's trials if its log-odds were normal; where an image comes to "
    "it is its flip radius. Images within rounding have no point; flipped ones stand at the bottom."
)


class _Seen(NamedTuple):
    radius: Array
    units: Array
    """(image, radius)."""
    tail: float
    """Margin at which the normal tail is one trial."""
    flip: Array
    """(image,), flip radii, infinite where they lie outside."""


def draw(runs: Sequence[DrawnRun]) -> Picture | None:
    """Points and median of each run, and where one trial would flip."""
    seen_of = [_seen(run) for run in runs]
    if not any(seen_of):
        return None
    says = tuple(f"{run.label}: {_sentence(run, seen)}" for run, seen in zip(runs, seen_of, strict=True))
    figure = canvas.styled(lambda: _figure(runs, seen_of))
    return Picture("flips", _TITLE, _HOW, says, alternative(_TITLE, says), figure)


def _seen(run: DrawnRun) -> _Seen | None:
    if run.kind == EMBEDDING or not has(run, *flips.UNITS.reads, *flips.RADIUS.reads):
        return None
    dataset = measured(run)
    units, flip = per_image(dataset, (flips.UNITS, flips.RADIUS), scales_of(dataset))
    return _Seen(radii(run), units, float(ndtri(1 - 1 / trials(run))), flip)


def _figure(runs: Sequence[DrawnRun], seen_of: Sequence[_Seen | None]) -> Figure:
    figure, axes = canvas.panels(runs, [""] * len(runs), x="radius, grey levels", y="margin, noise units")
    shown = [values for seen in seen_of if seen is not None for values in (seen.units, np.array([seen.tail]))]
    flipped = any((seen.units <= 0).any() for seen in seen_of if seen is not None)
    bottom, top = canvas.log_limits(shown, room=flipped)
    for ax, run, seen in zip(axes, runs, seen_of, strict=True):
        canvas.log_axis(ax, "y", bottom, top)
        if seen is None or not np.isfinite(seen.units).any():
            canvas.absent(ax, absent(run) if seen is None else "undefined at every radius")
            continue
        canvas.points_and_median(ax, seen.radius, seen.units, over_images(seen.units, 0.5), bottom=bottom)
        ax.axhline(seen.tail, color=canvas.GREY, linestyle=":", linewidth=1)
    handles = [
        Line2D([], [], color=canvas.COLOURS[0], linestyle="", marker="o", markersize=3),
        Line2D([], [], color="black"),
        Line2D([], [], color=canvas.GREY, linestyle=":"),
    ]
    canvas.legend(figure, handles, ["one image", "median image", "one trial would flip"], columns=3)
    return figure


def _sentence(run: DrawnRun, seen: _Seen | None) -> str:
    if seen is None:
        return f"{' '.join(absent(run).split())}."
    medians = over_images(seen.units, 0.5)
    defined = np.flatnonzero(np.isfinite(medians))
    if not defined.size:
        return "the margin is undefined at every radius."
    ends = dict.fromkeys((int(defined[0]), int(defined[-1])))
    each = " and ".join(f"{number(medians[k])} at radius {seen.radius[k]:g}" for k in ends)
    known = seen.flip[~np.isnan(seen.flip)]
    reached = int((known <= seen.radius[-1]).sum())
    return (
        f"the median image's margin is {each} deviations; {reached} of {known.size} images come to their flip radius "
        f"within radius {seen.radius[-1]:g}."
    )
