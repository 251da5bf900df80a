"""How many images, trials and radii an interval of a given width takes, from a pilot run: prints nothing.

From the pilot's images as many are drawn, with repetition, as are to be measured, and the interval that a summary would
show of them is computed: the median of its widths is what to expect (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, 25.4). How fewer trials widen it follows from the two halves of the pilot's trials, whose difference
tells an image's own error from the spread between images.
"""

import dataclasses
from pathlib import Path
from typing import Any, TypedDict

from analyzer.errors import UsageError
from analyzer.measures import REGISTRY, Number
from analyzer.measures.quantities import FLAG
from analyzer.statistics import FEW_IMAGES
from analyzer.store import Outcome, Run
from analyzer.study import Protocol
from analyzer.study.model import rows_of
from analyzer.summary import estimates, of_run, parts, radius_text
from analyzer.summary.target import Target, parse
from analyzer.text import one_line
from analyzer.verdicts.gate.conditions import MAX, Condition, check_names
from analyzer.verdicts.plan.pilot import MOST_IMAGES, Pilot, read

SCHEMA = 1
__all__ = ["SCHEMA", "Allocation", "Plan", "plan"]


class Allocation(TypedDict):
    """A way to spend passes, and the width that it leads to.

    images: null where not even 100,000 are enough. until: with `run --until`, which pays for looking after each one;
    null where that cannot be. seconds: at the pilot's pace, null where that is not known.
    """

    name: str
    images: int | None
    until: int | None
    trials: int
    radii: list[float]
    measures: list[str]
    passes_per_image: int
    passes: int | None
    seconds: float | None
    width: float


class Plan(TypedDict):
    """What `plan` returns; widths are half the interval, of the value where `relative`."""

    schema: int
    run: str
    target: str
    relative: bool
    bound: float
    value: float
    width: float
    pilot_images: int
    eligible: int
    folder_is_known: bool
    allocations: list[Allocation]
    command: str
    sentences: list[str]


def plan(run: Path, to: str) -> Plan:
    """How many images, trials and radii reach an interval, and how long that takes. Prints nothing.

    Args:
        run: a run directory, finished or not: the pilot.
        to: NAME=±10% of its value, or NAME=±0.02: a number of the run's summary, and half the width of its interval.

    Returns:
        "allocations": the fewest passes, with only the measures, radii and trials that the number needs, and the
        paper's protocol, with the width to be expected of either. What the pilot's images tell: with few of them, a
        rough estimate.

    Raises:
        UsageError: `to` cannot be read, or names a number that the run does not have or that has no interval.
        InputError: there is no run.
        IncompleteError: the run is damaged or has no image yet.

    Example:
        >>> plan(Path("runs/pilot"), "isotropy_log_odds_range_median@1=±10%")["allocations"]  # doctest: +SKIP
    """
    reader, target = Run(Path(run)), parse(to, parameter="to")
    rows = estimates(of_run(reader))
    check_names([Condition(MAX, target.name, 0.0)], list(rows), one_line(reader.name))
    pilot, thinner = read(reader, target)
    present = rows[target.name]
    if target.relative and not present.value:
        raise UsageError(f"`to` {to}: the value is 0, of which a percentage is 0; give a number, such as ±0.02")
    manifest = reader.manifest
    own = _protocol(manifest["identity"])
    per_second = reader.pace["passes"] / reader.pace["seconds"] if reader.pace else None
    batch = manifest["context"]["batch_size"]
    needed = _needed(own, pilot.number, parts(target.name).radius)
    fewest = min(
        (_allocation(pilot, _with(needed, trials), factor, batch, per_second) for trials, factor in thinner.items()),
        key=lambda each: (each["passes"] is None, each["passes"] or 0, each["width"]),
    )
    paper = Protocol(layers=own.layers)
    allocations = [fewest, _of_paper(pilot, paper, thinner.get(paper.trials, 1.0), batch, per_second)]
    calibration = reader.calibration
    assert calibration is not None  # there are images
    whole = len(calibration["candidates"]) == calibration["found"]
    document: Plan = {
        "schema": SCHEMA,
        "run": str(run),
        "target": target.text,
        "relative": target.relative,
        "bound": target.bound,
        "value": present.value,
        "width": target.width(pilot.estimate(pilot.values)),
        "pilot_images": present.n,
        "eligible": calibration["counts"][Outcome.GOOD],
        "folder_is_known": whole,
        "allocations": allocations,
        "command": _command(fewest, own),
        "sentences": [],
    }
    document["sentences"] = _sentences(document, target, another=_depends(pilot.number) and paper.trials != own.trials)
    return document


def _protocol(identity: Any) -> Protocol:
    """The protocol of a run, as its manifest has it."""
    given = {f.name: identity[f.name] for f in dataclasses.fields(Protocol) if f.name in identity}
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    return Protocol(**values)


def _needed(own: Protocol, number: Number, radius: float | None) -> Protocol:
    """The pilot's protocol with no more measures and radii than the number needs."""
    held = {name: {variable.name for variable in REGISTRY[name].variables} for name in own.measures}
    measures = [name for name, variables in held.items() if variables & {*number.quantity.reads}]
    measures = measures or [name for name in own.measures if REGISTRY[name].family == "noise"][:1]
    radii = own.radii if radius is None else (radius,)
    return dataclasses.replace(own, measures=tuple(measures), radii=radii)


def _with(protocol: Protocol, trials: int) -> Protocol:
    return dataclasses.replace(protocol, trials=trials)


def _allocation(
    pilot: Pilot, protocol: Protocol, factor: float, batch: int, per_second: float | None, *, images: int | None = None
) -> Allocation:
    """What a protocol takes to reach the target, or reaches with `images`. factor: of the width, by its trials."""
    bound = pilot.target.bound / factor
    wanted = pilot.images(bound, pilot.estimate) if images is None else images
    each = rows_of(protocol, min(batch, 32))
    passes = None if wanted is None else wanted * each
    return {
        "name": "fewest passes",
        "images": wanted,
        "until": pilot.images(bound, pilot.sequential) if pilot.watchable and images is None else None,
        "trials": protocol.trials,
        "radii": list(protocol.radii),
        "measures": list(protocol.measures),
        "passes_per_image": each,
        "passes": passes,
        "seconds": passes / per_second if passes is not None and per_second else None,
        "width": factor * pilot.width(wanted or MOST_IMAGES, pilot.estimate),
    }


def _of_paper(pilot: Pilot, paper: Protocol, factor: float, batch: int, per_second: float | None) -> Allocation:
    made = _allocation(pilot, paper, factor, batch, per_second, images=paper.limit)
    return {**made, "name": "the paper's protocol"}


def _command(fewest: Allocation, own: Protocol) -> str:
    """The options of `run` that differ from its defaults."""
    what = ["--radii", f"--measures {','.join(fewest['measures'])}"]
    if fewest["measures"] == ["certified"]:
        what = ["--family gaussian --sigma"]
    changed = [
        f"--limit {fewest['images'] or MOST_IMAGES}",
        f"{what[0]} {','.join(map(radius_text, fewest['radii']))}",
        f"--trials {fewest['trials']}",
        *what[1:],
    ]
    defaults = Protocol()
    changed += [
        f"--{name.replace('_', '-')} {getattr(own, name)}"
        for name in ("min_confidence", "seed", "permutations", "linearity_trials")
        if getattr(own, name) != getattr(defaults, name)
    ]
    needs_layers = any(REGISTRY[name].layered for name in fewest["measures"])
    changed += [f"--layers '{layer}'" for layer in own.layers if needs_layers and len(own.layers) > 1]
    changed += [f"--norm {own.norm}"] if own.norm != defaults.norm else []
    changed += [f"--{name}" for name in ("clip", "round") if getattr(own, name)]
    return f"analyzer run MODEL --images DIR --out RUN {' '.join(changed)}"


def _depends(number: Number) -> bool:
    """Whether it is another number with another number of trials."""
    return number.quantity.by_trials or number.quantity.kind == FLAG


def _sentences(document: Plan, target: Target, *, another: bool) -> list[str]:
    """another: whether the number depends on the trials, and the pilot has not those of the paper."""
    fewest, paper = document["allocations"]
    said = []
    if document["width"] <= document["bound"]:
        said.append(f"The pilot knows it within {target.shown(document['width'])} already.")
    if fewest["images"] is None:
        said.append(f"Not even {MOST_IMAGES:,} images reach {target.text}: they leave {target.shown(fewest['width'])}.")
    else:
        times = (paper["passes"] or 0) / (fewest["passes"] or 1)
        more = f"{times:,.0f}" if times >= 10 else f"{times:.2g}"
        until = f", or about {fewest['until']} with run --until, which stops by itself" if fewest["until"] else ""
        said.append(
            f"{target.text} takes about {fewest['images']} images{until}. The paper's protocol takes {more} times "
            f"the passes, and leads to {target.shown(paper['width'])}."
        )
        if document["folder_is_known"] and fewest["images"] > document["eligible"]:
            said.append(
                f"The folder has {document['eligible']} images that count: {fewest['images'] - document['eligible']} "
                "more are needed, or another folder of the same kind."
            )
    if another:
        said.append(f"The number depends on the trials: over {paper['trials']} of them it is another one.")
    if document["pilot_images"] < 3 * FEW_IMAGES:
        said.append(
            f"A pilot of {document['pilot_images']} images gives a rough estimate: it may take half as many, or twice."
        )
    return said
