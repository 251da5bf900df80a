"""The measures along the depth, for runs that tapped more than one layer."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyzer.plots import canvas
from analyzer.plots.model import (
    Array,
    Picture,
    Run,
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
    "Each position is one layer, in the order of the graph (of --layers, where it named each one); lines join the "
    "medians over the images at the smallest, the middle and the largest radius. From above: Mantel's r, with the r "
    "that a linear map of the same participation ratio would have as thin dotted lines; norm_F(J) / sqrt(D), how far "
    "the features move per grey level of random noise; the participation ratio, how many independent directions carry "
    "that movement; and the distance ratio L normalised by the ranges on the clean images. The last three axes are "
    "logarithmic."
)
_QUANTITIES = (
    ("mantel_r", "Mantel's r", False),
    ("jacobian_rms", "norm_F(J) / sqrt(D)", True),
    ("participation_ratio", "participation\nratio", True),
    ("lipschitz", "Lipschitz ratio", True),
)
_LOOKS: tuple[tuple[str, str, Any], ...] = (("#0072B2", "o", "-"), ("#009E73", "^", "--"), ("#D55E00", "s", "-."))
_LABELS = 8  # layer names on an axis


class _Seen(NamedTuple):
    layers: list[str]
    radius: Array
    medians: dict[str, Array]
    """(radius, layer), by variable."""


def draw(runs: Sequence[Run]) -> Picture | None:
    """Four quantities against the layer; None where every run has one layer only."""
    found = [_seen(run) for run in runs]
    if not any(found):
        return None
    says = tuple(f"{run.label}: {_sentence(seen)}" for run, seen in zip(runs, found, strict=True))
    figure = canvas.styled(lambda: _figure(runs, found))
    return Picture("profile", _TITLE, _HOW, says, alternative(_TITLE, says), figure)


def _seen(run: Run) -> _Seen | None:
    names = [name for name in (*(q[0] for q in _QUANTITIES), "mantel_r_linear") if has(run, name)]
    if len(layers(run)) < 2 or not names:
        return None
    dataset, medians = measured(run), {}
    radius = radii(run)
    chosen = sorted({0, (len(radius) - 1) // 2, len(radius) - 1})
    for name in names:
        values = np.asarray(dataset[name].isel(radius=chosen).values, dtype=np.float64)
        if name == "lipschitz":  # each image's median first, as the image is the unit of replication
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


def _figure(runs: Sequence[Run], found: Sequence[_Seen | None]) -> Figure:
    columns = canvas.columns_for(len(runs))
    blocks = -(-len(runs) // columns)
    each = canvas.WIDTH / columns - 0.5
    figure, axes = canvas.blank(canvas.WIDTH, 5.6 * blocks + 0.6, 4 * blocks, columns, sharey=False)
    limits = [_limits([seen for seen in found if seen is not None], name, log) for name, _, log in _QUANTITIES]
    for place in range(blocks * columns):
        block, column = divmod(place, columns)
        here: list[Axes] = [axes[4 * block + k, column] for k in range(4)]
        if place >= len(runs) or found[place] is None:
            for ax in here:
                ax.set_axis_off()
            if place < len(runs):
                here[0].set_title(canvas.heading(runs[place].label, width=each), parse_math=False, loc="left")
                canvas.absent(
                    here[0], "one layer only:\nno profile" if len(layers(runs[place])) < 2 else "not measured"
                )
            continue
        seen = found[place]
        assert seen is not None
        here[0].set_title(canvas.heading(runs[place].label, width=each), parse_math=False, loc="left")
        for ax, quantity, limit in zip(here, _QUANTITIES, limits, strict=True):
            _panel(ax, seen, quantity[0], log=quantity[2], limit=limit)
            if any(found[place - column : place]):  # the same axis stands further left
                ax.tick_params(labelleft=False)
            else:
                ax.set_ylabel(quantity[1], parse_math=False)
        _name_layers(here[-1], seen.layers)
    shown = max((seen for seen in found if seen is not None), key=lambda seen: len(seen.radius))
    _key(figure, len(shown.radius), {tuple(seen.radius) for seen in found if seen is not None})
    return figure


def _limits(found: Sequence[_Seen], name: str, log: bool) -> tuple[float, float] | None:
    names = [name, "mantel_r_linear"] if name == "mantel_r" else [name]
    values = [seen.medians[n] for seen in found for n in names if n in seen.medians]
    if log:
        return canvas.log_limits(values, room=False) if values else None
    known = np.concatenate([v[np.isfinite(v)] for v in values] or [np.array([])])
    if not known.size:
        return None
    margin = 0.06 * float(np.ptp(known)) or 0.05
    return float(known.min()) - margin, float(known.max()) + margin


def _panel(ax: Axes, seen: _Seen, name: str, *, log: bool, limit: tuple[float, float] | None) -> None:
    x = np.arange(len(seen.layers))
    ax.set_xlim(-0.3, len(x) - 0.7)
    ax.set_xticks(x, [""] * len(x))
    values = seen.medians.get(name)
    if values is None or limit is None or not np.isfinite(values).any():
        ax.set_yticks([])
        canvas.absent(ax, "not measured" if values is None else "undefined")
        return
    if log:
        canvas.log_axis(ax, "y", *limit)
    else:
        ax.set_ylim(*limit)
        canvas.plain_ticks(ax.yaxis, 4)
    for k, line in enumerate(values):
        colour, marker, dashes = _LOOKS[k]
        ax.plot(x, line, color=colour, marker=marker, linestyle=dashes, markersize=3.5, linewidth=1.2)
        if name == "mantel_r" and "mantel_r_linear" in seen.medians:
            ax.plot(x, seen.medians["mantel_r_linear"][k], color=colour, linestyle=":", linewidth=1)


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
    canvas.legend(figure, handles, [*labels, "Mantel's r of a linear map"], columns=2)


def _sentence(seen: _Seen | None) -> str:
    if seen is None:
        return "one layer only, or nothing measured along the depth."
    parts = []
    for name, words in (
        ("mantel_r", "Mantel's r goes from {} to {}"),
        ("participation_ratio", "the participation ratio from {} to {}"),
        ("jacobian_rms", "norm_F(J) / sqrt(D) from {} to {}"),
        ("lipschitz", "the ratio L from {} to {}"),
    ):
        if name in seen.medians:
            ends = seen.medians[name][0][[0, -1]]
            parts.append(words.format(*(number(value) for value in ends)))
    return (
        f"from layer {seen.layers[0]} to {seen.layers[-1]}, at radius {seen.radius[0]:g}, {', '.join(parts)} (medians)."
    )
