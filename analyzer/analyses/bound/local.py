"""The local numbers of a run, to stand beside the global bound: claim (4) of the paper compares the two."""

from pathlib import Path
from typing import Any, NamedTuple

from analyzer.errors import InputError, UsageError
from analyzer.measures import lipschitz
from analyzer.store import Run
from analyzer.summary import layer_suffix, name_of, of_run


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
    reader = Run(run)
    for what, check, path in (("model", reader.check_model, model), ("card", reader.read_card, card)):
        try:
            check(path)
        except InputError as e:
            raise UsageError(
                f"{run}: measured with another {what} than {path}; give the one it was measured with"
            ) from e
    calibration = reader.calibration
    if calibration is None or not reader.state.finished:
        raise reader.nothing_finished()
    summary = of_run(reader)
    names, smallest = tuple(reader.layers), min(reader.coordinates["radius"])
    numbers = {}
    for name in names:
        suffix = layer_suffix(name, len(names))
        keys = {stem: name_of(stem, suffix=suffix) for stem in lipschitz.BESIDE_A_BOUND}
        rms = f"{lipschitz.RMS.name}_median"
        keys[rms] = name_of(rms, radius=smallest, suffix=suffix)
        numbers[name] = {stem: summary[key] for stem, key in keys.items() if key in summary}
    return Local(names, calibration["input_range"], calibration["feature_range"], numbers)
