"""Figures, panels and files: what all pictures share. No pyplot; matplotlib's settings are put back afterwards."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from analyzer.plots.model import Array, DrawnRun
from analyzer.plots.text import printable, shortened, tick

WIDTH = 6.25  # inches: 600 pixels at the 96 a screen has to an inch, where a letter of 8 points is still read
ACROSS = 3  # panels side by side
# Okabe and Ito, "Color universal design", 2008: told apart by colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
GREY = "#666666"
_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "text.parse_math": False,
    "svg.hashsalt": "convnet-analyzer",
    "svg.fonttype": "path",
}


@contextmanager
def style() -> Iterator[None]:
    """Our settings, whatever the user's are, for as long as the context lasts."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def blank(
    width: float, height: float, rows: int, columns: int, *, sharex: Any = False, sharey: Any = False
) -> tuple[Figure, NDArray[Any]]:
    """A figure of these inches, and its (rows, columns) axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, sharex=sharex, sharey=sharey, squeeze=False)
    return figure, np.asarray(axes, dtype=object)


def panels(
    runs: Sequence[DrawnRun],
    titles: Sequence[str],
    *,
    x: str,
    y: str,
    height: float = 2.6,
    scale: bool = False,
) -> tuple[Figure, list[Axes]]:
    """One panel a run with shared axes, two or three a row; a title has the run's label, then what is said below it.

    scale: whether a colour bar is to stand beside them.
    """
    columns = columns_for(len(runs))
    lines = -(-len(runs) // columns)
    each = (WIDTH - (0.75 if scale else 0.0)) / columns - (0.5 if columns > 1 else 1.0)
    figure, axes = blank(WIDTH, height * lines + 0.4, lines, columns, sharex=True, sharey=True)
    headings = [heading(run.label, note, width=each) for run, note in zip(runs, titles, strict=True)]
    for number, ax in enumerate(axes.flat):
        if number >= len(runs):
            ax.set_axis_off()
            continue
        beside = headings[number - number % columns :][:columns]
        missing = max(text.count("\n") for text in beside) - headings[number].count("\n")
        ax.set_title(headings[number] + "\n " * missing, parse_math=False, loc="left")
        if number % columns == 0:
            ax.set_ylabel(y, parse_math=False)
        if number + columns >= len(runs):
            ax.set_xlabel(x, parse_math=False)
            ax.tick_params(labelbottom=True)
    return figure, list(axes.flat[: len(runs)])


def columns_for(count: int) -> int:
    """How many panels side by side: 4 make a square, others up to 3 a row."""
    return 2 if count == 4 else min(count, ACROSS)


def heading(label: str, note: str = "", *, width: float, lines: int = 2) -> str:
    """A panel's title: a label of at most so many lines, and a note of as many lines as it takes, in `width` inches."""
    letters = letters_in(width, 8.5)
    note = "\n".join(shortened(part, letters=letters, lines=5) for part in note.split("\n") if part)
    text = shortened(label, letters=letters, lines=lines)
    return f"{text}\n{note}" if note else text


def letters_in(width: float, points: float) -> int:
    """How many letters of this size fit into so many inches; a letter of this font is about 0.6 of its size wide."""
    return int(width * 72 / (0.6 * points))


def absent(ax: Axes, why: str) -> None:
    """A panel without data, and the reason."""
    ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", va="center", color=GREY, parse_math=False, wrap=False)


def plain_ticks(axis: Any, count: int = 5) -> None:
    """A linear axis with round numbers and no markup."""
    axis.set_major_locator(MaxNLocator(count, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(tick))


def log_axis(ax: Axes, which: str, low: float, high: float) -> None:
    """A logarithmic axis from `low` to `high`: powers of ten labelled, 2 and 5 too where there are few of those."""
    axis = ax.yaxis if which == "y" else ax.xaxis
    (ax.set_yscale if which == "y" else ax.set_xscale)("log", nonpositive="clip")
    (ax.set_ylim if which == "y" else ax.set_xlim)(low, high)
    few = np.log10(high / low) < 2.2
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if few else LogLocator(numticks=7))
    axis.set_major_formatter(FuncFormatter(tick))
    axis.set_minor_locator(FixedLocator([]))
    axis.set_minor_formatter(NullFormatter())


def thinner(count: int) -> float:
    """Factor on the area of points of which `count` stand above each other, so that many still show how they lie."""
    return float(np.clip(40 / max(count, 1), 0.3, 1.0))


def mark(radii: Array) -> dict[str, Any]:
    """What makes a line of one radius visible: a dash."""
    return {} if len(radii) > 1 else {"marker": "_", "markersize": 9}


def points_and_median(ax: Axes, radii: Array, values: Array, median: Array, *, bottom: float) -> None:
    """One point an image and radius, and the line of the median image; what lies below `bottom` stands there.

    values: (image, radius); median: (radius,).
    """
    ax.scatter(
        np.broadcast_to(radii, values.shape),
        np.maximum(values, bottom),
        s=7 * thinner(len(values)),
        color=COLOURS[0],
        alpha=0.55,
        linewidths=0,
        rasterized=True,
        zorder=2,
    )
    shape = mark(radii)
    ax.plot(radii, np.maximum(median, bottom), color="black", linewidth=1.2, zorder=4, path_effects=outlined(), **shape)
    plain_ticks(ax.xaxis)


def outlined() -> list[Any]:
    """Path effect that keeps a line apart from the points that it crosses."""
    return [patheffects.withStroke(linewidth=2.6, foreground="white")]


def log_limits(values: Sequence[Array], *, room: bool) -> tuple[float, float]:
    """Limits of a logarithmic axis that hold all positive values, with room below for what has no place on it."""
    positive = np.concatenate([np.ravel(v)[np.ravel(np.isfinite(v) & (v > 0))] for v in values] or [np.array([])])
    if not positive.size:
        return 0.1, 1.0
    low, high = float(positive.min()), float(positive.max())
    margin = (high / low) ** 0.06 * 1.15
    return low / margin / (margin * 1.5 if room else 1.0), high * margin


def legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str], *, columns: int = 0) -> None:
    """A legend below all panels, its labels shown literally and shortened to their share of the width."""
    columns = columns or min(len(labels), 3)
    letters = letters_in(WIDTH / columns - 0.65, 8)
    made = figure.legend(
        handles, [str(k) for k in range(len(labels))], loc="outside lower center", ncols=columns, handlelength=2.4
    )
    for shown, label in zip(made.get_texts(), labels, strict=True):  # matplotlib drops labels that begin with _
        shown.set_parse_math(False)
        shown.set_text(shortened(label, letters=letters, lines=2))


def colour_bar(figure: Figure, drawn: Any, axes: Sequence[Axes], label: str) -> None:
    """A colour scale right of all panels."""
    bar = figure.colorbar(drawn, ax=axes, aspect=30, pad=0.02)
    bar.set_label(printable(label), parse_math=False)
    bar.outline.set_linewidth(0.5)
    plain_ticks(bar.ax.yaxis)


def frozen(figure: Figure) -> Figure:
    """The figure with its layout settled, so that it looks the same however often and in whatever form it is saved."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def styled(draw: Callable[[], Figure]) -> Figure:
    """What `draw` draws in our style, settled."""
    with style():
        return frozen(draw())


def saved(figure: Figure, form: str, *, dpi: int) -> bytes:
    """The figure's file without dates and versions: "png" or "svg"."""
    metadata = {"Software": None} if form == "png" else {"Date": None, "Creator": None}
    with style(), io.BytesIO() as file:
        figure.savefig(file, format=form, dpi=dpi, metadata=metadata)
        return file.getvalue()
