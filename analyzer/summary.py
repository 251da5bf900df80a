"""From a run's dataset to the numbers and sentences that a person is shown; prints nothing.

The document is flat: every `<quantity>_<statistic>[@radius][/layer]` is a key of its own with value, low and high (95 %
interval) and n (images behind it). The layer suffix is there only where a run has several layers. Beside the numbers
stand `schema`, `run` (what ran, on which images), `sentences` and `warnings`.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from analyzer.measures import REGISTRY
from analyzer.measures.base import Column, Row, at
from analyzer.statistics import Estimate, quantile_over_images
from analyzer.store.files import plain
from analyzer.store.results import open_results

SCHEMA = 1
MEASURED, NON_FINITE, UNREADABLE = range(3)


def summarise(dataset: Any) -> dict[str, Any]:
    """The summary document of an `xarray.Dataset` as `analyzer.open_run` gives it. NaN stands for undefined."""
    manifest, calibration = (json.loads(dataset.attrs[name]) for name in ("manifest", "calibration"))
    measures = manifest["identity"]["measures"]
    measured = dataset.isel(image=np.flatnonzero(dataset["image_status"].values == MEASURED))
    several = dataset.sizes["layer"] > 1
    rows: dict[str, Estimate] = {}
    if measured.sizes["image"]:
        if "input_distance_l2" in measured:
            rows |= {row_name(row, several): row.estimate for row in added_rows(measured)}
        for name in measures:
            rows |= {row_name(row, several): row.estimate for row in REGISTRY[name].summarise(measured)}
    suffixes = [f"/{layer}" for layer in map(str, dataset["layer"].values)] if several else [""]
    return {
        "schema": SCHEMA,
        "run": {
            "model": manifest["context"]["model"],
            "images": _images(dataset, calibration, manifest["identity"]["limit"]),
            "protocol": {k: v for k, v in manifest["identity"].items() if k not in ("model", "card")},
            "context": manifest["context"],
        },
        "sentences": list(_sentences(measures, rows, suffixes)),
        "warnings": list(_warnings(dataset, measured, rows, calibration, manifest)),
        **{name: {**estimate._asdict()} for name, estimate in rows.items()},
    }


def recomputed(run: Path) -> dict[str, Any]:
    """The summary of a finished run from its results.nc, as its summary.json should have it."""
    with open_results(run / "results.nc", derive=False) as dataset:
        document: dict[str, Any] = plain(summarise(dataset))
    return document


def row_name(row: Row, several_layers: bool) -> str:
    """`<quantity>_<statistic>[@radius][/layer]`; radii as short as they are told apart, 0.5 and 1."""
    radius = "" if row.radius is None else f"@{radius_text(row.radius)}"
    return f"{row.name}{radius}" + (f"/{row.layer}" if row.layer is not None and several_layers else "")


def radius_text(radius: float) -> str:
    """1 for 1.0, 0.5, and every digit where fewer would name another radius."""
    return f"{radius:g}" if float(f"{radius:g}") == radius else repr(radius)


ADDED = (
    Column("L-infinity", "input_linf_median", ".3g"),
    Column("L2", "input_l2_median", ".4g"),
    Column("RMS", "input_rms_median", ".3g"),
)
"""Columns of the table of what was added."""


def added_rows(dataset: Any) -> Iterator[Row]:
    """What was really added to the pixels at each radius, in grey levels: both norms, and the RMS over the elements."""
    dimension = np.prod(json.loads(dataset.attrs["manifest"])["context"]["pixel_shape"])
    l2, linf = (dataset[f"input_distance_{norm}"].values for norm in ("l2", "linf"))
    for radius, two, largest in zip(dataset["radius"].values, l2.mean(axis=-1).T, linf.mean(axis=-1).T, strict=True):
        yield Row("input_linf_median", float(radius), None, quantile_over_images(largest, 0.5))
        yield Row("input_l2_median", float(radius), None, quantile_over_images(two, 0.5))
        yield Row("input_rms_median", float(radius), None, quantile_over_images(two / np.sqrt(dimension), 0.5))


def estimates(document: dict[str, Any]) -> dict[str, Estimate]:
    """The numbers of a summary document, None read as NaN."""
    found = {}
    for name, entry in document.items():
        if isinstance(entry, dict) and entry.keys() == {"value", "low", "high", "n"}:
            value, low, high = (np.nan if entry[k] is None else entry[k] for k in ("value", "low", "high"))
            found[name] = Estimate(value, low, high, entry["n"])
    return found


def layer_suffixes(document: dict[str, Any]) -> list[str]:
    """The layer parts of the names in a summary document: [""] with one layer."""
    return sorted({name[name.index("/") :] for name in estimates(document) if "/" in name}) or [""]


def _images(dataset: Any, calibration: dict[str, Any], limit: int) -> dict[str, Any]:
    status = dataset["image_status"].values
    counts = calibration["counts"]
    return {
        "asked": limit,
        "found": calibration["found"],
        "read": len(calibration["candidates"]) - counts["bad"],
        "bad": counts["bad"],
        "bad_images": [
            {"id": c["id"], "reason": c["reason"]} for c in calibration["candidates"] if c["outcome"] == "bad"
        ],
        "wrong": counts["wrong"],
        "below_confidence": counts["below_confidence"],
        "non_finite": counts["non_finite"],
        "duplicate": counts["duplicate"],
        "eligible": counts["good"],
        "selected": len(calibration["selected"]),
        "finished": int(status.size),
        "measured": int((status == MEASURED).sum()),
        "unreadable": int((status == UNREADABLE).sum()),
        "unlabelled": calibration["unlabelled"],
        "calibration": calibration["calibration_images"],
    }


def _sentences(measures: list[str], rows: dict[str, Estimate], suffixes: list[str]) -> Iterator[str]:
    if not rows:
        yield "Nothing could be measured: no image had finite outputs throughout."
        return
    for name in measures:
        measure = REGISTRY[name]
        for suffix in suffixes if measure.NEEDS_FEATURES else [""]:
            said = measure.sentence(rows, suffix)
            yield said if not suffix else f"{suffix[1:]}: {said}"


def _warnings(
    dataset: Any, measured: Any, rows: dict[str, Estimate], calibration: dict[str, Any], manifest: dict[str, Any]
) -> Iterator[str]:
    n = measured.sizes["image"]
    selected, asked = len(calibration["selected"]), manifest["identity"]["limit"]
    if dataset.sizes["image"] < selected:
        yield f"Partial: {dataset.sizes['image']} of {selected} images."
    if selected < asked:
        yield f"{selected} images count, {asked} were asked for; none is used twice."
    if n == 1:
        yield "One image: no bootstrap intervals."
    duplicates = calibration["counts"]["duplicate"]
    if duplicates:
        yield f"{duplicates} images left out: the same file as another one."
    converted = Counter(note for c in calibration["candidates"] for note in c.get("notes", []))
    for note, count in converted.items():
        yield f"{count} image{'s' * (count != 1)}: {note}."
    trials = manifest["identity"]["trials"]
    if trials < 10:
        yield f"{trials} trials: participation ratio, alpha and the p-values mean little below 10."
    if "input_distance_l2" in measured and n:
        lost = (measured["input_distance_l2"].values == 0).mean(axis=(0, 2))
        gone = [f"{radius_text(r)} ({s:.0%})" for r, s in zip(measured["radius"].values, lost, strict=True) if s > 0]
        if gone:
            yield f"Rounding left nothing of some perturbations, at radius {', '.join(gone)}: choose larger radii."
    not_finite, unreadable = ((dataset["image_status"].values == k).sum() for k in (NON_FINITE, UNREADABLE))
    if not_finite:
        yield f"{not_finite} images left out: the model's output was not finite for some perturbation."
    if unreadable:
        yield f"{unreadable} images left out: removed or changed since they were selected."
    rounded = int((measured["log_odds_status"].values == 1).sum())
    if rounded:
        yield (
            f"{rounded} images: some log-odds are undefined, since the graph gives probabilities only and they round "
            "to 0 or 1; an exported graph with logits would have them."
        )
    if "lipschitz" in manifest["identity"]["measures"]:
        if calibration["calibration_images"] < 100:
            yield (
                f"The ranges of g and h come from {calibration['calibration_images']} images; below 100 the "
                "normalised Lipschitz ratio depends on which images those are."
            )
        for layer, width in calibration["feature_range"].items():
            if width == 0:
                yield f"Layer {layer} does not vary over the calibration images: its Lipschitz ratio is undefined."
    if "topology" in manifest["identity"]["measures"] and n:
        undefined = measured["mantel_status"].values != 0
        if undefined.any():
            yield (
                f"Mantel's r is undefined in {undefined.sum()} of {undefined.size} cases (image, radius, layer): "
                "`mantel_status` says why."
            )
    below = at(rows, "isotropy_below_noise_floor_share")
    radii = [radius_text(radius) for radius, estimate in below.items() if estimate.value >= 0.5]
    if radii:
        yield (
            f"Not above twice the noise floor: log-odds ranges at radius {', '.join(radii)}, for half of the images or "
            "more; they are rounding, not response."
        )
    yield from manifest["context"].get("notes", [])
