"""The loop: which images, through which session, to which measures, into the store."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer import card as cards
from analyzer import graph, store
from analyzer.errors import IncompleteError, InputError, UsageError
from analyzer.images import ImageError, ImageFile, find_set, read, seeded_order
from analyzer.session import Backend
from analyzer.store import ImageStatus
from analyzer.store.documents import Calibration, Checks, SelectedImage
from analyzer.study import deployed, provenance, selection
from analyzer.study.answers import LabelledImage
from analyzer.study.consistency import EXAMPLES
from analyzer.study.model import Model, open_model, rows_of, without_halves_of_whole_numbers
from analyzer.study.observing import observe
from analyzer.study.protocol import Protocol, parse_names, parse_radii, parse_sigma
from analyzer.summary import summarise, verify

__all__ = [
    "LabelledImage",
    "Model",
    "Progress",
    "Protocol",
    "observe",
    "open_model",
    "parse_names",
    "parse_radii",
    "parse_sigma",
    "run",
]

_TRIED = 50  # files among which the examples are looked for


class Progress(NamedTuple):
    """Where a run is: stage "selecting" or "measuring", images done of total, forward passes so far and in all.

    The passes of this call, one a row; `expected` is 0 where it is not known.
    """

    stage: str
    done: int
    total: int
    passes: int
    expected: int = 0


def run(
    model: Path,
    images: Path,
    out: Path,
    *,
    protocol: Protocol | None = None,
    card: Path | None = None,
    labels: Path | None = None,
    provider: str = "auto",
    threads: int | None = None,
    provider_options: Mapping[str, str] | None = None,
    optimizations: str = "all",
    provider_share: float = 0.5,
    batch_size: int | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure one model on one image set, or continue a run that stopped. Prints nothing.

    The same arguments again continue, or do nothing on a complete run.

    Args:
        model: the .onnx file.
        images: folder of images, or of one sub-folder a class.
        out: the run directory, made if need be.
        protocol: radii (grey levels), trials, images and so on; the paper's by default.
        card: the model card, if not the one beside the model.
        labels: CSV with the columns file,label.
        provider: "auto" (the best that really works), "cpu", "cuda", ...; never a silent fallback.
        threads: of the CPU provider; the runtime's choice by default.
        provider_options: the provider's own, such as {"use_tf32": "1"}; part of what may not change on resume.
        optimizations: how far the runtime may rewrite the graph: "all", "extended", "basic" or "off"; likewise.
        provider_share: the least part of the multiply-adds that the named provider must run.
        batch_size: rows of a forward pass; a few are measured by default. Changes no perturbation.
        progress: called now and then, see `Progress`.

    Returns:
        The summary, as summary.json holds it: {"<quantity>_<statistic>[@radius][/layer]": {"value", "low", "high",
        "n"}}, and "run", "sentences", "warnings". Undefined numbers are None.

    Raises:
        UsageError: a provider that cannot be had, a refused resume, or an output that cannot be written.
        InputError: a model, card, layer, label or image set that cannot be used.
        IncompleteError: the disk is full; the same call continues.

    Example:
        >>> import tempfile
        >>> from analyzer import Protocol, bundled, run
        >>> protocol = Protocol(radii=(1.0,), trials=3, limit=2, measures=("isotropy",))
        >>> folder = bundled.folder()
        >>> with tempfile.TemporaryDirectory() as out:
        ...     summary = run(folder / "gtsrb_ciresan2012.onnx", folder / "demo", Path(out), protocol=protocol)
        >>> summary["isotropy_log_odds_range_median@1"]["n"]
        2
    """
    protocol = protocol or Protocol()
    backend = Backend(provider, threads, provider_options or {}, optimizations, provider_share)
    card_path = cards.locate(model, card)
    graph.check(model)
    the_card = cards.read(card_path)
    image_set = find_set(images, card=the_card, labels=labels)
    candidates = seeded_order(image_set.images, seed=protocol.seed)
    store.check_writable(out)
    opened = open_model(
        model,
        card=the_card,
        protocol=protocol,
        backend=backend,
        batch_size=batch_size,
        examples=list(_examples(candidates, the_card)),
    )
    _refuse_labels_beyond(candidates, opened.session.classes)
    opened, protocol = without_halves_of_whole_numbers(opened, protocol)
    checks = _checks_of_a_finished_run(out, protocol.limit)
    if checks is None:
        opened, checks = deployed.proved(opened, model, protocol)
    context = functools.partial(
        provenance.context, opened, protocol, file=model, folder=images, card=card_path, checks=checks
    )
    noted = len(opened.session.notes)
    with store.open_store(
        out,
        identity=provenance.identity(opened, model, labels, protocol),
        context=context(),
        coordinates=provenance.coordinates(protocol, opened.layers),
    ) as writer:
        _refuse_other_images(writer, candidates, images, out)
        if (finished := _finished(out)) is not None:
            return finished
        calibration = _selection(writer, candidates, opened, protocol, images, image_set.notes, progress)
        _measure_all(writer, opened, calibration, candidates, protocol, progress)
        if len(opened.session.notes) > noted:  # as of a batch that had to become smaller
            writer.record(context())
        return writer.finish(summarise)


def _examples(candidates: list[ImageFile], card: cards.Card) -> Iterator[NDArray[np.float32]]:
    """Pixels of the first few images that can be read."""
    left = EXAMPLES
    for image in candidates[:_TRIED]:
        with contextlib.suppress(ImageError):
            yield read(image, card=card).values
            left -= 1
        if not left:
            return


def _measure_all(
    writer: store.Store,
    model: Model,
    calibration: Calibration,
    candidates: list[ImageFile],
    protocol: Protocol,
    progress: Callable[[Progress], None],
) -> None:
    """Measure and store every selected image that has no unit yet."""
    selected = calibration["selected"]
    left = [record for record in selected if not _is_measured(writer, record["key"])]
    if model.reduces and left:
        model = model.reduced(protocol)
    session, files = model.session, {image.id: image for image in candidates}
    expected = len(left) * rows_of(protocol, session.batch_size, reduced=session.reduces)
    passes = 0

    def tick(rows: int, done: int) -> None:
        nonlocal passes
        passes += rows
        progress(Progress("measuring", done, len(selected), passes, expected))

    for done, record in enumerate(left, len(selected) - len(left)):
        arrays = measure(model, files.get(record["id"]), record, protocol, functools.partial(tick, done=done))
        writer.write_unit(record["key"], arrays)
        tick(0, done + 1)


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


def _finished(out: Path) -> dict[str, Any] | None:
    """The summary of a complete run with nothing left to try again; None where there is something to do."""
    run = store.Run(out)
    try:
        if not run.is_complete:
            return None
        run.check_results()
        summary = run.read_summary()
        if not run.is_sealed and verify(run.path):  # nothing else tells what an earlier version wrote from damage
            return None
    except IncompleteError:  # what is damaged is written anew from the units
        return None
    return None if summary["run"]["images"]["unreadable"] else summary


def _checks_of_a_finished_run(out: Path, limit: int) -> Checks | None:
    """What was checked of a run that is complete, and measured by one graph: there is nothing left to be proved."""
    try:
        run = store.Run(out)
        finished = run.identity["limit"] == limit and _finished(out) is not None
        checks = run.context.get("checks") if finished else None
    except (InputError, IncompleteError):  # no run yet, or a damaged one
        return None
    return None if checks is None or checks["fidelity"]["separate"] else checks


def _is_measured(writer: store.Store, key: str) -> bool:
    """An image that was unreadable when its turn came is tried again."""
    unit = writer.read_unit(key)
    return unit is not None and unit["image_status"] != ImageStatus.UNREADABLE_OR_CHANGED_SINCE_SELECTION


def _refuse_labels_beyond(candidates: list[ImageFile], classes: int) -> None:
    for image in candidates:
        if image.label is not None and image.label >= classes:
            raise InputError(f"{image.path}: label {image.label}, but the model has classes 0..{classes - 1}")


def _refuse_other_images(writer: store.Store, candidates: list[ImageFile], folder: Path, out: Path) -> None:
    """A folder that has lost more than half of a run's images is another folder."""
    calibration, there = writer.calibration(), {image.id for image in candidates}
    selected = calibration["selected"] if calibration else []
    missing = [record["id"] for record in selected if record["id"] not in there]
    if len(missing) * 2 > len(selected):
        raise UsageError(
            f"{folder}: {len(missing)} of the {len(selected)} images of {out} are not there, first {missing[0]}\n"
            "give the folder the run was made with, or another `out`"
        )


def _selection(
    writer: store.Store,
    candidates: list[ImageFile],
    model: Model,
    protocol: Protocol,
    folder: Path,
    notes: tuple[str, ...],
    progress: Callable[[Progress], None],
) -> Calibration:
    """The calibration that there is, where it covers the limit; else that of a selection pass."""
    calibration = writer.calibration()
    if calibration is not None and calibration["limit"] >= protocol.limit:
        return calibration
    passes = 0

    def tick(done: int, rows: int) -> None:
        nonlocal passes
        passes += rows
        progress(Progress("selecting", done, len(candidates), passes))

    try:
        calibration = selection.select(candidates, model, protocol, earlier=calibration, tick=tick)
    except InputError as e:
        raise InputError(f"{folder}: {e}") from e
    if notes:
        calibration["notes"] = list(notes)
    writer.write_calibration(calibration)
    return calibration
