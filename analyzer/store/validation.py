"""Whether manifest.json and calibration.json hold what they should: keys, types, checksums."""

from collections.abc import Mapping
from typing import Any

from analyzer.measures import REGISTRY
from analyzer.store import checksums, kinds, schema
from analyzer.store.documents import Calibration, Change, Context, Coordinates, Identity
from analyzer.store.status import Outcome


def manifest_fault(manifest: Mapping[str, Any]) -> str:
    """What is wrong with a manifest as it was read; empty where nothing is.

    One without a checksum, of an earlier version, must have every key; with one, what a writer left out is its own.
    """
    parts: dict[str, Any] = {"identity": Identity, "context": Context, "history": list[Change]}
    for key, kind in parts.items():
        if key not in manifest:
            return f"{key} is missing"
        if fault := kinds.fault(manifest[key], kind, key, partial=True):
            return fault
    fault = schema.coordinate_fault(manifest.get("coordinates")) or _identity_fault(manifest["identity"])
    if not fault and not checksums.is_sealed(manifest):
        fault = incomplete(manifest)
    return fault or checksums.fault(manifest)


def incomplete(manifest: Mapping[str, Any]) -> str:
    """The first key of identity or context that is missing; empty where none is."""
    parts = (kinds.missing(manifest[key], kind, key) for key, kind in (("identity", Identity), ("context", Context)))
    return next(filter(None, parts), "")


def _identity_fault(identity: Mapping[str, Any]) -> str:
    if unknown := [name for name in identity.get("measures", []) if name not in REGISTRY]:
        return f"identity.measures: {unknown[0]!r:.60} is unknown"
    if identity.get("norm", "linf") not in ("linf", "l2"):
        return f"identity.norm must be linf or l2, not {identity['norm']!r:.60}"
    return ""


def check_calibration(calibration: Mapping[str, Any], coordinates: Coordinates) -> None:
    """Raise ValueError unless `calibration` holds the ranges and the selection, and is what its checksum says.

    {"input_range": number, "feature_range": {layer: number}, "selected": [{"id", "sha256", "label", "key"}, ...]},
    and whatever else, as "limit", the limit it was made under. A range that could not be measured is null.
    """
    if fault := kinds.fault(calibration, Calibration, partial=True):
        raise ValueError(fault)
    for key in ("input_range", "feature_range", "selected"):
        if key not in calibration:
            raise ValueError(f"{key} must be given")
    if lacking := [layer for layer in coordinates["layer"] if layer not in calibration["feature_range"]]:
        raise ValueError(f"feature_range must give a number for each layer; {lacking[0]!a} has none")
    for candidate in calibration.get("candidates", []):
        if candidate["outcome"] not in set(Outcome):
            raise ValueError(f"the outcome of {candidate['id'][:80]!a} must be one of {', '.join(Outcome)}")
        if candidate["outcome"] == Outcome.BAD and "reason" not in candidate:
            raise ValueError(f"the reason of {candidate['id'][:80]!a} must be given")
    if lacking := [outcome for outcome in Outcome if outcome not in calibration.get("counts", set(Outcome))]:
        raise ValueError(f"counts.{lacking[0]} must be given")
    entries = calibration["selected"]
    for entry in entries:
        if not schema.is_text(entry["id"]) or not 0 <= entry["label"] < 2**31:
            raise ValueError("each of selected must have an id and a sha256 (text) and a label (an integer)")
        if entry["key"] != schema.unit_key(entry["id"], entry["sha256"]):
            raise ValueError(f"the key of {entry['id'][:80]!a} is not that of its id and sha256")
    if len({entry["id"] for entry in entries}) < len(entries):
        raise ValueError("an image is selected twice")
    if fault := checksums.fault(calibration):
        raise ValueError(fault)
