"""A run directory: opened by its one writer, filled unit by unit, continued after any kind of stop."""

import datetime
import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from analyzer.errors import IncompleteError, UsageError
from analyzer.store import files, lock, results, schema, units
from analyzer.store import manifest as manifests
from analyzer.store.documents import Calibration, Manifest
from analyzer.store.manifest import CALIBRATION, LOCK, MANIFEST, RESULTS, SUMMARY, has_results

if TYPE_CHECKING:
    import xarray


class Store:
    """The writer of one run; a context manager that gives the run's lock back at its end.

    path is the run directory, manifest what manifest.json holds, resumed whether the run was there before.
    """

    def __init__(self, path: Path, manifest: Manifest, *, resumed: bool, handle: int) -> None:
        self.path, self.manifest, self.resumed = path, manifest, resumed
        self._handle: int | None = handle

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back; a second time does nothing."""
        if self._handle is not None:
            lock.release(self._handle)
            self._handle = None

    def calibration(self) -> Calibration | None:
        """What `write_calibration` wrote; None when absent or damaged."""
        try:
            return manifests.read_calibration(self.path, self.manifest["coordinates"])
        except IncompleteError:
            return None

    def write_calibration(self, document: Mapping[str, Any]) -> None:
        """Write calibration.json.

        Raises ValueError when ranges or selection do not fit (see `manifest.check_calibration`), IncompleteError
        when it cannot be written.
        """
        document = json.loads(files.to_json(document))
        manifests.check_calibration(document, self.manifest["coordinates"])
        self._drop_results()
        files.write(self.path / CALIBRATION, _text(document))

    def has(self, key: str) -> bool:
        """Whether the unit is there and whole; a damaged or empty one counts as absent."""
        return self.read_unit(key) is not None

    def write_unit(self, key: str, arrays: Mapping[str, Any]) -> None:
        """Write one image's arrays: every variable of the run, without its image axis.

        After this returns they survive SIGKILL and loss of power; before, nothing of them is there. Results of the
        whole run that were there are removed as stale. Raises ValueError when a variable does not fit the schema,
        IncompleteError when the unit cannot be written.
        """
        data = units.pack(key, schema.checked(arrays, self.manifest["coordinates"]))
        self._drop_results()
        files.write(units.unit_path(self.path, key), data)

    def read_unit(self, key: str) -> dict[str, schema.Array] | None:
        """One image's arrays as `write_unit` took them; None when absent or damaged."""
        return units.read_if_whole(self.path, key, self.manifest["coordinates"])

    def record(self, context: Mapping[str, Any]) -> None:
        """Take over what the run has turned out to run on, and note in its history what that changes.

        Raises IncompleteError when manifest.json cannot be written.
        """
        wanted = {**self.manifest, "context": json.loads(files.to_json(context))}
        self.manifest = manifests.continued(self.manifest, wanted, self.path, _now())
        files.write(self.path / MANIFEST, _text(self.manifest))

    def finish(self, summarise: Callable[["xarray.Dataset"], Mapping[str, Any]]) -> dict[str, Any]:
        """Write results.nc from the units, a few at a time, and summary.json from what `summarise` makes of it.

        Returns the summary as `read_summary` gives it, with None for NaN. Raises IncompleteError when a selected
        image has no unit, or when a file cannot be written.
        """
        calibration = self.calibration()
        if calibration is None:
            raise IncompleteError(f"{self.path / CALIBRATION}: missing or damaged\nrun the same command again")
        self._drop_results()
        target = self.path / RESULTS
        results.write_results(target, manifest=self.manifest, calibration=calibration, read_unit=self.read_unit)
        with results.open_results(target, derive=False) as dataset:
            summary: dict[str, Any] = files.plain(summarise(dataset))
        files.write(self.path / SUMMARY, _text(summary))
        return summary

    def _drop_results(self) -> None:
        # They no longer stand for the units that are about to change. On a complete run they also kept a changed
        # context from being recorded: nothing had been measured with it yet.
        if has_results(self.path):
            files.write(self.path / MANIFEST, _text(self.manifest))
        for name in (SUMMARY, RESULTS):
            (self.path / name).unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raise UsageError when `path` cannot be made a run directory, or holds something else; makes nothing.

    For an early word, before a model is loaded; `open_store` checks again.
    """
    path = Path(path)
    try:
        entries = {entry.name for entry in path.iterdir()}
    except FileNotFoundError:
        entries = set()
    except OSError as e:
        raise UsageError(_no_directory(path, e)) from e
    if MANIFEST not in entries and entries - {LOCK, MANIFEST + files.TEMPORARY}:
        raise UsageError(f"{path}: not empty, and no run (it has no {MANIFEST})\ngive an `out` that is empty or new")
    there = next((folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder)), path)
    if not there.is_dir():
        raise UsageError(_no_directory(path, NotADirectoryError(errno.ENOTDIR, f"{there} is no directory")))
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(_no_directory(path, PermissionError(errno.EACCES, f"{there} is not writable")))


def _no_directory(path: Path, error: OSError) -> str:
    return f"{path}: cannot be made a run directory: {error.strerror}\ngive another `out`"


def open_store(
    path: Path, *, identity: Mapping[str, Any], context: Mapping[str, Any], coordinates: Mapping[str, Any]
) -> Store:
    """Make the run directory `path`, or open it to continue it.

    identity: what decides a number; context: what it runs on; both JSON documents. coordinates: {"radius": [...],
    "trial": T, "layer": [...]}, and "variables": [names] if the run holds only some of `schema.VARIABLES`.

    Raises UsageError when the directory cannot be written, belongs to something else or is being written by another
    process, or when the run was made with another identity (other than a smaller limit), provider or precision,
    naming the keys; InputError when its manifest is damaged; IncompleteError when the disk is full.
    """
    path = Path(path)
    check_writable(path)
    wanted = json.loads(files.to_json({"identity": identity, "context": context, "coordinates": coordinates}))
    if fault := schema.coordinate_fault(wanted["coordinates"]):
        raise UsageError(f"{path}: {fault}")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UsageError(_no_directory(path, e)) from e
    handle = lock.acquire(path / LOCK)
    try:
        manifest, resumed = _enter(path, wanted)
    except BaseException:
        lock.release(handle)
        raise
    return Store(path, manifest, resumed=resumed, handle=handle)


def _enter(path: Path, wanted: dict[str, Any]) -> tuple[Manifest, bool]:
    """The manifest, made or continued, and whether it was there before. The lock is held."""
    now = _now()
    # A run that stopped before its first image was selected holds nothing: other settings may take it over.
    resumed = (path / MANIFEST).exists() and ((path / CALIBRATION).exists() or any((path / "units").glob("*.npz")))
    old = manifests.read_manifest(path) if resumed else None
    manifest = (
        manifests.continued(old, wanted, path, now)
        if old is not None
        else cast(Manifest, {"schema": schema.SCHEMA, **wanted, "history": [], "created": now})
    )
    try:
        (path / "units").mkdir(exist_ok=True)
        for stray in temporaries(path):
            stray.unlink()
        probe = path / "units" / f"probe{files.TEMPORARY}"
        probe.touch()
        probe.unlink()
        if old is not None and manifest["identity"] != old["identity"]:
            # Before the manifest: stopped in between, the smaller run is only without its results.
            (path / SUMMARY).unlink(missing_ok=True)
            (path / RESULTS).unlink(missing_ok=True)
    except OSError as e:
        raise UsageError(f"{path}: cannot be written: {e.strerror}\ngive another `out`") from e
    if manifest != old and not has_results(path):
        files.write(path / MANIFEST, _text(manifest))
    return manifest, resumed


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def temporaries(path: Path) -> list[Path]:
    """Files that a stopped writer left half-written."""
    names = [path / (name + files.TEMPORARY) for name in (MANIFEST, CALIBRATION, RESULTS, SUMMARY)]
    return [name for name in names if name.exists()] + sorted((path / "units").glob(f"*{files.TEMPORARY}"))


def _text(document: Mapping[str, Any]) -> bytes:
    return (files.to_json(document, indent=1) + "\n").encode()
