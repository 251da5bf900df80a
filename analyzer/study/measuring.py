"""The loop over the selected images: each measured once and stored, until all are, or until enough is known."""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from numpy.typing import NDArray

from analyzer import store
from analyzer.images import ImageError, ImageFile, read
from analyzer.store import ImageStatus
from analyzer.store.derived import scales
from analyzer.store.documents import Calibration, Pace, Reached, SelectedImage
from analyzer.study import provenance
from analyzer.study.answers import LabelledImage
from analyzer.study.model import Model, rows_of
from analyzer.study.observing import observe
from analyzer.study.protocol import Protocol
from analyzer.summary.target import Target, watch


class Progress(NamedTuple):
    """Where a run is: stage "selecting" or "measuring", images done of total, forward passes so far and in all.

    The passes of this call, one a row; `expected` is 0 where it is not known.
    """

    stage: str
    done: int
    total: int
    passes: int
    expected: int = 0


class Watch:
    """Whether enough is known of a number, asked after every image."""

    def __init__(self, target: Target, writer: store.Store, calibration: Calibration) -> None:
        self.scales = scales(writer.manifest, calibration, writer.manifest["coordinates"]["layer"])
        coordinates = writer.manifest["coordinates"]
        self.watched = watch(
            target,
            radii=coordinates["radius"],
            layers=coordinates["layer"],
            variables=coordinates["variables"],
        )
        self.contributed: list[float] = []

    def take(self, unit: Mapping[str, NDArray[Any]]) -> None:
        """Add an image."""
        if unit["image_status"] == ImageStatus.MEASURED:
            self.contributed.append(self.watched.contribution(unit, self.scales))

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
    model: Model,
    calibration: Calibration,
    candidates: list[ImageFile],
    protocol: Protocol,
    progress: Callable[[Progress], None],
    watching: Watch | None = None,
) -> Pace:
    """Measure and store every selected image that has no unit yet; the passes that took, and their seconds.

    watching: stops it once enough is known; `calibration` is cut to the images that are measured then.
    """
    selected = calibration["selected"]
    left: list[SelectedImage] = []
    for record in selected:
        unit = writer.read_unit(record["key"])
        # An image that was unreadable when its turn came is tried again.
        if unit is None or unit["image_status"] == ImageStatus.UNREADABLE_OR_CHANGED_SINCE_SELECTION:
            left.append(record)
        elif watching:
            watching.take(unit)
    if watching and watching.reached:  # what could not be read before is tried again all the same
        _leave_out(writer, calibration, [record for record in left if not writer.has(record["key"])])
        left, watching = [record for record in left if writer.has(record["key"])], None
    if model.reduces and left:
        model = model.reduced(protocol)
    session, files = model.session, {image.id: image for image in candidates}
    expected = len(left) * rows_of(protocol, session.batch_size, reduced=session.reduces)
    passes, start = 0, time.monotonic()

    def tick(rows: int, done: int) -> None:
        nonlocal passes
        passes += rows
        progress(Progress("measuring", done, len(selected), passes, expected))

    for place, record in enumerate(left):
        done = len(selected) - len(left) + place
        arrays = measure(model, files.get(record["id"]), record, protocol, functools.partial(tick, done=done))
        writer.write_unit(record["key"], arrays)
        tick(0, done + 1)
        if watching:
            watching.take(arrays)
            if watching.reached:
                _leave_out(writer, calibration, left[place + 1 :])
                break
    return {"passes": passes, "seconds": time.monotonic() - start}


def _leave_out(writer: store.Store, calibration: Calibration, left: list[SelectedImage]) -> None:
    """Take the run to be one of the images that are measured."""
    if left:
        keys = {record["key"] for record in left}
        writer.keep([record for record in calibration["selected"] if record["key"] not in keys])


def measure(
    model: Model,
    file: ImageFile | None,
    record: SelectedImage,
    protocol: Protocol,
    tick: Callable[[int], None] = lambda rows: None,
) -> dict[str, NDArray[Any]]:
    """The arrays of one selected image; undefined throughout where it was removed or changed since it was selected."""
    try:
        pixels = read(file, card=model.card) if file is not None else None
    except ImageError:
        pixels = None
    if pixels is None or pixels.sha256 != record["sha256"]:
        values = {"label": record["label"], "image_status": ImageStatus.UNREADABLE_OR_CHANGED_SINCE_SELECTION}
        return store.undefined_unit(provenance.coordinates(protocol, model.layers), **values)
    return observe(model, LabelledImage(pixels.values, pixels.sha256, record["label"]), protocol, tick)
