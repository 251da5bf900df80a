"""Fig. 1 and Fig. 3: the range of the score against the radius, one point an image."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.collections import PathCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyzer.plots import canvas
from analyzer.plots.model import Cloud, Picture, Run, alternative, cloud, number, over_images, trials

# The lightest yellow is hard to see on white.
_MAP = LinearSegmentedColormap.from_list("cividis_dark", colormaps["cividis"](np.linspace(0, 0.9, 64)))
_HOW = (
    "Each point is one image at one radius: how far the probability of its true class varies over {what}. Further up "
    "is less {property}; the axis is logarithmic. The colour is the mean probability, the line is the median image."
)
_SQUARES = " A square marks an image that at least one of the perturbations got misclassified."
_TRIANGLES = " Grey triangles on the bottom line are ranges that are 0 or that rounding alone could make."


def isotropy(runs: Sequence[Run]) -> Picture | None:
    """Fig. 1, on the noise family."""
    return _picture(
        runs,
        "isotropy",
        "fig1_isotropy",
        "Isotropy: score range over equally long noise",
        "noise vectors of equal length",
    )


def symmetry(runs: Sequence[Run]) -> Picture | None:
    """Fig. 3, on the permutation family."""
    return _picture(
        runs,
        "symmetry",
        "fig3_symmetry",
        "Symmetry: score range over reordered noise",
        "reorderings of one noise vector",
    )


def _picture(runs: Sequence[Run], prefix: str, name: str, title: str, what: str) -> Picture | None:
    clouds = [cloud(run, prefix) for run in runs]
    if not any(clouds):
        return None
    says = tuple(f"{run.label}: {_sentence(found, run, what)}" for run, found in zip(runs, clouds, strict=True))
    figure = canvas.styled(lambda: _figure(runs, clouds))
    how = _HOW.format(what=what, property="isotropic" if prefix == "isotropy" else "symmetric")
    known = [found for found in clouds if found is not None]
    how += _SQUARES * _any_square(known) + _TRIANGLES * _any_triangle(known)
    return Picture(name, title, how, says, alternative(title, says), figure)


def _figure(runs: Sequence[Run], clouds: Sequence[Cloud | None]) -> Figure:
    known = [found for found in clouds if found is not None]
    figure, axes = canvas.panels(
        runs,
        [_note(found) for found in clouds],
        x="radius, grey levels",
        y="range of the true-class score",
    )
    resolved = [np.where(found.resolved, found.spread, np.nan) for found in known]
    room = _any_triangle(known)
    bottom, top = canvas.log_limits(resolved, room=room)
    means = np.concatenate([found.mean[np.isfinite(found.mean)] for found in known])
    low, high = (means.min(), means.max()) if means.size else (0.0, 1.0)
    colours = Normalize(low if high - low > 1e-9 else high - 1e-3, high)
    points = None
    for ax, found in zip(axes, clouds, strict=True):
        canvas.log_axis(ax, "y", bottom, top)
        if found is None:
            canvas.absent(ax, "not measured")
            continue
        x = np.broadcast_to(found.radius, found.spread.shape)
        thin = canvas.thinner(len(found.spread))
        unresolved = np.isfinite(found.spread) & ~found.resolved
        for marker, chosen, size in (("o", ~(found.wrong > 0), 11), ("s", found.wrong > 0, 15)):
            where = found.resolved & chosen
            points = ax.scatter(
                x[where],
                found.spread[where],
                c=found.mean[where],
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
        median = np.maximum(over_images(found.spread, 0.5), bottom)
        shape = canvas.mark(found.radius)
        ax.plot(found.radius, median, color="black", linewidth=1.2, zorder=3, path_effects=canvas.outlined(), **shape)
        canvas.plain_ticks(ax.xaxis)
    if isinstance(points, PathCollection):
        canvas.colour_bar(figure, points, axes, "mean score")
    canvas.legend(figure, *_key(_any_square(known), room), columns=2)
    return figure


def _any_square(known: Sequence[Cloud]) -> bool:
    return any((found.resolved & (found.wrong > 0)).any() for found in known)


def _any_triangle(known: Sequence[Cloud]) -> bool:
    return any((~found.resolved & np.isfinite(found.spread)).any() for found in known)


def _key(wrong: bool, unresolved: bool) -> tuple[list[Line2D], list[str]]:
    def handle(marker: str, face: str, edge: str = "black") -> Line2D:
        return Line2D([], [], linestyle="", marker=marker, markersize=4.5, markerfacecolor=face, markeredgecolor=edge)

    entries = [
        (handle("o", "#BBBBBB"), "never misclassified"),
        (Line2D([], [], color="black"), "median image"),
    ]
    if wrong:
        entries.insert(1, (handle("s", "#BBBBBB", canvas.COLOURS[1]), "misclassified at least once"))
    if unresolved:
        entries.append((handle("v", "none", canvas.GREY), "0, or not above rounding"))
    handles, labels = zip(*entries, strict=True)
    return list(handles), list(labels)


def _note(found: Cloud | None) -> str:
    if found is None:
        return ""
    known = np.isfinite(found.spread)
    parts = []
    if not found.resolved[known].all():
        parts.append(f"{int((known & ~found.resolved).sum())} of {known.size} at the bottom")
    if not known.all():
        parts.append(f"{int((~known).sum())} of {known.size} undefined")
    return "\n".join(parts)


def _sentence(found: Cloud | None, run: Run, what: str) -> str:
    if found is None:
        return "not measured."
    median = over_images(found.spread, 0.5)
    defined = np.flatnonzero(np.isfinite(median))
    if not defined.size:
        return "the range is undefined at every radius."
    first, last = defined[0], defined[-1]
    said = f"over {trials(run)} {what}, the score of the median image varies by {_at(median, found.radius, first)}"
    if last > first:
        said += f" and by {_at(median, found.radius, last)}"
    ever = (found.wrong > 0).any(axis=0)
    if ever.any():
        k = int(ever.argmax())
        count = int((found.wrong[:, -1] > 0).sum())
        said += (
            f"; an image was first misclassified at radius {found.radius[k]:g}, and at radius {found.radius[-1]:g} "
            f"{count} of {len(found.wrong)} were"
        )
    else:
        said += "; none was misclassified"
    lost = int((np.isfinite(found.spread) & ~found.resolved).sum())
    if lost:
        said += f"; {lost} of {found.spread.size} ranges are 0 or not above rounding"
    return f"{said}."


def _at(values: np.ndarray, radius: np.ndarray, k: int) -> str:
    return f"{number(values[k])} at radius {radius[k]:g}"
