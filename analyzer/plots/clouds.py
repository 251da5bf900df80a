"""Fig. 1 and Fig. 3: the range of the score against the radius, one point an image."""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib import colormaps
from matplotlib.collections import PathCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyzer.card import EMBEDDING
from analyzer.measures.ranges import FamilyScores
from analyzer.measures.scores import in_words_of
from analyzer.plots import canvas
from analyzer.plots.model import Cloud, DrawnRun, Picture, alternative, cloud, number, over_images, trials

# The lightest yellow is hard to see on white.
_MAP = LinearSegmentedColormap.from_list("cividis_dark", colormaps["cividis"](np.linspace(0, 0.9, 64)))
_HOW = (
    "Each point is one image at one radius: how far its true-class score varies over {what}. Further up is less "
    "{property}; the axis is logarithmic. The colour is the mean score, the line is the median image."
)
_SQUARES = " A square marks an image that at least one of the perturbations got misclassified."
_LABEL = 32  # letters of a line beside the axis
_TRIANGLES = " Grey triangles on the bottom line are ranges that are 0 or that rounding alone could make."


def draw(runs: Sequence[DrawnRun], *, family: FamilyScores) -> Picture | None:
    """Range against radius of one family of perturbations."""
    clouds = [cloud(run, family) for run in runs]
    if not any(clouds):
        return None
    says = tuple(f"{run.label}: {_sentence(seen, run, family.noise)}" for run, seen in zip(runs, clouds, strict=True))
    figure = canvas.styled(lambda: _figure(runs, clouds))
    how = in_words_of((run.kind for run in runs), _HOW.format(what=family.noise, property=family.ideal))
    drawn = [seen for seen in clouds if seen is not None]
    how += _SQUARES * _any_square(drawn) + _TRIANGLES * _any_triangle(drawn)
    title = in_words_of((run.kind for run in runs), family.figure_title)
    return Picture(family.figure, title, how, says, alternative(title, says), figure)


def _figure(runs: Sequence[DrawnRun], clouds: Sequence[Cloud | None]) -> Figure:
    drawn = [seen for seen in clouds if seen is not None]
    figure, axes = canvas.panels(
        runs,
        [_note(seen) for seen in clouds],
        x="radius, grey levels",
        y=fill(in_words_of((run.kind for run in runs), "range of the true-class score"), _LABEL),
        scale=True,
    )
    resolved = [np.where(seen.resolved, seen.spread, np.nan) for seen in drawn]
    room = _any_triangle(drawn)
    bottom, top = canvas.log_limits(resolved, room=room)
    means = np.concatenate([seen.mean[np.isfinite(seen.mean)] for seen in drawn])
    low, high = (means.min(), means.max()) if means.size else (0.0, 1.0)
    colours = Normalize(low if high - low > 1e-9 else high - 1e-3, high)
    points = None
    for ax, seen in zip(axes, clouds, strict=True):
        canvas.log_axis(ax, "y", bottom, top)
        if seen is None:
            canvas.absent(ax, "not measured")
            continue
        x = np.broadcast_to(seen.radius, seen.spread.shape)
        thin = canvas.thinner(len(seen.spread))
        unresolved = np.isfinite(seen.spread) & ~seen.resolved
        for marker, chosen, size in (("o", ~(seen.wrong > 0), 11), ("s", seen.wrong > 0, 15)):
            where = seen.resolved & chosen
            points = ax.scatter(
                x[where],
                seen.spread[where],
                c=seen.mean[where],
                cmap=_MAP,
                norm=colours,
                s=size * thin,
                marker=marker,
                edgecolors="black" if marker == "o" else canvas.COLOURS[1],
                linewidths=(0.25 if marker == "o" else 0.9) * thin,
                rasterized=True,
                zorder=2,
            )
        ax.scatter(
            x[unresolved],
            np.full(int(unresolved.sum()), bottom * (top / bottom) ** 0.02),
            s=11,
            marker="v",
            facecolors="none",
            edgecolors=canvas.GREY,
            linewidths=0.6,
            rasterized=True,
        )
        median = np.maximum(over_images(seen.spread, 0.5), bottom)
        shape = canvas.mark(seen.radius)
        ax.plot(seen.radius, median, color="black", linewidth=1.2, zorder=3, path_effects=canvas.outlined(), **shape)
        canvas.plain_ticks(ax.xaxis)
    if isinstance(points, PathCollection):
        canvas.colour_bar(figure, points, axes, in_words_of((run.kind for run in runs), "mean score"))
    classes = any(np.isfinite(seen.wrong).any() for seen in drawn)
    canvas.legend(figure, *_key(_any_square(drawn), room, classes=classes), columns=2)
    return figure


def _any_square(drawn: Sequence[Cloud]) -> bool:
    return any((seen.resolved & (seen.wrong > 0)).any() for seen in drawn)


def _any_triangle(drawn: Sequence[Cloud]) -> bool:
    return any((~seen.resolved & np.isfinite(seen.spread)).any() for seen in drawn)


def _key(wrong: bool, unresolved: bool, *, classes: bool) -> tuple[list[Line2D], list[str]]:
    def handle(marker: str, face: str, edge: str = "black") -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, markersize=4.5, markerfacecolor=face, markeredgecolor=edge)

    entries = [
        (handle("o", "#BBBBBB"), "never misclassified" if classes else "one image"),
        (Line2D([], [], color="black"), "median image"),
    ]
    if wrong:
        entries.insert(1, (handle("s", "#BBBBBB", canvas.COLOURS[1]), "misclassified at least once"))
    if unresolved:
        entries.append((handle("v", "none", canvas.GREY), "0, or not above rounding"))
    handles, labels = zip(*entries, strict=True)
    return list(handles), list(labels)


def _note(seen: Cloud | None) -> str:
    if seen is None:
        return ""
    defined = np.isfinite(seen.spread)
    parts = []
    if not seen.resolved[defined].all():
        parts.append(f"{int((defined & ~seen.resolved).sum())} of {defined.size} at the bottom")
    if not defined.all():
        parts.append(f"{int((~defined).sum())} of {defined.size} undefined")
    return "\n".join(parts)


def _sentence(seen: Cloud | None, run: DrawnRun, what: str) -> str:
    if seen is None:
        return "not measured."
    median = over_images(seen.spread, 0.5)
    defined = np.flatnonzero(np.isfinite(median))
    if not defined.size:
        return "the range is undefined at every radius."
    first, last = defined[0], defined[-1]
    score = "cosine" if run.kind == EMBEDDING else "score"
    text = f"over {trials(run)} {what}, the {score} of the median image varies by {_at(median, seen.radius, first)}"
    if last > first:
        text += f" and by {_at(median, seen.radius, last)}"
    ever = (seen.wrong > 0).any(axis=0)
    if ever.any():
        k = int(ever.argmax())
        count = int((seen.wrong[:, -1] > 0).sum())
        text += (
            f"; an image was first misclassified at radius {seen.radius[k]:g}, and at radius {seen.radius[-1]:g} "
            f"{count} of {len(seen.wrong)} were"
        )
    elif np.isfinite(seen.wrong).any():
        text += "; none was misclassified"
    lost = int((np.isfinite(seen.spread) & ~seen.resolved).sum())
    if lost:
        text += f"; {lost} of {seen.spread.size} ranges are 0 or not above rounding"
    return f"{text}."


def _at(values: np.ndarray, radius: np.ndarray, k: int) -> str:
    return f"{number(values[k])} at radius {radius[k]:g}"
