"""Opening a run directory for its one writer: made, continued, or refused."""

import errno
import json
import os
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, cast

from analyzer.errors import AnalyzerError, IncompleteError, UsageError
from analyzer.store import files, lock, recovery, schema
from analyzer.store import manifest as manifests
from analyzer.store.documents import Coordinates, Manifest
from analyzer.store.manifest import CALIBRATION, LOCK, MANIFEST, RESULTS, SHARDS, SUMMARY, has_results
from analyzer.store.run import Run
from analyzer.store.validation import settings_fault
from analyzer.store.writer import Store, text_of


def check_writable(path: Path) -> None:
    """Raise UsageError when `path` cannot be made a run directory, or holds something else; makes nothing.

    A complete run needs no writing. For an early word, before a model is loaded; `open_store` checks again.
    """
    path = Path(path)
    try:
        entries = {entry.name for entry in path.iterdir()}
    except FileNotFoundError:
        entries = set()
    except OSError as e:
        raise UsageError(_no_directory(path, e)) from e
    if not _is_ours(path, entries):
        raise UsageError(f"{path}: not empty, and no run (it has no {MANIFEST})\ngive an `out` that is empty or new")
    there = next((folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder)), path)
    if not there.is_dir():
        raise UsageError(_no_directory(path, NotADirectoryError(errno.ENOTDIR, f"{there} is no directory")))
    if not os.access(there, os.W_OK | os.X_OK) and not (MANIFEST in entries and Run(path).is_complete):
        raise UsageError(_no_directory(path, PermissionError(errno.EACCES, f"{there} is not writable")))


def _is_ours(path: Path, entries: Set[str]) -> bool:
    """Whether a folder with these entries is a run, or what is left of one that stopped at its very first writes."""
    if MANIFEST in entries or recovery.documents_within(path).manifest is not None:
        return True
    units = (path / "units").iterdir() if (path / "units").is_dir() else ()
    begun = {LOCK, SHARDS, MANIFEST + files.TEMPORARY, *(["units"] if all(map(_is_temporary, units)) else [])}
    return not entries - begun


def _is_temporary(file: Path) -> bool:
    return file.name.endswith(files.TEMPORARY)


def _no_directory(path: Path, error: OSError) -> str:
    return f"{path}: cannot be made a run directory: {error.strerror}\ngive another `out`"


def _unwritable(path: Path, error: OSError) -> AnalyzerError:
    if error.errno in files.FULL:
        mend = "free some space, then run the same command again: it continues"
        return IncompleteError(f"{path}: cannot be written: {error.strerror}\n{mend}")
    return UsageError(f"{path}: cannot be written: {error.strerror}\ngive another `out`")


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
    if fault := settings_fault(wanted):
        raise UsageError(f"{path}: {fault}")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        if e.errno in files.FULL:
            raise _unwritable(path, e) from e
        raise UsageError(_no_directory(path, e)) from e
    handles = lock.acquire(path)
    try:
        recovery.restore_documents(path)
        manifest, resumed = _enter(path, wanted)
    except BaseException:
        lock.release(handles)
        raise
    return Store(path, manifest, resumed=resumed, handles=handles)


def _leave_out_later(wanted: dict[str, Any], old: Coordinates) -> None:
    """Of the variables that are wanted, leave out what the version that began the run did not know."""
    if "variables" in wanted and "variables" in old:
        unknown = set(schema.LATER) - set(old["variables"])
        wanted["variables"] = [name for name in wanted["variables"] if name not in unknown]


def _enter(path: Path, wanted: dict[str, Any]) -> tuple[Manifest, bool]:
    """The manifest, made or continued, and whether it was there before. The lock is held."""
    now = manifests.now()
    # A run that stopped before its first image was selected holds nothing: other settings may take it over.
    resumed = (path / MANIFEST).exists() and ((path / CALIBRATION).exists() or any((path / "units").glob("*.npz")))
    old = manifests.read_manifest(path) if resumed else None
    if old is not None:
        _leave_out_later(wanted["coordinates"], old["coordinates"])
    manifest = (
        manifests.continued(old, wanted, path, now)
        if old is not None
        else cast(Manifest, {"schema": schema.SCHEMA, **wanted, "history": [], "created": now})
    )
    try:
        (path / "units").mkdir(exist_ok=True)
        for stray in recovery.temporaries(path):
            stray.unlink()
        probe = path / "units" / f"probe{files.TEMPORARY}"
        probe.touch()
        probe.unlink()
        if old is not None and manifest["identity"] != old["identity"]:
            # Before the manifest: stopped in between, the smaller run is only without its results.
            (path / SUMMARY).unlink(missing_ok=True)
            (path / RESULTS).unlink(missing_ok=True)
    except OSError as e:
        # Nothing is to be written to a complete run.
        if old is None or manifest["identity"] != old["identity"] or not Run(path).is_complete:
            raise _unwritable(path, e) from e
    if manifest != old and not has_results(path):
        files.write(path / MANIFEST, text_of(manifest))
    return manifest, resumed
