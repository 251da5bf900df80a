"""Whether derivative graphs are right, measured on the model at hand before anything relies on them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer.analyses.gradients.differences import differences
from analyzer.analyses.gradients.differentiable import DifferentiableNetwork
from analyzer.analyses.gradients.jacobian import rademacher
from analyzer.graph.derivative import GradientsUnavailable

Array = NDArray[np.float64]

STEPS = tuple(4.0**k for k in range(1, -7, -1))
"""Grey levels; rounding spoils small steps, curvature and kinks large ones, so the best one counts."""
TOLERANCE = 0.05
"""Deep ReLU networks have so many kinks that the best step still errs by 2 to 3 %."""
ADJOINT_TOLERANCE = 1e-3
HESSIAN_STEP = 0.5
HESSIAN_TOLERANCE = 0.1
_DIRECTIONS = 4


class Check(NamedTuple):
    """Relative errors: forward products and gradient against central differences, and reverse against forward."""

    jacobian: float
    gradient: float
    adjoint: float


def self_check(network: DifferentiableNetwork, pixels: Array, *, label: int, seed: int = 0) -> Check:
    """Compare the derivative graphs with central differences of forward passes, accumulated in float64.

    At `pixels` plus up to half a grey level of noise: in a flat area max pooling has ties, and no derivative.
    Raises GradientsUnavailable with the measured error where they disagree.
    """
    point = pixels + np.random.default_rng(seed).uniform(-0.5, 0.5, pixels.shape)
    directions = rademacher(_DIRECTIONS, pixels.shape, seed)
    scores, features = network.jvp(point, directions)

    gradient = network.gradient(point, label)
    slopes = directions.reshape(_DIRECTIONS, -1) @ gradient.reshape(-1)
    expected = (scores, features, slopes[:, None])
    ends = np.cumsum([part.shape[1] for part in expected])[:-1]

    def values(images: Array) -> Array:
        scores, layer = network.forward(images)
        return np.concatenate([scores, layer, network.log_odds_of(scores, label)[:, None]], axis=1)

    measured = [np.split(differences(values, point, directions, step=step).first, ends, axis=1) for step in STEPS]
    least = [min(_relative(part, parts[k]) for parts in measured) for k, part in enumerate(expected)]
    check = Check(max(least[:2]), least[2], _adjoint_error(network, point, directions, scores, features, seed))
    for error, limit, what in (
        (check.jacobian, TOLERANCE, "forward products differ from central differences"),
        (check.gradient, TOLERANCE, "the gradient differs from central differences"),
        (check.adjoint, ADJOINT_TOLERANCE, "reverse products differ from forward ones"),
    ):
        if not error <= limit:
            raise GradientsUnavailable(
                f"gradients unavailable: their self-check failed: {what} by {error:.2g} of their size (at most "
                f"{limit:g} is accepted)"
            )
    return check


def hessian_error(network: DifferentiableNetwork, pixels: Array, *, label: int, seed: int = 0) -> float:
    """Relative difference between the graph's H v and central differences of gradients, along two directions v.

    Large where kinks (ReLU, max pooling) make the gradient jump: the graph's H is then not the curvature at that scale.
    """
    directions = rademacher(2, pixels.shape, seed)
    exact = network.hessian_products(pixels, label, directions)
    return _relative(exact, gradient_differences(network, pixels, label, directions))


def gradient_differences(network: DifferentiableNetwork, pixels: Array, label: int, directions: Array) -> Array:
    """H v by central differences of gradients over +- HESSIAN_STEP grey levels along each of n directions."""
    sides = [[network.gradient(pixels + s * HESSIAN_STEP * v, label) for s in (1, -1)] for v in directions]
    return np.stack([(ahead - behind) / (2 * HESSIAN_STEP) for ahead, behind in sides])


def _adjoint_error(
    network: DifferentiableNetwork, point: Array, directions: Array, scores: Array, features: Array, seed: int
) -> float:
    """|u.(J v) - (J^T u).v| / (||u|| ||J v||), the larger of that of the scores and that of the layer."""
    rng = np.random.default_rng(seed)
    worst = 0.0
    for forward, name in ((scores, "scores"), (features, "features")):
        u = rng.standard_normal((1, forward.shape[1]))
        back = network.vjp(point, **{name: u})
        size = float(np.linalg.norm(u) * np.linalg.norm(forward[0]))
        difference = abs(float(u[0] @ forward[0]) - float((back[0] * directions[0]).sum()))
        if not np.isfinite(difference):
            return np.inf
        worst = max(worst, difference / size if size else float(difference > 0))
    return worst


def _relative(expected: Array, measured: Array) -> float:
    """||difference|| over the larger norm; 0 where both are 0, infinity where either is not finite."""
    difference = float(np.linalg.norm(expected - measured))
    size = max(float(np.linalg.norm(expected)), float(np.linalg.norm(measured)))
    if not np.isfinite(difference):
        return np.inf
    return difference / size if size else 0.0
