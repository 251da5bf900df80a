"""The share of images that noise of each radius gets misclassified, all runs in one panel."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from analyzer.card import EMBEDDING
from analyzer.measures import REGISTRY
from analyzer.plots import canvas
from analyzer.plots.model import DrawnRun, Picture, alternative, cloud, trials
from analyzer.statistics import Estimate, share

_FAMILY = next(measure.scores for measure in REGISTRY.values() if measure.scores and measure.family == "noise")
_TITLE = "Images misclassified under noise"
_HOW = (
    "The share of images that at least one noise vector of this radius got misclassified. Bars are 95 % intervals "
    "(Wilson), which say how much the choice of images matters. The more perturbations are tried, the larger the share."
)
_SHIFTED = " Runs are drawn slightly beside each other, so that none covers another."
_APART = 0.005  # of the axis, between two runs at one radius, where the radii leave room for it


def draw(runs: Sequence[DrawnRun]) -> Picture | None:
    """Share and Wilson interval per radius, one line a run."""
    shares_of = [_shares(run) for run in runs]
    if not any(shares_of):
        return None
    says = tuple(f"{run.label}: {_sentence(run, shares)}" for run, shares in zip(runs, shares_of, strict=True))
    figure = canvas.styled(lambda: _figure(runs, shares_of))
    how = _HOW + _SHIFTED * (sum(map(bool, shares_of)) > 1)
    return Picture("misclassified", _TITLE, how, says, alternative(_TITLE, says), figure)


def _shares(run: DrawnRun) -> dict[float, Estimate]:
    """By radius; empty where noise was not measured."""
    seen = cloud(run, _FAMILY)
    if seen is None or (run.kind == EMBEDDING and np.isnan(seen.wrong).all()):
        return {}
    flags = np.where(np.isnan(seen.wrong), np.nan, seen.wrong > 0)
    return {float(radius): share(column) for radius, column in zip(seen.radius, flags.T, strict=True)}


def _figure(runs: Sequence[DrawnRun], shares_of: Sequence[dict[float, Estimate]]) -> Figure:
    figure, axes = canvas.blank(canvas.WIDTH, 2.9 + 0.3 * -(-len(runs) // 2), 1, 1)
    ax = axes[0, 0]
    seen = [radius for shares in shares_of for radius in shares]
    extent = max(seen) - min(seen) or max(seen)
    handles, labels = [], []
    drawn = [k for k, shares in enumerate(shares_of) if shares]
    for place, k in enumerate(drawn):
        run, shares = runs[k], shares_of[k]
        radii = np.array(list(shares))
        value, low, high = np.array([(e.value, e.low, e.high) for e in shares.values()]).T
        look = {"color": canvas.COLOURS[k % len(canvas.COLOURS)], "zorder": 3}
        spacing = np.median(np.diff(radii)) if len(radii) > 1 else extent
        beside = radii + (place - (len(drawn) - 1) / 2) * min(_APART * extent, 0.9 * spacing / len(drawn))
        (line,) = ax.plot(
            beside,
            value,
            linestyle=canvas.DASHES[k % len(canvas.DASHES)],
            marker=canvas.MARKERS[(k + k // len(canvas.COLOURS)) % len(canvas.MARKERS)],
            markersize=4,
            linewidth=1.2,
            **look,
        )
        ax.vlines(beside, low, high, color=look["color"], linewidth=1, alpha=0.6)
        handles.append(line)
        labels.append(run.label)
    ax.set_ylim(-0.03, 1.03)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    canvas.plain_ticks(ax.xaxis, 8)
    ax.set_xlabel("radius, grey levels", parse_math=False)
    ax.set_ylabel("images misclassified at least once", parse_math=False)
    canvas.legend(figure, handles, labels, columns=min(len(labels), 2))
    return figure


def _sentence(run: DrawnRun, shares: dict[float, Estimate]) -> str:
    if not shares:
        known = run.kind == EMBEDDING and cloud(run, _FAMILY) is not None
        return "an embedding without labels has no classes." if known else "noise was not measured."
    radius = max(shares)
    there = shares[radius]
    if not there.n:
        return f"undefined at radius {radius:g}."
    wrong = round(there.value * there.n)
    return (
        f"at radius {radius:g}, at least one of {trials(run)} noise vectors got {wrong} of {there.n} images "
        f"misclassified ({there.value:.0%}; 95 % interval {there.low:.0%} to {there.high:.0%})."
    )
