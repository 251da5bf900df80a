"""Shards: parts of one run that are measured apart, without a scheduler, and joined afterwards."""

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from analyzer import store
from analyzer.errors import IncompleteError, InputError, UsageError
from analyzer.store import ImageStatus, Run
from analyzer.store.documents import Calibration, Identity, SelectedImage
from analyzer.store.manifest import SHARDS
from analyzer.study import selection
from analyzer.summary import summarise

MOST = 10**5
_SAME = 1e-3  # relative: by how much ranges may differ for rounding on unlike devices


@dataclasses.dataclass(frozen=True)
class Shard:
    """Number `index`, from 1, of `count` parts."""

    index: int
    count: int

    @property
    def text(self) -> str:
        """As the manifest of its run has it."""
        return f"{self.index}/{self.count}"

    def folder(self, out: Path) -> Path:
        """Its run directory, inside that of the whole run."""
        return out / SHARDS / f"{self.index}-of-{self.count}"

    def cut(self, calibration: Calibration) -> Calibration:
        """Of the images that are selected, those of this shard. Raises InputError where it has none."""
        selected = calibration["selected"]
        mine = selected[self.index - 1 :: self.count]
        if not mine:
            raise InputError(f"shard {self.text}: only {len(selected)} images are selected; use fewer shards")
        return {**calibration, "selected": mine}


def parse(text: str) -> Shard:
    """``I/N``: part I, from 1, of N. Raises UsageError for anything else.

    >>> parse("2/8")
    Shard(index=2, count=8)
    """
    match = re.fullmatch(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})", text.strip())
    if match is None or not int(match[1]) <= int(match[2]) <= MOST:
        raise UsageError(f"`shard` {text!r:.40}: expected I/N, part I, from 1, of N, such as 2/8")
    return Shard(int(match[1]), int(match[2]))


def merge(out: Path, shards: Sequence[Path] = ()) -> dict[str, Any]:
    """Join the shards of a run into an ordinary one, which can then be continued like any other.

    Args:
        out: the run directory: the `out` that the shards were given.
        shards: their run directories, where these are elsewhere.

    Returns:
        The summary, as `run` returns it.

    Raises:
        UsageError: no shards, or such as were made with unlike settings; or `out` cannot be written.
        InputError: a shard's manifest is damaged, or shards have selected other images.
        IncompleteError: images are not measured yet: the shards' commands continue them.

    Example:
        >>> import tempfile
        >>> from analyzer import Protocol, bundled, merge, run
        >>> protocol = Protocol(radii=(1.0,), trials=3, limit=2, measures=("isotropy",))
        >>> folder = bundled.folder()
        >>> with tempfile.TemporaryDirectory() as made:
        ...     out = Path(made) / "run"
        ...     for part in ("1/2", "2/2"):  # on two machines, say
        ...         _ = run(folder / "gtsrb_ciresan2012.onnx", folder / "demo", out, protocol=protocol, shard=part)
        ...     summary = merge(out)
        >>> summary["isotropy_log_odds_range_median@1"]["n"]
        2
    """
    folders = list(shards) or sorted(file.parent for file in (out / SHARDS).glob("*/manifest.json"))
    if not folders:
        raise UsageError(f"{out}: no shards here; measure them with `shard`, or name their run directories")
    runs = [Run(folder) for folder in folders]
    runs = [run for run in runs if run.calibration is not None] or runs  # one without images has none
    calibrations = [_calibration(run) for run in runs]
    identity = _one_identity(runs)
    selected = _one_selection(runs, calibrations)
    homes = _homes(runs, selected)
    first = runs[0]
    with store.open_store(
        out, identity=identity, context=first.context, coordinates=cast(dict[str, Any], first.coordinates)
    ) as writer:
        writer.write_calibration({**calibrations[0], "selected": selected})
        for record in selected:
            run = homes[record["key"]]
            unit = run.read_unit(record["key"])
            assert unit is not None  # `_homes` has read it
            place, hosts = int(unit.get("measured_on", -1)), run.manifest.get("hosts", [])
            writer.write_unit(record["key"], unit, host=hosts[place] if 0 <= place < len(hosts) else "")
        return writer.finish(summarise)


def _calibration(run: Run) -> Calibration:
    if "shard" not in run.identity:
        raise UsageError(f"{run.path}: a run of its own, no shard; measure shards with `shard`")
    if run.calibration is None:
        raise run.nothing_finished()
    return run.calibration


def _one_identity(runs: Sequence[Run]) -> Identity:
    """What decides the numbers of all shards; how many there are decides none."""

    def of(run: Run) -> dict[str, Any]:
        whole: dict[str, Any] = {key: value for key, value in run.identity.items() if key != "shard"}
        return {**whole, **{key: run.context[key] for key in ("provider", "precision")}, **run.coordinates}

    first = of(runs[0])
    for run in runs[1:]:
        if differing := sorted(key for key in first if of(run).get(key) != first[key]):
            raise UsageError(
                f"{run.path}: made with other settings than {runs[0].path}: {', '.join(differing)}\n"
                "measure all shards with the same ones"
            )
    return cast(Identity, {key: value for key, value in runs[0].identity.items() if key != "shard"})


def _one_selection(runs: Sequence[Run], calibrations: Sequence[Calibration]) -> list[SelectedImage]:
    """The images of the whole run, which every shard has selected."""
    selections = [selection.chosen(each["candidates"], each["limit"]) for each in calibrations]
    first = calibrations[0]
    for run, selected, calibration in zip(runs, selections, calibrations, strict=True):
        ranges = [{"input": each["input_range"], **each["feature_range"]} for each in (first, calibration)]
        close = all(
            a == b or (a is not None and b is not None and math.isclose(a, b, rel_tol=_SAME))
            for a, b in ((ranges[0][name], ranges[1].get(name)) for name in ranges[0])
        )
        if selected != selections[0] or not close:
            raise InputError(
                f"{run.path}: has selected other images than {runs[0].path}, or the network answers them otherwise "
                "there\nmeasure all shards of the same folder, on machines that compute alike"
            )
    return selections[0]


def _homes(runs: Sequence[Run], selected: Sequence[SelectedImage]) -> dict[str, Run]:
    """In which shard each image was measured. Raises IncompleteError where some was in none."""
    homes: dict[str, Run] = {}
    for record in selected:
        for run in runs:
            unit = run.read_unit(record["key"])
            measured = unit is not None and unit["image_status"] == ImageStatus.MEASURED
            if unit is not None and (measured or record["key"] not in homes):  # what was measured, where both are there
                homes[record["key"]] = run
    if missing := [record["id"] for record in selected if record["key"] not in homes]:
        counts = sorted({run.identity["shard"].partition("/")[2] for run in runs})
        there = ", ".join(sorted(run.identity["shard"] for run in runs)[:20])
        raise IncompleteError(
            f"{len(missing)} of {len(selected)} images are not measured yet, first {missing[0]}; there are shards "
            f"{there} of {' and '.join(counts)}\nrun the commands of the others, or of those that stopped, again"
        )
    return homes
