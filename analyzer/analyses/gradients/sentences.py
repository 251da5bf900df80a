"""What the figures of `sensitivity` say, in plain words."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from analyzer.analyses.gradients.documents import ImageRow, Median, Method


def sentences(
    medians: Mapping[str, Median],
    rows: Sequence[ImageRow],
    identity: Mapping[str, Any],
    method: Method,
    *,
    dimension: int,
) -> Iterator[str]:
    """One sentence a property, as far as there are figures. dimension: D, elements of an image."""

    def of(name: str) -> float:
        entry = medians.get(f"{name}_median")
        return np.nan if entry is None or entry["value"] is None else entry["value"]

    images = "1 image" if len(rows) == 1 else f"median of {len(rows)} images"
    radius = identity["radii"][0]
    if np.isfinite(of("gradient_l2")):
        equal = (
            f"Gradient (Eq. 3, {images}): the equal share of its elements is {of('gradient_equal_share'):.2g} (1: all "
            f"the same, {1 / dimension:.1g}: random signs)"
            if np.isfinite(of("gradient_equal_share"))
            else f"Gradient (Eq. 3, {images}): 0 in every image, so the equal share of its elements is undefined"
        )
        if np.isfinite(of("range_measured")) and np.isfinite(of("range_linear")):
            equal += (
                f"; alone it would spread the log-odds over {of('range_linear'):.2g} nat at radius {radius:g}, where "
                f"{of('range_measured'):.2g} nat were measured"
            )
        yield equal + "."
    if np.isfinite(of("hessian_off_diagonal")):
        yield (
            f"Hessian ({images}): {of('hessian_off_diagonal'):.0%} of its squared norm lies off the diagonal and "
            f"{of('hessian_unequal_diagonal'):.1%} on the unequal part of the diagonal; both "
            "would be 0 if the log-odds curved alike in every direction."
        )
    if _steps(method):
        yield f"Jacobian ({images}): no ratio is given, since what was measured are the steps of the network's input."
    elif np.isfinite(of("sigma_max")) and not np.isfinite(of("sigma_over_rms")):
        yield f"Jacobian ({images}): 0 wherever it was tried, so no ratio of singular values is defined."
    elif np.isfinite(of("sigma_max")):
        bound = "at least " if method["gradients"] is None else ""
        ratios = (
            f"Jacobian ({images}): the largest singular value is {bound}{of('sigma_over_rms'):.3g} times "
            "norm_F(J) / sqrt(D)"
        )
        sampled = of("sigma_over_sampled")
        if np.isfinite(sampled):
            ratios += f" and {bound}{sampled:.3g} times the largest sampled ratio at radius {radius:g}"
        residuals = [residual for row in rows if (residual := row.get("sigma_residual")) is not None]
        error = f" (largest relative residual of the iteration {max(residuals):.1g})" if residuals else ""
        if sampled < 1:  # the sampled ratio is then no slope, as where the network answers in steps
            yield f"{ratios}{error}: what was sampled there is not the slope at the image."
        else:
            yield f"{ratios}: random noise understates the local Lipschitz constant by that{error}."
    if np.isfinite(of("fgsm_eps")) or np.isfinite(of("l2_distance")):
        yield _boundary(of, rows, images, identity["radii"][-1])


def _steps(method: Method) -> bool:
    """Whether the differences are hardly larger than the steps in which the network quantises its input."""
    return "input_step" in method and method["step"] < 2 * method["input_step"]


def _boundary(of: Callable[[str], float], rows: Sequence[ImageRow], images: str, largest: float) -> str:
    fgsm, l2 = of("fgsm_eps"), of("l2_distance")
    sentence = f"Boundary ({images}): " + (
        f"{fgsm:.3g} grey levels along the gradient's sign change the class"
        if np.isfinite(fgsm)
        else "no step along the gradient's sign was found to change the class"
    )
    sentence += f", and {l2:.3g} in L2 suffice" if np.isfinite(l2) else ", and no other class was found in L2"
    if not rows or "noise_found" not in rows[0]:
        return sentence + "."
    misclassified = sum(bool(row.get("noise_found")) for row in rows)
    sentence += f"; random noise misclassified {misclassified} of {len(rows)} up to radius {largest:g}"
    bound = "" if misclassified == len(rows) else "at least "
    ratios = {"L-infinity": of("understated_linf"), "L2": of("understated_l2")}
    # A ratio below 1 says only that no larger noise was tried.
    overstated = [f"{bound}{ratio:.3g} times in {norm}" for norm, ratio in ratios.items() if ratio >= 1]
    return f"{sentence}, so it overstates the distance {' and '.join(overstated)}." if overstated else f"{sentence}."


def warnings(rows: Sequence[ImageRow], method: Method) -> Iterator[str]:
    """What limits the figures."""
    if method["gradients"] is None:
        yield (
            f"{method.get('unavailable')}. Gradient, Hessian and Jacobian are by finite differences along random "
            f"directions ({method['step']:g} grey level), sigma_max is a lower bound, and the distance to the boundary "
            "is unavailable."
        )
        if _steps(method):
            yield (
                f"The network quantises its input in steps of about {method['input_step']:.3g} grey levels: "
                f"differences over {method['step']:g} grey level are these steps, not a slope."
            )
        return
    of_images: Sequence[Mapping[str, Any]] = rows
    slow = sum(not row["sigma_converged"] for row in rows)
    if slow:
        yield f"{slow} images: the Lanczos iteration did not converge; sigma_max is a lower bound there."
    flat = sum(row.get("gradient_l2") == 0 for row in rows)
    if flat:
        yield f"{flat} images: the gradient is 0, so its equal share is undefined, and no attack has a direction."
    still = sum(row.get("sigma_max") == 0 for row in rows)
    if still:
        yield f"{still} images: the layer's Jacobian is 0, so what is measured by it is undefined."
    undefined = sum("gradient_l2" not in row for row in rows)
    if undefined:
        yield f"{undefined} images: no gradient, since the log-odds are undefined (a probability rounds to 0 or 1)."
    for name, what in (("fgsm_eps", "along the gradient's sign"), ("l2_distance", "by the minimum-distance attack")):
        lost = sum(not np.isfinite(figures[name]) for figures in of_images if name in figures)
        if lost:
            yield f"{lost} images: no other class was found {what}; they are left out of the median."
    error = method.get("hessian_graph_error")
    if error is not None and not str(method["hessian"]).startswith("forward"):
        yield (
            f"Hessian by {method['hessian']}: the graph's own differs from it by {error:.2g} of its size, since kinks "
            "(ReLU, max pooling) make the gradient jump: its figures hold at that scale, not at a point."
        )
