"""Where a run's images are looked at and measured: in this process, or wherever another `Engine` has it done.

An engine opens the network, answers, and writes nothing: the one writer of the run asks it and stores.
"""

import dataclasses
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from analyzer import store
from analyzer.card import Card
from analyzer.images import ImageError, ImageFile, read
from analyzer.session import Backend
from analyzer.session.runtime import load
from analyzer.store import ImageStatus
from analyzer.store.documents import Checks, SelectedImage
from analyzer.study import deployed, looking, provenance
from analyzer.study.answers import LabelledImage
from analyzer.study.embedded import Means
from analyzer.study.looking import Seen
from analyzer.study.model import Model, open_model, reduced_batch, rows_of, without_halves_of_whole_numbers
from analyzer.study.observing import observe
from analyzer.study.protocol import Protocol as Measured

Arrays = dict[str, NDArray[Any]]
Tick = Callable[[int], None]


class Work(NamedTuple):
    """A selected image that is to be measured; `file` is None where it is not there any more."""

    record: SelectedImage
    file: ImageFile | None


class Done(NamedTuple):
    """A measured image: its arrays as a unit holds them, and what they were measured on, see `host_of`."""

    record: SelectedImage
    arrays: Arrays
    host: str


@dataclasses.dataclass(frozen=True)
class Job:
    """A network that is to be opened, as `open_model` takes it. checks: of a run that is complete; None proves it."""

    model: Path
    card: Card
    protocol: Measured
    backend: Backend
    batch_size: int | None = None
    examples: Sequence[NDArray[np.float32]] = ()
    checks: Checks | None = None


class Opened(NamedTuple):
    """A network that was opened, the protocol that it can be measured by, and what was checked of it."""

    model: Model
    protocol: Measured
    checks: Checks


class Engine(Protocol):
    """Looks at images and measures them."""

    @property
    def opened(self) -> Opened:
        """What answers."""

    def judge_by(self, means: Means) -> None:
        """From now on an embedding's classes are those of these means."""

    def looked_at(self, images: Iterable[ImageFile]) -> Iterator[tuple[ImageFile, Seen]]:
        """Every image with what is seen of it, in order; see `looking`."""

    def measured(self, work: Iterable[Work], tick: Callable[[int, int], None]) -> Iterator[Done]:
        """The arrays of every image, in any order. tick is called with (forward passes, workers) as they are made."""

    def close(self) -> None:
        """Free what it holds."""


def opened(job: Job) -> Opened:
    """Open a network in this process and prove that it is what is deployed; raises like `open_model` and `proved`."""
    model = open_model(
        job.model,
        card=job.card,
        protocol=job.protocol,
        backend=job.backend,
        batch_size=job.batch_size,
        examples=job.examples,
    )
    model, protocol = without_halves_of_whole_numbers(model, job.protocol)
    if job.checks is not None:
        return Opened(model, protocol, job.checks)
    model, checks = deployed.proved(model, job.model, protocol)
    return Opened(model, protocol, checks)


def host_of(model: Model) -> str:
    """Host, device and runtime that measure, as a person is told."""
    return f"{socket.gethostname()}: {model.session.device}, onnxruntime {load().__version__}"


def passes_of(model: Model, protocol: Measured) -> int:
    """Forward passes of one image, the padding of its batches included."""
    if model.reduces:
        return rows_of(protocol, reduced_batch(protocol), reduced=True)
    return rows_of(protocol, model.session.batch_size)


class Here:
    """An engine in this process."""

    def __init__(self, job: Job) -> None:
        self.opened = opened(job)

    def judge_by(self, means: Means) -> None:
        """See `Engine`."""
        model, protocol, checks = self.opened
        self.opened = Opened(dataclasses.replace(model, means=means), protocol, checks)

    def looked_at(self, images: Iterable[ImageFile]) -> Iterator[tuple[ImageFile, Seen]]:
        """See `Engine`."""
        model = self.opened.model
        for part in looking.parts(images, model.session.batch_size):
            yield from zip(part, looking.look(model, part), strict=True)

    def measured(self, work: Iterable[Work], tick: Callable[[int, int], None]) -> Iterator[Done]:
        """See `Engine`: one after the other."""
        model, protocol, _ = self.opened
        for record, file in work:
            if model.reduces and not model.session.reduces:
                model = model.reduced(protocol)
            yield Done(record, measure(model, file, record, protocol, lambda rows: tick(rows, 0)), host_of(model))

    def close(self) -> None:
        """The session lives as long as the model does."""


def measure(
    model: Model,
    file: ImageFile | None,
    record: SelectedImage,
    protocol: Measured,
    tick: Tick = lambda rows: None,
) -> Arrays:
    """The arrays of one selected image; undefined throughout where it was removed or changed since it was selected."""
    try:
        pixels = read(file, card=model.card) if file is not None else None
    except ImageError:
        pixels = None
    if pixels is None or pixels.sha256 != record["sha256"]:
        return without_answer(record, model.layers, protocol, ImageStatus.UNREADABLE_OR_CHANGED_SINCE_SELECTION)
    return observe(model, LabelledImage(pixels.values, pixels.sha256, record["label"]), protocol, tick)


def without_answer(record: SelectedImage, layers: Sequence[str], protocol: Measured, status: ImageStatus) -> Arrays:
    """The arrays of an image that was not measured, for the reason that `status` gives."""
    coordinates = provenance.coordinates(protocol, layers)
    return store.undefined_unit(coordinates, label=record["label"], image_status=status)
