"""Isotropy seen from the gradient and the Hessian (Eq. 3), for plain arrays.

Eq. 3 expands the score: f(x + nu) = f(x) + g.nu + nu^T H nu / 2 + ... The paper calls f isotropic where the elements of
g are identical and H is a multiple of the identity. That is right of H, for L2. But identical elements make g.nu depend
on the sum of nu's elements: f is then *symmetric* under reordering; it is isotropic where g = 0. Both are therefore
reported: the size of g, and how unequal its elements are.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.stats import norm as normal

Array = NDArray[np.float64]


class Spread(NamedTuple):
    """What the elements of a gradient look like; per grey level."""

    l2: float
    l1: float
    mean: float
    std: float
    pairwise_difference: float
    """Mean of |g_i - g_j| over all pairs i < j."""
    equal_share: float
    """(sum g)^2 / (D ||g||^2): 1 where all elements are identical, about 1/D where their signs are random."""


def gradient_spread(gradient: Array) -> Spread:
    """Spread of the elements of a gradient of any shape; NaN share for an all-zero gradient, NaN pairs for D = 1."""
    g = np.sort(np.asarray(gradient, np.float64).reshape(-1))
    d, squares = g.size, float(g @ g)
    # Of the sorted elements, the k-th is the larger one in k pairs and the smaller one in d - 1 - k.
    pairs = float((2 * np.arange(d) - d + 1) @ g) / (d * (d - 1) / 2) if d > 1 else np.nan
    share = float(g.sum()) ** 2 / (d * squares) if squares > 0 else np.nan
    return Spread(np.sqrt(squares), float(np.abs(g).sum()), float(g.mean()), float(g.std()), pairs, share)


class Mass(NamedTuple):
    """Where the squared Frobenius norm of a Hessian lies; the three shares add up to 1."""

    frobenius: float
    """Norm of H, nat per grey level squared."""
    trace: float
    equal_diagonal: float
    """Share of c I, the multiple of the identity nearest to H: 1 where H is isotropic."""
    unequal_diagonal: float
    off_diagonal: float


def hessian_mass(probes: Array, products: Array) -> Mass:
    """Mass of a Hessian from m >= 2 Rademacher probes v (m, D) and the products H v (m, D).

    ||H||_F^2 = E ||H v||^2; the diagonal is E[v * H v] (Hutchinson 1990; Bekas, Kokiopoulou, Saad 2007), and the
    squares of its elements and of the trace are taken over pairs of different probes, so that they have no bias. Shares
    are estimates, kept inside 0..1; NaN for H = 0.
    """
    m, d = probes.shape
    if m < 2:
        raise ValueError(f"{m} probe: two or more are needed")
    diagonal = probes * products
    frobenius2 = float((products**2).sum() / m)
    trace = diagonal.sum(axis=1)
    squared_trace = (trace.sum() ** 2 - (trace**2).sum()) / (m * (m - 1))
    squared_diagonal = float((diagonal.sum(axis=0) ** 2 - (diagonal**2).sum(axis=0)).sum() / (m * (m - 1)))
    if frobenius2 == 0:
        return Mass(0.0, 0.0, np.nan, np.nan, np.nan)
    on = float(np.clip(squared_diagonal / frobenius2, 0, 1))
    equal = float(np.clip(squared_trace / (d * frobenius2), 0, on))
    return Mass(np.sqrt(frobenius2), float(trace.mean()), equal, on - equal, 1 - on)


def linear_range(gradient_l2: float, *, radius: float, norm: str, dimension: int, trials: int) -> float:
    """Range over `trials` perturbations that the gradient alone would give: what Eq. 3 says without its second term.

    g.nu is normal for large D, with standard deviation r ||g|| / sqrt(D) for norm "l2" and r ||g|| / sqrt(3) for "linf"
    (elements uniform, the largest one scaled to r); the expected range of n standard normal numbers is theirs.
    """
    deviation = radius * gradient_l2 / np.sqrt(dimension if norm == "l2" else 3.0)
    return float(deviation * expected_range(trials))


def expected_range(count: int) -> float:
    """Expected largest minus smallest of `count` standard normal numbers (Tippett 1925)."""
    return float(quad(lambda x: 1 - normal.cdf(x) ** count - normal.sf(x) ** count, -12, 12, limit=200)[0])
