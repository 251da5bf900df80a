"""Size of a Jacobian from its products alone."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Largest(NamedTuple):
    """A singular value from below: ||J v|| of a unit direction v."""

    value: float
    iterations: int
    """Products with J^T J."""
    converged: bool
    residual: float
    """||J^T J v - value^2 v|| / value^2; some singular value is within about half of it, relative to `value`."""
    direction: Array
    """v, in the shape of an image."""


class _Enough(Exception):
    """As many products as allowed."""


def largest_singular_value(
    jvp: Callable[[Array], Array],
    vjp: Callable[[Array], Array],
    start: Array,
    *,
    tolerance: float = 1e-4,
    limit: int = 300,
) -> Largest:
    """sigma_max of J by Lanczos iteration on J^T J (ARPACK), from the direction `start` (any shape, not zero).

    Power iteration comes to rest between nearly equal singular values, up to 0.2 % low; Lanczos tells them apart.

    Args:
        jvp: Direction -> J v.
        vjp: Its result -> J^T u.
        start: Where the iteration begins.
        tolerance: Residual at which it has converged; the value's own error is of its square over the spectral gap.
        limit: Most products with J^T J; the largest ||J v|| so far stands where they do not suffice.

    Returns:
        0 where J `start` = 0.
    """
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    best = _Best(np.zeros(0), np.zeros(0), 0.0, 0)

    def product(direction: Array) -> Array:
        nonlocal best
        if best.products >= limit:
            raise _Enough
        v = np.asarray(direction, dtype=np.float64).ravel()
        length = float(np.linalg.norm(v))
        image = jvp((v / length).reshape(start.shape))
        back = np.asarray(vjp(image), dtype=np.float64).ravel()
        best = best.after(v / length, back, float(np.linalg.norm(image)))
        return back * length

    def largest(*, converged: bool) -> Largest:
        residual = float(np.linalg.norm(best.back - best.value**2 * best.direction)) / best.value**2
        return Largest(best.value, best.products, converged, residual, best.direction.reshape(start.shape))

    first = np.asarray(start, dtype=np.float64).ravel()
    if not product(first).any():
        return Largest(0.0, 1, True, 0.0, start / np.linalg.norm(start))
    if first.size == 1:
        return largest(converged=True)
    try:
        operator = LinearOperator((first.size, first.size), matvec=product, dtype=np.float64)
        product(eigsh(operator, k=1, which="LA", v0=first, tol=tolerance / 10)[1][:, 0])
    except (_Enough, ArpackError):
        return largest(converged=False)
    made = largest(converged=True)
    return made._replace(converged=made.residual <= tolerance)


class _Best(NamedTuple):
    """The direction of the largest ||J v|| so far, its J^T J v, and how many products there were."""

    direction: Array
    back: Array
    value: float
    products: int

    def after(self, direction: Array, back: Array, value: float) -> "_Best":
        if value > self.value:
            return _Best(direction, back, value, self.products + 1)
        return self._replace(products=self.products + 1)


def jacobian_rms(responses: Array, *, dimension: int) -> float:
    """norm_F(J) / sqrt(D) from J v of n Rademacher directions v (entries 1 and -1): (n, F) -> number."""
    return float(np.sqrt((responses**2).sum(axis=1).mean() / dimension))


def rademacher(count: int, shape: tuple[int, ...], seed: int) -> Array:
    """`count` directions of entries 1 and -1: (count, *shape), float64."""
    bits = np.random.default_rng(seed).integers(0, 2, (count, *shape), dtype=np.int8)
    return np.asarray(2.0 * bits - 1.0)
