"""Topology preservation (section 2.3, Eq. 7; Fig. 4): is the output distance matrix a linear function of the input's?

A low Mantel r is not evidence of non-linearity: a linear map of few effective output directions has one too. So
r and alpha always come with what a linear map of the same participation ratio would give.
"""

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.measures import geometry
from analyzer.measures.base import Measure, Observation
from analyzer.measures.quantities import FLAG, Number, Profile, Quantity
from analyzer.measures.reference import alpha_linear as alpha_linear
from analyzer.measures.reference import mantel_linear as mantel_linear
from analyzer.measures.variables import Variable
from analyzer.perturbations import random_words
from analyzer.statistics import Estimate


class MantelStatus(IntEnum):
    """Why Mantel's r is undefined."""

    DEFINED = 0
    CONSTANT_FEATURES = 1
    CONSTANT_OR_COINCIDING_INPUTS = 2
    NON_FINITE_FEATURES = 3
    FEATURES_BELOW_NOISE_FLOOR = 4


_DIMS = ("image", "radius", "layer")
_VARIABLES = (
    Variable("mantel_r", _DIMS, "1", "Mantel correlation of input and feature distances"),
    Variable("mantel_p", _DIMS, "1", "two-sided permutation p-value of mantel_r"),
    Variable("mantel_r_linear", _DIMS, "1", "Mantel r expected of a linear map of this participation ratio"),
    Variable("participation_ratio", _DIMS, "1", "effective number of output directions, (tr M)^2 / tr(M^2)"),
    Variable("mantel_status", _DIMS, "1", "why mantel_r is undefined", MantelStatus),
    Variable("alpha_departure", _DIMS, "1", "norm(alpha - c I) / norm(alpha) of Eq. 7"),
    Variable("alpha_departure_linear", _DIMS, "1", "alpha_departure expected of a random linear map"),
)


def _stored(name: str, title: str = "", *, near_normal: bool = True) -> Quantity:
    # r and alpha are bounded, and averages over all pairs of trials.
    return Quantity(
        name,
        (name,),
        lambda values: np.asarray(values, dtype=np.float64),
        layered=True,
        near_normal=near_normal,
        title=title,
    )


def _significant(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isnan(p), np.nan, p <= 0.05)


def _undefined(why: NDArray[np.int8]) -> NDArray[np.float64]:
    return np.asarray(why != MantelStatus.DEFINED, dtype=np.float64)


R = _stored("mantel_r", "Topology: Mantel r")
_LINEAR = _stored("mantel_r_linear")
PARTICIPATION = _stored("participation_ratio", near_normal=False)
MINUS_LINEAR = Quantity(
    "mantel_r_minus_linear",
    ("mantel_r", "mantel_r_linear"),
    np.subtract,
    layered=True,
    near_normal=True,
    title="Topology: Mantel r minus that of a linear map",
)
_SIGNIFICANT = Quantity("mantel_p_below_05", ("mantel_p",), _significant, kind=FLAG, layered=True)
_UNDEFINED = Quantity("mantel_undefined", ("mantel_status",), _undefined, kind=FLAG, layered=True)
_MEAN_R = ("mantel_r_mean", R, "mean", "Mantel r", "+.3f")
_NUMBERS = (
    Number(*_MEAN_R, interval=True, overall=True, glance="Mantel r", deciding="Mantel r"),
    Number("mantel_r_median", R, "median"),
    Number(
        "mantel_r_linear_mean", _LINEAR, "mean", "if linear", "+.3f", overall=True, glance="Mantel r of a linear map"
    ),
    Number("mantel_r_linear_median", _LINEAR, "median"),
    Number("mantel_r_minus_linear_mean", MINUS_LINEAR, "mean", by_radius=False, overall=True),
    Number(
        "mantel_p_below_05_share", _SIGNIFICANT, "share", "p ≤ 0.05 (chance: 5%)", ".0%", interval=True, overall=True
    ),
    Number("mantel_undefined_share", _UNDEFINED, "share"),
    Number("participation_ratio_median", PARTICIPATION, "median", "effective rank (PR)"),
    Number("alpha_departure_mean", _stored("alpha_departure"), "mean", "alpha departure", ".2f"),
    Number("alpha_departure_linear_mean", _stored("alpha_departure_linear"), "mean", "if linear", ".2f"),
)
_GATHERED = 2**21  # distances gathered at once: permutations whose sums stay in cache together


def mantel(
    x: NDArray[np.float64], y: NDArray[np.float64], *, permutations: int = 999, key: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mantel's r and its two-sided permutation p for pairs of distance matrices.

    r is the Pearson correlation of the T (T - 1) / 2 distances above the diagonals (Mantel, "The detection of disease
    clustering and a generalized regression approach", Cancer Research 27, 1967). p = (count + 1) / (n + 1), count the
    permutations of the rows and columns of one matrix whose \\|r\\| is not below the observed one. The permutations
    come from the Philox stream of `key` and are shared by all pairs, which makes p reproducible; the observed r goes
    through the same sums as the permuted ones.

    Args:
        x: (..., T, T), distance matrices; only what stands above the diagonals is read.
        y: The same shape.
        permutations: n.
        key: 128 bits, such as `perturbations.derived_key` gives.

    Returns:
        r and p, each of shape (...). Both NaN where either matrix has fewer than 3 rows, is constant off its diagonal,
        or is not finite; p is NaN too with 0 permutations.

    Raises:
        ValueError: The arrays are no pairs of square matrices.

    >>> points = 2.0 ** np.arange(8)
    >>> between = abs(points[:, None] - points)
    >>> r, p = mantel(between, 3 * between, permutations=19)
    >>> round(float(r), 6), float(p)
    (1.0, 0.05)
    """
    trials = x.shape[-1]
    shape = x.shape[:-2]
    if x.shape != y.shape or x.shape[-2:] != (trials, trials):
        raise ValueError(f"expected two arrays of square distance matrices of one shape, got {x.shape} and {y.shape}")
    upper = np.triu_indices(trials, 1)
    a, b = (_standardised(m.reshape(-1, trials, trials)[:, upper[0], upper[1]]) for m in (x, y))
    r = np.clip(np.einsum("kp,kp->k", a, b), -1.0, 1.0)
    if trials < 3:
        r = np.full_like(r, np.nan)
    if permutations == 0 or not np.isfinite(r).any():
        return r.reshape(shape), np.full(shape, np.nan)

    series = np.ascontiguousarray(a.T, dtype=np.float32)
    square = np.zeros((trials, trials, len(b)), dtype=np.float32)
    square[upper] = b.T
    table = (square + square.transpose(1, 0, 2)).reshape(trials * trials, -1)
    order = permutation_table(trials=trials, permutations=permutations, key=key)
    observed = np.abs(_gathered(series, table, np.arange(trials)[None], upper)[0])
    count = np.zeros(len(b))
    chunk = max(1, _GATHERED // series.size)
    for start in range(0, permutations, chunk):
        permuted = np.abs(_gathered(series, table, order[start : start + chunk], upper))
        # Sums of the same numbers in another order differ in the last float32 bits; those are ties.
        count += (permuted >= observed - 1e-6).sum(axis=0)
    p = np.where(np.isfinite(r), (count + 1) / (permutations + 1), np.nan)
    return r.reshape(shape), p.reshape(shape)


def clear_of_linear(difference: Estimate, *, linear: float) -> bool:
    """Whether r is further from that of a linear map than the reference errs: its interval clears -25 % to +25 % of it.

    difference: mean of r minus the reference, with its interval; False without one. linear: mean of the reference.
    """
    margin = 0.25 * abs(linear)
    return bool(difference.low > margin or difference.high < -margin)


def permutation_table(*, trials: int, permutations: int, key: int) -> NDArray[np.intp]:
    """Keyed random permutations of range(trials), shape (permutations, trials)."""
    words = random_words(key, permutations * trials).reshape(permutations, trials)
    return np.argsort(words, axis=-1, kind="stable")


def alpha_departure(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far alpha = D_in^-1 D_out (Eq. 7) is from c I: norm(alpha - c I) / norm(alpha), Frobenius.

    c is the mean of alpha's diagonal. 0 when the topology is kept. Depends on T: compare at equal T only.

    Args:
        x: D_in, (..., T, T), distances between the inputs.
        y: D_out, the same shape, distances between their features.

    Returns:
        Shape (...), between 0 and 1. NaN where D_in is singular or not finite, or D_out is all zero or not finite.

    >>> between = np.ones((3, 3)) - np.eye(3)
    >>> round(float(alpha_departure(between, 2 * between)), 6), float(alpha_departure(0 * between, between))
    (0.0, nan)
    """
    shape, trials = x.shape[:-2], x.shape[-1]
    result = np.full(shape, np.nan)
    for where in np.ndindex(shape):
        inputs, outputs = x[where], y[where]
        if not (np.isfinite(inputs).all() and np.isfinite(outputs).all() and outputs.any()):
            continue
        try:
            alpha = np.linalg.solve(inputs, outputs)
        except np.linalg.LinAlgError:
            continue
        result[where] = np.linalg.norm(alpha - np.diagonal(alpha).mean() * np.eye(trials)) / np.linalg.norm(alpha)
    return result


def status(
    x: NDArray[np.float64], y: NDArray[np.float64], *, floor: NDArray[np.float64] | float = 0.0
) -> NDArray[np.int8]:
    """Why Mantel's r is undefined: (..., T, T) input and output distances -> (...) of `MantelStatus`.

    Two inputs that coincide, as where rounding took a perturbation away, make the inputs as good as constant. Features
    whose root mean square distance is not above twice `floor` (broadcasts to (...)) show rounding, not response.
    """
    upper = np.triu_indices(x.shape[-1], 1)
    inputs, outputs = x[..., upper[0], upper[1]], y[..., upper[0], upper[1]]
    result = np.full(x.shape[:-2], MantelStatus.DEFINED, dtype=np.int8)
    with np.errstate(invalid="ignore"):
        # Two rows lie sqrt(2) times as far apart as each from their centre.
        result[np.sqrt(np.square(outputs).mean(axis=-1) / 2) <= 2 * np.asarray(floor)] = (
            MantelStatus.FEATURES_BELOW_NOISE_FLOOR
        )
        result[_constant(outputs)] = MantelStatus.CONSTANT_FEATURES
        result[_constant(inputs) | (inputs == 0).any(axis=-1)] = MantelStatus.CONSTANT_OR_COINCIDING_INPUTS
    result[~np.isfinite(outputs).all(axis=-1)] = MantelStatus.NON_FINITE_FEATURES
    return result


def observe(around: Observation) -> dict[str, NDArray[Any]]:
    """The seven variables of one image, shape (radius, layer)."""
    assert around.input_gram is not None and around.feature_gram is not None
    trials = around.input_gram.shape[-1]
    with np.errstate(invalid="ignore"):
        outputs = geometry.distances(around.feature_gram)
    inputs = np.broadcast_to(geometry.distances(around.input_gram)[:, None], outputs.shape)
    floor = 0.0 if around.feature_floor is None else around.feature_floor
    why = status(inputs, outputs, floor=floor)
    with np.errstate(invalid="ignore"):
        r, p = mantel(inputs, outputs, permutations=around.permutations, key=around.key)
        participation = geometry.participation_ratio(around.feature_gram, around.dimension)

    def where_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(why == MantelStatus.DEFINED, values, np.nan)

    return {
        "mantel_r": where_defined(r),
        "mantel_p": where_defined(p),
        "mantel_r_linear": where_defined(mantel_linear(participation, dimension=around.dimension, norm=around.norm)),
        "participation_ratio": where_defined(participation),
        "mantel_status": why,
        "alpha_departure": where_defined(alpha_departure(inputs, outputs)),
        "alpha_departure_linear": where_defined(alpha_linear(participation, dimension=around.dimension, trials=trials)),
    }


def _constant(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Equal up to the rounding of float32 inputs: (..., n) -> (...)."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.ptp(values, axis=-1) <= 1e-12 * np.abs(values).max(axis=-1))


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows with mean 0 and length 1; NaN where a row is constant or not finite."""
    constant = _constant(values)
    centred = values - values.mean(axis=-1, keepdims=True)
    length = np.linalg.norm(centred, axis=-1)
    return np.asarray(centred / np.where(constant | (length == 0), np.nan, length)[:, None])


def _gathered(
    series: NDArray[np.float32],
    table: NDArray[np.float32],
    order: NDArray[np.intp],
    upper: tuple[NDArray[np.intp], NDArray[np.intp]],
) -> NDArray[np.float32]:
    """Correlations of every pair under each permutation: (pair, k), (T * T, k), (n, T) -> (n, k)."""
    flat = order[:, upper[0]] * order.shape[1] + order[:, upper[1]]
    return np.asarray(np.einsum("pk,npk->nk", series, table.take(flat, axis=0)))


MEASURE = Measure(
    title="Topology: Mantel r and alpha (Eq. 7), beside those of a linear map",
    family="noise",
    variables=_VARIABLES,
    observe=observe,
    numbers=_NUMBERS,
    layered=True,
    compared=(R, MINUS_LINEAR),
    profiles=(
        Profile(
            "mantel_r",
            "Mantel's r",
            "Mantel's r, with that of a linear map of the same participation ratio as thin dotted lines",
            linear="mantel_r_linear",
        ),
        Profile(
            "participation_ratio",
            "participation\nratio",
            "the participation ratio, how many independent directions carry the features' movement",
            log=True,
        ),
    ),
)
