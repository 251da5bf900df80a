"""Asking a network about images under a card, and under others, through one session where that is possible."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr, log_softmax, softmax

from analyzer.card import Card
from analyzer.errors import InputError
from analyzer.images import ImageError, ImageFile, read
from analyzer.measures.scores import cosines_to_means, true_class, unit
from analyzer.session import Backend
from analyzer.study import Model, Protocol, open_model
from analyzer.study.asked import refuse_labels_beyond
from analyzer.study.preprocessing import Preprocessing

Array = NDArray[np.float64]
_PROTOCOL = Protocol(measures=("isotropy",), clip=True, round=True)  # what it takes to open any network; nothing more
_LEAST = -10.0  # nat: a class that the network rules out counts no more against a card than so
_CLASSES = 3
_TEMPERATURES = tuple(2.0**k for k in range(-8, 9))


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a network says of n images under one card.

    classes: (n,) predicted, -1 where the scores are not finite. confidence: (n,) of the predicted class. own: (n,)
    log-odds of the class that the card predicts, nat. right: (n,) log-probability of the label, nat, see `_judged`;
    standing: (n,), see `_standing`; both NaN without labels. information: see `_information`.
    """

    classes: NDArray[np.intp]
    confidence: Array
    own: Array
    right: Array
    standing: Array
    information: float


class Asker:
    """A network that was opened under its card, and images that can be read under it.

    labels: (n,) class index, -1 where there is none.
    """

    def __init__(self, model: Path, card: Card, images: Sequence[ImageFile], backend: Backend) -> None:
        """Open the network. Raises what `open_model` raises, and InputError where no image can be read."""
        self.path, self.card, self.backend = model, card, backend
        self.images: list[ImageFile] = []
        self.hashes: list[str] = []
        pixels = []
        for image in images:
            with contextlib.suppress(ImageError):
                found = read(image, card=card)
                self.images.append(image)
                self.hashes.append(found.sha256)
                pixels.append(found.values)
        if not pixels:
            raise InputError(f"none of {len(images)} images can be read; is this the right folder?")
        self.pixels = np.stack(pixels)
        self.labels = np.array([-1 if image.label is None else image.label for image in self.images])
        self.model = self._opened(card)
        refuse_labels_beyond(self.images, self.model)
        if not self.model.has_classes and not _makes_means(self.labels):
            raise InputError(
                f"{model}: an embedding is judged by the means of its classes: it takes a label for each image, and "
                "two images of a class"
            )
        self._others: dict[str, Model | None] = {card.layout: self.model}

    def _opened(self, card: Card) -> Model:
        return open_model(
            self.path, card=card, protocol=_PROTOCOL, backend=self.backend, examples=list(self.pixels[:4])
        )

    @property
    def resized(self) -> bool:
        """Whether some image has another size than the card's, so that it matters how it is brought to it."""
        plain = dataclasses.replace(self.card, resize=dataclasses.replace(self.card.resize, kind="none"))
        for image in self.images:
            try:
                read(image, card=plain)
            except ImageError:
                return True
        return False

    @property
    def normalised(self) -> bool:
        """Whether mean and std are the card's to say: whole numbers as input leave them to the graph."""
        return self.model.prepared.input_type != "uint8"

    def under(self, card: Card, reference: "Answers | None" = None) -> Answers | None:
        """What the network says under a card; None where it cannot be used with it.

        reference: under its own card, for the class whose log-odds are wanted.
        """
        model = self._model(card)
        if model is None:
            return None
        pixels = self.pixels
        if card.resize != self.card.resize:
            try:
                pixels = np.stack([read(image, card=card).values for image in self.images])
            except ImageError:
                return None
        return self.of(pixels, card, reference, model=model)

    def of(
        self, pixels: NDArray[np.float32], card: Card, reference: "Answers | None" = None, *, model: Model | None = None
    ) -> Answers:
        """What the network says of pixels, (n, C, H, W) grey levels, one for each image."""
        model = model or self.model
        scores = np.concatenate([scores for _, scores in self._scores(pixels, card, model)])
        if not model.has_classes:
            answers = self._answers(_to_other_means(scores, self.labels), "logits", reference)
            return dataclasses.replace(answers, standing=np.full(len(scores), np.nan))  # cosines are no logits
        return self._answers(scores, model.prepared.kind, reference)

    def log_odds(self, pixels: NDArray[np.float32], label: int) -> Array:
        """(n,) log-odds of one class for any pixels, (n, C, H, W), under the network's own card."""
        kind = self.model.prepared.kind
        parts = [true_class(s, label=label, kind=kind).log_odds for _, s in self._scores(pixels, self.card, self.model)]
        return np.concatenate(parts)

    def _model(self, card: Card) -> Model | None:
        if card.layout not in self._others:
            try:
                same = dataclasses.replace(self.card, layout=card.layout)
                self._others[card.layout] = self._opened(same)
            except InputError:
                self._others[card.layout] = None
        return self._others[card.layout]

    def _scores(
        self, pixels: NDArray[np.float32], card: Card, model: Model
    ) -> Iterator[tuple[slice, NDArray[np.floating]]]:
        prepare = Preprocessing(card, model.prepared.input_type)
        # The session puts canonical order into the model's; another order is mirrored before.
        order = 1 if card.channels == model.card.channels else -1
        for start in range(0, len(pixels), model.session.batch_size):
            part = slice(start, start + model.session.batch_size)
            rows = np.stack([prepare.apply(each).reshape(each.shape)[::order] for each in pixels[part]])
            scores, _ = model.session.run(np.ascontiguousarray(rows))
            yield part, scores

    def _answers(self, scores: NDArray[np.floating], kind: str, reference: Answers | None) -> Answers:
        finite = np.isfinite(scores).all(axis=1)
        classes = np.where(finite, np.where(finite[:, None], scores, 0).argmax(axis=1), -1)
        wanted = classes if reference is None else reference.classes

        def each(labels: NDArray[np.intp], value: Callable[[int, NDArray[np.floating]], float]) -> Array:
            return np.array(
                [value(int(k), row) if k >= 0 else np.nan for k, row in zip(labels, scores, strict=True)], np.float64
            )

        def log_odds(label: int, row: NDArray[np.floating]) -> float:
            return float(true_class(row, label=label, kind=kind).log_odds)

        def probability(label: int, row: NDArray[np.floating]) -> float:
            return float(true_class(row, label=label, kind=kind).score)

        return Answers(
            classes,
            each(classes, probability),
            each(wanted, log_odds),
            _judged(scores, self.labels, kind),
            _standing(scores, self.labels, kind),
            _information(scores, kind),
        )


def _makes_means(labels: NDArray[np.intp]) -> bool:
    """Whether every image has a label, and some class two images."""
    return bool((labels >= 0).all() and np.bincount(labels).max(initial=0) > 1)


def _to_other_means(embeddings: NDArray[np.floating], labels: NDArray[np.intp]) -> Array:
    """(n, C) cosines of embeddings (n, K) to the mean of each class, of its own without itself; -1 where there is none.

    At a temperature of their own they are to classes what logits are.
    """
    cosines = cosines_to_means(embeddings, labels)
    directed = np.isfinite(unit(embeddings)).all(axis=1, keepdims=True)
    return np.where(directed, np.nan_to_num(cosines, nan=-1.0), np.nan)


def _judged(scores: NDArray[np.floating], labels: NDArray[np.intp], kind: str) -> Array:
    """(n,) log-probability of each label, nat, at least -10; NaN where there is none.

    At the temperature, one for all images, at which their mean is the largest: a card that only scales the scores is no
    better for it, and no worse.
    """
    known, finite = labels >= 0, np.isfinite(scores).all(axis=1)
    right = np.where(known, _LEAST, np.nan)
    both = known & finite
    if both.any():
        values, wanted = _logits(scores[both].astype(np.float64), kind), labels[both]
        at = np.arange(len(wanted))
        own = values[at, wanted]
        found = [
            -np.logaddexp(0, -own / t) if kind.startswith("sigmoid") else log_softmax(values / t, axis=1)[at, wanted]
            for t in _TEMPERATURES
        ]
        right[both] = max((np.maximum(each, _LEAST) for each in found), key=lambda each: float(each.mean()))
    return right


def _standing(scores: NDArray[np.floating], labels: NDArray[np.intp], kind: str) -> Array:
    """(n,) standard score of each label's logit among all logits of its image; 0 where these are equal or not finite.

    It does not depend on the scale of the logits, and does not saturate where all images are easy. Of two classes it
    says no more than which is the larger, and it takes logits of one scale: NaN elsewhere, and without a label.
    """
    if scores.shape[1] < _CLASSES or kind != "logits":
        return np.full(len(scores), np.nan)
    finite = np.isfinite(scores).all(axis=1)
    values = np.where(finite[:, None], scores, 0.0).astype(np.float64)
    spread = values.std(axis=1)
    own = values[np.arange(len(values)), np.maximum(labels, 0)] - values.mean(axis=1)
    return np.where(labels >= 0, own / np.where(spread > 0, spread, np.inf), np.nan)


def _logits(scores: Array, kind: str) -> Array:
    """Scores before a softmax or sigmoids; probabilities of 0 and 1 become large ones."""
    if kind == "probabilities":
        return np.log(np.maximum(scores, 1e-30))
    if kind == "sigmoid":
        inside = np.clip(scores, 1e-15, 1 - 1e-15)
        return np.asarray(np.log(inside) - np.log1p(-inside))
    return scores


def _information(scores: NDArray[np.floating], kind: str) -> float:
    """Mutual information of image and class, nat: large where answers are sure of each image and differ between them.

    NaN where each class has a sigmoid of its own.
    """
    if kind not in ("logits", "probabilities"):
        return float("nan")
    values = scores[np.isfinite(scores).all(axis=1)].astype(np.float64)
    if not len(values):
        return float("nan")
    p = softmax(values, axis=1) if kind == "logits" else values
    return float(entr(p.mean(axis=0)).sum() - entr(p).sum(axis=1).mean())
