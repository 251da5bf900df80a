"""Distances and Gram matrices around one image: what topology and Lipschitz measures start from."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def centred_gram(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """G = F F^T of trial-centred features F.

    Centred by the trial mean: an uncentred Gram matrix loses every digit at small radii, where all rows are nearly
    the clean one, and at large radii the common shift would hide the spread.

    Args:
        features: (trial, feature), any real type.

    Returns:
        (trial, trial), float64, feature units squared. NaN where features are not finite.

    >>> centred_gram(np.array([[1.0, 2.0], [3.0, 2.0]])).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    centred = np.asarray(features, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # features that are not finite stay so
        centred = centred - centred.mean(axis=0)
    return np.asarray(centred @ centred.T)


def recentred(gram: NDArray[np.floating]) -> NDArray[np.float64]:
    """The Gram matrix of the same rows centred by their mean: H G H, H = I - 1/T. (..., T, T) -> the same, float64.

    For rows that are already centred by the clean image's, so that float32 products have kept their digits.
    """
    values = np.asarray(gram, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        rows = values.mean(axis=-1, keepdims=True)
        return np.asarray(values - rows - values.mean(axis=-2, keepdims=True) + rows.mean(axis=-2, keepdims=True))


def lengths(gram: NDArray[np.floating]) -> NDArray[np.float64]:
    """L2 norm of each row from the Gram matrix: (..., n, n) -> (..., n), float64."""
    return np.asarray(np.sqrt(np.diagonal(gram, axis1=-2, axis2=-1).astype(np.float64)))


def distances(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distances between rows from their Gram matrix: d_ij^2 = G_ii + G_jj - 2 G_ij.

    Args:
        gram: (..., n, n), centred or not: the distances are the same.

    Returns:
        (..., n, n), in the rows' unit, with a zero diagonal. Negative d_ij^2, as rounding makes them, count as 0.

    >>> distances(np.array([[9.0, 0.0], [0.0, 16.0]])).tolist()
    [[0.0, 5.0], [5.0, 0.0]]
    """
    diagonal = np.diagonal(gram, axis1=-2, axis2=-1)
    squared = diagonal[..., :, None] + diagonal[..., None, :] - 2 * gram
    result = np.sqrt(np.maximum(squared, 0.0))
    n = gram.shape[-1]
    result[..., range(n), range(n)] = 0.0
    return np.asarray(result)


def distance_from(rows: NDArray[np.floating], clean: NDArray[np.floating]) -> NDArray[np.float64]:
    """L2 distance of each row from the clean row: (trial, feature), (feature,) -> (trial,), float64."""
    with np.errstate(invalid="ignore"):
        difference = np.asarray(rows, dtype=np.float64) - np.asarray(clean, dtype=np.float64)
    return np.asarray(np.sqrt(np.einsum("if,if->i", difference, difference)))


def participation_ratio(gram: NDArray[np.float64], dimension: int) -> NDArray[np.float64]:
    """How many independent output directions carry the response: PR = (tr M)^2 / tr(M^2), M = J^T J, estimated.

    With m = mean(diag G) and T trials,

        PR = m^2 / (mean(offdiag G^2) - (m / (T - 1))^2)

    clipped to [1, D]; the subtracted term is the bias that centring brings in. Where the denominator is not above 0
    the sample shows no structure at all and PR is D.

    Args:
        gram: G, (..., T, T), of trial-centred features.
        dimension: D, that of the input.

    Returns:
        Shape (...), a pure number. NaN where the features do not vary or are not finite, or T < 3.

    >>> one_direction = np.resize([1.0, -1.0], 100)
    >>> round(float(participation_ratio(np.outer(one_direction, one_direction), dimension=768)), 3)
    1.0
    """
    trials = gram.shape[-1]
    diagonal = np.diagonal(gram, axis1=-2, axis2=-1)
    m = diagonal.mean(axis=-1)
    off_diagonal = (np.square(gram).sum(axis=(-2, -1)) - np.square(diagonal).sum(axis=-1)) / (trials * (trials - 1))
    denominator = off_diagonal - (m / (trials - 1)) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(denominator > 0, m**2 / denominator, float(dimension))
    return np.where((m > 0) & np.isfinite(m) & (trials >= 3), np.clip(ratio, 1.0, float(dimension)), np.nan)


def jacobian_rms(gram: NDArray[np.float64], input_gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """norm_F(J) / sqrt(D) = sqrt(mean(diag G) / mean(diag G_in)), both trial-centred.

    The input is centred here, so that a mean shift, as clipping makes it, does not count as spread.
    Random directions see this root mean square of the singular values over the D inputs, not the largest one.

    Args:
        gram: G, (..., T, T), of trial-centred features, feature units squared.
        input_gram: G_in, (..., T, T), of what was added to the pixels, grey levels squared.

    Returns:
        Shape (...), feature units per grey level. NaN where nothing was added to the pixels.

    >>> added = np.array([[1.0, 0.0], [-1.0, 0.0]])
    >>> features = 2 * added
    >>> float(jacobian_rms(features @ features.T, added @ added.T))
    2.0
    """
    output = np.diagonal(gram, axis1=-2, axis2=-1).mean(axis=-1)
    added = np.diagonal(input_gram, axis1=-2, axis2=-1).mean(axis=-1) - input_gram.mean(axis=(-2, -1))
    return np.asarray(np.sqrt(output / np.where(added > 0, added, np.nan)))


def row_gram(
    blocks: Sequence[NDArray[Any]],
    *,
    columns: int = 8192,
    mapper: Callable[[Callable[[int], Any], Sequence[int]], Iterable[Any]] = map,
) -> NDArray[np.float64]:
    """G = R R^T of rows that are already centred on zero, such as noise: blocks of (n_i, d), any real type -> (n, n).

    Products are taken in float32 over stretches of columns that fit a cache, and added up in float64. `mapper` spreads
    the stretches over threads; their order, and so the sum, stays the same.
    """
    starts = np.cumsum([0, *(len(block) for block in blocks)])
    size = blocks[0].shape[1]

    def product(start: int) -> NDArray[np.float32]:
        stretch = np.empty((starts[-1], min(columns, size - start)), np.float32)
        for row, block in zip(starts, blocks, strict=False):
            stretch[row : row + len(block)] = block[:, start : start + columns]
        return np.asarray(stretch @ stretch.T)  # numpy computes one triangle of such a product

    result = np.zeros((starts[-1], starts[-1]))
    for part in mapper(product, range(0, size, columns)):
        result += part
    return result
