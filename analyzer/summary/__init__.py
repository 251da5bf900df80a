"""From a run's dataset to the numbers and sentences that a person is shown; prints nothing.

The document is flat: every `<quantity>_<statistic>[@radius][/layer]` is a key of its own with value, low and high (95 %
interval) and n (images behind it). The layer suffix is there only where a run has several layers. Beside the numbers
stand `schema`, `run` (what ran, on which images), `sentences` and `warnings`.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from analyzer import store
from analyzer.errors import IncompleteError
from analyzer.estimate import entry
from analyzer.measures import NUMBERS, tables_of
from analyzer.measures.quantities import lacking
from analyzer.statistics import Estimate
from analyzer.store import ImageStatus, Outcome, Problem, Run, scales_of
from analyzer.store.documents import About, Calibration, ImageCounts
from analyzer.store.files import plain
from analyzer.summary import checks, reach, target
from analyzer.summary.names import (
    by_radius,
    end_of,
    estimates,
    is_labelled,
    kind_of,
    last_suffix,
    layer_suffix,
    layer_suffixes,
    meaning_of,
    name_of,
    parts,
    radius_labels,
    radius_text,
)
from analyzer.summary.overview import Cell, Overview, Summary, ends_and_middle, overview
from analyzer.summary.rows import numbers
from analyzer.summary.sentences import sentences
from analyzer.summary.warnings import warnings

__all__ = [
    "SCHEMA",
    "Cell",
    "Overview",
    "Summary",
    "by_radius",
    "end_of",
    "ends_and_middle",
    "estimates",
    "is_labelled",
    "kind_of",
    "last_suffix",
    "layer_suffix",
    "layer_suffixes",
    "meaning_of",
    "measured_images",
    "name_of",
    "of_run",
    "overview",
    "parts",
    "radius_labels",
    "radius_text",
    "reads",
    "summarise",
    "verify",
]

SCHEMA = 1


def summarise(dataset: Any) -> dict[str, Any]:
    """The summary document of an `xarray.Dataset` as `analyzer.open_run` gives it. NaN stands for undefined."""
    manifest, calibration = (json.loads(dataset.attrs[name]) for name in ("manifest", "calibration"))
    measures = manifest["identity"]["measures"]
    measured = measured_images(dataset)
    rows: dict[str, Estimate] = {}
    kind = manifest["context"].get("kind", "")
    lacks = lacking(kind, labelled="class_means" in calibration)
    if measured.sizes["image"]:
        scales = scales_of(measured)
        for table in tables_of(measures):
            rows |= dict(numbers(table, measured, scales, lacks=lacks))
        if reach.starts_below_steps(measured, calibration):
            rows = reach.without_ratios_of_ratios(rows)
    proved, until = manifest["context"].get("checks"), manifest["context"].get("until")
    if until is not None and until["reached"] and until["name"] in rows:
        rows[until["name"]] = target.held(rows[until["name"]], until)
    layers = [str(layer) for layer in dataset["layer"].values]
    suffixes = [layer_suffix(layer, len(layers)) for layer in layers] if len(layers) > 1 else [""]
    about: About = {
        "model": manifest["context"]["model"],
        "images": _images(dataset, calibration, manifest["identity"]["limit"]),
        "protocol": {k: v for k, v in manifest["identity"].items() if k not in ("model", "card")},
        "context": manifest["context"],
    }
    return {
        "schema": SCHEMA,
        "run": about,
        "sentences": [
            *sentences(measures, rows, suffixes, kind),
            *((target.sentence(rows, until),) if until is not None else ()),
            *(checks.checked(proved, kind) if proved else ()),
        ],
        "warnings": [
            *(checks.faults(proved, manifest["context"]["batch_size"], kind) if proved else ()),
            *warnings(dataset, measured, rows, calibration, manifest),
        ],
        **{name: entry(estimate) for name, estimate in rows.items()},
    }


def measured_images(dataset: Any) -> Any:
    """The part of a run's data set whose images were measured."""
    return dataset.isel(image=np.flatnonzero(dataset["image_status"].values == ImageStatus.MEASURED))


def of_run(run: Run) -> Summary:
    """The summary of a run: that of summary.json, or of the images that are finished, NaN or None for undefined.

    Of a run with results whose units were damaged since, the warnings say so. Raises IncompleteError where no image is
    finished, or where results or summary are damaged.
    """
    state = run.state
    if state.written:
        document = run.read_summary()
        run.check_results()
        if state.lost:
            document["warnings"].append(f"{state.lost}.")
        return Summary(document)
    if not state.finished:
        raise run.nothing_finished()
    with run.open() as dataset:
        return Summary(summarise(dataset))


def verify(run: Path, *, mend: bool = False) -> list[Problem]:
    """Everything that is wrong with a run on disk, its summary included. Prints nothing.

    Args:
        run: the run directory.
        mend: rebuild what another file still holds: manifest, calibration and units from results.nc; results.nc and
            summary.json from the units. Otherwise nothing is changed.

    Returns:
        What is wrong, with which file, and how to mend it: checksums, shapes and missing images (see `store.verify`),
        results that are not those of the units, a summary that is not that of the results. With `mend`, what was wrong
        and is not any more stands first, as `mended`.

    Raises:
        InputError: there is no run.
        UsageError: `mend`, while another process writes the run.
        IncompleteError: `mend`, and a file cannot be written.

    Example:
        >>> verify(Path("runs/a"))  # doctest: +SKIP
        []
    """
    problems = _problems(run)
    if not mend or not problems:
        return problems
    store.mend(run, problems, summarise)
    left = _problems(run)
    at_fault = {problem.file for problem in left}
    return [dataclasses.replace(problem, mended=True) for problem in problems if problem.file not in at_fault] + left


def _problems(run: Path) -> list[Problem]:
    problems = store.verify(run)
    reader = Run(run) if not problems else None
    if reader and reader.has_results:
        file = str(run / "summary.json")
        mend = "run the same command again, or verify with `mend`: it is written anew from the results"
        try:
            if reader.read_summary() != _recomputed(reader):
                problems.append(Problem("not what the results give", file, mend))
        except IncompleteError as e:
            problems.append(Problem(str(e).partition("\n")[0].removeprefix(f"{file}: "), file, mend))
    return problems


def _recomputed(run: Run) -> dict[str, Any]:
    """The summary of a finished run from its results.nc, as its summary.json should have it."""
    with run.open(derive=False) as dataset:
        document: dict[str, Any] = plain(summarise(dataset))
    return document


def reads(name: str) -> tuple[str, ...]:
    """The variables that a number of a summary follows from; none for an unknown name."""
    number = NUMBERS.get(parts(name).stem)
    return number.quantity.reads if number else ()


def _images(dataset: Any, calibration: Calibration, limit: int | None) -> ImageCounts:
    status = dataset["image_status"].values
    counts, failed = calibration["counts"], int((status == ImageStatus.FAILED_ON_WORKERS).sum())
    document: ImageCounts = {
        "asked": limit,
        "found": calibration["found"],
        "read": len(calibration["candidates"]) - counts[Outcome.BAD],
        "bad": counts[Outcome.BAD],
        "bad_images": [
            {"id": c["id"], "reason": c["reason"]} for c in calibration["candidates"] if c["outcome"] == Outcome.BAD
        ],
        "wrong": counts[Outcome.WRONG],
        "below_confidence": counts[Outcome.BELOW_CONFIDENCE],
        "non_finite": counts[Outcome.NON_FINITE],
        "duplicate": counts[Outcome.DUPLICATE],
        "eligible": counts[Outcome.GOOD],
        "selected": len(calibration["selected"]),
        "finished": int(status.size),
        "measured": int((status == ImageStatus.MEASURED).sum()),
        "unreadable": int((status == ImageStatus.UNREADABLE_OR_CHANGED_SINCE_SELECTION).sum()),
        "unlabelled": calibration["unlabelled"],
        "calibration": calibration["calibration_images"],
    }
    if failed:
        document["failed"] = failed
    return document
