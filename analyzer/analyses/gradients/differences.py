"""Derivatives from forward passes alone: central differences along random directions, in float64.

For graphs without derivatives, quantised ones among them. Directions have entries 1 and -1, so that a step of one moves
every pixel by one grey level.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Differences(NamedTuple):
    """Values at x and differences along n directions v, with step h: (f(x + hv) - f(x - hv)) / 2h, and the second."""

    first: Array
    second: Array


def differences(function: Callable[[Array], Array], pixels: Array, directions: Array, *, step: float) -> Differences:
    """First and second central differences of `function`, (n, ...) images -> (n, F) values.

    directions: (n, ...) -> first, second: (n, F), the directional derivatives J v and v^T H v of each value.
    """
    n = len(directions)
    values = function(np.concatenate([pixels[None], pixels + step * directions, pixels - step * directions]))
    centre, ahead, behind = values[:1], values[1 : n + 1], values[n + 1 :]
    return Differences((ahead - behind) / (2 * step), (ahead - 2 * centre + behind) / step**2)


class Slopes(NamedTuple):
    """Of a scalar, from directional derivatives: what `isotropy` says of gradient and Hessian, as far as they go."""

    l2: float
    equal_share: float
    trace: float
    off_diagonal: float
    """Frobenius norm of the off-diagonal part of the Hessian."""


def slopes(first: Array, second: Array, along_ones: float, *, dimension: int) -> Slopes:
    """first, second: g.v and v^T H v of n >= 2 Rademacher directions, (n,); along_ones: g.(1, ..., 1).

    E (g.v)^2 = ||g||^2; E v^T H v = tr H; var v^T H v = 2 ||H - diag H||_F^2.
    """
    squares = float((first**2).mean())
    share = along_ones**2 / (dimension * squares) if squares > 0 else np.nan
    return Slopes(np.sqrt(squares), share, float(second.mean()), float(np.sqrt(second.var(ddof=1) / 2)))


def largest_in_span(directions: Array, responses: Array) -> tuple[float, Array]:
    """Largest ||J v|| / ||v|| over the span of n directions: a lower bound of sigma_max, and the unit v that has it.

    directions: (n, ...); responses: J v of each, (n, F). The largest singular value of J
    restricted to the span, so at least the largest of the n ratios.
    """
    rows = directions.reshape(len(directions), -1)
    left, sizes, basis = np.linalg.svd(rows, full_matrices=False)
    kept = sizes > sizes[0] * 1e-9
    on_basis = responses.T @ (left[:, kept] / sizes[kept])
    _, s, vt = np.linalg.svd(on_basis, full_matrices=False)
    return float(s[0]), np.asarray(vt[0] @ basis[kept]).reshape(directions.shape[1:])
