"""The plane in words."""

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from analyzer.analyses.landscape import Landscape


def sentence(landscape: "Landscape") -> str:
    """What the plane shows."""
    clean, noisy, reordered = map(probability_text, landscape.marked_score)
    odds = landscape.marked_log_odds
    scores = f"The score is {clean} at the image, {noisy} with the noise, {reordered} with it reordered"
    if np.isfinite(odds).all():
        scores += f" (log-odds {odds[0]:.2f}, {odds[1]:.2f} and {odds[2]:.2f} nat)"
    share, nearest = landscape.misclassified_share, landscape.nearest
    if landscape.crossed and math.isfinite(share) and math.isfinite(nearest):
        return (
            f"{scores}. Another class is predicted on {share:.0%} of the window; its nearest point is {nearest:.2g} "
            "times as far from the image as the noise."
        )
    if landscape.crossed:
        return f"{scores}. Two classes have the same score on the boundary; no point of the window is of another class."
    if not np.isfinite(landscape.margin).any():
        return f"{scores}. The output is not finite at any point of the window, so no boundary can be said."
    inside = "inside" if (landscape.margin > 0).any() else "outside"
    return f"{scores}. No decision boundary runs through the window: all of it lies {inside} the class."


def probability_text(score: float) -> str:
    """A probability that differs from 1 however near it is: 0.98, 1 - 2.3e-6."""
    if not 0.999 < score < 1:
        return f"{score:.3g}" if math.isfinite(score) else "undefined"
    mantissa, _, power = f"{1 - score:.1e}".partition("e")
    return f"1 - {mantissa}e{int(power)}"
