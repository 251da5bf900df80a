"""Local symmetry (section 2.2, Eq. 5 and 6; Fig. 3): equal scores for every reordering of one perturbation.

The quantity is the range of isotropy, on the permutation family. A network that is isotropic is symmetric too.
Permuted i.i.d. noise is almost fresh noise when the image is large, so that a range equal to that of isotropy is
expected and no independent evidence: `excess` says by how much they differ.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.measures.base import Measure, Observation
from analyzer.measures.quantities import LOG_ODDS, Number, Quantity
from analyzer.measures.ranges import family_scores, score_range
from analyzer.measures.scores import LogOddsStatus

SCORES = family_scores(
    "symmetry",
    what="under permuted noise (Eq. 6)",
    title="Symmetry: range of the {what}",
    figure="fig3_symmetry",
    figure_title="Symmetry: score range over reordered noise",
    noise="reorderings of one noise vector",
    short="reordered noise",
    ideal="symmetric",
)
_FRESH = "isotropy_log_odds"
"""The variable of the measure that this one is compared with, where a run has it."""


def excess(permuted: NDArray[np.float64], fresh: NDArray[np.float64]) -> NDArray[np.float64]:
    """Range under permutation (Eq. 6) minus range under fresh noise (Eq. 4), of the same image.

    Zero on average where permuting adds nothing to what isotropy has shown.

    Args:
        permuted: (..., trial), scores of reorderings of one noise vector: probabilities, or log-odds in nat.
        fresh: (..., trial), those of fresh noise of equal length; as many trials, since a range grows with them.

    Returns:
        Shape (...), in the unit of the scores. NaN where any trial is NaN.

    >>> excess(np.array([0.25, 1.0, 0.5]), np.array([0.25, 0.5, 0.5])).tolist()
    0.5
    """
    return np.asarray(score_range(permuted) - score_range(fresh))


def relative_excess(permuted: NDArray[np.float64], fresh: NDArray[np.float64]) -> NDArray[np.float64]:
    """`excess` over the mean of the two ranges, between -2 and 2; NaN where both are 0. Shapes as in `excess`."""
    one, other = score_range(permuted), score_range(fresh)
    total = np.where(one + other > 0, one + other, np.nan)
    return np.asarray(2 * (one - other) / total)


def _relative_excess(permuted: Any, fresh: Any, cosine: Any, fresh_cosine: Any, status: Any) -> NDArray[np.float64]:
    """Of the log-odds; of an embedding, which has none, of the cosines."""
    embedded = (status == LogOddsStatus.EMBEDDING)[:, None]
    return np.where(embedded, relative_excess(cosine, fresh_cosine), relative_excess(permuted, fresh))


EXCESS = Quantity("symmetry_excess", (SCORES.log_odds, _FRESH), excess, "nat", by_trials=True, needs=LOG_ODDS)
RELATIVE_EXCESS = Quantity(
    "symmetry_relative_excess",
    (SCORES.log_odds, _FRESH, SCORES.score, "isotropy_score", "log_odds_status"),
    _relative_excess,
    near_normal=True,
    by_trials=True,
)
_NUMBERS = (
    Number(
        "symmetry_range_median",
        SCORES.range,
        "median",
        "median range",
        ".2g",
        interval=True,
        deciding="symmetry, score",
    ),
    Number("symmetry_range_q90", SCORES.range, "q90", "90 % range", ".2g", interval=True),
    Number(
        "symmetry_log_odds_range_median",
        SCORES.log_odds_range,
        "median",
        "median range, nat",
        ".2g",
        interval=True,
        deciding="symmetry, nat",
    ),
    Number("symmetry_log_odds_range_q90", SCORES.log_odds_range, "q90"),
    Number("symmetry_score_mean", SCORES.mean, "mean"),
    Number(
        "symmetry_misclassified_share", SCORES.wrong, "share", "images misclassified", ".0%", interval=True, last=True
    ),
    Number("symmetry_misclassified_trials_mean", SCORES.wrong_trials, "mean"),
    Number("symmetry_below_noise_floor_share", SCORES.below_floor, "share"),
    Number("symmetry_excess_median", EXCESS, "median", "minus isotropy, nat", "+.2g", interval=True, block=1),
    Number("symmetry_relative_excess_mean", RELATIVE_EXCESS, "mean", by_radius=False, overall=True, block=2),
)


def observe(around: Observation) -> dict[str, NDArray[Any]]:
    """`symmetry_*` of one image, shape (radius, trial)."""
    return SCORES.observe(around.scores["permutation"])


MEASURE = Measure(
    title="Symmetry: range of the true-class score over reorderings of one noise vector",
    family="permutation",
    variables=SCORES.variables,
    observe=observe,
    numbers=_NUMBERS,
    compared=(SCORES.log_odds_range,),
    scores=SCORES,
)
