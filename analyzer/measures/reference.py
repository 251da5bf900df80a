"""What a linear map of a given participation ratio would show: in closed form, and Mantel's r simulated."""

import numpy as np
from numpy.typing import NDArray

from analyzer.measures.quantities import Array

_DRAWS = 400  # simulated maps: the 2.5 and 97.5 % quantiles then err by about a tenth of the band's half-width
_NODES = 8  # participation ratios simulated; more distinct ones are interpolated between
_MOST_TRIALS = 200
_CELLS = 2**21  # matrix entries simulated at once


def mantel_linear(participation: NDArray[np.float64], *, dimension: int, norm: str) -> NDArray[np.float64]:
    """Mantel r expected of a *linear* map with this participation ratio, sensitivity spread evenly over the inputs.

    q = PR / D. Directions normalised in L2: 1 / sqrt(2 / q - 1). Uniform noise under L-infinity:
    sqrt(5.6 q / (8 - 2.4 q)). Understates by up to 20 % where sensitivity is local, overstates by up to 25 % at PR
    near 5.

    Args:
        participation: PR, any shape, such as `geometry.participation_ratio` gives.
        dimension: D, that of the input.
        norm: Of the noise: "linf" or "l2".

    Returns:
        The shape of `participation`. NaN stays NaN.

    >>> mantel_linear(np.array([4.0, 10.0]), dimension=10, norm="l2").round(6).tolist()
    [0.5, 1.0]
    """
    q = np.clip(np.asarray(participation, dtype=np.float64) / dimension, 0.0, 1.0)
    if norm == "l2":
        return np.asarray(np.sqrt(q / (2.0 - q)))
    return np.asarray(np.sqrt(5.6 * q / (8.0 - 2.4 * q)))


def alpha_linear(participation: NDArray[np.float64], *, dimension: int, trials: int) -> NDArray[np.float64]:
    """alpha_departure expected of a random linear map: x / sqrt(1 + x^2), x^2 = 3 (T - 2) / 8 * (1 / PR - 1 / D).

    First order: D_in is near c (J - I), J all ones, so alpha is near c' (I + (J / (T - 1) - I) E), E the relative
    deviations of the output distances from those of the input. E_ij = e_i + e_j + e_ij, with variances v / 8 of e_i
    and v / 4 of e_ij, v = 1 / PR - 1 / D. The inverse takes out the column means, so each of the T^2 entries keeps
    3 v / 8, beside the T ones of the diagonal; T - 2 for T is the finite-sample correction that simulation asks
    for. The same for directions normalised in L2 and for uniform noise, and 0 for an orthogonal map. Within 2 % of
    simulated maps of evenly spread sensitivity; overstates by up to 15 % where it is local, under either norm.
    Shapes as given; NaN stays NaN.
    """
    spread = np.maximum(1.0 / np.asarray(participation, dtype=np.float64) - 1.0 / dimension, 0.0)
    x2 = 0.375 * max(trials - 2, 0) * spread
    return np.asarray(np.sqrt(x2 / (1.0 + x2)))


def linear_band(
    participation: NDArray[np.float64] | float,
    *,
    dimension: int,
    trials: int,
    norm: str,
    seed: int = 0,
    draws: int = _DRAWS,
) -> tuple[Array, Array, Array]:
    """2.5, 50 and 97.5 % of Mantel's r under a Gaussian linear map of this participation ratio.

    participation: PR of M = J^T J, any shape, clipped to [1, dimension]; dimension: D, number of inputs; trials: T;
    norm: "linf" (uniform noise over its largest element) or "l2" (over its length). Returns three arrays of the shape
    of `participation`, NaN where it is NaN or T < 3. One draw is one image: new noise and a new map.

    The map has rows g_k sqrt(w_k), g_k standard Gaussian in R^D, weights w_k = 1 but for the last, so that
    E(tr M)^2 / E tr(M^2) is PR also between whole numbers of rows: with e = (sum w)^2 / sum w^2,
    1 / PR = (1 + 1 / D) / e + 1 / D. Where PR is D the map is orthogonal and r = 1.

    Nothing of size D is drawn. r depends on the inputs X (T, D) only by X X^T: lengths, and cosines. Directions of
    noise are taken as uniform on the sphere, their X X^T drawn by Bartlett's decomposition (1933) of a Wishart
    matrix; squared lengths as gamma variables with the mean D / 3 and variance 4 D / 45 of a sum of squared uniform
    variables, over the squared largest element under L-infinity. What is neglected, the fourth cumulant of the
    cosines and what the largest element has to do with the length, is of relative order 1 / D. Given X, the outputs
    are Gaussian with covariance X X^T: with any factor of it, exact.

    More than 8 distinct ratios are interpolated in log PR between 8 nodes. Above 200 trials, the half-widths are those
    of 200 times sqrt(200 / T), as the spread of r shrinks.
    """
    ratios = np.asarray(participation, dtype=np.float64)
    shape, ratios = ratios.shape, np.clip(ratios.ravel(), 1.0, dimension)
    bands = np.full((3, ratios.size), np.nan)
    finite = np.isfinite(ratios)
    if trials < 3 or not finite.any():
        return _unpacked(bands, shape)
    nodes = np.unique(ratios[finite])
    if nodes.size > _NODES:
        nodes = np.geomspace(nodes[0], nodes[-1], _NODES)
    simulated = min(trials, _MOST_TRIALS)
    r = _simulated(nodes, dimension=dimension, trials=simulated, norm=norm, seed=seed, draws=draws)
    low, middle, high = np.quantile(r, (0.025, 0.5, 0.975), axis=1)
    shrink = np.sqrt(simulated / trials)
    quantiles = (middle + shrink * (low - middle), middle, middle + shrink * (high - middle))
    for row, values in zip(bands, quantiles, strict=True):
        row[finite] = np.interp(np.log(ratios[finite]), np.log(nodes), values)
    return _unpacked(bands, shape)


def _unpacked(bands: Array, shape: tuple[int, ...]) -> tuple[Array, Array, Array]:
    low, middle, high = bands.reshape(3, *shape)
    return low, middle, high


def _simulated(ratios: Array, *, dimension: int, trials: int, norm: str, seed: int, draws: int) -> Array:
    """Mantel's r of (ratio, draw): the noise of a draw is the same for all ratios."""
    r = np.ones((ratios.size, draws))
    if dimension == 1:
        return r
    chunk = max(1, _CELLS // trials**2)
    for start in range(0, draws, chunk):
        stretch = slice(start, min(start + chunk, draws))
        rng = np.random.default_rng((seed, start))
        inputs = _inputs(rng, stretch.stop - start, trials, dimension, norm)
        x = _standardised_distances(inputs)
        for row, ratio in zip(r, ratios, strict=True):
            if ratio < dimension * (1 - 1e-9):
                y = _standardised_distances(_outputs(rng, inputs, ratio, dimension))
                row[stretch] = np.einsum("np,np->n", x, y)
    return r


def _inputs(rng: np.random.Generator, draws: int, trials: int, dimension: int, norm: str) -> Array:
    """Rows with the Gram matrix of noise in R^dimension: (draw, trial, min(trial, dimension))."""
    rows = _gaussian_factor(rng, draws, trials, dimension)
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    if norm == "linf":
        squared = rng.gamma(1.25 * dimension, 4 / 15, (draws, trials, 1))
        largest = rng.random((draws, trials, 1)) ** (1 / dimension)
        rows *= np.sqrt(squared) / largest
    return rows


def _outputs(rng: np.random.Generator, inputs: Array, ratio: float, dimension: int) -> Array:
    """Rows with the Gram matrix of the inputs' images under one Gaussian map a draw."""
    draws, _, rank = inputs.shape
    effective = (1 + 1 / dimension) / (1 / ratio - 1 / dimension)
    whole = max(np.floor(effective), 1.0)
    # The weight a of one more row: (whole + a)^2 = effective (whole + a^2).
    inside = whole**2 - (effective - 1) * whole * (effective - whole)
    last = (whole - np.sqrt(max(inside, 0.0))) / (effective - 1) if effective > 1 else 0.0
    rows = _gaussian_factor(rng, draws, rank, int(whole))
    more = np.sqrt(max(last, 0.0)) * rng.standard_normal((draws, rank, 1))
    return np.asarray(inputs @ np.concatenate([rows, more], axis=-1))


def _gaussian_factor(rng: np.random.Generator, draws: int, rows: int, columns: int) -> Array:
    """F with F F^T distributed as Z Z^T, Z standard Gaussian (rows, columns): (draw, rows, min(rows, columns)).

    Bartlett: lower triangular, standard Gaussian below the diagonal, chi of columns - i degrees of freedom on it.
    """
    rank = min(rows, columns)
    factor = np.tril(rng.standard_normal((draws, rows, rank)))
    diagonal = np.arange(rank)
    factor[:, diagonal, diagonal] = np.sqrt(rng.chisquare(columns - diagonal, (draws, rank)))
    return factor


def _standardised_distances(rows: Array) -> Array:
    """Distances between rows, (draw, trial, k) -> (draw, pair), with mean 0 and length 1."""
    gram = rows @ rows.transpose(0, 2, 1)
    upper = np.triu_indices(rows.shape[1], 1)
    squared = np.diagonal(gram, axis1=1, axis2=2)
    between = squared[:, upper[0]] + squared[:, upper[1]] - 2 * gram[:, upper[0], upper[1]]
    between = np.sqrt(np.maximum(between, 0.0))
    between -= between.mean(axis=1, keepdims=True)
    return np.asarray(between / np.linalg.norm(between, axis=1, keepdims=True))
