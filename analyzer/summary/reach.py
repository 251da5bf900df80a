"""Radii at which noise changes nothing, since it does not reach a network that works in steps."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from analyzer.measures import REGISTRY
from analyzer.statistics import Estimate
from analyzer.store.documents import Calibration
from analyzer.summary.names import radius_text

_RATIO_OF_RATIOS = "lipschitz_growth"
_IMAGES_AT_ONCE = 16


def unreached(measured: Any) -> list[float]:
    """The radii at which something was added to the pixels, and no score and no feature of any image moved."""
    moved = np.zeros(measured.sizes["radius"], bool)
    responses = {measure.scores.log_odds if measure.scores else "feature_distance" for measure in REGISTRY.values()}
    responses = {name for name in responses if name in measured}
    if not responses or not measured.sizes["image"]:
        return []
    for start in range(0, measured.sizes["image"], _IMAGES_AT_ONCE):
        block = measured.isel(image=slice(start, start + _IMAGES_AT_ONCE))
        for name in responses:
            values = block[name].values
            if name != "feature_distance":
                values = values - block["clean_log_odds"].values[:, None, None]
            # NaN counts as moved: nothing is known of it.
            moved |= (values != 0).reshape(*values.shape[:2], -1).any(axis=(0, 2))
        if moved.all():
            return []
    if "input_distance_l2" in measured:
        moved |= (measured["input_distance_l2"].values == 0).all(axis=(0, 2))  # nothing was added: said elsewhere
    return [float(radius) for radius in measured["radius"].values[~moved]]


def pixel_radii(measured: Any) -> list[float]:
    """How far noise of each radius moves a pixel at most: the radius itself, but for the L2 norm, rounding, clipping.

    Median over images and trials of the largest change, grey levels; the radius where it was not measured.
    """
    if "input_distance_linf" not in measured or not measured.sizes["image"]:
        return [float(radius) for radius in measured["radius"].values]
    largest = measured["input_distance_linf"].values
    return [
        float(np.nanmedian(largest[:, k])) if np.isfinite(largest[:, k]).any() else 0.0 for k in range(largest.shape[1])
    ]


def warnings(measured: Any, calibration: Calibration) -> Iterator[str]:
    """What to know of the radii that are too small for a network's steps."""
    still, grid = unreached(measured), calibration.get("input_grid")
    radii = [float(radius) for radius in measured["radius"].values]
    moves = dict(zip(radii, pixel_radii(measured), strict=True))
    below = [] if grid is None else [r for r in radii if moves[r] < grid["step"] and r not in still]
    if still:
        noise = f"Noise of radius {', '.join(map(radius_text, still))}"
        reaching = [radius for radius in radii if radius > max(still)]
        if grid is not None and grid["reach"] is not None and grid["reach"] >= max(moves[radius] for radius in still):
            yield (
                f"{noise} does not reach the network: its input is quantised in steps of {_grey_levels(grid['step'])},"
                f" and the smallest change of a pixel that changes its step in these images is {grid['reach']:.3g}."
            )
        elif reaching:
            smallest = radius_text(reaching[0])
            yield f"{noise} moves no score and no feature; the smallest radius here that does is {smallest}."
        else:
            yield f"{noise} moves no score and no feature: the network works in larger steps, or does not vary at all."
    if below and grid is not None:
        yield (
            f"Radius {', '.join(map(radius_text, below))}: smaller than the steps of {_grey_levels(grid['step'])} in "
            "which the network quantises its input; what is measured there are these steps, not a slope."
        )


def starts_below_steps(measured: Any, calibration: Calibration) -> bool:
    """Whether the smallest radius lies below the steps of the network's input: no ratio of ratios means anything."""
    grid = calibration.get("input_grid")
    return grid is not None and pixel_radii(measured)[int(np.argmin(measured["radius"].values))] < grid["step"]


def without_ratios_of_ratios(rows: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """`rows` with those undefined."""
    undefined = Estimate(np.nan, np.nan, np.nan, 0)
    return {name: undefined if name.startswith(_RATIO_OF_RATIOS) else estimate for name, estimate in rows.items()}


def _grey_levels(value: float) -> str:
    text = f"{value:.3g}"
    return f"{text} grey level" if text == "1" else f"{text} grey levels"
