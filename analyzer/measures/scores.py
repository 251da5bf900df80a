"""Score of the true class, from logits or probabilities, or of an embedding its cosine to the clean one; float64."""

from collections.abc import Iterable
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logsumexp, softmax

from analyzer.card import EMBEDDING

_COSINE = "cosine to the clean embedding"
_SAID = {
    "true-class score": (_COSINE, "score"),
    "true-class probability": (_COSINE, "score"),
    "changed the predicted class": ("moved an image to the mean of another class", "changed the predicted class"),
    "score range": ("cosine range", "score range"),
    "mean score": ("mean cosine", "mean score"),
    ", score": (", cosine", ", score"),
}
"""What is said of classifiers; in its place of embeddings, and of both together."""


def in_words_of(kinds: Iterable[str], text: str) -> str:
    """A text that speaks of the true-class score, for networks with scores of these kinds.

    Of embeddings the score is a cosine; of embeddings and others together the text says "score" only.

    >>> in_words_of(["embedding"], "range of the true-class score")
    'range of the cosine to the clean embedding'
    """
    embedded = {kind == EMBEDDING for kind in kinds}
    if True in embedded:
        for phrase, instead in _SAID.items():
            text = text.replace(phrase, instead[False in embedded])
    return text


class LogOddsStatus(IntEnum):
    """Whether the log-odds of an image are defined for every row."""

    DEFINED = 0
    PROBABILITY_ROUNDED_TO_ZERO_OR_ONE = 1
    NON_FINITE_MODEL_OUTPUT = 2
    EMBEDDING = 3
    """The network's output is an embedding, which has no classes."""


class TrueClass(NamedTuple):
    """What the network says of one class; all arrays have the leading axes of the scores they came from."""

    score: NDArray[np.float64]
    """Probability of the class; of an embedding its cosine to that of the clean image."""
    log_odds: NDArray[np.float64]
    """log(p / (1 - p)) in nat: z_true - logsumexp(the other logits), or a sigmoid's own logit."""
    predicted: NDArray[np.int32]
    """Index of the largest score, -1 where any score is not finite, or there are no classes."""
    runner_up: NDArray[np.float64]
    """Log-odds against the runner-up: logit of the class minus the largest other logit, nat. Below 0 after a flip."""

    @classmethod
    def undefined(cls, shape: tuple[int, ...]) -> "TrueClass":
        """Arrays of this shape to be filled by `put`."""
        score, log_odds, runner_up = (np.full(shape, np.nan) for _ in range(3))
        return cls(score, log_odds, np.full(shape, -1, dtype=np.int32), runner_up)

    def at(self, where: Any) -> "TrueClass":
        """The part of all arrays under one numpy index."""
        return TrueClass(*(values[where] for values in self))

    def put(self, where: Any, part: "TrueClass") -> None:
        """Write all arrays of `part` under one numpy index."""
        for name in self._fields:
            getattr(self, name)[where] = getattr(part, name)


def true_class(scores: NDArray[np.floating], *, label: int, kind: str) -> TrueClass:
    """Score, log-odds and predicted class of network outputs.

    Of logits, softmax and log-odds are computed in float64, so that a probability that rounds to 1 in float32 still
    has log-odds. Of probabilities, log-odds are log(p) - log(sum of the others). With one sigmoid a class, the class's
    own logit is its log-odds, log(p) - log(1 - p), whatever the others are. Against the runner-up, log-odds are the
    difference of the two logits; of probabilities, that of their logarithms (with a sigmoid: of their own log-odds).

    Args:
        scores: (..., K), outputs for K classes.
        label: Index of the true class.
        kind: What the outputs are: "logits" or "probabilities" of a softmax, "sigmoid_logits" or "sigmoid" (its
            probabilities) of one sigmoid a class.

    Returns:
        Arrays of shape (...): probability, log-odds in nat, class index, log-odds against the runner-up in nat. Rows
        with an entry that is not finite are NaN, NaN, -1, NaN; of logits, minus infinity is the logit of a class that
        is ruled out, and passes. Log-odds are NaN with K = 1, where all other classes or the true one are ruled out,
        and of probabilities where p or the sum of the others is not above 0 (with a sigmoid: 1 - p instead of that
        sum); those against the runner-up also where its probability is 0.

    Raises:
        IndexError: There is no class `label`.

    >>> seen = true_class(np.array([0.0, np.log(3.0)]), label=1, kind="logits")
    >>> f"{seen.score:.3f} {seen.log_odds:.3f} {seen.predicted}"
    '0.750 1.099 1'
    """
    values = np.asarray(scores, dtype=np.float64)
    usable = np.isfinite(values)
    if kind == "logits":  # minus infinity: a class that is masked
        usable = np.where(usable.any(axis=-1, keepdims=True), usable | np.isneginf(values), False)
    finite = np.asarray(usable.all(axis=-1))
    safe = np.where(finite[..., None], values, 0.0)
    others = np.delete(safe, label, axis=-1)
    best = others.max(axis=-1, initial=-np.inf)
    if kind == "logits":
        score = softmax(safe, axis=-1)[..., label]
        log_odds = np.full(score.shape, np.nan)
        with np.errstate(invalid="ignore"):
            if others.shape[-1]:
                log_odds = safe[..., label] - logsumexp(others, axis=-1)
            runner_up = safe[..., label] - best
    elif kind == "sigmoid_logits":
        score, log_odds, runner_up = expit(safe[..., label]), safe[..., label].copy(), safe[..., label] - best
    else:
        score = safe[..., label].copy()
        log_odds = _log_ratio(score, 1 - score if kind == "sigmoid" else others.sum(axis=-1))
        runner_up = log_odds - _log_ratio(best, 1 - best) if kind == "sigmoid" else _log_ratio(score, best)
    predicted = np.where(finite, safe.argmax(axis=-1), -1).astype(np.int32)
    score, log_odds, runner_up = (
        np.where(finite & np.isfinite(values), values, np.nan) for values in (score, log_odds, runner_up)
    )
    return TrueClass(score, log_odds, predicted, runner_up)


def similarity(
    embeddings: NDArray[np.floating], clean: NDArray[np.floating], *, means: NDArray[np.floating] | None = None
) -> TrueClass:
    """Cosine of embeddings to that of the clean image, and the class whose mean is nearest, where there are means.

    Args:
        embeddings: (..., K).
        clean: (K,), of the clean image.
        means: (C, K) unit vectors, see `class_means`; NaN for a class that there is not.

    Returns:
        Arrays of shape (...): cosine, in -1..1; the class with the largest cosine of its mean, -1 without means; there
        are no log-odds. Rows with an entry that is not finite, or of length 0, are NaN and -1.

    >>> clean = np.array([1.0, 0.0])
    >>> seen = similarity(np.array([[2.0, 0.0], [0.0, 3.0]]), clean, means=np.eye(2))
    >>> seen.score.tolist(), seen.predicted.tolist()
    ([1.0, 0.0], [0, 1])
    """
    rows = unit(embeddings)
    score = rows @ unit(clean)
    unknown = np.full(score.shape, np.nan)
    predicted = np.full(score.shape, -1, np.int32)
    if means is not None:
        cosines = rows @ means.T
        predicted = np.where(np.isfinite(score), np.where(np.isnan(cosines), -np.inf, cosines).argmax(axis=-1), -1)
    return TrueClass(score, unknown, predicted.astype(np.int32), unknown.copy())


def class_means(embeddings: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Sum of the unit embeddings of each class, which has the direction of their mean.

    Args:
        embeddings: (image, K).
        labels: (image,), class indices.

    Returns:
        (C, K), C the largest label and one; NaN for a class without an image that has a direction.

    >>> class_means(np.array([[2.0, 0.0], [0.0, 3.0]]), np.array([2, 2])).tolist()
    [[nan, nan], [nan, nan], [1.0, 1.0]]
    """
    rows = unit(embeddings)
    means = np.full((int(labels.max(initial=-1)) + 1, rows.shape[1]), np.nan)
    directed = np.isfinite(rows).all(axis=1)
    for label in np.unique(labels[directed]):
        means[label] = rows[directed & (labels == label)].sum(axis=0)
    return means


def cosines_to_means(embeddings: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Cosine of each embedding to the mean of each class, to that of its own class without the embedding itself.

    Args:
        embeddings: (image, K).
        labels: (image,), class indices.

    Returns:
        (image, C); NaN where a class has no (other) image, and for images without a direction.

    >>> rows = np.array([[2.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
    >>> cosines_to_means(rows, np.array([0, 0, 1])).tolist()
    [[1.0, 0.0], [1.0, 0.0], [0.0, nan]]
    """
    rows, means = unit(embeddings), class_means(embeddings, labels)
    cosines = rows @ unit(means).T
    for place, (row, label) in enumerate(zip(rows, labels, strict=True)):
        cosines[place, label] = unit(means[label] - row) @ row
    return np.asarray(cosines)


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Vectors (..., K) of length 1; NaN where one is of length 0 or not finite."""
    values = np.asarray(vectors, np.float64)
    largest = np.abs(values).max(axis=-1, keepdims=True)
    usable = np.isfinite(largest) & (largest > 0)
    values = np.where(usable, values, np.nan) / np.where(usable, largest, 1.0)  # squares neither overflow nor vanish
    return np.asarray(values / np.sqrt(np.square(values).sum(axis=-1, keepdims=True)))


def _log_ratio(part: NDArray[np.float64], rest: NDArray[np.float64]) -> NDArray[np.float64]:
    """log(part / rest) of probabilities, NaN where either has rounded to 0, or `part` to 1."""
    inside = (part > 0) & (part < 1) & (rest > 0)
    return np.asarray(np.log(np.where(inside, part, np.nan)) - np.log(np.where(inside, rest, np.nan)))
