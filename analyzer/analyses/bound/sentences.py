"""The bound in words."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analyzer.analyses.bound.documents import BoundDocument, BoundRow

CERTIFIED = (
    "Norms of weights are certified upper bounds: a convolution's from its spectrum on a grid of frequencies, with "
    "what the grid may miss added, a matrix's by Cholesky factorisation. Power iteration at the layer's real input "
    "size comes from below and is shown as a check only."
)
CAVEAT = (
    "A product of worst cases that never occur together: usually larger by many orders of magnitude than what any "
    "perturbation does. It holds everywhere; the sampled ratios, where they were measured."
)
_GROWING = 1e-3  # relative change in the last power iteration


def up_to(row: "BoundRow") -> str:
    """The bound of one layer or of the scores, with what a run sampled there."""
    target = f"{'layer' if row['what'] == 'layer' else 'the scores'} {row['tensor']}"
    if row["bound"] is None or row["bound_per_grey_level"] is None or not math.isfinite(row["bound"]):
        sentence = f"Up to {target}: unavailable, because of {row['reason'] or 'a norm that is not finite'}."
    else:
        sentence = (
            f"Up to {target}: at most {row['bound']:.4g} per unit of the normalised input, "
            f"{row['bound_per_grey_level']:.4g} per grey level."
        )
    normalised = row.get("bound_normalised")
    if normalised is not None:
        sentence += f" By the run's ranges of g and h: at most {normalised:.4g}."
    sampled = {name: figure["value"] for name, figure in row.get("local", {}).items()}
    sampled = {name: value for name, value in sampled.items() if value is not None and math.isfinite(value)}
    if sampled.keys() >= {"lipschitz_median", "lipschitz_q95", "lipschitz_below_one_share"}:
        sentence += (
            f" Sampled there: median {sampled['lipschitz_median']:.4g}, 95 % quantile "
            f"{sampled['lipschitz_q95']:.4g}, {sampled['lipschitz_below_one_share']:.1%} below 1."
        )
    return sentence


def units(document: "BoundDocument") -> str:
    """What the bounds are counted in."""
    sentence = (
        "Units: feature or score units per unit of the normalised input (after mean and std), and the same per grey "
        f"level of the pixels (divided by the smallest std, {document['smallest_std']:.4g})"
    )
    if any(row.get("bound_normalised") is not None for row in document["bounds"]):
        sentence += (
            "; by the run's ranges: the latter times range of h / range of g, without a unit, as the sampled ratios L_x"
        )
    return sentence + "."


def still_growing(document: "BoundDocument") -> Iterator[str]:
    """The power iterations that had not settled when they ended."""
    for row in document["operators"]:
        below = row["estimate"]
        if below is not None and math.isfinite(below["change"]) and below["change"] > _GROWING:
            yield (
                f"{row['name']}: power iteration still grew by {below['change']:.1%} in its last of "
                f"{below['iterations']} iterations"
            )


def without_rule(document: "BoundDocument") -> Iterator[str]:
    """The operators that have no norm, those of one kind and reason together."""
    alike: dict[tuple[str, str], list[str]] = {}
    for row in document["missing"]:
        alike.setdefault((row["operator"], row["reason"]), []).append(row["name"])
    for (operator, reason), names in alike.items():
        yield f"{operator} ({', '.join(names)}) has no rule: {reason}; the bound is unavailable from there on"
