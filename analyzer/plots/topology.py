"""Fig. 4: Mantel's r against the radius, beside what a linear map of the same participation ratio would show."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analyzer.measures import topology
from analyzer.measures.reference import linear_band
from analyzer.plots import canvas
from analyzer.plots.model import (
    Array,
    DrawnRun,
    Picture,
    alternative,
    dimension,
    has,
    layers,
    measured,
    norm,
    over_images,
    radii,
    trials,
)

_TITLE = "Topology: Mantel's r of input and feature distances"
_HOW = (
    "Each point is one image at one radius: how well the distances between perturbed inputs agree with those between "
    "their features; 1 would mean that neighbours stay neighbours. The solid line is the median image. The dashed "
    "line is what a linear map of the same participation ratio is expected to have (median), and the band holds 95 % "
    "of the values that {simulated} show. Points inside the band are therefore no evidence of non-linearity, however "
    "low they are. The simulated maps are sensitive to all pixels alike: a linear map whose sensitivity is local, as "
    "that of a convolution, can lie above the band.{last}"
)
_LAST = " Of several layers, the last is shown here; all of them are in the profile along the depth."


class _Seen(NamedTuple):
    radius: Array
    r: Array
    linear: Array
    low: Array
    high: Array


def draw(runs: Sequence[DrawnRun]) -> Picture | None:
    """Points, median, linear reference and its band; the last layer of each run."""
    seen_of = [_seen(run) for run in runs]
    if not any(seen_of):
        return None
    says = tuple(f"{run.label}: {_sentence(seen)}" for run, seen in zip(runs, seen_of, strict=True))
    simulated = "simulated Gaussian linear maps of the median ratio, with as many perturbations,"
    how = _HOW.format(simulated=simulated, last=_LAST if any(len(layers(run)) > 1 for run in runs) else "")
    return Picture(
        "fig4_mantel", _TITLE, how, says, alternative(_TITLE, says), canvas.styled(lambda: _figure(runs, seen_of))
    )


def _seen(run: DrawnRun) -> _Seen | None:
    names = (*topology.MINUS_LINEAR.reads, *topology.PARTICIPATION.reads)
    if not has(run, *names):
        return None
    dataset = measured(run).isel(layer=-1)
    r, linear, ratio = (np.asarray(dataset[name].values, dtype=np.float64) for name in names)
    size = {"dimension": dimension(run), "trials": trials(run)}
    low, _, high = linear_band(over_images(ratio, 0.5), norm=norm(run), **size)
    return _Seen(radii(run), r, over_images(linear, 0.5), low, high)


def _figure(runs: Sequence[DrawnRun], seen_of: Sequence[_Seen | None]) -> Figure:
    notes = [_note(run, seen) for run, seen in zip(runs, seen_of, strict=True)]
    figure, axes = canvas.panels(runs, notes, x="radius, grey levels", y="Mantel's r")
    halo = canvas.outlined()
    for ax, seen in zip(axes, seen_of, strict=True):
        if seen is None or not np.isfinite(seen.r).any():
            canvas.absent(ax, "not measured" if seen is None else "undefined at every radius")
            continue
        x = np.broadcast_to(seen.radius, seen.r.shape)
        shape = canvas.mark(seen.radius)
        ax.axhline(0, color=canvas.GREY, linewidth=0.6)
        ax.fill_between(seen.radius, seen.low, seen.high, color=canvas.COLOURS[4], alpha=0.3, linewidth=0)
        ax.plot(
            seen.radius,
            seen.linear,
            color=canvas.COLOURS[1],
            linestyle="--",
            linewidth=1.3,
            zorder=5,
            path_effects=halo,
            **shape,
        )
        for edge in (seen.low, seen.high):
            ax.plot(seen.radius, edge, color=canvas.COLOURS[4], linewidth=1, zorder=3, **shape)
        ax.scatter(
            x,
            seen.r,
            s=7 * canvas.thinner(len(seen.r)),
            color=canvas.COLOURS[0],
            alpha=0.55,
            linewidths=0,
            rasterized=True,
            zorder=2,
        )
        ax.plot(
            seen.radius, over_images(seen.r, 0.5), color="black", linewidth=1.2, zorder=4, path_effects=halo, **shape
        )
        canvas.plain_ticks(ax.xaxis)
        canvas.plain_ticks(ax.yaxis)
    handles = [
        Line2D([], [], color=canvas.COLOURS[0], linestyle="", marker="o", markersize=3),
        Line2D([], [], color="black"),
        Line2D([], [], color=canvas.COLOURS[1], linestyle="--"),
        Patch(facecolor=to_rgba(canvas.COLOURS[4], 0.3), edgecolor=canvas.COLOURS[4]),
    ]
    labels = ["one image", "median image", "linear map, expected", "linear map, 95 % of simulated"]
    canvas.legend(figure, handles, labels, columns=2)
    return figure


def _note(run: DrawnRun, seen: _Seen | None) -> str:
    parts = [f"layer {layers(run)[-1]}"] if len(layers(run)) > 1 else []
    if seen is not None and np.isnan(seen.r).any():
        parts.append(f"{int(np.isnan(seen.r).sum())} of {seen.r.size} undefined")
    return "\n".join(parts)


def _sentence(seen: _Seen | None) -> str:
    if seen is None:
        return "not measured."
    defined = np.isfinite(seen.r)
    if not defined.any():
        return "Mantel's r is undefined at every radius."
    medians = over_images(seen.r, 0.5)
    inside = defined & (seen.r >= seen.low) & (seen.r <= seen.high)
    where = np.isfinite(medians)
    low, high = medians[where].min(), medians[where].max()
    lines = seen.linear[np.isfinite(seen.linear)]
    expected = f"; a linear map would have {lines.min():+.3f} to {lines.max():+.3f}" if lines.size else ""
    return (
        f"the median r lies between {low:+.3f} and {high:+.3f}, depending on the radius{expected}; {inside.sum()} of "
        f"{defined.sum()} values ({inside.sum() / defined.sum():.0%}) lie within the band, where 95 % of Gaussian "
        "linear maps of the median participation ratio do."
    )
