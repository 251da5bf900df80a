"""Log-odds of a class as a function of a network's scores, with first and second derivatives, in float64.

From logits z: l = z_t - logsumexp(the others). From probabilities p: l = log(p_t) - log(sum of the others).
With one sigmoid a class, l is the class's own logit, log(p_t) - log(1 - p_t).
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
    if kind == "sigmoid_logits":
        return np.asarray(np.eye(len(scores))[label])
    own = scores[label]
    rest = 1 - own if kind == "sigmoid" else scores.sum() - own
    if not (own > 0 and rest > 0):
        return np.full(scores.shape, np.nan)
    if kind == "sigmoid":
        return np.asarray(np.eye(len(scores))[label] / (own * rest))
    result = np.full(scores.shape, -1.0 / rest)
    result[label] = 1.0 / own
    return result


def weights_change(scores: Array, change: Array, *, label: int, kind: str) -> Array:
    """How `weights` changes with the scores, along `change`: (K,), (K,) -> (K,). The Hessian times `change`."""
    if kind == "logits":
        others = _others(scores, label)
        return np.asarray(-others * (change - others @ change))
    if kind == "sigmoid_logits":
        return np.zeros(scores.shape)
    if kind == "sigmoid":
        result, own = np.zeros(scores.shape), scores[label]
        result[label] = -(1 - 2 * own) * change[label] / (own * (1 - own)) ** 2
        return result
    own, rest = scores[label], scores.sum() - scores[label]
    result = np.full(scores.shape, (change.sum() - change[label]) / rest**2)
    result[label] = -change[label] / own**2
    return result


def margins(scores: Array, *, label: int, kind: str) -> Array:
    """log p_k - log p_label of each class: (K,) -> (K,); minus infinity where a probability has rounded to 0.

    With one sigmoid a class, the difference of the two classes' logits.
    """
    if kind in ("logits", "sigmoid_logits"):
        return np.asarray(scores - scores[label])
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(scores) - np.log1p(-scores) if kind == "sigmoid" else np.log(scores)
        return np.asarray(logs - logs[label])


def margin_weights(scores: Array, classes: NDArray[np.intp], *, label: int, kind: str) -> Array:
    """Derivatives of the margins of `classes` (n,) by the scores: (n, K), not finite where a margin is not."""
    with np.errstate(divide="ignore"):
        slope = np.ones(scores.shape) if kind in ("logits", "sigmoid_logits") else 1 / scores
        if kind == "sigmoid":
            slope = slope / (1 - scores)
    result = np.zeros((len(classes), len(scores)))
    result[np.arange(len(classes)), classes] = slope[classes]
    result[:, label] -= slope[label]
    return result


def _others(scores: Array, label: int) -> Array:
    """Softmax over the classes other than `label`, 0 at it."""
    rest = scores.copy()
    rest[label] = -np.inf
    return np.asarray(softmax(rest))
