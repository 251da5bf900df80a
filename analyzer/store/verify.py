"""Whether a run on disk still is what was measured."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from analyzer.errors import IncompleteError, InputError
from analyzer.store import files, results, schema, units
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
from analyzer.store.writer import temporaries

_AGAIN = "run the same command again: it continues"
_ANEW = "delete it, then run the same command again: it is written anew from the units"


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is wrong, with which file, and how to mend it."""

    what: str
    file: str
    mend: str


def verify(path: Path) -> list[Problem]:
    """Everything that is wrong with the run in `path`; nothing is changed.

    Looks at manifest, calibration, each selected image's unit (checksum, names, types, shapes), results.nc (equal to
    the units), summary.json and temporary files left over. Raises InputError when there is no run at all.
    """
    path = Path(path)
    try:
        manifest = read_manifest(path)
    except InputError as e:
        if not (path / MANIFEST).exists():
            raise
        what, _, mend = str(e).partition("\n")
        return [Problem(what, str(path / MANIFEST), mend)]
    problems = [
        Problem("left half-written by a writer that stopped", str(stray), f"if none is at work, {_AGAIN}")
        for stray in temporaries(path)
    ]
    try:
        calibration = read_calibration(path, manifest["coordinates"])
    except IncompleteError as e:
        what, _, mend = str(e).partition("\n")
        return [*problems, Problem(what, str(path / CALIBRATION), mend)]
    if calibration is None:
        return [*problems, Problem("missing: nothing is measured yet", str(path / CALIBRATION), _AGAIN)]
    if not covers_limit(calibration, manifest):
        problems.append(Problem("the limit has grown since the images were selected", str(path), _AGAIN))
    images = selection(calibration)
    damaged, missing = _units(path, images, manifest["coordinates"])
    problems += damaged
    if missing:
        what = f"{len(missing)} of {len(images)} selected images have no unit, the first {missing[0].id[:200]!a}"
        problems.append(Problem(what, str(path / "units"), _AGAIN))
    return problems + list(_results(path, manifest, calibration)) + _summary(path, whole=not (damaged or missing))


def _units(path: Path, images: list[Image], coordinates: Coordinates) -> tuple[list[Problem], list[Image]]:
    damaged, missing = [], []
    for image in images:
        try:
            units.read(path, image.key, coordinates)
        except FileNotFoundError:
            missing.append(image)
        except ValueError as e:
            file = str(units.unit_path(path, image.key))
            what = f"unit of {image.id[:200]!a} damaged: {e}"
            damaged.append(Problem(what, file, "run the same command again: it is measured anew"))
    return damaged, missing


def _results(path: Path, manifest: Manifest, calibration: Calibration) -> Iterator[Problem]:
    file = path / RESULTS
    if not file.exists():
        return
    import h5netcdf

    try:
        with h5netcdf.File(file, "r", decode_vlen_strings=True) as stored:
            what = _difference(stored, path, manifest, calibration)
    except Exception as e:  # a damaged HDF5 file raises anything
        what = f"damaged: {results.brief(e)}"
    if what is not None:
        yield Problem(what, str(file), _ANEW)


def _difference(stored: Any, path: Path, manifest: Manifest, calibration: Calibration) -> str | None:
    """What results.nc holds otherwise than the units that are whole; None when nothing."""
    coordinates = manifest["coordinates"]
    images = selection(calibration)
    for name, values in results.coordinate_values(coordinates, images).items():
        if list(stored.variables[name][...]) != list(values):
            return f"its {name} axis is not the run's"
    if stored.attrs["calibration"] != files.to_json(calibration):
        return f"its calibration is not that of {CALIBRATION}"
    if json.loads(stored.attrs["manifest"])["identity"] != manifest["identity"]:
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
        files.read_json(file)
    except FileNotFoundError:
        return [Problem("missing: the run was not finished", str(file), _AGAIN)] if whole else []
    except ValueError as e:
        return [Problem(f"damaged: {e}", str(file), _ANEW)]
    return []
