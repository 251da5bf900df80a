"""Log-odds of a class as a function of a network's scores, with first and second derivatives, in float64.

From logits z: l = z_t - logsumexp(the others). From probabilities p: l = log(p_t) - log(sum of the others).
The gradient of the probability is p_t (1 - p_t) times that of the log-odds: the same direction.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from analyzer.measures.scores import true_class

Array = NDArray[np.float64]


def value(scores: Array, *, label: int, kind: str) -> Array:
    """Log-odds, nat, of scores (..., K); NaN where they are undefined (see `measures.scores.true_class`)."""
    return true_class(scores, label=label, kind=kind).log_odds


def weights(scores: Array, *, label: int, kind: str) -> Array:
    """Derivative of the log-odds by the scores: (K,) -> (K,). NaN where a probability has rounded to 0 or 1."""
    if kind == "logits":
        result = -_others(scores, label)
        result[label] = 1.0
        return result
    own, rest = scores[label], scores.sum() - scores[label]
    if not (own > 0 and rest > 0):
        return np.full(scores.shape, np.nan)
    result = np.full(scores.shape, -1.0 / rest)
    result[label] = 1.0 / own
    return result


def weights_change(scores: Array, change: Array, *, label: int, kind: str) -> Array:
    """How `weights` changes with the scores, along `change`: (K,), (K,) -> (K,). The Hessian times `change`."""
    if kind == "logits":
        others = _others(scores, label)
        return np.asarray(-others * (change - others @ change))
    own, rest = scores[label], scores.sum() - scores[label]
    result = np.full(scores.shape, (change.sum() - change[label]) / rest**2)
    result[label] = -change[label] / own**2
    return result


def margins(scores: Array, *, label: int, kind: str) -> Array:
    """log p_k - log p_label of each class: (K,) -> (K,); minus infinity where a probability has rounded to 0."""
    if kind == "logits":
        return np.asarray(scores - scores[label])
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(scores)
        return np.asarray(logs - logs[label])


def margin_weights(scores: Array, classes: NDArray[np.intp], *, label: int, kind: str) -> Array:
    """Derivatives of the margins of `classes` (n,) by the scores: (n, K), not finite where a margin is not."""
    with np.errstate(divide="ignore"):
        slope = np.ones(scores.shape) if kind == "logits" else 1 / scores
    result = np.zeros((len(classes), len(scores)))
    result[np.arange(len(classes)), classes] = slope[classes]
    result[:, label] -= slope[label]
    return result


def _others(scores: Array, label: int) -> Array:
    """Softmax over the classes other than `label`, 0 at it."""
    rest = scores.copy()
    rest[label] = -np.inf
    return np.asarray(softmax(rest))
