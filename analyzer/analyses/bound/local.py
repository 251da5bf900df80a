"""The local numbers of a run, to stand beside the global bound: claim (4) of the paper compares the two."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from analyzer import card as cards
from analyzer import graph, store
from analyzer.errors import IncompleteError, UsageError
from analyzer.summary import summarise

_OVERALL = (
    "lipschitz_median",
    "lipschitz_q95",
    "lipschitz_below_one_share",
    "lipschitz_raw_median",
    "lipschitz_raw_q95",
)


class Local(NamedTuple):
    """Of one run: layers as named there, ranges of h and g in grey levels and feature units, and numbers by layer."""

    layers: tuple[str, ...]
    input_range: float | None
    feature_range: dict[str, float | None]
    numbers: dict[str, dict[str, Any]]


def read(run: Path, *, model: Path, card: Path) -> Local:
    """What `run`, finished or not, measured around its images.

    Raises UsageError where it is a run of another model or card, IncompleteError where no image is finished yet.
    """
    manifest = store.read_manifest(run)
    document = json.dumps(cards.to_document(cards.read(card)), sort_keys=True)
    wanted = {"model": graph.sha256(model), "card": hashlib.sha256(document.encode()).hexdigest()}
    for what, path in (("model", model), ("card", card)):
        if manifest["identity"].get(what) != wanted[what]:
            raise UsageError(f"{run}: measured with another {what} than {path}; give the one it was measured with")
    calibration = store.read_calibration(run, manifest["coordinates"])
    if calibration is None or not store.progress(run)[0]:
        raise IncompleteError(f"{run}: no image is finished yet; run the same command again to continue")
    if store.has_results(run):
        summary = store.read_summary(run)
    else:
        with store.open_run(run) as dataset:
            summary = summarise(dataset)
    names = tuple(manifest["coordinates"]["layer"])
    radius = f"{min(manifest['coordinates']['radius']):g}"
    numbers = {}
    for name in names:
        suffix = f"/{name}" if len(names) > 1 else ""
        keys = {**{key: key for key in _OVERALL}, "jacobian_rms_median": f"jacobian_rms_median@{radius}"}
        numbers[name] = {key: summary[entry + suffix] for key, entry in keys.items() if entry + suffix in summary}
    return Local(names, calibration["input_range"], calibration["feature_range"], numbers)
