"""Runs to be held against each other: opened, checked to be of one protocol, matched image by image."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.errors import IncompleteError, InputError, UsageError
from analyzer.measures.quantities import REACH, Quantity, contributions, lacking, per_image
from analyzer.store import ImageStatus, Outcome, Run, State
from analyzer.store.manifest import differences

Array = NDArray[np.float64]
PROTOCOL = ("radii", "trials", "norm", "clip", "round", "seed", "min_confidence")
"""What two runs must share. A range grows with the trials, a radius is a length in its norm, another seed draws other
noise, and another confidence takes other images. Limit, measures, linearity trials, layers and permutations may differ:
only common images, measures and layers are compared, and no p-value of a run is."""


OTHER_RANGES = "ranges of g and h come from different images"
"""Why normalised ratios of two runs are not held against each other."""


@dataclass(frozen=True)
class OpenRun:
    """A run opened for reading, with the images that are finished, under the name it has among others."""

    run: Run
    name: str
    dataset: Any
    state: State

    @property
    def positions(self) -> dict[str, int]:
        """SHA-256 of each measured image's file -> its place on the image axis."""
        sha256, status = self.run.hashes, self.dataset["image_status"].values
        ids = enumerate(map(str, self.dataset["image"].values))
        return {sha256[name]: place for place, name in ids if status[place] == ImageStatus.MEASURED}

    @property
    def lacks(self) -> frozenset[str]:
        """What its network has not, see `measures.quantities.lacking`."""
        return lacking(self.run.kind, labelled="class_means" in (self.run.calibration or {}))

    def has(self, quantity: Quantity) -> bool:
        """Whether it was measured, of a network that has what it takes."""
        return quantity.measured_in(self.dataset) and quantity.needs not in self.lacks

    def scale(self, layer: int) -> float:
        """Width of h over width of g of a layer."""
        return float(self.run.scales.ratio[layer])

    def values(self, quantity: Quantity, layer: int) -> NDArray[Any]:
        """A quantity of every finished image, without its layer axis and before scaling; see `contributions`.

        A radius that is known only to lie outside those of the run counts as twice the largest, or half the smallest.
        """
        here = slice(layer, layer + 1)
        dataset = self.dataset.isel(layer=here)
        (values,) = per_image(dataset, [quantity], self.run.scales.of_layers(here))
        if quantity.censored:
            values = np.clip(values, *self.reach)
        return values[..., 0] if quantity.layered else values

    @property
    def reach(self) -> tuple[float, float]:
        """The smallest and the largest radius that the run's radii tell of."""
        radii = self.run.identity["radii"]
        return radii[0] / REACH, radii[-1] * REACH

    def by_radius(self, quantity: Quantity, layer: int) -> Array:
        """A quantity of every finished image, one number a radius: (image, radius); without radii (image, 1)."""
        values = self.values(quantity, layer)
        if not quantity.radial:
            return values[:, None]
        scale = self.scale(layer) if quantity.layered else 1.0
        columns = [contributions(quantity, values, radius=k, scale=scale) for k in range(values.shape[1])]
        return np.stack(columns, axis=1) * (scale if quantity.scaled else 1.0)


def names_of(paths: Sequence[Path]) -> list[str]:
    """What each run is called: the name of its folder, or the path as given where two folders have one name."""
    short = [path.resolve().name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]


def check_protocols(runs: Sequence[Run], names: Sequence[str], *, also: Sequence[str] = ()) -> None:
    """Raise UsageError naming the settings in which the runs' protocols differ; also: further keys of the identity."""
    first: dict[str, Any] = {**runs[0].identity}
    for name, run in zip(names[1:], runs[1:], strict=True):
        other: dict[str, Any] = {**run.identity}
        keys = [key for key in (*PROTOCOL, *also) if other.get(key) != first.get(key)]
        if keys:
            listed = "; ".join(f"{k} {_short(first.get(k))} and {_short(other.get(k))}" for k in keys)
            raise UsageError(
                f"{names[0]} and {name} were measured by different protocols: {listed}\n"
                "measure one of them again with the settings of the other"
            )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


@contextmanager
def opened(run: Run, name: str = "") -> Iterator[OpenRun]:
    """A run with at least one finished image, read a few images at a time where it is complete.

    Raises IncompleteError when it is damaged, also where only the block finds that, or has no finished image.
    """
    state = run.state
    if state.written:
        run.check_results()
    with run.open(derive=False) as dataset:
        if not dataset.sizes["image"]:
            raise IncompleteError(f"{run.path}: partial, {state.missing}\nrun the same command again: it continues")
        yield OpenRun(run, name or run.name, dataset, state)


def matched(runs: Sequence[OpenRun]) -> list[NDArray[np.intp]]:
    """Places of the common images on each run's image axis, all in the first run's order; matched by SHA-256.

    Raises InputError when no measured image is common to all.
    """
    positions = [run.positions for run in runs]
    common = [sha256 for sha256 in positions[0] if all(sha256 in other for other in positions[1:])]
    if not common:
        counts = ", ".join(f"{run.name} has {len(places)}" for run, places in zip(runs, positions, strict=True))
        raise InputError(f"no measured image is common to all runs ({counts}); measure them on one image folder")
    return [np.array([places[sha256] for sha256 in common], dtype=np.intp) for places in positions]


def paired_layers(runs: Sequence[OpenRun]) -> dict[str, list[int]]:
    """{suffix: place of that layer in each run}: the only layer of each, else layers of the same name."""
    layers = [run.run.layers for run in runs]
    if all(len(names) == 1 for names in layers):
        return {"": [0] * len(runs)}
    common = [name for name in layers[0] if all(name in names for names in layers[1:])]
    return {f"/{name}": [names.index(name) for names in layers] for name in common}


def unfinished(runs: Sequence[OpenRun]) -> Iterator[str]:
    """Which runs are partial, or have lost units since, in sentences."""
    for run in runs:
        if run.state.lost:
            yield f"{run.name}: {run.state.lost}."
        elif run.state.missing:
            yield f"{run.name} is partial: {run.state.missing}."


def notes(runs: Sequence[OpenRun], places: Sequence[NDArray[np.intp]]) -> Iterator[str]:
    """What a reader of the comparison has to know besides, in sentences. places: those of the common images."""
    count = len(places[0])
    measured = [len(run.positions) for run in runs]
    if any(n > count for n in measured):
        each = ", ".join(f"{n} of {run.name}" for n, run in zip(measured, runs, strict=True))
        yield f"{count} images are common to all (of {each}); only these are compared."
    if not same_perturbations(runs):
        yield "The inputs differ in size, and so do the perturbations: paired by image, not by perturbation."
    labels = [run.dataset["label"].values[where] for run, where in zip(runs, places, strict=True)]
    labels = [each for each in labels if (each >= 0).any()]  # of an embedding without labels there are none
    if any((other != labels[0]).any() for other in labels[1:]):
        yield "Some common images have different labels: the true class of one run is not that of another."
    for key in ("provider", "precision"):
        values = [str({**run.run.context}.get(key)) for run in runs]
        if len(set(values)) > 1:
            yield f"The runs differ in {key}: {', '.join(values)}."
    yield from settings(runs)
    if not same_calibration(runs) and all(run.run.layers for run in runs):
        yield f"The {OTHER_RANGES}: no verdict on normalised ratios."
    if all(run.run.layers for run in runs) and not paired_layers(runs):
        yield "No feature layer has the same name in all runs: nothing that needs features is compared."


def settings(runs: Sequence[OpenRun]) -> Iterator[str]:
    """In which settings of the provider runs differ from the first, in sentences; earlier versions recorded none."""
    for run in runs[1:]:
        here, there = ({**each.run.identity}.get("backend") for each in (runs[0], run))
        changed = differences(here, there) if here and there else {}
        if "absent" in changed.get(
            "instructions", ()
        ):  # of a build that computes in integers against one that does not
            del changed["instructions"]
        if changed:
            listed = "; ".join(f"{key} {_setting(old)} -> {_setting(new)}" for key, (old, new) in changed.items())
            yield f"{run.name} ran with other settings than {runs[0].name}: {listed}."


def _setting(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def same_perturbations(runs: Sequence[OpenRun]) -> bool:
    """Whether every run saw the same perturbations of a common image: the pixel shapes are equal."""
    return len({tuple(run.run.context["pixel_shape"]) for run in runs}) == 1


def same_calibration(runs: Sequence[OpenRun]) -> bool:
    """Whether the ranges of g and h, by which ratios are normalised, come from the same images."""
    return len({frozenset(_calibrated(run.run)) for run in runs}) == 1


def _calibrated(run: Run) -> Iterator[str]:
    for candidate in run.calibration.get("candidates", []) if run.calibration else []:
        if candidate.get("outcome") not in (Outcome.BAD, Outcome.DUPLICATE):
            yield str(candidate.get("sha256"))
