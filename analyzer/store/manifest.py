"""What a run says about itself: manifest.json (what decides a number, what it ran on) and calibration.json."""

import dataclasses
import datetime
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from analyzer.errors import IncompleteError, InputError, UsageError
from analyzer.store import checksums, files, schema
from analyzer.store.documents import Calibration, Candidate, Coordinates, Manifest
from analyzer.store.status import Outcome
from analyzer.store.validation import check_calibration, manifest_fault
from analyzer.text import one_line

MANIFEST, CALIBRATION, RESULTS, SUMMARY, LOCK = (
    "manifest.json",
    "calibration.json",
    "results.nc",
    "summary.json",
    ".lock",
)
PACE = "pace.json"
SHARDS = "shards"
"""Folder of runs that are parts of this one."""

_ABSENT = object()
_FOLLOWS_FROM = {"radius": "radii", "trial": "trials", "layer": "layers", "variables": "measures"}
"""Coordinates and the identity's keys they follow from."""


@dataclasses.dataclass(frozen=True)
class Image:
    """One selected image: id (escaped relative path), the SHA-256 of its file, its class index, and its unit's key."""

    id: str
    sha256: str
    label: int
    key: str


def read_manifest(path: Path) -> Manifest:
    """The manifest of the run in `path`.

    Raises InputError when there is no run, when its manifest is damaged, or when another version wrote it;
    IncompleteError when it is missing or damaged and results.nc, which holds it too, is there.
    """
    file = Path(path) / MANIFEST
    in_results = (Path(path) / RESULTS).is_file()
    again = f"verify with `mend` rebuilds it from {RESULTS}"
    try:
        manifest = files.read_json(file)
    except FileNotFoundError:
        if in_results:
            raise IncompleteError(f"{file}: missing\n{again}") from None
        raise InputError(f"{path}: no run here ({_instead(Path(path))}); give the `out` of a run") from None
    except ValueError as e:
        fault = str(e)
    else:
        _refuse_other_schema(file, manifest)
        fault = manifest_fault(manifest)
        if not fault:
            return cast(Manifest, checksums.opened(manifest))
    if in_results:
        raise IncompleteError(f"{file}: damaged: {fault}\n{again}")
    raise InputError(f"{file}: damaged: {fault}\nbring it back from a copy, or measure into another `out`")


def _instead(path: Path) -> str:
    """What is there in place of a run."""
    if not os.path.isdir(path):  # noqa: PTH112 - a name that is too long is no folder; pathlib raises
        return "a file" if os.path.exists(path) else "no such folder"  # noqa: PTH110
    if next(path.glob(f"{SHARDS}/*/{MANIFEST}"), None) is not None:
        return "its shards are not joined yet: `analyzer merge` does that"
    inside = sorted(each.parent.name for each in path.glob(f"*/{MANIFEST}"))
    runs = f", but runs are inside: {', '.join(map(one_line, inside[:5]))}" if inside else ""
    return f"it has no {MANIFEST}{runs}"


def _refuse_other_schema(file: Path, manifest: Mapping[str, Any]) -> None:
    version = manifest.get("schema")
    if version != schema.SCHEMA and not checksums.fault(manifest):
        newer = isinstance(version, int) and version > schema.SCHEMA
        mend = "install that version or a later one" if newer else "measure into another `out`"
        raise InputError(
            f"{file}: written with schema {version!r:.20} by {'a newer' if newer else 'an older'} version, "
            f"this one reads {schema.SCHEMA}\n{mend}"
        )


def read_calibration(path: Path, coordinates: Coordinates) -> Calibration | None:
    """The calibration of the run in `path`, None while there is none. Raises IncompleteError when it is damaged."""
    file = Path(path) / CALIBRATION
    try:
        calibration = files.read_json(file)
        check_calibration(calibration, coordinates)
    except FileNotFoundError:
        return None
    except ValueError as e:
        raise IncompleteError(
            f"{file}: damaged: {e}\nrun the same command again: it is rebuilt or measured anew"
        ) from e
    return cast(Calibration, checksums.opened(calibration))


def selection(calibration: Calibration | None) -> list[Image]:
    """The selected images in their order; none while there is no calibration."""
    entries = calibration["selected"] if calibration is not None else []
    return [Image(entry["id"], entry["sha256"], entry["label"], entry["key"]) for entry in entries]


def in_class_means(calibration: Calibration) -> list[Candidate]:
    """The images that the class means of a labelled embedding are of; none where there are no means."""
    looked = [c for c in calibration["candidates"] if c["outcome"] not in (Outcome.BAD, Outcome.DUPLICATE)]
    known = looked[: calibration["class_means"]["images"]] if "class_means" in calibration else []
    return [c for c in known if c["outcome"] != Outcome.NON_FINITE and (c["label"] or 0) >= 0]


def is_file_of_a_run(target: Path) -> bool:
    """Whether `target` would be one of the files that a run directory is made of."""
    here = target.resolve().parent
    run = here.parent if here.name == "units" else here
    own = target.name in (MANIFEST, CALIBRATION, RESULTS, SUMMARY, LOCK, PACE)
    return (here != run or own) and (run / MANIFEST).exists()


def has_results(path: Path) -> bool:
    """Whether results.nc and summary.json are there."""
    return (path / RESULTS).exists() and (path / SUMMARY).exists()


def covers_limit(calibration: Calibration, manifest: Manifest) -> bool:
    """Whether the selection was made under the run's present limit, which may have grown since."""
    return calibration["limit"] == manifest["identity"]["limit"]


def differences(old: object, new: object, name: str = "") -> dict[str, list[Any]]:
    """{dotted key: [old value, new value]} of two JSON documents; the value of a key that one lacks is "absent"."""
    if isinstance(old, dict) and isinstance(new, dict):
        changes: dict[str, list[Any]] = {}
        for key in sorted(old.keys() | new.keys()):
            changes |= differences(old.get(key, _ABSENT), new.get(key, _ABSENT), f"{name}.{key}" if name else key)
        return changes
    return {} if old == new else {name: ["absent" if side is _ABSENT else side for side in (old, new)]}


def grows(old: object, new: object) -> bool:
    """Whether the limit `new` takes in at least the images of `old`; None is no limit."""
    sides = [math.inf if side is None else side for side in (old, new)]
    return all(isinstance(side, int | float) for side in sides) and sides[1] >= sides[0]  # type: ignore[operator]


def continued(manifest: Manifest, wanted: Mapping[str, Any], path: Path, now: str) -> Manifest:
    """The manifest of a run that goes on as `wanted` (identity, context, coordinates); `manifest` itself if unchanged.

    A grown limit and other contexts are taken over and recorded in the history. Raises UsageError with the
    differing keys when the identity, the coordinates, the provider or the precision differ.
    """
    changes = differences(manifest["identity"], wanted["identity"])
    if "backend" not in manifest["identity"] and _as_earlier(wanted):
        changes.pop("backend", None)
    if "measures" in changes and "absent" in changes.get("linearity_trials", ()):  # which follows from it
        del changes["linearity_trials"]
    for name, change in differences(manifest["coordinates"], wanted["coordinates"]).items():
        if _FOLLOWS_FROM.get(name) not in changes:  # the same thing is not said twice
            changes[f"coordinates.{name}"] = change
    if "limit" in changes and grows(*changes["limit"]):
        del changes["limit"]
    for key in ("provider", "precision"):
        changes |= differences(manifest["context"].get(key, _ABSENT), wanted["context"].get(key, _ABSENT), key)
    if changes:
        listed = "; ".join(f"{key} {_short(old)} -> {_short(new)}" for key, (old, new) in changes.items())
        raise UsageError(
            f"{path}: this run was made with other settings: {listed}\n"
            "give the same ones to continue it (only the limit may grow), or another `out` for a new run"
        )
    changes = {
        **differences(manifest["identity"].get("limit"), wanted["identity"].get("limit"), "limit"),
        **differences(_settled(manifest["context"]), _settled(wanted["context"]), "context"),
    }
    if not changes:
        return manifest
    entry = {"time": now, "changes": changes}
    return cast(Manifest, {**manifest, **wanted, "history": [*manifest["history"], entry]})


def _as_earlier(wanted: Mapping[str, Any]) -> bool:
    """Whether a run goes on as an earlier version began it, which knew no settings and rounded no float16 scores."""
    backend = wanted["identity"].get("backend")
    if backend is None:
        return True
    plain = backend["optimizations"] == "all" and backend["options"].get("use_tf32", "0") == "0"
    return bool(plain and wanted["context"]["precision"] != "float16")


def _settled(context: Mapping[str, Any]) -> dict[str, Any]:
    """A context without what differs from session to session by rounding: of the checks, what they found."""
    checks = context.get("checks")
    found = (
        {}
        if checks is None
        else {
            **{key: checks["fidelity"][key] for key in ("differs", "separate", "dropped", "why_not")},
            "faults": checks["batches"]["faults"] > 0,
        }
    )
    return {**context, "checks": found}


def now() -> str:
    """The time as a manifest holds it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 72 else text[:69] + "..."
