"""Local symmetry (section 2.2, Eq. 5 and 6; Fig. 3): equal scores for every reordering of one perturbation.

The quantity is the range of isotropy, on the permutation family. A network that is isotropic is symmetric too.
Permuted i.i.d. noise is almost fresh noise when the image is large, so that a range equal to that of isotropy is
expected and no independent evidence: `excess` says by how much they differ.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.measures import base
from analyzer.measures.isotropy import score_range, score_rows, spread
from analyzer.statistics import FEW_IMAGES, Estimate, over_images, quantile_over_images

FAMILY = "permutation"
NEEDS_FEATURES = False
VARIABLES = base.score_variables("symmetry", "under permuted noise (Eq. 6)")
TITLE = "Symmetry: range of the true-class score over reorderings of one noise vector"
COLUMNS = (
    base.Column("median range", "symmetry_range_median", ".2g", interval=True),
    base.Column("90 % range", "symmetry_range_q90", ".2g", interval=True),
    base.Column("median range, nat", "symmetry_log_odds_range_median", ".2g", interval=True),
    base.Column("minus isotropy, nat", "symmetry_excess_median", "+.2g", interval=True),
    base.Column("images misclassified", "symmetry_misclassified_share", ".0%", interval=True),
)


def excess(permuted: NDArray[np.float64], fresh: NDArray[np.float64]) -> NDArray[np.float64]:
    """Range under permutation minus range under fresh noise of the same image: (..., trial) twice -> (...).

    Paired by image; zero on average where permuting adds nothing to what isotropy has shown. Same unit as the input.
    """
    return np.asarray(score_range(permuted) - score_range(fresh))


def relative_excess(permuted: NDArray[np.float64], fresh: NDArray[np.float64]) -> NDArray[np.float64]:
    """`excess` over the mean of the two ranges, between -2 and 2; NaN where both are 0. Shapes as in `excess`."""
    one, other = score_range(permuted), score_range(fresh)
    total = np.where(one + other > 0, one + other, np.nan)
    return np.asarray(2 * (one - other) / total)


def observe(around: base.Neighbourhood) -> dict[str, NDArray[Any]]:
    """`symmetry_*` of one image, shape (radius, trial)."""
    return base.observe_scores("symmetry", around.scores[FAMILY])


def summarise(dataset: Any) -> Iterator[base.Row]:
    """Rows per radius; `symmetry_excess_median` where isotropy was measured too, paired by image, in nat."""
    yield from score_rows("symmetry", dataset)
    if "isotropy_log_odds" not in dataset:
        return
    names = ("symmetry_log_odds", "isotropy_log_odds")
    paired, relative = base.by_image(
        dataset, names, lambda permuted, fresh: (excess(permuted, fresh), relative_excess(permuted, fresh))
    )
    for radius, values in zip(dataset["radius"].values, paired.T, strict=True):
        yield base.Row("symmetry_excess_median", float(radius), None, quantile_over_images(values, 0.5))
    yield base.Row("symmetry_relative_excess_mean", None, None, over_images(base.mean_of_known(relative), np.mean))


def sentence(rows: Mapping[str, Estimate], suffix: str = "") -> str:
    """What the ranges say, and whether they add anything to isotropy."""
    said = f"Symmetry: reordering one noise vector, {spread(rows, 'symmetry')}"
    relative = rows.get("symmetry_relative_excess_mean")
    if relative is None or relative.n == 0:
        return f"{said}; isotropy was not measured, or has no log-odds, to compare it with fresh noise."
    if relative.n < FEW_IMAGES or not np.isfinite(relative.low):
        return f"{said}; {relative.n} image(s) are too few to compare it with fresh noise."
    interval = f"{relative.low:+.0%} to {relative.high:+.0%}, paired over images"
    if relative.low <= 0 <= relative.high:
        return f"{said}; it cannot be told from fresh noise ({interval}), so it adds nothing to isotropy here."
    return f"{said}; that differs from fresh noise by {relative.value:+.0%} ({interval})."
