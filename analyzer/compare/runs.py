"""Runs to be held against each other: opened, checked to be of one protocol, matched image by image."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer import store
from analyzer.errors import IncompleteError, InputError, UsageError
from analyzer.store.manifest import covers_limit
from analyzer.summary import MEASURED

PROTOCOL = ("radii", "trials", "norm", "clip", "round", "seed", "min_confidence")
"""What two runs must share. A range grows with the trials, a radius is a length in its norm, another seed draws other
noise, and another confidence takes other images. Limit, measures, layers and permutations may differ: only common
images, measures and layers are compared, and no p-value of a run is."""


OTHER_RANGES = "ranges of g and h come from different images"
"""Why normalised ratios of two runs are not held against each other."""


class State(NamedTuple):
    """How far a run is: images whose unit is whole, images selected.

    written: results and summary are there, so that a data set holds every selected image even where a unit is lost
    since. covered: the selection was made under the run's present limit.
    """

    finished: int
    selected: int
    written: bool
    covered: bool

    @property
    def complete(self) -> bool:
        """Whether nothing is left to be done."""
        return self.written and self.covered and self.finished == self.selected

    @property
    def missing(self) -> str:
        """What is left to be done, after "partial: "; empty where the run is complete."""
        if self.complete:
            return ""
        if self.finished < self.selected:
            return f"{self.finished} of {self.selected} images"
        if not self.covered:
            return "the images of its new limit are not selected yet"
        return f"{self.finished} of {self.selected} images, results not written"

    @property
    def lost(self) -> str:
        """Of written results, what has become of their units since; empty where there is nothing to say."""
        lost = self.selected - self.finished
        if not (self.written and self.covered and lost):
            return ""
        return f"{'1 unit is' if lost == 1 else f'{lost} units are'} damaged or missing; see `analyzer verify`"


@dataclass(frozen=True)
class Measured:
    """One run opened for reading, with the images that are finished."""

    path: Path
    name: str
    manifest: Mapping[str, Any]
    calibration: Mapping[str, Any]
    dataset: Any
    state: "State"

    @property
    def layers(self) -> list[str]:
        """Names of the feature layers."""
        return [str(layer) for layer in self.dataset["layer"].values]

    @property
    def positions(self) -> dict[str, int]:
        """SHA-256 of each measured image's file -> its place on the image axis."""
        sha256 = {image.id: image.sha256 for image in store.selection(self.calibration)}
        status = self.dataset["image_status"].values
        ids = enumerate(map(str, self.dataset["image"].values))
        return {sha256[name]: place for place, name in ids if status[place] == MEASURED}


def names_of(paths: Sequence[Path]) -> list[str]:
    """What each run is called: the name of its folder, or the path as given where two folders have one name."""
    short = [path.resolve().name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]


def check_protocols(paths: Sequence[Path], *, also: Sequence[str] = ()) -> None:
    """Raise UsageError naming the settings in which the runs' protocols differ; `also`: further keys of the identity.

    Raises InputError where there is no run.
    """
    identities = [store.read_manifest(path)["identity"] for path in paths]
    names = names_of(paths)
    for name, identity in zip(names[1:], identities[1:], strict=True):
        keys = [key for key in (*PROTOCOL, *also) if identity.get(key) != identities[0].get(key)]
        if keys:
            listed = "; ".join(f"{k} {_short(identities[0].get(k))} and {_short(identity.get(k))}" for k in keys)
            raise UsageError(
                f"{names[0]} and {name} were measured by different protocols: {listed}\n"
                "measure one of them again with the settings of the other"
            )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def state(path: Path) -> State:
    """How far the run in `path` is. Raises InputError when there is none, IncompleteError when it is damaged."""
    manifest = store.read_manifest(path)
    calibration = store.read_calibration(path, manifest["coordinates"])
    covered = calibration is not None and covers_limit(calibration, manifest)
    return State(*store.progress(path), store.has_results(path), covered)


@contextmanager
def opened(path: Path, name: str | None = None) -> Iterator[Measured]:
    """The run in `path`, read a few images at a time where it is complete.

    Raises InputError when there is none, IncompleteError when it is damaged, also where only the block finds that, or
    has no finished image.
    """
    path = Path(path)
    manifest = store.read_manifest(path)
    found = state(path)
    with store.reading(path, derive=False) as dataset:
        if not dataset.sizes["image"]:
            raise IncompleteError(f"{path}: partial, {found.missing}\nrun the same command again: it continues")
        yield Measured(
            path=path,
            name=name or names_of([path])[0],
            manifest=manifest,
            calibration=json.loads(dataset.attrs["calibration"]),
            dataset=dataset,
            state=found,
        )


def matched(runs: Sequence[Measured]) -> list[NDArray[np.intp]]:
    """Places of the common images on each run's image axis, all in the first run's order; matched by SHA-256.

    Raises InputError when no measured image is common to all.
    """
    positions = [run.positions for run in runs]
    common = [sha256 for sha256 in positions[0] if all(sha256 in other for other in positions[1:])]
    if not common:
        counts = ", ".join(f"{run.name} has {len(found)}" for run, found in zip(runs, positions, strict=True))
        raise InputError(f"no measured image is common to all runs ({counts}); measure them on one image folder")
    return [np.array([found[sha256] for sha256 in common], dtype=np.intp) for found in positions]


def paired_layers(runs: Sequence[Measured]) -> dict[str, list[int]]:
    """{suffix: place of that layer in each run}: the only layer of each, else layers of the same name."""
    layers = [run.layers for run in runs]
    if all(len(found) == 1 for found in layers):
        return {"": [0] * len(runs)}
    common = [name for name in layers[0] if all(name in found for found in layers[1:])]
    return {f"/{name}": [found.index(name) for found in layers] for name in common}


def unfinished(runs: Sequence[Measured]) -> Iterator[str]:
    """Which runs are partial, or have lost units since, in sentences."""
    for run in runs:
        if said := run.state.lost or run.state.missing:
            yield f"{run.name}: {said}." if run.state.lost else f"{run.name} is partial: {said}."


def notes(runs: Sequence[Measured], places: Sequence[NDArray[np.intp]]) -> Iterator[str]:
    """What a reader of the comparison has to know besides, in sentences. places: those of the common images."""
    count = len(places[0])
    measured = [len(run.positions) for run in runs]
    if any(n > count for n in measured):
        each = ", ".join(f"{n} of {run.name}" for n, run in zip(measured, runs, strict=True))
        yield f"{count} images are common to all (of {each}); only these are compared."
    if not same_perturbations(runs):
        yield "The inputs differ in size, and so do the perturbations: paired by image, not by perturbation."
    labels = [run.dataset["label"].values[where] for run, where in zip(runs, places, strict=True)]
    if any((other != labels[0]).any() for other in labels[1:]):
        yield "Some common images have different labels: the true class of one run is not that of another."
    for key in ("provider", "precision"):
        found = [str(run.manifest["context"].get(key)) for run in runs]
        if len(set(found)) > 1:
            yield f"The runs differ in {key}: {', '.join(found)}."
    if not same_calibration(runs) and all(run.layers for run in runs):
        yield f"The {OTHER_RANGES}: no verdict on normalised ratios."
    if all(run.layers for run in runs) and not paired_layers(runs):
        yield "No feature layer has the same name in all runs: nothing that needs features is compared."


def same_perturbations(runs: Sequence[Measured]) -> bool:
    """Whether every run saw the same perturbations of a common image: the pixel shapes are equal."""
    return len({tuple(run.manifest["context"]["pixel_shape"]) for run in runs}) == 1


def same_calibration(runs: Sequence[Measured]) -> bool:
    """Whether the ranges of g and h, by which ratios are normalised, come from the same images."""
    return len({frozenset(_calibrated(run)) for run in runs}) == 1


def _calibrated(run: Measured) -> Iterator[str]:
    for candidate in run.calibration.get("candidates", []):
        if candidate.get("outcome") not in ("bad", "duplicate"):
            yield str(candidate.get("sha256"))
