"""Whether a run on disk still is what was measured."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from analyzer.errors import IncompleteError, InputError
from analyzer.store import checksums, files, recovery, results, schema, units
from analyzer.store.documents import Calibration, Coordinates, Manifest
from analyzer.store.manifest import (
    CALIBRATION,
    MANIFEST,
    RESULTS,
    SUMMARY,
    Image,
    covers_limit,
    read_calibration,
    read_manifest,
    selection,
)

_AGAIN = "run the same command again: it continues"
_ANEW = "run the same command again, or verify with `mend`: it is written anew from the units"
_FROM_RESULTS = f"verify with `mend`: it is rebuilt from {RESULTS}"
_COPY = "bring it back from a copy, or measure into another `out`"


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is wrong, with which file, and how to mend it; `mended`: that it has been."""

    what: str
    file: str
    mend: str
    mended: bool = False


def verify(path: Path) -> list[Problem]:
    """Everything that is wrong with the run in `path`; nothing is changed.

    Looks at manifest, calibration, each selected image's unit (checksum, names, types, shapes), results.nc (equal to
    the units), summary.json and temporary files left over. A damaged manifest or calibration that results.nc holds too
    is taken from there for the rest. Raises InputError when there is no run at all.
    """
    path = Path(path)
    problems = [
        Problem("left half-written by a writer that stopped", str(stray), f"if none is at work, {_AGAIN}")
        for stray in recovery.temporaries(path)
    ]
    manifest, calibration, damaged = _documents(path)
    problems = damaged + problems
    if manifest is None or calibration is None:
        return problems
    if not covers_limit(calibration, manifest):
        problems.append(Problem("the limit has grown since the images were selected", str(path), _AGAIN))
    has_results = (path / RESULTS).exists()
    fault = results.results_fault(path) if has_results else ""
    images = selection(calibration)
    damaged, missing = _units(path, images, manifest["coordinates"], also=has_results and not fault)
    problems += damaged
    if missing:
        what = f"{len(missing)} of {len(images)} selected images have no unit, the first {missing[0].id[:200]!a}"
        mend = f"{_AGAIN}, or {_FROM_RESULTS}" if has_results and not fault else _AGAIN
        problems.append(Problem(what, str(path / "units"), mend))
    if has_results:
        problems += _results(path, manifest, calibration, fault)
    return problems + _summary(path, whole=not (damaged or missing))


def _documents(path: Path) -> tuple[Manifest | None, Calibration | None, list[Problem]]:
    """Manifest and calibration, from their files or from results.nc; None where neither will do. What is wrong."""
    problems = []
    manifest: Manifest | None
    try:
        manifest = read_manifest(path)
    except InputError as e:
        if not (path / MANIFEST).exists():
            raise
        return None, None, [_problem(path / MANIFEST, e)]
    except IncompleteError as e:
        manifest = recovery.documents_within(path).manifest
        mend = f"run the same command again, or {_FROM_RESULTS}" if manifest is not None else _COPY
        problems.append(_problem(path / MANIFEST, e, mend))
        if manifest is None:
            return None, None, problems
    calibration, fault = _calibration(path, manifest["coordinates"])
    if fault:
        calibration = recovery.documents_within(path).calibration
        mend = f"run the same command again, or {_FROM_RESULTS}"
        if calibration is None:
            mend = _AGAIN if fault == "missing" else "run the same command again: it is measured anew"
            fault = "missing: nothing is measured yet" if fault == "missing" else fault
        problems.append(Problem(fault, str(path / CALIBRATION), mend))
    return manifest, calibration, problems


def _calibration(path: Path, coordinates: Coordinates) -> tuple[Calibration | None, str]:
    """The calibration in its file, and what is wrong with that."""
    try:
        calibration = read_calibration(path, coordinates)
    except IncompleteError as e:
        return None, _problem(path / CALIBRATION, e).what
    if calibration is None:
        return None, "missing"
    if recovery.calibration_is_at_fault(path, coordinates):
        return calibration, f"damaged: it has no checksum, and {RESULTS} vouches for another one"
    return calibration, ""


def _problem(file: Path, error: Exception, mend: str = "") -> Problem:
    what, _, advice = str(error).partition("\n")
    return Problem(what.removeprefix(f"{file}: "), str(file), mend or advice)


def _units(
    path: Path, images: list[Image], coordinates: Coordinates, *, also: bool
) -> tuple[list[Problem], list[Image]]:
    """Damaged units, and images that have none; `also`: whether results.nc could give them back."""
    damaged, missing = [], []
    mend = "run the same command again: it is measured anew"
    mend = f"{mend}, or {_FROM_RESULTS}" if also else mend
    for image in images:
        try:
            units.read(path, image.key, coordinates)
        except FileNotFoundError:
            missing.append(image)
        except ValueError as e:
            file = str(units.unit_path(path, image.key))
            damaged.append(Problem(f"unit of {image.id[:200]!a} damaged: {e}", file, mend))
    return damaged, missing


def _results(path: Path, manifest: Manifest, calibration: Calibration, fault: str) -> Iterator[Problem]:
    """What is wrong with results.nc; `fault`: what its checksum says."""
    file = path / RESULTS
    try:
        with results.opened(file) as stored:
            what = _difference(stored, path, manifest, calibration)
    except Exception as e:  # a damaged HDF5 file raises anything
        what = f"damaged: {results.brief(e)}"
    within = recovery.documents_within(path)
    if not fault and what == _OTHER_CALIBRATION and not (within.sealed or recovery.has_checksum(path / CALIBRATION)):
        what = f"not the calibration that {RESULTS} holds, and neither has a checksum: one of the two is damaged"
        mend = f"bring {CALIBRATION} or {RESULTS} back from a copy, or measure into another `out`; do not delete either"
        yield Problem(what, str(path / CALIBRATION), mend)
    elif what is not None or fault:
        yield Problem(what or f"damaged: {fault}", str(file), _ANEW)


_OTHER_CALIBRATION = f"its calibration is not that of {CALIBRATION}"


def _difference(stored: Any, path: Path, manifest: Manifest, calibration: Calibration) -> str | None:
    """What results.nc holds otherwise than the units that are whole; None when nothing."""
    coordinates = manifest["coordinates"]
    images = selection(calibration)
    for name, values in results.coordinate_values(coordinates, images).items():
        if list(stored.variables[name][...]) != list(values):
            return f"its {name} axis is not the run's"
    described = {name: json.loads(stored.attrs[name]) for name in ("manifest", "calibration")}
    for name, document in described.items():
        if fault := checksums.fault(document):
            return f"damaged: its {name}: {fault}"
    if checksums.opened(described["calibration"]) != calibration:
        return _OTHER_CALIBRATION
    if described["manifest"]["identity"] != manifest["identity"]:
        return f"its identity is not that of {MANIFEST}"
    names = {variable.name for variable in schema.variables(coordinates)}
    if names != stored.variables.keys() - {"image", "radius", "trial", "layer"}:
        return "its variables are not the run's"
    for start in range(0, len(images), results.BLOCK):
        block = images[start : start + results.BLOCK]
        written = {name: np.asarray(stored.variables[name][start : start + len(block)]) for name in names}
        for number, image in enumerate(block):
            for name, array in (units.read_if_whole(path, image.key, coordinates) or {}).items():
                if not _same(written[name][number], array):
                    return f"{name} of {image.id[:200]!a} is not that of its unit"
    return None


def _same(one: schema.Array, other: schema.Array) -> bool:
    return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def _summary(path: Path, *, whole: bool) -> list[Problem]:
    """Of results.nc and summary.json, what is missing although every unit is there; whether the summary is readable."""
    file = path / SUMMARY
    if whole and not (path / RESULTS).exists():
        return [Problem("missing: the run was not finished", str(path / RESULTS), _AGAIN)]
    try:
        if fault := checksums.fault(files.read_json(file)):
            raise ValueError(fault)
    except FileNotFoundError:
        return [Problem("missing: the run was not finished", str(file), _AGAIN)] if whole else []
    except ValueError as e:
        return [Problem(f"damaged: {e}", str(file), _ANEW)]
    return []
