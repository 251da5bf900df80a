"""Local isotropy (section 2.1, Eq. 2 and 4; Fig. 1): equal scores at equal distance, in every direction.

An isotropic network has range 0. The range grows with the number of trials: compare it at equal T only.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.measures.base import Measure, Observation
from analyzer.measures.quantities import LOG_ODDS, Number, Quantity
from analyzer.measures.ranges import family_scores, mean_score, misclassified, score_range

__all__ = ["mean_score", "misclassified", "score_range"]

SCORES = family_scores(
    "isotropy",
    what="under fresh noise (Eq. 4)",
    title="Isotropy: range of the {what}",
    figure="fig1_isotropy",
    figure_title="Isotropy: score range over equally long noise",
    noise="noise vectors of equal length",
    short="fresh noise",
    ideal="isotropic",
)
WRONG = replace(SCORES.wrong, name="misclassified", title="Share of images that noise misclassifies")
_FLOOR = Quantity("log_odds_noise_floor", ("log_odds_noise_floor",), np.asarray, "nat", radial=False, needs=LOG_ODDS)
_NUMBERS = (
    Number("log_odds_noise_floor_median", _FLOOR, "median", by_radius=False, overall=True),
    Number(
        "isotropy_range_median",
        SCORES.range,
        "median",
        "median range",
        ".2g",
        interval=True,
        glance="range of the true-class score",
        deciding="isotropy, score",
        block=1,
    ),
    Number("isotropy_range_q90", SCORES.range, "q90", "90 % range", ".2g", interval=True, block=1),
    Number(
        "isotropy_log_odds_range_median",
        SCORES.log_odds_range,
        "median",
        "median range, nat",
        ".2g",
        interval=True,
        glance="range of the log-odds, nat",
        deciding="isotropy, nat",
        block=1,
    ),
    Number("isotropy_log_odds_range_q90", SCORES.log_odds_range, "q90", block=1),
    Number("isotropy_score_mean", SCORES.mean, "mean", "mean score", ".4f", block=1),
    Number("isotropy_misclassified_share", SCORES.wrong, "share", block=1),
    Number(
        "misclassified_share",
        WRONG,
        "share",
        "images misclassified",
        ".0%",
        interval=True,
        glance="images misclassified by some noise",
        block=1,
    ),
    Number("isotropy_misclassified_trials_mean", SCORES.wrong_trials, "mean", block=1),
    Number("isotropy_below_noise_floor_share", SCORES.below_floor, "share", block=1),
)


def observe(around: Observation) -> dict[str, NDArray[Any]]:
    """`isotropy_*` of one image, shape (radius, trial)."""
    return SCORES.observe(around.scores["noise"])


MEASURE = Measure(
    title="Isotropy: range of the true-class score over equal-length noise",
    family="noise",
    variables=SCORES.variables,
    observe=observe,
    numbers=_NUMBERS,
    compared=(SCORES.log_odds_range, WRONG),
    scores=SCORES,
)
