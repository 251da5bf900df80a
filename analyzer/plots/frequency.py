"""Section 2.2's frequency argument: a kernel's spectrum against what reordering noise does to its response."""

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from analyzer.analyses.frequency import predicted_norm_difference
from analyzer.plots import canvas
from analyzer.plots.model import Picture, number
from analyzer.plots.text import shortened

if TYPE_CHECKING:
    from analyzer.analyses.frequency import Frequency

_TITLE = "First convolution: reordered noise against the kernel's spectrum"
_HOW = (
    "Each point is one filter of the first convolution. To the right, its spectrum is flat; to the left, peaked. Up is "
    "how much the norm of its response changes when the noise is reordered, on average. The line is what the spectrum "
    "predicts where a kernel's energy is spread evenly over the channels and borders do not matter. On the right, the "
    "power spectra of the filters at both ends, relative to their maximum; frequency 0 is in the middle."
)


def draw(frequency: "Frequency", *, name: str, says: str) -> Picture:
    """One point a filter with the predicted curve, beside the spectra of the steadiest and the least steady filter.

    name: of the layer, for the title. says: the sentence below.
    """
    figure = canvas.styled(lambda: _figure(frequency, name))
    return Picture("frequency", _TITLE, _HOW, (says,), f"{_TITLE}: {name}. {says}", figure)


def _figure(frequency: "Frequency", name: str) -> Figure:
    figure = Figure(figsize=(canvas.WIDTH, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = np.asarray(figure.subfigures(1, 2, width_ratios=(2.2, 1)))
    ax, (upper, lower) = left.subplots(), right.subplots(2, 1, sharex=True)
    figure.suptitle(
        shortened(name, letters=canvas.letters_in(canvas.WIDTH, 8.5)), fontsize=8.5, x=0.02, ha="left", parse_math=False
    )
    reordered = frequency.norm_difference[0]
    defined = np.isfinite(reordered) & np.isfinite(frequency.participation)
    if not defined.any():
        canvas.absent(ax, "every filter is 0")
        return figure
    _points(ax, frequency, defined)
    order = np.flatnonzero(defined)[np.argsort(reordered[defined], kind="stable")]
    drawn: Any = None
    for panel, index, what in ((lower, order[0], "least"), (upper, order[-1], "most")):
        drawn = _spectrum(panel, frequency.spectrum[index], _of(frequency, index, what))
    lower.set_xlabel("cycles a pixel", parse_math=False)
    canvas.legend(figure, *_key(), columns=3)
    bar = right.colorbar(drawn, ax=[upper, lower], location="bottom", aspect=14, pad=0.02)
    bar.set_label("dB of the maximum", parse_math=False)
    bar.outline.set_linewidth(0.5)
    canvas.plain_ticks(bar.ax.xaxis, 4)
    return figure


def _key() -> tuple[list[Line2D], list[str]]:
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=3.5, color=canvas.COLOURS[0]),
        Line2D([], [], linestyle="", marker="_", markersize=5, color=canvas.COLOURS[1]),
        Line2D([], [], color="black", linewidth=1.2),
    ]
    return handles, ["measured", "expected, exactly", "by the spectrum alone"]


def _points(ax: Axes, frequency: "Frequency", defined: Any) -> None:
    x, measured, expected = (
        frequency.participation[defined],
        frequency.norm_difference[0][defined],
        frequency.norm_difference_predicted,
    )
    reach = np.geomspace(x.min() / 1.15, min(1.0, x.max() * 1.15), 200)
    line = predicted_norm_difference(reach, positions=frequency.positions, dimension=frequency.dimension)
    ax.plot(reach, line, color="black", linewidth=1.2)
    ax.scatter(x, expected[0][defined], s=14, marker="_", color=canvas.COLOURS[1], linewidths=1, rasterized=True)
    ax.scatter(x, measured, s=11, color=canvas.COLOURS[0], linewidths=0, zorder=3, rasterized=True)
    canvas.log_axis(ax, "x", reach[0], reach[-1] * 1.02)
    shown = [measured, expected[0][defined], line]
    canvas.log_axis(ax, "y", *canvas.log_limits(shown, room=False))
    for axis in (ax.xaxis, ax.yaxis):
        low, high = axis.get_view_interval()
        if high / low < 15:  # filters of one layer are often so alike
            axis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    ax.set_xlabel("participation ratio of |W(f)|²: peaked to flat", parse_math=False)
    ax.set_ylabel("relative difference of response norms", parse_math=False)


def _spectrum(ax: Axes, power: Any, title: str) -> Any:
    level = 10 * np.log10(np.maximum(power / power.max(), 1e-3))
    drawn = ax.imshow(
        level, origin="lower", extent=(-0.5, 0.5, -0.5, 0.5), cmap="cividis", vmin=-30, vmax=0, interpolation="nearest"
    )
    ax.set_title(title, parse_math=False, loc="left", fontsize=8)
    for axis in (ax.xaxis, ax.yaxis):
        canvas.plain_ticks(axis, 2)
    return drawn


def _of(frequency: "Frequency", k: int, what: str) -> str:
    change = number(100 * frequency.norm_difference[0][k])
    return f"filter {k}\n{what} change: {change} %\nparticipation {number(frequency.participation[k])}"
