"""summary.json, read back and checked to be this run's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analyzer.errors import IncompleteError
from analyzer.store import files
from analyzer.store.manifest import SUMMARY, read_manifest
from analyzer.store.run import progress
from analyzer.store.schema import SCHEMA


def read_summary(path: Path) -> dict[str, Any]:
    """The numbers in summary.json.

    Raises InputError when `path` is no run, IncompleteError when it has none yet, or a damaged or foreign one.
    """
    manifest = read_manifest(path)
    file = Path(path) / SUMMARY
    try:
        document = files.read_json(file)
        if fault := _summary_fault(document, manifest):
            raise ValueError(fault)
        return document
    except FileNotFoundError:
        finished, selected = progress(path)
        raise IncompleteError(
            f"{path}: partial, {finished} of {selected} images\nrun the same command again: it continues"
        ) from None
    except ValueError as e:
        raise IncompleteError(f"{file}: damaged: {e}\nrun the same command again: it is written anew") from e


def _summary_fault(document: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """What is wrong with a summary of the run that `manifest` describes; empty where nothing is."""
    run = document.get("run")
    if not isinstance(run, dict) or document.get("schema") != SCHEMA:
        return "it is no summary of this version"
    kinds = {"model": str, "images": dict, "protocol": dict, "context": dict}
    if missing := [key for key, kind in kinds.items() if not isinstance(run.get(key), kind)]:
        return f"run.{missing[0]} is missing"
    if not all(isinstance(document.get(key), list) for key in ("sentences", "warnings")):
        return "sentences or warnings are missing"
    identity = {key: value for key, value in manifest["identity"].items() if key not in ("model", "card")}
    if run["model"] != manifest["context"].get("model") or run["protocol"] != identity:
        return "it is of another model or protocol than manifest.json"
    for name, entry in document.items():
        if name not in ("schema", "run", "sentences", "warnings") and not _is_estimate(entry):
            return f"{name[:80]!a} is no estimate"
    return ""


def _is_estimate(entry: object) -> bool:
    if not isinstance(entry, dict) or entry.keys() != {"value", "low", "high", "n"} or type(entry["n"]) is not int:
        return False
    return all(entry[key] is None or type(entry[key]) in (int, float) for key in ("value", "low", "high"))
