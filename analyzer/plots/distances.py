"""Fig. 6: how far the features move against how far the input was moved, both over their calibration ranges."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyzer.measures import lipschitz
from analyzer.measures.quantities import by_image
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
    radii,
    rows,
    suffix,
)
from analyzer.statistics import Estimate
from analyzer.store import scales_of

MOST = 20_000  # points a panel
_SEED = 0
_TITLE = "Lipschitz: feature distance against input distance"
_HOW = (
    "Each point is one perturbation: its length against the distance by which it moved the features, each over the "
    "range that the input and the layer have on the clean images. Points below the dotted line L = 1 are damped, "
    "points above it amplified; both axes are logarithmic, so that equal ratios lie on lines parallel to it, and the "
    "linear and the quadratic fit are bent. The colour is the radius. Random noise sees a lower bound of the local "
    "Lipschitz constant.{thinned}{last}"
)
_LAST = " Of several layers, the last is shown here; all of them are in the profile along the depth."


class _Seen(NamedTuple):
    x: Array
    """Input distances over the range of h, (image, radius, trial) flattened."""
    y: Array
    """Feature distances over the range of g."""
    radius: Array
    fits: tuple[Array, Array]
    """Coefficients of the linear and of the quadratic fit, lowest order first; NaN where there is none."""
    slope: Estimate | None
    """Of the linear fit."""


def draw(runs: Sequence[DrawnRun]) -> Picture | None:
    """Points, fits and the line L = 1; the last layer of each run."""
    seen_of = [_seen(run) for run in runs]
    if not any(seen_of):
        return None
    says = tuple(f"{run.label}: {_sentence(seen)}" for run, seen in zip(runs, seen_of, strict=True))
    thinned = any(seen is not None and len(seen.x) > MOST for seen in seen_of)
    how = _HOW.format(
        thinned=f" At most {MOST:,} points a panel are drawn, chosen at random; the fits use all." if thinned else "",
        last=_LAST if any(len(layers(run)) > 1 for run in runs) else "",
    )
    figure = canvas.styled(lambda: _figure(runs, seen_of))
    return Picture("fig6_distances", _TITLE, how, says, alternative(_TITLE, says), figure)


def _seen(run: DrawnRun) -> _Seen | None:
    if not has(run, *lipschitz.RAW.reads):
        return None
    dataset = measured(run).isel(layer=-1)
    layer = layers(run)[-1]
    scales = scales_of(run.dataset)

    def scaled(moved: Any, added: Any) -> tuple[Array, ...]:
        return added / scales.h, moved / scales.g[-1]

    x, y = by_image(dataset, lipschitz.RAW.reads, scaled)
    numbers, end = rows(run), suffix(run, layer)

    def coefficients(names: Sequence[str]) -> Array:
        return np.array([numbers[name + end].value if name + end in numbers else np.nan for name in names])

    fits = coefficients(lipschitz.LINEAR_FIT), coefficients(lipschitz.QUADRATIC_FIT)
    radius = np.broadcast_to(radii(run)[None, :, None], x.shape)
    return _Seen(x.ravel(), y.ravel(), radius.ravel(), fits, numbers.get(lipschitz.LINEAR_FIT[1] + end))


def _figure(runs: Sequence[DrawnRun], seen_of: Sequence[_Seen | None]) -> Figure:
    notes = [_note(run, seen) for run, seen in zip(runs, seen_of, strict=True)]
    figure, axes = canvas.panels(runs, notes, x="input distance / range", y="feature distance / range", scale=True)
    drawn = [seen for seen in seen_of if seen is not None]
    both = [np.isfinite(seen.x) & np.isfinite(seen.y) for seen in drawn]
    left, right = canvas.log_limits([seen.x[k] for seen, k in zip(drawn, both, strict=True)], room=False)
    room = any((seen.y[k] == 0).any() for seen, k in zip(drawn, both, strict=True))
    bottom, top = canvas.log_limits([seen.y[k] for seen, k in zip(drawn, both, strict=True)], room=room)
    top = max(top, min(right, left * 10))  # the line L = 1 has to be in sight
    every = np.concatenate([seen.radius for seen in drawn])
    colours = Normalize(0.0, float(every.max()))
    points = None
    for ax, seen in zip(axes, seen_of, strict=True):
        canvas.log_axis(ax, "y", bottom, top)
        canvas.log_axis(ax, "x", left, right)
        if seen is None:
            canvas.absent(ax, "not measured")
            continue
        shown = np.flatnonzero(np.isfinite(seen.x) & np.isfinite(seen.y) & (seen.x > 0))
        if not shown.size:
            canvas.absent(ax, "undefined: nothing was added,\nor the layer does not vary")
            continue
        if shown.size > MOST:
            shown = np.sort(np.random.default_rng(_SEED).choice(shown, MOST, replace=False))
        points = ax.scatter(
            seen.x[shown],
            np.maximum(seen.y[shown], bottom),
            c=seen.radius[shown],
            cmap="cividis",
            norm=colours,
            s=4,
            linewidths=0,
            rasterized=True,
            zorder=2,
        )
        line = np.geomspace(left, right, 200)
        ax.plot(line, line, color="black", linestyle=":", linewidth=1.2, zorder=3, path_effects=canvas.outlined())
        inside = np.geomspace(seen.x[shown].min(), seen.x[shown].max(), 200)
        for coefficients, colour, dashes in zip(seen.fits, _FIT_COLOURS, _FIT_DASHES, strict=True):
            fitted = np.polynomial.polynomial.polyval(inside, coefficients)
            ax.plot(
                inside, np.where(fitted > 0, fitted, np.nan), color=colour, linestyle=dashes, linewidth=1.4, zorder=4
            )
    if points is not None:
        canvas.colour_bar(figure, points, axes, "radius, grey levels")
    handles = [
        Line2D([], [], color=colour, linestyle=dashes)
        for colour, dashes in zip((*_FIT_COLOURS, "black"), (*_FIT_DASHES, ":"), strict=True)
    ]
    canvas.legend(figure, handles, ["linear fit", "quadratic fit", "L = 1"])
    return figure


_FIT_COLOURS = (canvas.COLOURS[1], canvas.COLOURS[5])
_FIT_DASHES: tuple[Any, ...] = ("-", "--")


def _note(run: DrawnRun, seen: _Seen | None) -> str:
    parts = [f"layer {layers(run)[-1]}"] if len(layers(run)) > 1 else []
    if seen is not None:
        defined = np.isfinite(seen.x) & np.isfinite(seen.y) & (seen.x > 0)
        still = int((defined & (seen.y == 0)).sum())
        if still:
            parts.append(f"{still} of {defined.size} at the bottom: 0")
        if not defined.all() and defined.any():
            parts.append(f"{int((~defined).sum())} of {defined.size} undefined")
    return "\n".join(parts)


def _sentence(seen: _Seen | None) -> str:
    if seen is None:
        return "not measured."
    defined = np.isfinite(seen.x) & np.isfinite(seen.y) & (seen.x > 0)
    if not defined.any():
        return "the ratio is undefined: nothing was added, or the layer does not vary over the image set."
    ratio = seen.y[defined] / seen.x[defined]
    text = (
        f"{(ratio < 1).mean():.1%} of {ratio.size:,} perturbations lie below L = 1, the median ratio is "
        f"{number(np.median(ratio))}"
    )
    slope = seen.slope
    if slope is not None and np.isfinite(slope.value):
        interval = f" (95 % interval {number(slope.low)} to {number(slope.high)})" if np.isfinite(slope.low) else ""
        text += f", the slope of the linear fit {number(slope.value)}{interval}"
    return f"{text}."
