"""Certified L2 radius by randomised smoothing: within it, the smoothed network gives this class, whoever perturbs.

Cohen, Rosenfeld and Kolter, "Certified adversarial robustness via randomized smoothing", ICML 2019, procedure CERTIFY:
of Gaussian noise of standard deviation sigma on every pixel value, some trials select the class, others bound its
probability from below, at alpha = 0.001 for each image. The guarantee is that of the smoothed network, which answers
with the class that the network gives most often under this noise, and not that of the network itself; clipping,
rounding and whatever else the model does to its input is part of it. A run's radii are its sigmas here.
"""

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtri

from analyzer.measures.base import Measure, Observation
from analyzer.measures.quantities import FLAG, HIGHER, LOWER, Array, Number, Quantity
from analyzer.measures.variables import Variable

ALPHA = 0.001
"""How often a certificate may be wrong, for each image and sigma."""
_SELECTION = 100
"""Trials that select the class; of fewer than ten times as many, a tenth."""


class CertifiedStatus(IntEnum):
    """Why a certified radius is undefined."""

    DEFINED = 0
    ABSTAINED = 1


def selection_trials(trials: int) -> int:
    """How many of so many trials, the first ones, select the class.

    >>> selection_trials(10_000), selection_trials(200), selection_trials(3)
    (100, 20, 1)
    """
    return min(_SELECTION, max(1, trials // 10))


def lower_bound(count: NDArray[np.integer], trials: int) -> Array:
    """One-sided lower bound of a probability at level 1 - ALPHA (Clopper and Pearson, Biometrika 26, 1934).

    Args:
        count: (...), in how many of the trials it was so.
        trials: Of how many.

    Returns:
        Shape (...), 0..1.

    >>> lower_bound(np.array([0, 990]), 1000).round(4).tolist()
    [0.0, 0.976]
    """
    given = np.asarray(count)
    return np.where(given > 0, betaincinv(np.maximum(given, 1), trials - np.maximum(given, 1) + 1, ALPHA), 0.0)


def certify(predicted: NDArray[np.integer], sigma: NDArray[np.floating]) -> tuple[NDArray[np.int32], Array]:
    """CERTIFY: class and radius of the smoothed network.

    Args:
        predicted: (..., trial), class indices under Gaussian noise; the first `selection_trials` select.
        sigma: (...), standard deviation of the noise, grey levels.

    Returns:
        Two arrays of shape (...): the class index, and the radius sigma * Phi^-1(lower bound) in the L2 norm, grey
        levels; NaN where the bound is not above 1/2: then it abstains.

    >>> answers = np.zeros((1, 1100), int)
    >>> found, radius = certify(answers, np.array([0.25]))
    >>> found.tolist(), radius.round(4).tolist()
    ([0], [0.6158])
    """
    first = selection_trials(predicted.shape[-1])
    flat = predicted[..., :first].reshape(-1, first)
    chosen = np.array([np.bincount(row).argmax() if (row >= 0).all() else -1 for row in flat], np.int32)
    chosen = chosen.reshape(predicted.shape[:-1])
    rest = predicted[..., first:]
    bound = lower_bound((rest == chosen[..., None]).sum(axis=-1), rest.shape[-1])
    certain = (bound > 0.5) & (chosen >= 0)
    return chosen, np.where(certain, sigma * ndtri(np.where(certain, bound, 0.75)), np.nan)


def right(radius: Any, found: Any, label: Any) -> Array:
    """The certified radius where it is that of the true class, else 0: (image, radius) twice, (image,) -> the first."""
    return np.where((found == np.asarray(label)[:, None]) & np.isfinite(radius), radius, 0.0)


def _certified(radius: Any, found: Any, label: Any) -> Array:
    return (right(radius, found, label) > 0).astype(np.float64)


def _capped(predicted: Any, found: Any) -> Array:
    """Whether all trials that bound the probability answer alike, so that no radius could be larger with so many."""
    rest = predicted[..., selection_trials(predicted.shape[-1]) :]
    return np.asarray((rest == found[..., None]).all(axis=-1), np.float64)


def _abstained(status: Any) -> Array:
    return np.where(status < 0, np.nan, status == CertifiedStatus.ABSTAINED)


_DIMS = ("image", "radius")
_READS = ("certified_radius", "certified_class", "label")
RADIUS = Quantity(
    "certified_radius",
    _READS,
    right,
    "grey level",
    more_robust=HIGHER,
    title="Certified L2 radius of the true class, by sigma; 0 without",
)
_SHARE = Quantity("certified", _READS, _certified, more_robust=HIGHER, kind=FLAG)
_CAPPED = Quantity("certified_capped", ("gaussian_predicted", "certified_class"), _capped, kind=FLAG)
_ABSTAINED = Quantity("certified_abstained", ("certified_status",), _abstained, more_robust=LOWER, kind=FLAG)


def observe(around: Observation) -> dict[str, NDArray[Any]]:
    """Predictions, (radius, trial), and class, radius and status of one image, (radius,)."""
    predicted = around.scores["gaussian"].predicted
    found, radius = certify(predicted, np.asarray(around.radii))
    status = np.where(np.isfinite(radius), CertifiedStatus.DEFINED, CertifiedStatus.ABSTAINED)
    return {
        "gaussian_predicted": predicted,
        "certified_class": found,
        "certified_radius": radius,
        "certified_status": status.astype(np.int8),
    }


MEASURE = Measure(
    title="Certified L2 radius by sigma, smoothed network",
    family="gaussian",
    default=False,
    variables=(
        Variable(
            "gaussian_predicted", (*_DIMS, "trial"), "1", "predicted class index under Gaussian noise", integer=True
        ),
        Variable("certified_class", _DIMS, "1", "class that Gaussian noise selects", integer=True),
        Variable("certified_radius", _DIMS, "grey level", "certified L2 radius of that class, alpha = 0.001"),
        Variable("certified_status", _DIMS, "1", "why certified_radius is undefined", CertifiedStatus),
    ),
    observe=observe,
    numbers=(
        Number("certified_share", _SHARE, "share", "images certified", ".0%", interval=True),
        Number(
            "certified_radius_median",
            RADIUS,
            "median",
            "median radius, L2",
            ".3g",
            interval=True,
            deciding="certified radius",
        ),
        Number("certified_capped_share", _CAPPED, "share", "more trials may give more", ".0%"),
        Number("certified_abstained_share", _ABSTAINED, "share", "abstained", ".0%"),
    ),
    compared=(RADIUS,),
)
