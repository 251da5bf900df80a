"""A network made ready to be asked: its graph, the session that runs it, its card, and how pixels become its input."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analyzer import graph, sketch
from analyzer.card import EMBEDDING, Card
from analyzer.errors import InputError, UsageError
from analyzer.measures import REGISTRY
from analyzer.measures.scores import TrueClass, similarity, true_class
from analyzer.session import Backend, Runner, Session
from analyzer.statistics import FLOOR_COPIES
from analyzer.study.consistency import open_proved
from analyzer.study.embedded import Means
from analyzer.study.preprocessing import Preprocessing
from analyzer.study.protocol import Protocol

_HELD_FEATURES = 2**28  # bytes of one radius's features that are held on the host; beyond, the graph reduces them


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """One network. reduces: whether images are measured with its layers reduced to Gram matrices inside the graph.

    That takes the session of `reduced`; until then `session` gives whole layers. means: of an embedding, which give it
    classes.
    """

    prepared: graph.Prepared
    session: Runner
    card: Card
    reduces: bool = False
    means: Means | None = None

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """Pixels to network input."""
        return Preprocessing(self.card, self.prepared.input_type)

    @property
    def layers(self) -> tuple[str, ...]:
        """The tapped layers, as the user knows them."""
        return self.prepared.layers

    @property
    def shape(self) -> tuple[int, int, int]:
        """Canonical (C, H, W) of one image."""
        return self.card.pixel_shape

    @property
    def has_classes(self) -> bool:
        """Whether its scores are those of classes; an embedding's are not."""
        return self.prepared.kind != EMBEDDING

    def true_class(
        self,
        scores: NDArray[np.floating],
        *,
        label: int,
        clean: NDArray[np.floating] | None = None,
        means: NDArray[np.floating] | None = None,
    ) -> TrueClass:
        """Score, log-odds and predicted class of the session's scores, (..., K).

        Of an embedding, clean: (K,), that of the clean image; means: (C, K) unit vectors, where it has classes.
        """
        if not self.has_classes:
            assert clean is not None  # whatever asks of an embedding has a clean image
            return similarity(scores, clean, means=means)
        return true_class(scores, label=label, kind=self.prepared.kind)

    def reduced(self, protocol: Protocol) -> "Model":
        """The same network with its layers reduced inside the graph; the session it had is closed first."""
        size, backend = reduced_batch(protocol), self.session.backend
        signs = [sketch.signs(protocol.seed, features) for features in self.session.feature_sizes]
        rows = min(protocol.trials, sketch.TRIALS)
        prepared = graph.reduced(self.prepared, signs, buckets=sketch.BUCKETS, fine=sketch.FINE, rows=rows, batch=size)
        self.session.close()
        session = Session(prepared, pixel_shape=self.shape, backend=backend, batch_size=size)
        return dataclasses.replace(self, prepared=prepared, session=session, reduces=True)


def open_model(
    model: Path,
    *,
    card: Card,
    protocol: Protocol,
    backend: Backend | None = None,
    batch_size: int | None = None,
    examples: Sequence[NDArray[np.floating]] = (),
) -> Model:
    """Prepare `model` with the protocol's layers tapped, open a session, choose a batch size unless one is given.

    examples: a few real images, (C, H, W) grey levels, on which the graph is tried (see `consistency`). Raises
    InputError where model and card do not fit together, or model and protocol; UsageError for a provider that cannot be
    had.
    """
    prepared, session = open_proved(
        model,
        card=card,
        layers=protocol.layers,
        backend=backend,
        batch_size=batch_size,
        examples=examples,
    )
    protocol.check_layers(len(prepared.layers))
    if prepared.kind == EMBEDDING and "certified" in protocol.measures:
        raise UsageError(f"{model}: an embedding has no classes to be certified; leave certified out of `measures`")
    if prepared.input_type == "uint8" and not (protocol.clip and protocol.round):
        raise InputError(
            f"{model}: its input is uint8, so perturbed pixels must be whole numbers inside 0..255\n"
            "add `clip` and `round`"
        )
    if prepared.kind != EMBEDDING and card.labels is not None and len(card.labels) != session.classes:
        raise InputError(
            f"{model}: the card has {len(card.labels)} labels, the model {session.classes} classes; "
            "correct or remove output.labels"
        )
    opened = Model(prepared, session, card, _is_reduced(prepared, session, protocol))
    if batch_size is None and not opened.reduces:
        session.choose_batch_size(rows_of(protocol, 1))
    return opened


def without_halves_of_whole_numbers(model: Model, protocol: Protocol) -> tuple[Model, Protocol]:
    """The protocol without linearity where the network takes whole numbers, of which a half is none; and a note.

    Raises InputError where nothing else is to be measured.
    """
    if model.prepared.input_type != "uint8" or not protocol.halved:
        return model, protocol
    left = tuple(name for name in protocol.measures if not REGISTRY[name].halves)
    if not left:
        raise InputError(
            f"{model.prepared.source}: its input is uint8, and half a perturbation is no whole number, which linearity "
            "needs; choose other `measures`"
        )
    note = "Linearity is left out: the network's input is uint8, and half a perturbation is no whole number."
    prepared = dataclasses.replace(model.prepared, notes=(*model.prepared.notes, note))
    return dataclasses.replace(model, prepared=prepared), dataclasses.replace(protocol, measures=left)


def _is_reduced(prepared: graph.Prepared, session: Session, protocol: Protocol) -> bool:
    """Whether a radius's features would take much, and more than a batch of all its trials does inside the graph."""
    features = 4 * sum(session.feature_sizes)
    held = features * protocol.trials
    inside = (prepared.row_bytes - features) * reduced_batch(protocol)
    return protocol.needs_features and session.independent and held > max(_HELD_FEATURES, inside)


def rows_of(protocol: Protocol, batch_size: int, *, reduced: bool = False) -> int:
    """Forward passes of one image, the padding of its batches included."""
    sources = len(protocol.families) * len(protocol.radii)
    if reduced:
        return (sources + 1) * batch_size
    halves = len(protocol.radii) * protocol.halved
    return -(-(1 + FLOOR_COPIES + sources * protocol.trials + halves) // batch_size) * batch_size


def reduced_batch(protocol: Protocol) -> int:
    """Rows of a reduced graph's batch: the clean image, all trials of a radius and its halves, or the noise floor's."""
    return 1 + max(protocol.trials + protocol.halved, FLOOR_COPIES)
