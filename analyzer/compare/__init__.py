"""Which of several runs is steadier: paired differences over the images they share; prints nothing.

Every number is a mean over the common images, a difference is the mean of the paired differences, its interval a
bootstrap over images, its p a sign-flip test, corrected after Holm for the number of pairs. "Steadier" says which
direction that is; topology has none, since a low Mantel r is no evidence of anything by itself.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer.compare import quantities, runs
from analyzer.compare.paired import compared
from analyzer.compare.runs import Measured, check_protocols
from analyzer.compare.words import ordered, sentence
from analyzer.errors import InputError, UsageError
from analyzer.measures.base import Array, mean_of_known
from analyzer.statistics import FEW_IMAGES
from analyzer.summary import radius_text

SCHEMA = 1

__all__ = ["PROPERTIES", "SCHEMA", "Measured", "Property", "check_protocols", "compare", "compare_opened"]


class Property(NamedTuple):
    """What is compared: its quantity, heading, unit, and which direction is the steadier one (None: neither)."""

    quantity: str
    title: str
    unit: str
    steadier: str | None


PROPERTIES = (
    Property("isotropy_log_odds_range", "Isotropy: range of the true-class log-odds", "nat", "lower"),
    Property("symmetry_log_odds_range", "Symmetry: range of the true-class log-odds", "nat", "lower"),
    Property("misclassified", "Share of images that noise misclassifies", "1", "lower"),
    Property("mantel_r", "Topology: Mantel r", "1", None),
    Property("mantel_r_minus_linear", "Topology: Mantel r minus that of a linear map", "1", None),
    Property("lipschitz_mean", "Lipschitz: normalised ratio L_x, mean over the perturbations", "1", "lower"),
    Property("jacobian_normalised", "Lipschitz: norm_F(J) / sqrt(D), normalised as L_x", "1", "lower"),
)
"""The log-odds range grows with the scale of a network's logits, L_x with the narrowness of its feature range."""

LOG_ODDS = ("isotropy_log_odds_range", "symmetry_log_odds_range")
NORMALISED = ("lipschitz_mean", "jacobian_normalised")
FAINT = "below the noise floor"
"""Why no verdict: ranges not above twice what the log-odds of the clean image vary by are rounding, not response."""


def compare(paths: Sequence[Path]) -> dict[str, Any]:
    """Compare two or more runs of one protocol on the images they share.

    Returns, NaN where undefined:

        schema       1
        runs         [{name, path, model, layers, finished, selected, complete}]
        images       how many are common to all
        pairing      "perturbation" (every run saw the same ones), or "image" where the input sizes differ
        notes        [sentence]
        properties   {quantity[/layer]: {title, unit, steadier: "lower" or null, sentence, radii, overall, ranking}}

    `overall` and each of `radii`, by its text, hold `n` (images), `values` {name: mean} and `pairs` [{first, second,
    difference, low, high, n, p, p_holm, distinguishable, reason}]; difference = second - first, distinguishable true,
    false, or null where the images are too few to tell or the ranges that normalise come from different images;
    `reason` says why there is no verdict, null where there is one, or where the images are too few. `overall` takes
    each image's mean over the radii. `ranking`, null where no direction is the steadier one, is [{name, value,
    steadier_than: [name]}], lowest first.

    Raises UsageError for fewer than two different runs or different protocols, InputError where there is no run, no
    common image or no common measure, IncompleteError where a run is damaged or has no image yet.
    """
    paths = [Path(path) for path in paths]
    if len({path.resolve() for path in paths}) < max(2, len(paths)):
        raise UsageError(f"compare needs two or more different runs, got {', '.join(map(str, paths)) or 'none'}")
    check_protocols(paths)
    with ExitStack() as stack:
        names = runs.names_of(paths)
        return compare_opened(
            [stack.enter_context(runs.opened(path, name)) for path, name in zip(paths, names, strict=True)]
        )


def compare_opened(measured: Sequence[Measured]) -> dict[str, Any]:
    """`compare` of runs that are open and of one protocol."""
    places = runs.matched(measured)
    layers = runs.paired_layers(measured)
    properties: dict[str, Any] = {}
    for prop in PROPERTIES:
        quantity = quantities.QUANTITIES[prop.quantity]
        for suffix, where in layers.items() if quantity.layered else [("", [0] * len(measured))]:
            found = [quantities.per_image(run, prop.quantity, j) for run, j in zip(measured, where, strict=True)]
            known = [values for values in found if values is not None]
            if len(known) < len(measured):
                continue
            common = [values[at] for values, at in zip(known, places, strict=True)]
            floors = [_floor(run, at) for run, at in zip(measured, places, strict=True)]
            properties[prop.quantity + suffix] = _property(prop, measured, common, floors)
    if not properties:
        raise InputError(
            f"no measure is common to {' and '.join(run.name for run in measured)}\n"
            "measure one of them again with the --measures and --layers of the other"
        )
    return {
        "schema": SCHEMA,
        "runs": [_described(run) for run in measured],
        "images": len(places[0]),
        "pairing": "perturbation" if runs.same_perturbations(measured) else "image",
        "notes": [
            *runs.unfinished(measured),
            *runs.notes(measured, places),
            *_missing(measured, properties),
            *_few(len(places[0])),
        ],
        "properties": properties,
    }


def _described(run: Measured) -> dict[str, Any]:
    return {
        "name": run.name,
        "path": str(run.path),
        "model": run.manifest["context"]["model"],
        "layers": run.layers,
        "finished": run.dataset.sizes["image"],
        "selected": run.state.selected,
        "complete": run.state.complete,
    }


def _missing(measured: Sequence[Measured], properties: dict[str, Any]) -> Iterator[str]:
    have = {name.partition("/")[0] for name in properties}
    for run in measured:
        absent = [
            p.quantity
            for p in PROPERTIES
            if p.quantity not in have and not set(quantities.QUANTITIES[p.quantity].reads) <= run.dataset.keys()
        ]
        if absent:
            yield f"{run.name} did not measure what these need: {', '.join(absent)}."


def _few(images: int) -> Iterator[str]:
    if images < FEW_IMAGES:
        yield f"{images} common image(s) cannot tell runs apart: {FEW_IMAGES} are needed for a verdict."
    else:
        yield (
            "Not distinguishable is no proof of equality; p is not corrected for the number of radii, properties and "
            "layers."
        )


def _floor(run: Measured, places: NDArray[np.intp]) -> Array:
    """How much the clean log-odds of these images vary by themselves, in nat: (image,)."""
    return np.asarray(run.dataset["log_odds_noise_floor"].values[places], dtype=np.float64)


def _property(
    prop: Property, measured: Sequence[Measured], values: Sequence[Array], floors: Sequence[Array]
) -> dict[str, Any]:
    """One property from (image, radius) and the noise floor of each run; a cell that one lacks counts for none."""
    known = np.isfinite(np.stack(values)).all(axis=0)
    used = [np.where(known, each, np.nan) for each in values]
    columns = [np.column_stack([each, mean_of_known(each)]) for each in used]
    names = [run.name for run in measured]
    pairs = list(itertools.combinations(range(len(names)), 2))
    buried = np.array([_buried(column, floor) for column, floor in zip(columns, floors, strict=True)])
    entries = []
    for k, found in enumerate(compared(columns, pairs)):
        means = {name: float(mean_of_known(column[None, :, k])[0]) for name, column in zip(names, columns, strict=True)}
        labelled = [
            {"first": names[a], "second": names[b], **_with_verdict(prop, one, measured[a], measured[b], faint)}
            for (a, b), one in zip(pairs, found, strict=True)
            for faint in [bool(buried[a, k] or buried[b, k])]
        ]
        entries.append({"n": int(np.isfinite(columns[0][:, k]).sum()), "values": means, "pairs": labelled})
    radii = [radius_text(float(radius)) for radius in measured[0].dataset["radius"].values]
    overall = entries[-1]
    return {
        "title": prop.title,
        "unit": prop.unit,
        "steadier": prop.steadier,
        "sentence": sentence(prop.title, overall, ranked=prop.steadier is not None),
        "radii": dict(zip(radii, entries[:-1], strict=True)),
        "overall": overall,
        "ranking": _ranking(overall) if prop.steadier else None,
    }


def _buried(column: Array, floor: Array) -> list[bool]:
    """For each radius, and at last for their mean, whether the median range is not above twice the noise floor.

    column: (image, radius + 1); floor: (image,). The mean is buried too where every radius is.
    """
    medians = [float(np.median(known)) if (known := c[np.isfinite(c)]).size else np.nan for c in column.T]
    limit = 2 * float(np.median(floor[np.isfinite(floor)])) if np.isfinite(floor).any() else np.nan
    found = [median <= limit for median in medians]
    return [*found[:-1], found[-1] or all(found[:-1])]


def _with_verdict(
    prop: Property, one: dict[str, Any], first: Measured, second: Measured, faint: bool
) -> dict[str, Any]:
    """A difference with the `reason` why nothing is said of it, null where its verdict stands."""
    if prop.quantity in LOG_ODDS and faint and one["distinguishable"] is not None:
        return {**one, "distinguishable": False, "reason": FAINT}
    if prop.quantity in NORMALISED and not runs.same_calibration([first, second]):
        return {**one, "distinguishable": None, "reason": runs.OTHER_RANGES}
    return {**one, "reason": None}


def _ranking(overall: dict[str, Any]) -> list[dict[str, Any]]:
    """Lowest value first, undefined last; each with the runs that it is distinguishably steadier than."""
    values = overall["values"]
    return [{"name": name, "value": values[name], "steadier_than": _beaten(overall, name)} for name in ordered(overall)]


def _beaten(overall: dict[str, Any], name: str) -> list[str]:
    won = []
    for pair in overall["pairs"]:
        lower, higher = (pair["first"], pair["second"]) if pair["difference"] > 0 else (pair["second"], pair["first"])
        if pair["distinguishable"] and lower == name:
            won.append(higher)
    return won
