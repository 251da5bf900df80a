"""The ranges of both families in log-odds, where a probability near 1 does not hide them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analyzer.card import EMBEDDING
from analyzer.measures import REGISTRY
from analyzer.plots import canvas
from analyzer.plots.model import Array, Cloud, DrawnRun, Picture, absent, alternative, cloud, number, over_images

_TITLE = "Log-odds: ranges of fresh and of reordered noise"
_HOW = (
    "The same ranges measured in log-odds (nat), which do not saturate where the probability is nearly 1. Lines are "
    "the median image, bands hold the middle 80 % of the images. Where both lines fall together, reordering noise "
    "shows nothing that fresh noise has not shown. Below the dotted line, what rounding may do over as many trials "
    "(the median image), a range may be nothing else."
)
_LOOKS: tuple[tuple[Any, str], ...] = (("-", "o"), ("--", "s"), ("-.", "^"))
_FAMILIES = tuple(measure.scores for measure in REGISTRY.values() if measure.scores)

Families = Sequence[Cloud | None]
"""What a run has of each family."""


def draw(runs: Sequence[DrawnRun]) -> Picture | None:
    """Median and 10 to 90 % band of both families, with what rounding may do."""
    seen = [[None if run.kind == EMBEDDING else cloud(run, family) for family in _FAMILIES] for run in runs]
    if not any(family is not None for families in seen for family in families):
        return None
    says = tuple(f"{run.label}: {_sentence(run, families)}" for run, families in zip(runs, seen, strict=True))
    figure = canvas.styled(lambda: _figure(runs, seen))
    return Picture("log_odds_ranges", _TITLE, _HOW, says, alternative(_TITLE, says), figure)


def _figure(runs: Sequence[DrawnRun], seen: Sequence[Families]) -> Figure:
    figure, axes = canvas.panels(
        runs, [_note(families) for families in seen], x="radius, grey levels", y="range of the log-odds, nat"
    )
    every = [family for families in seen for family in families if family is not None]
    bands = [[over_images(family.log_odds, q) for q in (0.1, 0.5, 0.9)] for family in every]
    floors = [_floor(family) for family in every]
    shown = [values for band in bands for values in band] + [np.array([value]) for value in floors]
    bottom, top = canvas.log_limits(shown, room=any((np.concatenate(band) == 0).any() for band in bands))
    for ax, run, families in zip(axes, runs, seen, strict=True):
        canvas.log_axis(ax, "y", bottom, top)
        if all(family is None for family in families):
            canvas.absent(ax, absent(run))
            continue
        if not any(family is not None and np.isfinite(family.log_odds).any() for family in families):
            canvas.absent(ax, "log-odds undefined:\nprobabilities rounded\nto 0 or 1")
            continue
        for family, (dashes, marker), colour in zip(families, _LOOKS, canvas.COLOURS, strict=False):
            if family is None:
                continue
            low, middle, high = (np.maximum(over_images(family.log_odds, q), bottom) for q in (0.1, 0.5, 0.9))
            ax.fill_between(family.radius, low, high, color=colour, alpha=0.18, linewidth=0)
            ax.plot(family.radius, middle, color=colour, linestyle=dashes, marker=marker, markersize=3, linewidth=1.2)
            if np.isfinite(_floor(family)):
                ax.axhline(max(_floor(family), bottom), color="black", linestyle=":", linewidth=1)
        canvas.plain_ticks(ax.xaxis)
    lines = [
        Line2D([], [], color=colour, linestyle=dashes, marker=marker, markersize=3)
        for _, (dashes, marker), colour in zip(_FAMILIES, _LOOKS, canvas.COLOURS, strict=False)
    ]
    handles = [*lines, Patch(color=canvas.GREY, alpha=0.3, linewidth=0), Line2D([], [], color="black", linestyle=":")]
    labels = [f"{family.short}, median" for family in _FAMILIES] + ["10 to 90 % of the images", "rounding"]
    canvas.legend(figure, handles, labels, columns=2)
    return figure


def _floor(family: Cloud) -> float:
    """What rounding may do to the median image over as many trials, nat."""
    return float(over_images(family.floor[:, None], 0.5)[0])


def _note(families: Families) -> str:
    lost = [family.log_odds for family in families if family is not None]
    undefined, size = (sum(int(f(values)) for values in lost) for f in (lambda v: np.isnan(v).sum(), np.size))
    return f"{undefined} of {size} undefined" if undefined else ""


def _sentence(run: DrawnRun, families: Families) -> str:
    parts = []
    for family, words in zip(families, (declared.short for declared in _FAMILIES), strict=True):
        if family is None:
            continue
        median = over_images(family.log_odds, 0.5)
        defined = np.flatnonzero(np.isfinite(median))
        if not defined.size:
            parts.append(f"under {words} the log-odds are undefined")
            continue
        ends = dict.fromkeys((int(defined[0]), int(defined[-1])))
        each = " and ".join(f"{number(median[k])} nat at radius {family.radius[k]:g}" for k in ends)
        parts.append(f"under {words} the log-odds of the median image vary by {each}{_above(family, median, defined)}")
    return "; ".join(parts or [" ".join(absent(run).split())]) + "."


def _above(family: Cloud, median: Array, defined: np.ndarray) -> str:
    floor = _floor(family)
    if not np.isfinite(floor):
        return ""
    below = [f"{family.radius[k]:g}" for k in defined if median[k] <= floor]
    return f" (not above what rounding may do at radius {', '.join(below)})" if below else ""
