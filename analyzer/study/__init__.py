"""The loop: which images, through which session, to which measures, into the store."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from analyzer import card as cards
from analyzer import graph, images, store
from analyzer.errors import IncompleteError, InputError, UsageError
from analyzer.session import Session, device_of
from analyzer.study import neighbourhood, provenance, selection
from analyzer.study.protocol import Protocol, parse_names, parse_radii
from analyzer.summary import summarise

__all__ = ["Progress", "Protocol", "parse_names", "parse_radii", "run"]


_HELD_FEATURES = 2**28  # bytes of one radius's features that are held on the host; beyond, the graph reduces them


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
    folder: Path,
    out: Path,
    *,
    protocol: Protocol,
    card: Path | None = None,
    labels: Path | None = None,
    provider: str = "auto",
    threads: int | None = None,
    batch_size: int | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure one model on one image set, or continue a run that stopped. Returns the summary (see `summary`).

    The same arguments again continue, or do nothing on a complete run. Raises UsageError for a provider that cannot
    be had, a refused resume or an output that cannot be written, InputError for a model, card, layer, label or image
    set that cannot be used, IncompleteError where the disk is full.
    """
    card_path = cards.locate(model, card)
    graph.check(model)
    the_card = cards.read(card_path)
    candidates = images.seeded_order(images.find(folder, card=the_card, labels=labels), seed=protocol.seed)
    store.check_writable(out)
    network = open_network(model, card=the_card, protocol=protocol, provider=provider, threads=threads, size=batch_size)
    _refuse_labels_beyond(candidates, network.session.classes)
    with store.open_store(
        out,
        identity=provenance.identity(model, card_path, labels, protocol, network.prepared),
        context=provenance.context(model, folder, card_path, the_card, protocol, threads, network),
        coordinates=provenance.coordinates(protocol, network.prepared),
    ) as opened:
        known = {image.id: image for image in candidates}
        _refuse_other_images(opened, known, folder, out)
        if (finished := _finished(out)) is not None:
            return finished
        document = _selection(opened, candidates, network, the_card, protocol, folder, progress)
        passes, chosen = 0, document["selected"]
        left = [record for record in chosen if not _is_measured(opened, record["key"])]
        if network.reduces and left:
            network = reduced_network(network, protocol, threads=threads)
        session = network.session
        expected = len(left) * neighbourhood.rows_of(protocol, session.batch_size, reduced=session.reduces)
        for done, record in enumerate(left, len(chosen) - len(left)):

            def tick(rows: int, done: int = done) -> None:
                nonlocal passes
                passes += rows
                progress(Progress("measuring", done, len(chosen), passes, expected))

            arrays = _measure(network, known.get(record["id"]), record, the_card, protocol, tick)
            opened.write_unit(record["key"], arrays)
            progress(Progress("measuring", done + 1, len(chosen), passes, expected))
        return opened.finish(summarise)


class Network(NamedTuple):
    """A model made ready, and the session that runs it. reduces: whether images are measured by `reduced_network`."""

    prepared: graph.Prepared
    session: Session
    reduces: bool = False


def open_network(
    model: Path,
    *,
    card: cards.Card,
    protocol: Protocol,
    provider: str = "auto",
    threads: int | None = None,
    size: int | None = None,
) -> Network:
    """Prepare `model` with the protocol's layers tapped, open a session, choose a batch size unless one is given."""
    prepared = graph.prepare(model, card=card, layers=protocol.layers, device=device_of(provider))
    protocol.check_layers(len(prepared.layers))
    if prepared.input_type == "uint8" and not (protocol.clip and protocol.round):
        raise InputError(
            f"{model}: its input is uint8, so perturbed pixels must be whole numbers inside 0..255\nadd --clip --round"
        )
    session = Session(prepared, pixel_shape=card.pixel_shape, provider=provider, threads=threads, batch_size=size)
    if card.labels is not None and len(card.labels) != session.classes:
        raise InputError(
            f"{model}: the card has {len(card.labels)} labels, the model {session.classes} classes; "
            "correct or remove output.labels"
        )
    network = Network(prepared, session, _is_reduced(prepared, session, protocol))
    if size is None and not network.reduces:
        session.choose_batch_size(neighbourhood.rows_of(protocol, 1))
    return network


def _is_reduced(prepared: graph.Prepared, session: Session, protocol: Protocol) -> bool:
    """Whether a radius's features would take much, and more than a batch of all its trials does inside the graph."""
    features = 4 * sum(session.feature_sizes)
    held = features * protocol.trials
    inside = (prepared.row_bytes - features) * neighbourhood.reduced_batch(protocol)
    return protocol.needs_features and session.independent and held > max(_HELD_FEATURES, inside)


def reduced_network(network: Network, protocol: Protocol, *, threads: int | None = None) -> Network:
    """The same network with its layers reduced inside the graph; the session it had is closed first."""
    reduced, provider, shape = graph.reduced(network.prepared), network.session.provider, network.session.pixel_shape
    network.session.close()
    size = neighbourhood.reduced_batch(protocol)
    opened = Session(reduced, pixel_shape=shape, provider=provider, threads=threads, batch_size=size)
    return Network(reduced, opened, True)


def _finished(out: Path) -> dict[str, Any] | None:
    """The summary of a complete run with nothing left to try again; None where there is something to do."""
    try:
        summary = store.read_summary(out) if store.is_complete(out) else None
    except IncompleteError:  # a damaged summary is written anew from the units
        return None
    return None if summary is None or summary["run"]["images"]["unreadable"] else summary


def _is_measured(opened: store.Store, key: str) -> bool:
    """An image that was unreadable when its turn came is tried again."""
    unit = opened.read_unit(key)
    return unit is not None and unit["image_status"] != neighbourhood.UNREADABLE


def _refuse_labels_beyond(candidates: list[images.ImageFile], classes: int) -> None:
    for image in candidates:
        if image.label is not None and image.label >= classes:
            raise InputError(f"{image.path}: label {image.label}, but the model has classes 0..{classes - 1}")


def _refuse_other_images(opened: store.Store, known: dict[str, images.ImageFile], folder: Path, out: Path) -> None:
    """A folder that has lost more than half of a run's images is another folder."""
    selected = (opened.calibration() or {"selected": []})["selected"]
    missing = [record["id"] for record in selected if record["id"] not in known]
    if len(missing) * 2 > len(selected):
        raise UsageError(
            f"{folder}: {len(missing)} of the {len(selected)} images of {out} are not there, first {missing[0]}\n"
            "give the folder the run was made with, or another --out"
        )


def _selection(
    opened: store.Store,
    candidates: list[images.ImageFile],
    network: Network,
    card: cards.Card,
    protocol: Protocol,
    folder: Path,
    progress: Callable[[Progress], None],
) -> dict[str, Any]:
    document = opened.calibration()
    if document is not None and document["limit"] >= protocol.limit:
        return document
    passes = 0

    def tick(done: int, rows: int) -> None:
        nonlocal passes
        passes += rows
        progress(Progress("selecting", done, len(candidates), passes))

    try:
        document = selection.select(
            candidates,
            network.session,
            card=card,
            kind=network.prepared.kind,
            protocol=protocol,
            layers=network.prepared.layers,
            earlier=document,
            tick=tick,
        )
    except InputError as e:
        raise InputError(f"{folder}: {e}") from e
    records = selection.selected_records(document, protocol.limit)
    document["limit"] = protocol.limit
    document["selected"] = [
        {**{k: r[k] for k in ("id", "sha256", "label")}, "key": store.unit_key(r["id"], r["sha256"])} for r in records
    ]
    opened.write_calibration(document)
    return document


def _measure(
    network: Network,
    image: images.ImageFile | None,
    record: dict[str, Any],
    card: cards.Card,
    protocol: Protocol,
    tick: Callable[[int], None],
) -> dict[str, NDArray[Any]]:
    """The arrays of one image; undefined throughout where it was removed or changed since it was selected."""
    try:
        pixels = images.read(image, card=card) if image is not None else None
    except images.ImageError:
        pixels = None
    if pixels is None or pixels.sha256 != record["sha256"]:
        values = {"label": record["label"], "image_status": neighbourhood.UNREADABLE}
        return store.undefined_unit(provenance.coordinates(protocol, network.prepared), **values)
    return neighbourhood.observe(
        network.session,
        pixels.values,
        sha256=pixels.sha256,
        label=record["label"],
        card=card,
        kind=network.prepared.kind,
        protocol=protocol,
        input_type=network.prepared.input_type,
        tick=tick,
    )
