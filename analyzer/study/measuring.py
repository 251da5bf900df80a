"""The loop over the selected images: each measured once and stored, until all are, or until enough is known."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from numpy.typing import NDArray

from analyzer import store
from analyzer.errors import InputError
from analyzer.images import ImageFile
from analyzer.store import ImageStatus
from analyzer.store.derived import scales
from analyzer.store.documents import Calibration, Pace, Reached, SelectedImage
from analyzer.study.engine import Engine, Work, passes_of
from analyzer.summary.target import Target, watch

AGAIN = (ImageStatus.UNREADABLE_OR_CHANGED_SINCE_SELECTION, ImageStatus.FAILED_ON_WORKERS)
"""An image of which a unit says so is tried again."""
_FAILURES = 3  # images; where the first all fail, it is not for the images


class Progress(NamedTuple):
    """Where a run is: stage "selecting" or "measuring", images done of total, forward passes so far and in all.

    The passes of this call, one a row; `expected` is 0 where it is not known. workers: that measure now; 0 for this
    process alone.
    """

    stage: str
    done: int
    total: int
    passes: int
    expected: int = 0
    workers: int = 0


class Watch:
    """Whether enough is known of a number, asked after every image in the order of their selection."""

    def __init__(self, target: Target, writer: store.Store, calibration: Calibration) -> None:
        self.scales = scales(writer.manifest, calibration, writer.manifest["coordinates"]["layer"])
        coordinates = writer.manifest["coordinates"]
        self.watched = watch(
            target,
            radii=coordinates["radius"],
            layers=coordinates["layer"],
            variables=coordinates["variables"],
        )
        self.order = [record["key"] for record in calibration["selected"]]
        self.contributed: list[float] = []
        self.waiting: dict[str, float | None] = {}
        self.looked = 0
        """Images whose turn came: the first that are selected."""

    def put(self, key: str, unit: Mapping[str, NDArray[Any]]) -> None:
        """Add an image, to be looked at once all before it are there."""
        measured = unit["image_status"] == ImageStatus.MEASURED
        self.waiting[key] = self.watched.contribution(unit, self.scales) if measured else None

    def look(self, *, further: bool = False) -> bool:
        """Look at the images whose turn has come, as far as need be; whether enough is known.

        further: at all of them, since they are there.
        """
        while self.looked < len(self.order) and self.order[self.looked] in self.waiting:
            contribution = self.waiting.pop(self.order[self.looked])
            self.looked += 1
            if contribution is not None:
                self.contributed.append(contribution)
                if not further and self.reached:
                    break
        return self.reached

    @property
    def reached(self) -> bool:
        """Whether the interval is narrow enough now."""
        return self.watched.target.reached(self.watched.estimate(self.contributed))

    @property
    def document(self) -> Reached:
        """What was asked for and what was found."""
        target, estimate = self.watched.target, self.watched.estimate(self.contributed)
        return {
            "name": target.name,
            "bound": target.bound,
            "relative": target.relative,
            "reached": target.reached(estimate),
            "low": estimate.low,
            "high": estimate.high,
        }


def measure_all(
    writer: store.Store,
    engine: Engine,
    calibration: Calibration,
    candidates: list[ImageFile],
    progress: Callable[[Progress], None],
    watching: Watch | None = None,
) -> Pace:
    """Measure and store every selected image that has no unit yet; the passes that took, and their seconds.

    watching: stops it once enough is known; the run is cut to the images that were looked at then.
    """
    selected, some, failed = calibration["selected"], False, 0
    left: list[SelectedImage] = []
    for record in selected:
        unit = writer.read_unit(record["key"])
        some = some or (unit is not None and unit["image_status"] == ImageStatus.MEASURED)
        # An image that could not be measured when its turn came is tried again.
        if unit is None or unit["image_status"] in AGAIN:
            left.append(record)
        elif watching:
            watching.put(record["key"], unit)
    if watching and watching.look(further=True):
        _keep(writer, calibration, watching.looked)
        left = []
    files = {image.id: image for image in candidates}
    expected = len(left) * passes_of(engine.opened.model, engine.opened.protocol)
    done, passes, workers, start = len(selected) - len(left), 0, 0, time.monotonic()

    def tick(rows: int, measuring: int) -> None:
        nonlocal passes, workers
        passes, workers = passes + rows, measuring
        progress(Progress("measuring", done, len(selected), passes, expected, workers))

    work = (Work(record, files.get(record["id"])) for record in left)
    for record, arrays, host in engine.measured(work, tick):
        writer.write_unit(record["key"], arrays, host=host)
        done += 1
        tick(0, workers)
        some = some or arrays["image_status"] == ImageStatus.MEASURED
        failed += arrays["image_status"] == ImageStatus.FAILED_ON_WORKERS
        if failed == _FAILURES and not some:
            raise InputError(f"the first {_FAILURES} images failed: {engine.opened.model.session.notes[-1]}")
        if watching:
            watching.put(record["key"], arrays)
            if watching.look():
                _keep(writer, calibration, watching.looked)
                break
    return {"passes": passes, "seconds": time.monotonic() - start}


def _keep(writer: store.Store, calibration: Calibration, count: int) -> None:
    """Take the run to be one of the first images that were selected."""
    if count < len(calibration["selected"]):
        writer.keep(calibration["selected"][:count])
