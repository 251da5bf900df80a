"""Fig. 2: the score landscape on a plane through an image, with the noise and its reordering marked."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyzer.analyses.landscape.sentences import probability_text
from analyzer.plots import canvas
from analyzer.plots.model import Picture
from analyzer.plots.text import shortened

if TYPE_CHECKING:
    from analyzer.analyses.landscape import Landscape

_TITLE = "Score landscape around an image"
_HOW = (
    "Each point of the plane is the image plus a times a noise vector u plus b times a reordering v of the same noise; "
    "the colour is the score of the class there, as a probability and as log-odds. Were the network symmetric around "
    "the image, it would give u and v, the square and the triangle, the same score. The line is the decision boundary: "
    "beyond it another class has the larger score."
)
_PROBABILITY = "probability"
_POINTS = (("o", "image"), ("s", "image + u"), ("^", "image + v"))
_BOUNDARY = canvas.COLOURS[1]
_OUTLINE = [patheffects.Stroke(linewidth=2.6, foreground="white"), patheffects.Normal()]


def draw(landscape: "Landscape", *, name: str, label: str, says: str) -> Picture:
    """Probability and log-odds on the plane, above the image and its two perturbed copies.

    name: of the image, for the title. label: the class in words. says: the sentence below.
    """
    figure = canvas.styled(lambda: _figure(landscape, name, label))
    return Picture("fig2_landscape", _TITLE, _HOW, (says,), f"{_TITLE}: {name}. {says}", figure)


def _figure(landscape: "Landscape", name: str, label: str) -> Figure:
    figure = Figure(figsize=(canvas.WIDTH, 5.3), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = np.asarray(figure.subfigures(2, 1, height_ratios=(3.2, 2.1)))
    title = shortened(f"{name}: class {label}", letters=canvas.letters_in(canvas.WIDTH, 8.5))
    figure.suptitle(title, fontsize=8.5, x=0.02, ha="left", parse_math=False)
    left, right = above.subplots(1, 2, sharex=True, sharey=True)
    _plane(left, landscape, landscape.score, _PROBABILITY)
    _plane(right, landscape, landscape.log_odds, "log-odds, nat")
    left.set_ylabel("b, lengths of v", parse_math=False)
    _legend(above, landscape)
    for ax, pixels, (_, what), score, odds in zip(
        below.subplots(1, 3), landscape.images, _POINTS, landscape.marked_score, landscape.marked_log_odds, strict=True
    ):
        _thumbnail(ax, pixels)
        odds_said = f", {odds:.3g} nat" if np.isfinite(odds) else ""
        ax.set_title(f"{what}\n{probability_text(score)}{odds_said}", parse_math=False)
    return figure


def _plane(ax: Axes, landscape: "Landscape", values: Any, label: str) -> None:
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    colours = Normalize(low, high if high > low else low + 1e-12)
    extent = float(landscape.a[-1])
    half = extent / (len(landscape.a) - 1)  # imshow's extent is that of the pixels' edges
    edges = (-extent - half, extent + half, -extent - half, extent + half)
    ax.imshow(values, origin="lower", extent=edges, cmap="cividis", norm=colours, interpolation="nearest")
    if not finite.size:
        canvas.absent(ax, "undefined")
    if landscape.crossed:
        lines = ax.contour(landscape.a, landscape.b, landscape.margin, levels=[0], colors=_BOUNDARY, linewidths=1.4)
        lines.set_path_effects(_OUTLINE)
    for (marker, _), at in zip(_POINTS, ((0, 0), (1, 0), (0, 1)), strict=True):
        ax.plot(*at, marker=marker, markersize=5.5, markerfacecolor="white", markeredgecolor="black", linestyle="")
    for axis in (ax.xaxis, ax.yaxis):
        canvas.plain_ticks(axis, 6)
    ax.set_xlim(edges[:2])
    ax.set_ylim(edges[2:])
    ax.set_aspect("equal")
    ax.set_xlabel("a, lengths of u", parse_math=False)
    bar = ax.figure.colorbar(
        ScalarMappable(colours, "cividis"), cax=ax.inset_axes((0, 1.04, 1, 0.05)), orientation="horizontal"
    )
    bar.ax.xaxis.set_ticks_position("top")
    bar.ax.xaxis.set_label_position("top")
    bar.set_label(label, parse_math=False)
    bar.outline.set_linewidth(0.5)
    if label == _PROBABILITY:  # near 1, what is in between would have no room for its digits
        ends = sorted({low, high})
        bar.set_ticks(ends, labels=[probability_text(end) for end in ends])
    else:
        canvas.plain_ticks(bar.ax.xaxis, 4)


def _legend(above: Any, landscape: "Landscape") -> None:
    """The marks and the boundary, or that there is none, between the planes and the images."""
    handles = [
        Line2D([], [], linestyle="", marker=marker, markersize=5.5, markerfacecolor="white", markeredgecolor="black")
        for marker, _ in _POINTS
    ]
    labels = [what for _, what in _POINTS]
    labels.append("decision boundary" if landscape.crossed else "no decision boundary in the window")
    handles.append(Line2D([], [], color=_BOUNDARY if landscape.crossed else "none"))
    above.legend(handles, labels, loc="outside lower center", ncols=4, handlelength=1.6, columnspacing=1.4)


def _thumbnail(ax: Axes, pixels: Any) -> None:
    shown = np.clip(np.nan_to_num(np.asarray(pixels, np.float64)), 0, 255).round().astype(np.uint8).transpose(1, 2, 0)
    ax.imshow(shown.squeeze(axis=2) if shown.shape[2] == 1 else shown, cmap="gray", vmin=0, vmax=255)
    ax.set_axis_off()
