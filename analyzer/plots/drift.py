"""How far builds are from a reference: against what noise does to it, and along the depth."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analyzer.plots import canvas
from analyzer.plots.model import Array, Picture, alternative
from analyzer.plots.text import shortened
from analyzer.summary import by_radius as at_radii

_SCORES = "Drift of the log-odds beside the answer to noise"
_SCORES_HOW = (
    "The grey line is how far noise of each radius moves the log-odds of the reference. A coloured line is how far "
    "those of a build are from the reference's in the same rows. Where the two meet, the build differs as much as "
    "noise of that radius; left of there its drift hides the network's answer. Bars are 95 % intervals over images."
)
_LAYERS = "Drift along the depth"
_LAYERS_HOW = (
    "Relative error of the features on the clean images, in the order of the reference's layers, medians over the "
    "images with 95 % intervals: where a line jumps, the build begins to differ."
)
_NAMES = 10  # layer names on an axis

Document = Mapping[str, Any]


def by_radius(document: Document, labels: Sequence[str]) -> Picture | None:
    """|difference of log-odds| of each candidate by radius; None where no log-odds are defined."""
    candidates = document["candidates"]
    drifts = [_values(one, "drift_log_odds_median") for one in candidates]
    answers = [_values(one, "drift_reference_response_median") for one in candidates]
    if not any(drift.size and (drift[:, 1] > 0).any() for drift in drifts):
        return None
    says = tuple(_says(one, label) for one, label in zip(candidates, labels[1:], strict=True))
    figure = canvas.styled(lambda: _by_radius(drifts, answers[0], labels))
    return Picture("drift_log_odds", _SCORES, _SCORES_HOW, says, alternative(_SCORES, says), figure)


def by_layer(document: Document, labels: Sequence[str]) -> Picture | None:
    """Relative error of each candidate by layer; None where none has two layers or more."""
    names = list(dict.fromkeys(layer["reference"] for one in document["candidates"] for layer in one["layers"]))
    errors = [_errors(one, names) for one in document["candidates"]]
    if len(names) < 2 or not any(np.nanmax(error[:, 0], initial=0) > 0 for error in errors):
        return None
    says = tuple(f"{label}: {_most(error, names)}." for label, error in zip(labels[1:], errors, strict=True))
    figure = canvas.styled(lambda: _by_layer(errors, names, labels))
    return Picture("drift_layers", _LAYERS, _LAYERS_HOW, says, alternative(_LAYERS, says), figure)


def _values(candidate: Document, stem: str) -> Array:
    """(radius, 4): radius, value, low, high, ascending."""
    at = at_radii({name: entry for name, entry in candidate.items() if isinstance(entry, dict)}, stem)
    rows = [(radius, entry["value"], entry["low"], entry["high"]) for radius, entry in sorted(at.items())]
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def _errors(candidate: Document, names: Sequence[str]) -> Array:
    """(layer, 3): value, low, high; NaN where the candidate has no such layer."""
    stem, found = "drift_clean_feature_relative_median", np.full((len(names), 3), np.nan)
    for place, name in enumerate(names):
        entry = candidate.get(f"{stem}/{name}") or (candidate.get(stem) if len(names) == 1 else None)
        if entry is not None:
            found[place] = entry["value"], entry["low"], entry["high"]
    return found


def _says(candidate: Document, label: str) -> str:
    return f"{label}: {candidate['verdict']}."


def _most(error: Array, names: Sequence[str]) -> str:
    if not np.isfinite(error[:, 0]).any():
        return "no layer is compared"
    worst = int(np.nanargmax(error[:, 0]))
    return f"the largest relative error is {100 * error[worst, 0]:.2g} %, at {names[worst]}"


def _look(number: int) -> dict[str, Any]:
    return {
        "color": canvas.COLOURS[number % len(canvas.COLOURS)],
        "linestyle": canvas.DASHES[number % len(canvas.DASHES)],
        "marker": canvas.MARKERS[number % len(canvas.MARKERS)],
        "markersize": 4,
        "linewidth": 1.2,
    }


def _by_radius(drifts: Sequence[Array], answer: Array, labels: Sequence[str]) -> Figure:
    figure, axes = canvas.blank(canvas.WIDTH, 3.1 + 0.2 * -(-len(labels) // 2), 1, 1)
    ax = axes[0, 0]
    low, high = canvas.log_limits([answer[:, 1], *(drift[:, 1] for drift in drifts)], room=False)
    radii = np.concatenate([answer[:, 0], *(drift[:, 0] for drift in drifts)])
    canvas.log_axis(ax, "y", low, high)
    canvas.log_axis(ax, "x", radii.min() / 1.15, radii.max() * 1.15)
    (line,) = ax.plot(answer[:, 0], answer[:, 1], color=canvas.GREY, linewidth=2.2)
    handles, names = [line], [f"{labels[0]}: its answer to noise"]
    for number, (drift, label) in enumerate(zip(drifts, labels[1:], strict=True)):
        look = _look(number)
        (line,) = ax.plot(drift[:, 0], np.where(drift[:, 1] > 0, drift[:, 1], np.nan), **look)
        ax.vlines(drift[:, 0], drift[:, 2], drift[:, 3], color=look["color"], linewidth=1, alpha=0.6)
        handles.append(line)
        names.append(f"{label}: its drift")
    ax.set_xlabel("radius of the noise, grey levels", parse_math=False)
    ax.set_ylabel("log-odds, nat", parse_math=False)
    canvas.legend(figure, handles, names, columns=min(len(names), 2))
    return figure


def _by_layer(errors: Sequence[Array], names: Sequence[str], labels: Sequence[str]) -> Figure:
    figure, axes = canvas.blank(canvas.WIDTH, 3.4 + 0.2 * -(-len(labels) // 2), 1, 1)
    ax, places, handles = axes[0, 0], np.arange(len(names)), []
    low, high = canvas.log_limits([error[:, 0] for error in errors], room=False)
    canvas.log_axis(ax, "y", low, high)
    for number, error in enumerate(errors):
        look = _look(number)
        (line,) = ax.plot(places, np.where(error[:, 0] > 0, error[:, 0], np.nan), **look)
        ax.vlines(places, error[:, 1], error[:, 2], color=look["color"], linewidth=1, alpha=0.6)
        handles.append(line)
    step = -(-len(names) // _NAMES)
    ax.set_xticks(places[::step], [shortened(name, letters=18, lines=2) for name in names[::step]], parse_math=False)
    for label in ax.get_xticklabels():
        label.set(rotation=30, ha="right", rotation_mode="anchor")
    ax.set_ylabel("relative error of the features", parse_math=False)
    canvas.legend(figure, handles, list(labels[1:]), columns=min(len(errors), 2))
    return figure
