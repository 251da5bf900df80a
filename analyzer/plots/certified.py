"""Certified accuracy over the L2 radius, of networks smoothed by Gaussian noise."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyzer.measures import certified
from analyzer.plots import canvas
from analyzer.plots.model import Array, DrawnRun, Picture, alternative, has, measured, number, radii, trials

_TITLE = "Certified accuracy of the smoothed network"
_HOW = (
    "Each line is one sigma: the share of the measured images that are certified, as their true class, within the L2 "
    "radius on the axis (Cohen, Rosenfeld and Kolter 2019; each image's certificate is wrong with probability at most "
    "0.001). It ends where so many trials can certify no more. Only images that the network itself classifies "
    "correctly, with the confidence asked for, are measured."
)
_DASHES: tuple[Any, ...] = ("-", "--", ":", "-.")


def draw(runs: Sequence[DrawnRun]) -> Picture | None:
    """One step line a sigma, one panel a run."""
    seen_of = [_seen(run) for run in runs]
    if all(seen is None for seen in seen_of):
        return None
    says = tuple(f"{run.label}: {_sentence(run, seen)}" for run, seen in zip(runs, seen_of, strict=True))
    figure = canvas.styled(lambda: _figure(runs, seen_of))
    return Picture("certified", _TITLE, _HOW, says, alternative(_TITLE, says), figure)


def _seen(run: DrawnRun) -> Array | None:
    """(image, sigma), certified radii of the true class."""
    if not has(run, *certified.RADIUS.reads):
        return None
    dataset = measured(run)
    return certified.right(*(dataset[name].values for name in certified.RADIUS.reads))


def _most(run: DrawnRun) -> Array:
    """(sigma,), the radius that an image has whose every trial answers alike."""
    rest = trials(run) - certified.selection_trials(trials(run))
    _, radius = certified.certify(np.zeros((len(radii(run)), trials(run)), np.int32), radii(run))
    assert rest > 0
    return radius


def _figure(runs: Sequence[DrawnRun], seen_of: Sequence[Array | None]) -> Figure:
    figure, axes = canvas.panels(runs, [""] * len(runs), x="L2 radius, grey levels", y="certified accuracy")
    sigmas = sorted({float(s) for run, seen in zip(runs, seen_of, strict=True) if seen is not None for s in radii(run)})
    for ax, run, seen in zip(axes, runs, seen_of, strict=True):
        ax.set_ylim(0, 1.04)
        if seen is None:
            canvas.absent(ax, "not measured")
            continue
        for k, (sigma, most) in enumerate(zip(radii(run), _most(run), strict=True)):
            place = sigmas.index(float(sigma))
            known = np.sort(seen[:, k])
            end = most if np.isfinite(most) else 0.0
            steps = np.array([0.0, *known[known > 0], end])
            share = np.array([*((known > 0) & (known >= r) for r in steps)]).mean(axis=1)
            ax.plot(
                steps,
                share,
                drawstyle="steps-pre",
                color=canvas.COLOURS[place % len(canvas.COLOURS)],
                linestyle=_DASHES[place % len(_DASHES)],
                linewidth=1.4,
            )
        canvas.plain_ticks(ax.xaxis)
        ax.set_xlim(left=0)
    handles = [
        Line2D([], [], color=canvas.COLOURS[k % len(canvas.COLOURS)], linestyle=_DASHES[k % len(_DASHES)])
        for k in range(len(sigmas))
    ]
    canvas.legend(figure, handles, [f"sigma {sigma:g}" for sigma in sigmas])
    return figure


def _sentence(run: DrawnRun, seen: Array | None) -> str:
    if seen is None:
        return "not measured."
    each = [
        f"{(seen[:, k] > 0).mean():.0%} at sigma {sigma:g}, within up to {number(float(seen[:, k].max()))}"
        for k, sigma in enumerate(radii(run))
    ]
    return f"of {len(seen)} images are certified {'; '.join(each)} grey levels."
