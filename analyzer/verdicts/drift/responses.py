"""How far the log-odds of two builds are apart, and from which radius on the second answers as the first does."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analyzer.measures.ranges import within_rounding
from analyzer.summary import name_of
from analyzer.verdicts.drift.numbers import (
    Array,
    Number,
    censored_median,
    first_median,
    largest,
    median,
    within_image,
)

AGREEING = 0.9
"""Correlation over the trials from which on two responses are called the same."""
FEWEST_TRIALS = 10
"""Below these, unrelated responses correlate by more than that in too many images (2 % with 5, 0.01 % with 10)."""


def of_scores(difference: Array, radii: Sequence[float]) -> dict[str, Number]:
    """|difference of log-odds|, (image, radius, trial) nat: by radius the median over images of each image's median and
    95 % quantile over the trials; the largest of all."""
    size = np.abs(difference)
    found: dict[str, Number] = {}
    for name, quantile in (("median", 0.5), ("q95", 0.95)):
        for k, radius in enumerate(radii):
            found[name_of(f"drift_log_odds_{name}", radius=radius)] = median(within_image(size[:, k], quantile))
    found["drift_log_odds_largest"] = largest(size)
    return found


def equivalent_noise(response: Array, drift: Array, radii: Sequence[float]) -> Array:
    """The radius at which the reference's own response to noise is as large as the drift on the clean image.

    Args:
        response: (image, radius), median over the trials of |log-odds(x + nu) - log-odds(x)|, nat.
        drift: (image,), |difference of the clean log-odds|, nat.
        radii: Grey levels.

    Returns:
        (image,), grey levels: where the response, ascending in radius and linear between two radii, first reaches the
        drift. -inf where it does so at the smallest radius, inf where it never does, NaN where either is unknown.

    >>> equivalent_noise(np.array([[1.0, 3.0]] * 3), np.array([2.0, 0.5, 4.0]), [10.0, 20.0]).tolist()
    [15.0, -inf, inf]
    """
    order = np.argsort(radii)
    sorted_radii, rising = np.asarray(radii, dtype=np.float64)[order], response[:, order]
    found = np.full(len(drift), np.nan)
    for k, (row, size) in enumerate(zip(rising, drift, strict=True)):
        if not (np.isfinite(row).all() and np.isfinite(size)):
            continue
        reached = np.flatnonzero(row >= size)
        if not reached.size:
            found[k] = np.inf
        elif reached[0] == 0:
            found[k] = -np.inf
        else:
            at = reached[0]
            found[k] = np.interp(size, row[at - 1 : at + 1], sorted_radii[at - 1 : at + 1])
    return found


def correlation(a: Array, b: Array) -> Array:
    """Pearson's correlation over the last axis, (..., trial) twice -> (...); NaN where one is constant or unknown."""
    with np.errstate(invalid="ignore", divide="ignore"):
        first, second = (values - values.mean(axis=-1, keepdims=True) for values in (a, b))
        size = np.sqrt(np.square(first).sum(axis=-1) * np.square(second).sum(axis=-1))
        return np.where(size > 0, (first * second).sum(axis=-1) / size, np.nan)


def resolved_radius(agreement: Array, radii: Sequence[float], *, defined: NDArray[np.bool_]) -> Array:
    """The smallest radius at which two responses agree.

    Args:
        agreement: (image, radius), correlation of the two; NaN counts as none.
        radii: Grey levels.
        defined: (image, radius), whether the reference's response is more than rounding; only such radii count.

    Returns:
        (image,), grey levels: one of the radii; -inf where that is the smallest one that counts, inf where they agree
        nowhere, NaN where no radius counts.
    """
    order = np.argsort(radii)
    found = np.full(len(agreement), np.nan)
    for k in range(len(agreement)):
        counts = [place for place in order if defined[k, place]]
        if counts:
            agreeing = [place for place in counts if agreement[k, place] >= AGREEING]
            found[k] = np.inf if not agreeing else -np.inf if agreeing[0] == counts[0] else radii[agreeing[0]]
    return found


def answers_in_steps(reference: Array, candidate: Array, radii: Sequence[float], *, resolved: float) -> bool:
    """Whether a build answers noise below the radius `resolved` with its rounding steps.

    A function's response shrinks with the radius. Steps of size s that noise of radius r < s crosses now and then give
    one that shrinks with its square root at most, and where it crosses none there is no response.

    Args:
        reference, candidate: (image, radius, trial), log-odds(x + nu) - log-odds(x) of each, nat.
        radii: Grey levels.
        resolved: Grey levels, where the candidate begins to answer as the reference does; infinite for nowhere; NaN for
            unknown.

    Returns:
        Whether, from the smallest radius to `resolved`, the candidate's response grows by less than the reference's
        growth to the power 3/4, or begins with none; both are medians over images of the mean size over the trials.
    """
    sizes = [np.abs(response).mean(axis=-1) for response in (reference, candidate)]
    at = [place for place in np.argsort(radii) if radii[place] <= resolved]
    known = np.isfinite(sizes[0] + sizes[1]).all(axis=1)
    if len(at) < 2 or not known.any():
        return False
    own, other = ([float(np.median(size[known, place])) for place in (at[0], at[-1])] for size in sizes)
    if own[0] == 0:
        return False
    return other[0] == 0 or other[1] / other[0] < (own[1] / own[0]) ** 0.75


def of_responses(
    reference: Array, candidate: Array, drift: Array, floor: Array, radii: Sequence[float]
) -> dict[str, Number]:
    """How either answers noise, equivalent noise and resolved radius: medians over images.

    Args:
        reference, candidate: (image, radius, trial), log-odds(x + nu) - log-odds(x) of each, nat.
        drift: (image,), |difference of the clean log-odds|, nat.
        floor: (image,), noise floor of the reference, nat.
        radii: Grey levels.
    """
    own, other = (within_image(np.abs(response), 0.5) for response in (reference, candidate))
    found: dict[str, Number] = {}
    for name, sizes in (("reference", own), ("candidate", other)):
        for k, radius in enumerate(radii):
            found[name_of(f"drift_{name}_response_median", radius=radius)] = median(sizes[:, k])
    found["drift_equivalent_noise_median"] = censored_median(equivalent_noise(own, drift, radii))
    if reference.shape[-1] >= FEWEST_TRIALS:
        spread = np.ptp(reference, axis=-1)
        defined = np.isfinite(spread) & ~within_rounding(spread, floor[:, None], trials=reference.shape[-1])
        agreement = correlation(reference, candidate)
        resolved = resolved_radius(agreement, radii, defined=defined)
        found["drift_resolved_radius_median"] = first_median(resolved, radii)
    return found
