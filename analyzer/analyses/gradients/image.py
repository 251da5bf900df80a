"""Everything that is measured around one image; NaN where it is undefined."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer.analyses.gradients import attacks, check, isotropy, jacobian
from analyzer.analyses.gradients.differences import differences, largest_in_span, slopes
from analyzer.analyses.gradients.differentiable import DifferentiableNetwork
from analyzer.analyses.gradients.documents import Figures

Array = NDArray[np.float64]

DIRECTIONS = 16
"""Random directions of norm_F(J) / sqrt(D), and of everything in the forward-only case."""
PROBES = 8
"""Of the Hessian."""
STEP = 1.0
"""Grey levels, of the forward-only differences."""
SIGMA_LIMIT = 300


class Options(NamedTuple):
    """clip: attacks stay inside 0..255. candidates: classes that `deepfool` considers. exact_hessian: by the graph."""

    clip: bool = False
    candidates: int = 10
    exact_hessian: bool = False
    seed: int = 0


def by_gradients(network: DifferentiableNetwork, pixels: Array, *, label: int, options: Options) -> Figures:
    """Gradient, Hessian, Jacobian and boundary around `pixels` (C, H, W), per grey level.

    Only the Jacobian where the log-odds of `label` are undefined, since a probability rounded to 0 or 1.
    """
    jacobian_figures = _jacobian(network, pixels, options)
    gradient = network.gradient(pixels, label)
    if not np.isfinite(gradient).all():
        return jacobian_figures
    spread = isotropy.gradient_spread(gradient)
    hessian = _hessian(network, pixels, label, options)
    eps = attacks.fgsm(network.predicted, gradient, pixels, label=label, clip=options.clip)
    boundary = attacks.deepfool(
        network.predicted,
        lambda x: network.margins(x, label),
        lambda x, classes: network.margin_gradients(x, label, classes),
        pixels,
        label=label,
        candidates=options.candidates,
        clip=options.clip,
    )
    return {
        **jacobian_figures,
        "gradient_l2": spread.l2,
        "gradient_l1": spread.l1,
        "gradient_mean": spread.mean,
        "gradient_std": spread.std,
        "gradient_pairwise_difference": spread.pairwise_difference,
        "gradient_equal_share": spread.equal_share,
        **hessian,
        "fgsm_eps": eps,
        "l2_distance": boundary.distance,
        "l2_linf": boundary.linf,
        "l2_reached": boundary.reached,
    }


def by_differences(network: DifferentiableNetwork, pixels: Array, *, label: int, options: Options) -> Figures:
    """By forward passes alone: finite differences along random directions; sigma_max is a lower bound."""
    directions = jacobian.rademacher(DIRECTIONS, pixels.shape, options.seed)

    def outputs(images: Array) -> Array:
        scores, features = network.forward(images)
        return np.concatenate([network.log_odds_of(scores, label)[:, None], features], axis=1)

    ahead = differences(outputs, pixels, directions, step=STEP)
    responses = ahead.first[:, 1:]
    ones = differences(outputs, pixels, np.ones((1, *pixels.shape)), step=STEP).first[0, 0]
    slope = slopes(ahead.first[:, 0], ahead.second[:, 0], float(ones), dimension=pixels.size)
    _, best = largest_in_span(directions, responses)
    # As long as a step along the others: one grey level on average. J v is measured there, not taken from the span.
    length = STEP * np.sqrt(pixels.size)
    along = differences(outputs, pixels, best[None] * length, step=1.0).first[0, 1:] / length
    ratios = [*np.linalg.norm(responses, axis=1) / np.sqrt(pixels.size), np.linalg.norm(along)]
    return {
        "gradient_l2": slope.l2,
        "gradient_equal_share": slope.equal_share,
        "hessian_trace": slope.trace,
        "hessian_off_frobenius": slope.off_diagonal,
        "sigma_max": float(max(ratios)),
        "jacobian_rms": jacobian.jacobian_rms(responses, dimension=pixels.size),
    }


def _jacobian(network: DifferentiableNetwork, pixels: Array, options: Options) -> Figures:
    directions = jacobian.rademacher(DIRECTIONS, pixels.shape, options.seed)
    responses = network.jvp(pixels, directions)[1]
    largest = jacobian.largest_singular_value(
        lambda v: network.jvp(pixels, v[None])[1][0],
        lambda u: network.vjp(pixels, features=u[None])[0],
        directions[0],
        limit=SIGMA_LIMIT,
    )
    return {
        "sigma_max": largest.value,
        "sigma_iterations": largest.iterations,
        "sigma_converged": largest.converged,
        "sigma_residual": largest.residual,
        "jacobian_rms": jacobian.jacobian_rms(responses, dimension=pixels.size),
    }


def _hessian(network: DifferentiableNetwork, pixels: Array, label: int, options: Options) -> Figures:
    probes = jacobian.rademacher(PROBES, pixels.shape, options.seed + 1)
    if options.exact_hessian:
        products = network.hessian_products(pixels, label, probes)
    else:
        products = check.gradient_differences(network, pixels, label, probes)
    mass = isotropy.hessian_mass(probes.reshape(PROBES, -1), products.reshape(PROBES, -1))
    return {
        "hessian_frobenius": mass.frobenius,
        "hessian_trace": mass.trace,
        "hessian_equal_diagonal": mass.equal_diagonal,
        "hessian_unequal_diagonal": mass.unequal_diagonal,
        "hessian_off_diagonal": mass.off_diagonal,
        "hessian_off_frobenius": mass.frobenius * np.sqrt(mass.off_diagonal),
    }
