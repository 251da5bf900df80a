"""Paired statistics over images: sign flips, Holm's correction, and what may be said of a difference."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from analyzer.measures.quantities import Array
from analyzer.perturbations import derived_key, random_words
from analyzer.statistics import FEW_IMAGES, Estimate, over_images

FLIPS = 9999
_EXACT = 13  # images up to which all 2^n sign patterns are gone through: fewer than FLIPS
ALPHA = 0.05


class MeanDifference(NamedTuple):
    """second - first, mean over images, with the bootstrap interval and the sign-flip p of the mean."""

    estimate: Estimate
    p: float


class Difference(TypedDict):
    """The same as JSON, with p after Holm and whether it is one; NaN where undefined."""

    difference: float
    low: float
    high: float
    n: int
    p: float
    p_holm: float
    distinguishable: bool | None


class Judged(Difference):
    """A difference, and why there is no verdict on it."""

    reason: str | None


class Pair(Judged):
    """A difference of two runs, by their names."""

    first: str
    second: str


class Entry(TypedDict):
    """All runs at one radius, or over all: images, mean of each run, every pair's difference."""

    n: int
    values: dict[str, float]
    pairs: list[Pair]


@lru_cache(maxsize=4)
def _signs(images: int, key: int) -> NDArray[np.int8]:
    """Rows of +1 and -1: every pattern for few images, else the observed one and FLIPS keyed ones. (rows, images)."""
    if images <= _EXACT:
        bits = (np.arange(2**images)[:, None] >> np.arange(images)) & 1
    else:
        words = random_words(key, FLIPS * -(-images // 64))
        drawn = np.unpackbits(words.astype("<u8").view(np.uint8).reshape(FLIPS, -1), axis=1)[:, :images]
        bits = np.concatenate([np.zeros((1, images), np.uint8), drawn])
    return (1 - 2 * bits.astype(np.int8)).astype(np.int8)


def sign_flip_p(differences: Array, *, seed: int = 0) -> Array:
    """Two-sided p of a zero mean, by flipping the signs of paired differences: (image, k) -> (k,).

    Under the hypothesis that the two of a pair could be exchanged, each difference is as likely with the other sign
    (Fisher, The Design of Experiments, 1935, 21). Up to 13 images all 2^n patterns are counted; above, p = (count + 1)
    / (n + 1), n = 9,999 patterns from the Philox stream of (seed, number of images), count those whose absolute mean
    is not below the observed one. NaN differences are left out; p is NaN where none is known.
    """
    values = np.asarray(differences, dtype=np.float64)
    finite = np.isfinite(values)
    filled = np.where(finite, values, 0.0)  # a difference left out adds nothing, whichever its sign
    observed = np.abs(filled.sum(axis=0))
    rounding = 1e-12 * np.abs(filled).sum(axis=0)
    signs = _signs(len(values), derived_key("sign flips", seed, len(values)))
    count = np.zeros(values.shape[1])
    for start in range(0, len(signs), 1000):
        sums = np.abs(signs[start : start + 1000].astype(np.float64) @ filled)
        count += (sums >= observed - rounding).sum(axis=0)  # the observed pattern is one of the rows
    return np.where(finite.any(axis=0), count / len(signs), np.nan)


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm, Scandinavian Journal of Statistics 6, 1979); NaN stays, uncounted."""
    values = np.asarray(p, dtype=np.float64)
    order = [k for k in np.argsort(values, kind="stable") if np.isfinite(values[k])]
    corrected, highest = values.copy(), 0.0
    for rank, k in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * float(values[k])))
        corrected[k] = highest
    return [float(v) for v in corrected]


def differences(first: Array, second: Array, *, seed: int = 0) -> list[MeanDifference]:
    """Mean paired difference second - first of each column: (image, k) twice -> k of them. NaN is left out."""
    paired = second - first
    p = sign_flip_p(paired, seed=seed)
    estimates = [over_images(column, np.mean) for column in paired.T]
    return [MeanDifference(estimate, float(each)) for estimate, each in zip(estimates, p, strict=True)]


def distinguishable(estimate: Estimate, p: float) -> bool | None:
    """Whether a difference is one: corrected p at most 0.05 and an interval without 0. None: too few images to tell.

    Where all differences are equal there is no interval, and p decides.
    """
    if estimate.n < FEW_IMAGES:
        return None
    straddles = bool(np.isfinite(estimate.low) and estimate.low <= 0 <= estimate.high)
    return bool(p <= ALPHA) and not straddles


def compared(values: Sequence[Array], pairs: Sequence[tuple[int, int]], *, seed: int = 0) -> list[list[Difference]]:
    """Every pair of runs in every column: (image, k) a run -> for each column one entry a pair, Holm over the pairs."""
    by_pair = [differences(values[a], values[b], seed=seed) for a, b in pairs]
    columns: list[list[Difference]] = []
    for column in zip(*by_pair, strict=True):
        corrected = holm([difference.p for difference in column])
        columns.append(
            [
                {
                    "difference": d.estimate.value,
                    "low": d.estimate.low,
                    "high": d.estimate.high,
                    "n": d.estimate.n,
                    "p": d.p,
                    "p_holm": q,
                    "distinguishable": distinguishable(d.estimate, q),
                }
                for d, q in zip(column, corrected, strict=True)
            ]
        )
    return columns
