"""Size of a Jacobian from its products alone."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Largest(NamedTuple):
    """A singular value from below: every iterate is a lower bound, up to rounding."""

    value: float
    iterations: int
    converged: bool
    residual: float
    """||J^T J v - value^2 v|| / value^2, v the last unit direction; some singular value is within about half of it."""
    direction: Array


def largest_singular_value(
    jvp: Callable[[Array], Array],
    vjp: Callable[[Array], Array],
    start: Array,
    *,
    tolerance: float = 1e-4,
    limit: int = 100,
) -> Largest:
    """sigma_max of J by power iteration on J^T J, from the direction `start` (any shape, not zero).

    jvp: direction -> J v; vjp: its result -> J^T u. Converged once sigma changes by at most `tolerance` of itself,
    twice in a row. 0 where J v = 0. With two nearly equal largest singular values the value is right and the direction
    some mixture of theirs.
    """
    v = start / np.linalg.norm(start)
    sigma, residual, calm = 0.0, np.inf, 0
    for iteration in range(1, limit + 1):
        image = jvp(v)
        before, sigma = sigma, float(np.linalg.norm(image))
        if sigma == 0:
            return Largest(0.0, iteration, True, 0.0, v)
        back = vjp(image)
        residual = float(np.linalg.norm(back - sigma**2 * v)) / sigma**2
        calm = calm + 1 if abs(sigma - before) <= tolerance * sigma else 0
        if calm == 2:
            return Largest(sigma, iteration, True, residual, v)
        v = back / np.linalg.norm(back)
    return Largest(sigma, limit, False, residual, v)


def jacobian_rms(responses: Array, *, dimension: int) -> float:
    """norm_F(J) / sqrt(D) from J v of n Rademacher directions v (entries 1 and -1): (n, F) -> number."""
    return float(np.sqrt((responses**2).sum(axis=1).mean() / dimension))


def rademacher(count: int, shape: tuple[int, ...], seed: int) -> Array:
    """`count` directions of entries 1 and -1: (count, *shape), float64."""
    bits = np.random.default_rng(seed).integers(0, 2, (count, *shape), dtype=np.int8)
    return np.asarray(2.0 * bits - 1.0)
