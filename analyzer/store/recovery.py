"""What a run has twice: results.nc holds manifest, calibration and every unit, so damaged ones come back from it."""

import json
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from analyzer.errors import IncompleteError, InputError
from analyzer.store import checksums, files, results, schema, units
from analyzer.store.documents import Calibration, Coordinates, Manifest
from analyzer.store.manifest import (
    CALIBRATION,
    MANIFEST,
    RESULTS,
    SUMMARY,
    Image,
    read_calibration,
    read_manifest,
    selection,
)
from analyzer.store.validation import check_calibration, manifest_fault
from analyzer.store.writer import text_of


class Within(NamedTuple):
    """The documents inside a results.nc, each None where it is not there or damaged; whether they have checksums."""

    manifest: Manifest | None
    calibration: Calibration | None
    sealed: bool


def documents_within(run: Path) -> Within:
    """Manifest and calibration as the run's results.nc holds them."""
    nothing = Within(None, None, False)
    if not (run / RESULTS).is_file():
        return nothing
    try:
        with results.opened(run / RESULTS) as stored:
            manifest, calibration = (json.loads(stored.attrs[name]) for name in ("manifest", "calibration"))
    except Exception:  # a damaged HDF5 file raises anything
        return nothing
    if not isinstance(manifest, dict) or manifest.get("schema") != schema.SCHEMA or manifest_fault(manifest):
        return nothing
    try:
        check_calibration(calibration, manifest["coordinates"])
        measured_by = cast(Calibration, checksums.opened(calibration))
    except ValueError:
        measured_by = None
    sealed = checksums.is_sealed(manifest) and measured_by is not None and checksums.is_sealed(calibration)
    return Within(cast(Manifest, checksums.opened(manifest)), measured_by, sealed)


def restore_documents(run: Path) -> None:
    """Write a manifest or calibration that is missing or damaged anew, where results.nc holds it; the lock is held.

    Raises IncompleteError where a file cannot be written.
    """
    if not (run / RESULTS).is_file():
        return
    within: Within | None = None
    try:
        manifest = read_manifest(run)
    except InputError:
        return
    except IncompleteError:
        within = documents_within(run)
        if within.manifest is None:
            return
        manifest = within.manifest
        files.write(run / MANIFEST, text_of(manifest))
    if calibration_is_at_fault(run, manifest["coordinates"]):
        within = within or documents_within(run)
        if within.calibration is not None:
            files.write(run / CALIBRATION, text_of(within.calibration))


def calibration_is_at_fault(run: Path, coordinates: Coordinates) -> bool:
    """Whether it is missing, damaged, or, having no checksum, not what results.nc holds with one."""
    try:
        calibration = read_calibration(run, coordinates)
    except IncompleteError:
        return True
    if calibration is None:
        return True
    if has_checksum(run / CALIBRATION):
        return False
    within = documents_within(run)
    return within.sealed and within.calibration != calibration


def has_checksum(file: Path) -> bool:
    """Whether a document says by a checksum what it was."""
    try:
        return checksums.is_sealed(files.read_json(file))
    except (OSError, ValueError):
        return False


def restore_units(run: Path, manifest: Manifest, calibration: Calibration) -> None:
    """Write units that are missing or damaged anew from a results.nc that is whole; the lock is held."""
    coordinates, images = manifest["coordinates"], selection(calibration)
    lost = [n for n, image in enumerate(images) if units.read_if_whole(run, image.key, coordinates) is None]
    if not lost or not (run / RESULTS).is_file() or results.results_fault(run):
        return
    with results.opened(run / RESULTS) as stored:
        if documents_within(run).calibration == calibration and list(stored.variables["image"][...]) == _ids(images):
            (run / "units").mkdir(exist_ok=True)
            for number in lost:
                key = images[number].key
                files.write(units.unit_path(run, key), units.pack(key, _row(stored, number, coordinates)))


def _ids(images: list[Image]) -> list[str]:
    return [image.id for image in images]


def _row(stored: Any, number: int, coordinates: Coordinates) -> dict[str, schema.Array]:
    names = [variable.name for variable in schema.variables(coordinates)]
    return schema.checked({name: np.asarray(stored.variables[name][number]) for name in names}, coordinates)


def temporaries(run: Path) -> list[Path]:
    """Files that a stopped writer left half-written."""
    names = [run / (name + files.TEMPORARY) for name in (MANIFEST, CALIBRATION, RESULTS, SUMMARY)]
    return [name for name in names if name.exists()] + sorted((run / "units").glob(f"*{files.TEMPORARY}"))
