"""Whether manifest.json and calibration.json hold what they should: keys, types, checksums."""

from collections.abc import Mapping
from typing import Any

from analyzer.measures import REGISTRY
from analyzer.store import checksums, kinds, schema
from analyzer.store.documents import Calibration, Change, Context, Coordinates, Identity
from analyzer.store.status import Outcome


def manifest_fault(manifest: Mapping[str, Any]) -> str:
    """What is wrong with a manifest as it was read; empty where nothing is."""
    return (
        settings_fault(manifest)
        or _disagreement(manifest["identity"], manifest["coordinates"])
        or kinds.fault(manifest.get("history"), list[Change], "history")
        or kinds.fault(manifest.get("hosts", []), list[str], "hosts")
        or checksums.fault(manifest)
    )


def settings_fault(settings: Mapping[str, Any]) -> str:
    """What is wrong with the identity, the context and the coordinates of a run; empty where nothing is."""
    for key, kind in (("identity", Identity), ("context", Context)):
        if key not in settings:
            return f"{key} is missing"
        if fault := kinds.fault(settings[key], kind, key):
            return fault
    return schema.coordinate_fault(settings.get("coordinates")) or _identity_fault(settings["identity"])


def _disagreement(identity: Mapping[str, Any], coordinates: Mapping[str, Any]) -> str:
    """Where the axes of the variables are not what the identity says."""
    for axis, key in (("radius", "radii"), ("trial", "trials")):
        if coordinates[axis] != identity[key]:
            return f"coordinates.{axis} is not identity.{key}"
    return ""


def _identity_fault(identity: Mapping[str, Any]) -> str:
    if unknown := [name for name in identity["measures"] if name not in REGISTRY]:
        return f"identity.measures: {unknown[0]!r:.60} is unknown"
    if identity["norm"] not in ("linf", "l2"):
        return f"identity.norm must be linf or l2, not {identity['norm']!r:.60}"
    return ""


def check_calibration(calibration: Mapping[str, Any], coordinates: Coordinates) -> None:
    """Raise ValueError unless `calibration` is a Calibration of this run, and is what its checksum says."""
    if fault := kinds.fault(calibration, Calibration):
        raise ValueError(fault)
    if lacking := [layer for layer in coordinates["layer"] if layer not in calibration["feature_range"]]:
        raise ValueError(f"feature_range must give a number for each layer; {lacking[0]!a} has none")
    for candidate in calibration["candidates"]:
        if candidate["outcome"] not in set(Outcome):
            raise ValueError(f"the outcome of {candidate['id'][:80]!a} must be one of {', '.join(Outcome)}")
        if candidate["outcome"] == Outcome.BAD and "reason" not in candidate:
            raise ValueError(f"the reason of {candidate['id'][:80]!a} must be given")
    if lacking := [outcome for outcome in Outcome if outcome not in calibration["counts"]]:
        raise ValueError(f"counts.{lacking[0]} must be given")
    entries = calibration["selected"]
    for entry in entries:
        if not schema.is_text(entry["id"]) or not -1 <= entry["label"] < 2**31:
            raise ValueError(
                "each of selected must have an id and a sha256 (text) and a label (an integer, -1 for none)"
            )
        if entry["key"] != schema.unit_key(entry["id"], entry["sha256"]):
            raise ValueError(f"the key of {entry['id'][:80]!a} is not that of its id and sha256")
    if len({entry["id"] for entry in entries}) < len(entries):
        raise ValueError("an image is selected twice")
    if fault := checksums.fault(calibration):
        raise ValueError(fault)
