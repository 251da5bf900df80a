"""The one reader of a run directory; nothing here writes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from analyzer import card as cards
from analyzer.errors import AnalyzerError, IncompleteError, InputError
from analyzer.measures import Scales
from analyzer.store import checksums, derived, documents, files, kinds, manifest, results, units
from analyzer.store.manifest import RESULTS, SUMMARY, Image
from analyzer.store.schema import SCHEMA, Array

if TYPE_CHECKING:
    import xarray

AGAIN = "run the same command again: it continues"


class State(NamedTuple):
    """How far a run is: images whose unit is whole, images selected.

    written: results and summary are there, so that a data set holds every selected image even where a unit was lost
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


class Run:
    """A run directory, complete or not. Its manifest is read at once, all else when it is asked for.

    Args:
        path: the run directory.

    Raises:
        InputError: there is no run, its manifest is damaged, or another version wrote it.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.manifest: documents.Manifest = manifest.read_manifest(self.path)

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.path.resolve().name

    @property
    def identity(self) -> documents.Identity:
        """What decides its numbers."""
        return self.manifest["identity"]

    @property
    def context(self) -> documents.Context:
        """What it ran on."""
        return self.manifest["context"]

    @property
    def kind(self) -> str:
        """What its scores are, as the card says; "" where an earlier version did not record it."""
        return str(self.context.get("kind", ""))

    @property
    def coordinates(self) -> documents.Coordinates:
        """Its axes."""
        return self.manifest["coordinates"]

    @property
    def layers(self) -> list[str]:
        """Names of its feature layers."""
        return self.coordinates["layer"]

    @cached_property
    def calibration(self) -> documents.Calibration | None:
        """Ranges and selection; None while there is none. Raises IncompleteError when it is damaged."""
        return manifest.read_calibration(self.path, self.coordinates)

    @property
    def images(self) -> list[Image]:
        """The selected images in their order."""
        return manifest.selection(self.calibration)

    def read_unit(self, key: str) -> "dict[str, Array] | None":
        """One image's arrays, without the image axis; None where they are absent or damaged."""
        return units.read_if_whole(self.path, key, self.coordinates)

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each selected image's file, by the image's id."""
        return {image.id: image.sha256 for image in self.images}

    @property
    def scales(self) -> Scales:
        """The widths of h and g, and D."""
        return derived.scales(self.manifest, self.calibration, self.layers)

    @property
    def pace(self) -> documents.Pace | None:
        """How quickly the images that were measured last went; None where that is not known."""
        try:
            pace = files.read_json(self.path / manifest.PACE)
        except (OSError, ValueError):
            return None
        known = not kinds.fault(pace, documents.Pace) and pace["passes"] > 0 and pace["seconds"] > 0
        return cast(documents.Pace, pace) if known else None

    @property
    def has_results(self) -> bool:
        """Whether results.nc and summary.json are there."""
        return manifest.has_results(self.path)

    @property
    def state(self) -> State:
        """How far it is now; reads every unit. Raises IncompleteError when its calibration is damaged."""
        covered = self.calibration is not None and manifest.covers_limit(self.calibration, self.manifest)
        whole = [self.read_unit(image.key) is not None for image in self.images]
        return State(sum(whole), len(whole), self.has_results, covered)

    @property
    def is_sealed(self) -> bool:
        """Whether all its documents have checksums; earlier versions wrote none."""
        names = (manifest.MANIFEST, manifest.CALIBRATION, SUMMARY)
        return all(checksums.is_sealed(files.read_json(self.path / name)) for name in names)

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to be done; a damaged calibration is."""
        try:
            return self.has_results and self.state.complete
        except IncompleteError:
            return False

    @contextmanager
    def open(self, *, derive: bool = True) -> "Iterator[xarray.Dataset]":
        """Its labelled results, as `open_run` gives them, closed when the block ends.

        A complete run is read as it is used, and HDF5 raises anything. What the block raises becomes IncompleteError
        where results.nc cannot be read through, and passes where it can: it is then about something else.

        Args:
            derive: whether a complete run has its derived variables too. Without them what was read is not kept.

        Raises:
            IncompleteError: results or calibration are damaged, also where only the block finds that.
        """
        written = self.has_results
        with (
            results.open_results(self.path / RESULTS, derive=derive)
            if written
            else results.from_units(self.path, self.manifest, self.calibration)
        ) as dataset:
            if written and not results.describes(dataset, self.calibration):
                raise self._damaged("its manifest, calibration or image names are not those of the run")
            try:
                yield dataset
            except AnalyzerError:
                raise
            except Exception:
                if written and (fault := results.unreadable(self.path / RESULTS)):
                    raise self._damaged(fault) from None
                raise

    def check_results(self) -> None:
        """Raise IncompleteError unless results.nc is what was written."""
        if fault := results.results_fault(self.path):
            raise IncompleteError(
                f"{self.path / RESULTS}: damaged: {fault}\n"
                "run the same command again, or verify with `mend`: it is written anew"
            )

    def _damaged(self, fault: str) -> IncompleteError:
        return IncompleteError(f"{self.path / RESULTS}: damaged: {fault}\nsee `analyzer verify {self.path}`")

    def read_summary(self) -> dict[str, Any]:
        """What summary.json holds. Raises IncompleteError when there is none yet, or a damaged or foreign one."""
        file = self.path / SUMMARY
        try:
            document = files.read_json(file)
            if fault := _summary_fault(checksums.opened(document), self.manifest) or checksums.fault(document):
                raise ValueError(fault)
            return checksums.opened(document)
        except FileNotFoundError:
            state = self.state
            raise IncompleteError(
                f"{self.path}: partial, {state.finished} of {state.selected} images\n{AGAIN}"
            ) from None
        except ValueError as e:
            raise IncompleteError(f"{file}: damaged: {e}\nrun the same command again: it is written anew") from e

    def nothing_finished(self) -> IncompleteError:
        """The error for a run in which no image is finished."""
        if self.calibration is None:
            return IncompleteError(
                f"{self.path}: no image is selected: `run` was stopped before, or found none that counts\n"
                "run the same command again: it continues, or says what to change"
            )
        return IncompleteError(f"{self.path}: no image is finished yet; run the same command again to continue")

    @property
    def recorded_model(self) -> Path:
        """Where the model lay when the run was made: beside its card, under the recorded name."""
        return Path(self.context["card"]).parent / self.context["model"]

    def check_model(self, model: Path) -> None:
        """Raise InputError unless `model` is the file, weights included, that the run was made with."""
        from analyzer import graph  # a second; most readers need no model

        if not model.is_file():
            raise InputError(f"{model}: the run's model {self.context['model']} is not there\ngive it with `model`")
        if graph.sha256(model) != self.identity["model"]:
            raise InputError(
                f"{model}: not the model the run {self.path} was made with (another SHA-256)\n"
                "give that one with `model`"
            )

    def read_card(self, card: Path | None = None) -> cards.Card:
        """The card that the run was made with, read from `card`, or from where it lay then.

        Raises InputError where there is none, or where it says something else.
        """
        path = card or Path(self.context["card"])
        content = cards.read(path)
        if not self.is_made_with(content):
            raise InputError(f"{path}: not the card the run {self.path} was made with\ngive that one with `card`")
        return content

    def is_made_with(self, card: cards.Card) -> bool:
        """Whether a card says what that of the run did."""
        return cards.digest(card) == self.identity["card"]


def _summary_fault(document: Mapping[str, Any], of: documents.Manifest) -> str:
    """What is wrong with a summary of the run that the manifest `of` describes; empty where nothing is."""
    if document.get("schema") != SCHEMA:
        return "it is no summary of this version"
    if fault := kinds.fault(document, documents.Summary):
        return fault
    for name, entry in document.items():
        if name not in documents.Summary.__annotations__ and (fault := kinds.fault(entry, documents.Entry, name[:80])):
            return fault
    run: documents.About = document["run"]
    identity = {key: value for key, value in of["identity"].items() if key not in ("model", "card")}
    if run["model"] != of["context"]["model"] or run["protocol"] != identity:
        return "it is of another model or protocol than manifest.json"
    return ""
