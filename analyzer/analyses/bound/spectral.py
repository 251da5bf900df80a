"""Certified largest singular values of matrices and of convolutions, in float64.

Power iteration and Lanczos approach the largest singular value from below, so their result is no upper bound. Here a
value s is accepted only if the Cholesky factorisation of s^2 I - A^H A succeeds for every matrix: then no matrix has a
larger singular value, up to the rounding of float64. `_rounding` bounds that, and every result includes it.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackError, eigsh

from analyzer.analyses.bound.base import NoRule

Array = NDArray[np.float64]
_DENSE = 256  # up to this size all eigenvalues are computed
_BLOCK = 2**22  # elements of matrices held at once
_FINE = 8  # grid points per period of the fastest oscillation of a kernel's spectrum
_MARGIN = 1e-4
_MOST_WEIGHTS, _MOST_POINTS = 2**29, 2**20


def matrix_norm(matrix: NDArray[np.floating]) -> float:
    """An upper bound of the largest singular value of an (m, n) matrix, above it by a relative 1e-4 at most."""
    return _largest_norm(iter([matrix[None]]), matrix.shape)


def convolution_norm(
    weights: NDArray[np.floating],
    *,
    strides: Sequence[int],
    dilations: Sequence[int],
    group: int,
    size: Sequence[int | None],
) -> tuple[float, float]:
    """An upper bound of the L2 norm of a zero-padded convolution, and by what factor it may be too large.

    weights: (M, C / group, *kernel), as ONNX's Conv has them. size: the spatial size of the input with its padding,
    None where unknown. The same bound holds for the transposed convolution with these weights. Raises NoRule for a
    kernel that is too large.

    A strided convolution is one of stride 1 over the input's phases (C * stride^d channels). With zero padding, its
    matrix is a submatrix of the convolution over all of Z^d. The norm of that is the supremum over frequencies t of the
    largest singular value of K(t) = sum_j W_j exp(i j.t) (Sedghi, Gupta and Long 2019 have the circular case).

    It is also a submatrix of the circular convolution over any torus on which nothing wraps around. A torus has
    finitely many frequencies, so that its norm is a maximum. Where it is too large, a coarser grid of N points is taken
    along the axis. The supremum is then at most the grid's maximum over cos((k - 1) pi / 2 N), k being the kernel's
    length along the axis: by M. Riesz's lemma |u^H K(t) v|^2, a trigonometric polynomial of degree k - 1, cannot fall
    faster from its maximum than cos^2((k - 1) t / 2). The product of these cosines' inverses is the factor. Besides,
    the bound is loose where the input fills little of the torus.
    """
    phases = _phases(np.asarray(weights, np.float64), strides, dilations)
    grid, factor = [], 1.0
    for length, stride, extent in zip(phases.shape[2:], strides, size, strict=True):
        torus = math.ceil(extent / stride) + length - 1 if extent is not None else None
        coarse = max(_FINE * (length - 1), 1)
        if torus is not None and torus <= 1.5 * coarse:
            grid.append(torus if length > 1 else 1)
        else:
            grid.append(coarse)
            factor /= math.cos((length - 1) * math.pi / (2 * coarse))
    shape = (phases.shape[0] // group, phases.shape[1])
    return factor * _largest_norm(_symbols(phases, grid, group), shape), factor


def _phases(weights: Array, strides: Sequence[int], dilations: Sequence[int]) -> Array:
    """Weights of the stride-1 convolution over the phases of the input: (M, C / group * stride^d, *shorter kernel)."""
    count = weights.ndim - 2
    spread = [(k - 1) * d + 1 for k, d in zip(weights.shape[2:], dilations, strict=True)]
    padded = [math.ceil(k / s) * s for k, s in zip(spread, strides, strict=True)]
    if math.prod(padded) * weights.shape[0] * weights.shape[1] > _MOST_WEIGHTS:
        raise NoRule("its kernel and strides are too large")
    full = np.zeros((*weights.shape[:2], *padded))
    placed = [slice(0, k, d) for k, d in zip(spread, dilations, strict=True)]
    full[:, :, *placed] = weights
    split = full.reshape(
        *weights.shape[:2], *itertools.chain(*((p // s, s) for p, s in zip(padded, strides, strict=True)))
    )
    split = np.moveaxis(split, [3 + 2 * i for i in range(count)], [2 + i for i in range(count)])
    return split.reshape(weights.shape[0], -1, *split.shape[2 + count :])


def _symbols(weights: Array, grid: Sequence[int], group: int) -> Iterator[NDArray[np.complex128]]:
    """The matrices K(t) of every group at half of the grid's frequencies (the others are conjugates), in blocks."""
    if math.prod(grid) > _MOST_POINTS:
        raise NoRule("its kernel is too large")
    kernel = weights.shape[2:]
    taps = np.array(list(np.ndindex(*kernel)), dtype=np.float64).reshape(-1, len(kernel))
    flat = weights.reshape(group, weights.shape[0] // group, weights.shape[1], -1)
    points = [tuple(p) for p in np.ndindex(*grid)]
    half = np.array([p for p in points if p <= tuple(-k % n for k, n in zip(p, grid, strict=True))], np.float64)
    step = max(1, _BLOCK // (flat.size // flat.shape[-1]))
    columns = flat.reshape(-1, flat.shape[-1]).T
    for start in range(0, len(half), step):
        block = 2 * np.pi * (half[start : start + step] / np.array(grid)) @ taps.T
        symbols = np.cos(block) @ columns + 1j * (np.sin(block) @ columns)
        yield symbols.reshape(-1, *flat.shape[1:3])


def _largest_norm(blocks: Iterator[NDArray[np.inexact]], shape: Sequence[int]) -> float:
    """The largest of the largest singular values in blocks of (count, m, n) matrices, as an upper bound."""
    top = 0.0
    for block in blocks:
        if min(shape) <= _DENSE // 4:
            top = max(top, float(np.linalg.eigvalsh(_grams(block))[:, -1].max()))
            continue
        for matrix in block:
            gram = _grams(matrix[None])[0]
            if top == 0.0 or not _is_below(gram, top):
                top = max(top, _largest_eigenvalue(gram))
    return math.sqrt(top * (1 + _rounding(shape)))


def _grams(block: NDArray[np.inexact]) -> NDArray[np.inexact]:
    """A^H A or A A^H, whichever is smaller, of each (m, n) matrix A, in float64."""
    rows, columns = block.shape[1:]
    if rows < columns:
        block = block.swapaxes(1, 2)
    if block.dtype != np.float32 or len(block) > 1:
        return block.conj().swapaxes(1, 2) @ block
    total = np.zeros((block.shape[2],) * 2)  # a large weight in float64 all at once would take its size once more
    for start in range(0, block.shape[1], 4096):
        part = block[0, start : start + 4096].astype(np.float64)
        total += part.T @ part
    return total[None]


def _largest_eigenvalue(gram: NDArray[np.inexact]) -> float:
    """An upper bound of the largest eigenvalue of a Hermitian matrix."""
    if len(gram) <= _DENSE:
        return float(np.linalg.eigvalsh(gram)[-1])
    start = np.random.default_rng(0).standard_normal(len(gram)).astype(gram.dtype)
    try:
        value = float(eigsh(gram, k=1, tol=_MARGIN / 10, v0=start, return_eigenvectors=False)[0])
    except ArpackError:  # it did not converge, or has nothing to start from
        return float(np.linalg.eigvalsh(gram)[-1])
    margin = _MARGIN
    if value <= 0:
        return float(np.linalg.eigvalsh(gram)[-1])
    while not _is_below(gram, value * (1 + margin)):
        margin *= 2
    return value * (1 + margin)


def _is_below(gram: NDArray[np.inexact], top: float) -> bool:
    """Whether all eigenvalues of a Hermitian matrix are below `top`, up to `_rounding`."""
    shifted = -gram
    shifted[np.diag_indices(len(gram))] += top
    try:
        np.linalg.cholesky(shifted)
    except np.linalg.LinAlgError:
        return False
    return True


def _rounding(shape: Sequence[int]) -> float:
    """Relative error of a squared norm in float64: of the products A^H A and of the factorisation together.

    Each entry of A^H A errs by at most m eps times the product of its columns' lengths, so their norm by m eps
    norm_F(A)^2 <= m n eps norm(A)^2; a factorisation that succeeds may overlook -(n + 1) eps times the trace (Demmel;
    Rump 2006), that is n (n + 1) eps norm(A)^2. Complex products double it, the sums over taps once more.
    """
    small, large = min(shape), max(shape)
    return float(4 * small * (small + large + 2) * np.finfo(np.float64).eps)
