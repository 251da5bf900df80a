"""Everything that is measured around one image; NaN where it is undefined or was not to be had."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer.analyses.gradients import attacks, check, isotropy, jacobian
from analyzer.analyses.gradients.differences import differences, largest_in_span, slopes
from analyzer.analyses.gradients.differentiable import DifferentiableNetwork

Array = NDArray[np.float64]

DIRECTIONS = 16
"""Random directions of norm_F(J) / sqrt(D), and of everything in the forward-only case."""
PROBES = 8
"""Of the Hessian."""
STEP = 1.0
"""Grey levels, of the forward-only differences."""
SIGMA_LIMIT = 100


class Options(NamedTuple):
    """clip: attacks stay inside 0..255. candidates: classes that `deepfool` considers. exact_hessian: by the graph."""

    clip: bool = False
    candidates: int = 10
    exact_hessian: bool = False
    seed: int = 0


def by_gradients(
    network: DifferentiableNetwork, pixels: Array, *, label: int, options: Options
) -> dict[str, float | bool]:
    """Gradient, Hessian, Jacobian and boundary around `pixels` (C, H, W), by name, per grey level.

    Where the log-odds of `label` are undefined (a probability that rounded to 0 or 1) so is all but the Jacobian.
    """
    found: dict[str, float | bool] = dict(_jacobian(network, pixels, options))
    gradient = network.gradient(pixels, label)
    if not np.isfinite(gradient).all():
        return found
    found |= {f"gradient_{name}": value for name, value in isotropy.gradient_spread(gradient)._asdict().items()}
    found |= _hessian(network, pixels, label, options)
    found["fgsm_eps"] = attacks.fgsm(network.predicted, gradient, pixels, label=label, clip=options.clip)
    boundary = attacks.deepfool(
        network.predicted,
        lambda x: network.margins(x, label),
        lambda x, classes: network.margin_gradients(x, label, classes),
        pixels,
        label=label,
        candidates=options.candidates,
        clip=options.clip,
    )
    return found | {"l2_distance": boundary.distance, "l2_linf": boundary.linf, "l2_reached": boundary.reached}


def by_differences(
    network: DifferentiableNetwork, pixels: Array, *, label: int, options: Options
) -> dict[str, float | bool]:
    """The forward-only part of `by_gradients`: finite differences along random directions, sigma_max a lower bound."""
    directions = jacobian.rademacher(DIRECTIONS, pixels.shape, options.seed)

    def outputs(images: Array) -> Array:
        scores, features = network.forward(images)
        return np.concatenate([network.log_odds_of(scores, label)[:, None], features], axis=1)

    ahead = differences(outputs, pixels, directions, step=STEP)
    responses = ahead.first[:, 1:]
    ones = differences(outputs, pixels, np.ones((1, *pixels.shape)), step=STEP).first[0, 0]
    slope = slopes(ahead.first[:, 0], ahead.second[:, 0], float(ones), dimension=pixels.size)
    _, best = largest_in_span(directions, responses)
    # A step of one grey level on average, like along the others; the product is measured, not taken from the span.
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


def _jacobian(network: DifferentiableNetwork, pixels: Array, options: Options) -> dict[str, float | bool]:
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


def _hessian(network: DifferentiableNetwork, pixels: Array, label: int, options: Options) -> dict[str, float]:
    probes = jacobian.rademacher(PROBES, pixels.shape, options.seed + 1)
    if options.exact_hessian:
        products = network.hessian_products(pixels, label, probes)
    else:
        products = check.gradient_differences(network, pixels, label, probes)
    mass = isotropy.hessian_mass(probes.reshape(PROBES, -1), products.reshape(PROBES, -1))
    named = {f"hessian_{name}": value for name, value in mass._asdict().items()}
    return named | {"hessian_off_frobenius": mass.frobenius * np.sqrt(mass.off_diagonal)}
