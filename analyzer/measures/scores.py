"""Score of the true class, from logits or probabilities, of a softmax or of one sigmoid a class, in float64."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logsumexp, softmax


class TrueClass(NamedTuple):
    """What the network says of one class; all three arrays have the leading axes of the scores they came from."""

    score: NDArray[np.float64]
    """Probability of the class."""
    log_odds: NDArray[np.float64]
    """log(p / (1 - p)) in nat: z_true - logsumexp(the other logits), or a sigmoid's own logit."""
    predicted: NDArray[np.int32]
    """Index of the largest score, -1 where any score is not finite."""

    @classmethod
    def undefined(cls, shape: tuple[int, ...]) -> "TrueClass":
        """Arrays of this shape to be filled by `put`."""
        return cls(np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, -1, dtype=np.int32))

    def at(self, where: Any) -> "TrueClass":
        """The part of all three arrays under one numpy index."""
        return TrueClass(self.score[where], self.log_odds[where], self.predicted[where])

    def put(self, where: Any, part: "TrueClass") -> None:
        """Write all three arrays of `part` under one numpy index."""
        self.score[where], self.log_odds[where], self.predicted[where] = part


def true_class(scores: NDArray[np.floating], *, label: int, kind: str) -> TrueClass:
    """Score, log-odds and predicted class of network outputs.

    Of logits, softmax and log-odds are computed in float64, so that a probability that rounds to 1 in float32 still
    has log-odds. Of probabilities, log-odds are log(p) - log(sum of the others). With one sigmoid a class, the class's
    own logit is its log-odds, log(p) - log(1 - p), whatever the others are.

    Args:
        scores: (..., K), outputs for K classes.
        label: Index of the true class.
        kind: What the outputs are: "logits" or "probabilities" of a softmax, "sigmoid_logits" or "sigmoid" (its
            probabilities) of one sigmoid a class.

    Returns:
        Three arrays of shape (...): probability, log-odds in nat, class index. Rows with an entry that is not finite
        are NaN, NaN, -1; of logits, minus infinity is the logit of a class that is ruled out, and passes. Log-odds are
        NaN with K = 1, where all other classes or the true one are ruled out, and of probabilities where p or the sum
        of the others is not above 0 (with a sigmoid: 1 - p instead of that sum).

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
    if kind == "logits":
        score = softmax(safe, axis=-1)[..., label]
        log_odds = np.full(score.shape, np.nan)
        if others.shape[-1]:
            with np.errstate(invalid="ignore"):
                log_odds = safe[..., label] - logsumexp(others, axis=-1)
            log_odds = np.where(np.isfinite(log_odds), log_odds, np.nan)
    elif kind == "sigmoid_logits":
        score, log_odds = expit(safe[..., label]), safe[..., label].copy()
    else:
        score = safe[..., label].copy()
        rest = 1 - score if kind == "sigmoid" else others.sum(axis=-1)
        inside = (score > 0) & (score < 1) & (rest > 0)
        log_odds = np.log(np.where(inside, score, np.nan)) - np.log(np.where(inside, rest, np.nan))
    predicted = np.where(finite, safe.argmax(axis=-1), -1).astype(np.int32)
    return TrueClass(np.where(finite, score, np.nan), np.where(finite, log_odds, np.nan), predicted)
