"""Power iteration: the norm of a linear map from products with A^T A alone. It approaches from below."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Estimate(NamedTuple):
    """A lower bound of the norm that grows with the iterations; change: the relative one that the last made."""

    value: float
    iterations: int
    change: float


def iterate(
    gram: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    shape: Sequence[int],
    *,
    iterations: int = 50,
    tolerance: float = 1e-4,
) -> Estimate:
    """norm(A) from x -> A^T A x, x of `shape` float32: sqrt of the Rayleigh quotient, until it changes by `tolerance`.

    Starts from the same Gaussian vector every time. A small last change means that it settled, not that the largest
    singular value was reached: close ones are told apart slowly. 0 for a map that gives 0.
    """
    vector = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    value, change, count = 0.0, np.inf, 0
    while count < iterations and change > tolerance:
        vector /= np.linalg.norm(vector)
        product = gram(vector)
        last, value = value, math.sqrt(max(float(np.vdot(vector.astype(np.float64), product)), 0.0))
        count += 1
        if value == 0.0:
            return Estimate(0.0, count, 0.0)
        change, vector = abs(value - last) / value, product
    return Estimate(value, count, float(change))
