"""Power iteration: the norm of a linear map from products with A^T A alone. It approaches from below."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer.analyses.bound.base import NoRule, placement
from analyzer.graph.convolution import convolution_and_transpose
from analyzer.graph.operators import Operator, OperatorGraph
from analyzer.session.function import as_function


class PowerIteration(NamedTuple):
    """A lower bound of a norm, which grows with the iterations; change: the relative one of the last iteration."""

    value: float
    iterations: int
    change: float


def iterate(
    gram: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    shape: Sequence[int],
    *,
    iterations: int = 50,
    tolerance: float = 1e-4,
) -> PowerIteration:
    """norm(A) from x -> A^T A x, x of `shape` float32: sqrt of the Rayleigh quotient, until it changes by `tolerance`.

    Always starts from the same Gaussian vector. A small last change shows that it settled, not that it reached the
    largest singular value: nearly equal ones take many iterations to separate. 0 for a map that gives 0.
    """
    vector = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    value, change, count = 0.0, np.inf, 0
    while count < iterations and change > tolerance:
        vector /= np.linalg.norm(vector)
        product = gram(vector)
        last, value = value, math.sqrt(max(float(np.vdot(vector.astype(np.float64), product)), 0.0))
        count += 1
        if value == 0.0:
            return PowerIteration(0.0, count, 0.0)
        change, vector = abs(value - last) / value, product
    return PowerIteration(value, count, float(change))


def of_convolution(op: Operator, network: OperatorGraph, *, iterations: int = 50) -> PowerIteration | None:
    """Power iteration on a Conv at its real input size, through the runtime; None for anything else."""
    if op.kind != "Conv" or iterations < 1 or op.inputs[0] not in network.live or op.inputs[1] in network.live:
        return None
    weights = network.constant(op.inputs[1])
    if weights is None:
        return None
    try:
        free_size, layer = placement(op, weights.shape[2:], network)
    except NoRule:
        return None
    size = [extent for extent in free_size if extent is not None]
    if len(size) != len(free_size):
        return None
    group = op.attributes.get("group", 1)
    source = f"Conv {op.name!r:.80}"
    single = convolution_and_transpose(weights.astype(np.float32), size, group=group, source=source, **layer)
    return iterate(as_function(single), (1, weights.shape[1] * group, *size), iterations=iterations)
