"""The measures along the depth, for runs that tapped more than one layer."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyzer.measures import REGISTRY
from analyzer.measures.quantities import Profile
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
    over_images,
    radii,
)
from analyzer.plots.text import shortened

_TITLE = "Profile along the depth"
_HOW = (
    "Each position is one layer, in the order of the graph (of the layers asked for, where each was named); lines join "
    "the medians over the images at the smallest, the middle and the largest radius. From above: {what}."
)
_PROFILES: tuple[Profile, ...] = tuple(profile for measure in REGISTRY.values() for profile in measure.profiles)
_LOOKS: tuple[tuple[str, str, Any], ...] = (("#0072B2", "o", "-"), ("#009E73", "^", "--"), ("#D55E00", "s", "-."))
_LOG = " (logarithmic)"
_LABELS = 8  # layer names on an axis


class _Seen(NamedTuple):
    layers: list[str]
    radius: Array
    medians: dict[str, Array]
    """(radius, layer), by variable."""


def draw(runs: Sequence[DrawnRun]) -> Picture | None:
    """The measures' quantities against the layer; None where every run has one layer only."""
    seen_of = [_seen(run) for run in runs]
    if not any(seen_of):
        return None
    says = tuple(f"{run.label}: {_sentence(seen)}" for run, seen in zip(runs, seen_of, strict=True))
    profiles = [profile for profile in _PROFILES if any(seen and profile.variable in seen.medians for seen in seen_of)]
    figure = canvas.styled(lambda: _figure(runs, seen_of, profiles))
    how = _HOW.format(what="; ".join(f"{profile.meaning}{_LOG * profile.log}" for profile in profiles))
    return Picture("profile", _TITLE, how, says, alternative(_TITLE, says), figure)


def _seen(run: DrawnRun) -> _Seen | None:
    wanted = (name for profile in _PROFILES for name in (profile.variable, profile.linear) if name)
    names = [name for name in wanted if has(run, name)]
    if len(layers(run)) < 2 or not names:
        return None
    dataset, medians = measured(run), {}
    radius = radii(run)
    chosen = sorted({0, (len(radius) - 1) // 2, len(radius) - 1})
    for name in names:
        values = np.asarray(dataset[name].isel(radius=chosen).values, dtype=np.float64)
        if "trial" in dataset[name].dims:  # each image's median first, as the image is the unit of replication
            values = _median_of_known(values, axis=2)
        medians[name] = np.stack([over_images(values[:, k], 0.5) for k in range(len(chosen))])
    return _Seen(layers(run), radius[chosen], medians)


def _median_of_known(values: Array, *, axis: int) -> Array:
    ordered = np.sort(values, axis=axis)  # NaN last
    count = np.isfinite(ordered).sum(axis=axis, keepdims=True)
    low, high = (
        np.take_along_axis(ordered, k, axis) for k in (np.maximum(count - 1, 0) // 2, count // 2 % values.shape[axis])
    )
    return np.asarray(np.where(count > 0, (low + high) / 2, np.nan)).squeeze(axis)


def _figure(runs: Sequence[DrawnRun], seen_of: Sequence[_Seen | None], profiles: Sequence[Profile]) -> Figure:
    columns = canvas.columns_for(len(runs))
    blocks = -(-len(runs) // columns)
    each, rows = canvas.WIDTH / columns - 0.5, len(profiles)
    figure, axes = canvas.blank(canvas.WIDTH, 1.4 * rows * blocks + 0.6, rows * blocks, columns, sharey=False)
    limits = [_limits([seen for seen in seen_of if seen is not None], profile) for profile in profiles]
    for place in range(blocks * columns):
        block, column = divmod(place, columns)
        here: list[Axes] = [axes[rows * block + k, column] for k in range(rows)]
        if place >= len(runs) or seen_of[place] is None:
            for ax in here:
                ax.set_axis_off()
            if place < len(runs):
                here[0].set_title(canvas.heading(runs[place].label, width=each), parse_math=False, loc="left")
                canvas.absent(
                    here[0], "one layer only:\nno profile" if len(layers(runs[place])) < 2 else "not measured"
                )
            continue
        seen = seen_of[place]
        assert seen is not None
        here[0].set_title(canvas.heading(runs[place].label, width=each), parse_math=False, loc="left")
        for ax, profile, limit in zip(here, profiles, limits, strict=True):
            _panel(ax, seen, profile, limit=limit)
            if any(seen_of[place - column : place]):  # the same axis stands further left
                ax.tick_params(labelleft=False)
            else:
                ax.set_ylabel(profile.label, parse_math=False)
        _name_layers(here[-1], seen.layers)
    shown = max((seen for seen in seen_of if seen is not None), key=lambda seen: len(seen.radius))
    _key(figure, len(shown.radius), {tuple(seen.radius) for seen in seen_of if seen is not None})
    return figure


def _limits(seen_of: Sequence[_Seen], profile: Profile) -> tuple[float, float] | None:
    names = (profile.variable, profile.linear)
    values = [seen.medians[n] for seen in seen_of for n in names if n in seen.medians]
    if profile.log:
        return canvas.log_limits(values, room=False) if values else None
    defined = np.concatenate([v[np.isfinite(v)] for v in values] or [np.array([])])
    if not defined.size:
        return None
    margin = 0.06 * float(np.ptp(defined)) or 0.05
    return float(defined.min()) - margin, float(defined.max()) + margin


def _panel(ax: Axes, seen: _Seen, profile: Profile, *, limit: tuple[float, float] | None) -> None:
    x = np.arange(len(seen.layers))
    ax.set_xlim(-0.3, len(x) - 0.7)
    ax.set_xticks(x, [""] * len(x))
    values = seen.medians.get(profile.variable)
    if values is None or limit is None or not np.isfinite(values).any():
        ax.set_yticks([])
        canvas.absent(ax, "not measured" if values is None else "undefined")
        return
    if profile.log:
        canvas.log_axis(ax, "y", *limit)
    else:
        ax.set_ylim(*limit)
        canvas.plain_ticks(ax.yaxis, 4)
    for k, line in enumerate(values):
        colour, marker, dashes = _LOOKS[k]
        ax.plot(x, line, color=colour, marker=marker, linestyle=dashes, markersize=3.5, linewidth=1.2)
        if profile.linear in seen.medians:
            ax.plot(x, seen.medians[profile.linear][k], color=colour, linestyle=":", linewidth=1)


def _name_layers(ax: Axes, names: Sequence[str]) -> None:
    """Layer names below the last panel; of many, evenly chosen ones."""
    chosen = np.unique(np.linspace(0, len(names) - 1, min(len(names), _LABELS)).round().astype(int))
    ax.set_xticks(chosen, [shortened(names[k], letters=16) for k in chosen], rotation=90, parse_math=False)


def _key(figure: Figure, count: int, radii_seen: set[tuple[float, ...]]) -> None:
    words = {1: ["the radius"], 2: ["smallest radius", "largest radius"]}
    labels = words.get(count, ["smallest radius", "middle radius", "largest radius"])
    if len(radii_seen) == 1:
        labels = [f"radius {radius:g}" for radius in next(iter(radii_seen))]
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle=dashes, markersize=3.5)
        for colour, marker, dashes in _LOOKS[:count]
    ]
    handles.append(Line2D([], [], color=canvas.GREY, linestyle=":"))
    canvas.legend(figure, handles, [*labels, "a linear map"], columns=2)


def _sentence(seen: _Seen | None) -> str:
    if seen is None:
        return "one layer only, or nothing measured along the depth."
    parts = []
    for profile in _PROFILES:
        if profile.variable in seen.medians:
            first, last = seen.medians[profile.variable][0][[0, -1]]
            parts.append(f"{profile.label.replace(chr(10), ' ')} goes from {number(first)} to {number(last)}")
    return (
        f"from layer {seen.layers[0]} to {seen.layers[-1]}, at radius {seen.radius[0]:g}, {', '.join(parts)} (medians)."
    )
