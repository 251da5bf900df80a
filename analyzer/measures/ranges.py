"""Ranges of the true-class score over one family of perturbations: what isotropy and symmetry have in common."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer.measures.quantities import CLASSES, FLAG, FRACTION, HIGHER, LOG_ODDS, LOWER, Quantity
from analyzer.measures.scores import TrueClass
from analyzer.measures.variables import Variable
from analyzer.statistics import rounding_range_factor


def score_range(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """range(r) = max_i s_i - min_i s_i over the trials (Eq. 4 for noise, Eq. 6 for permutations).

    Args:
        scores: (..., trial), probabilities or log-odds in nat.

    Returns:
        Shape (...), in the unit of `scores`. NaN where any trial is NaN: a range over the rest would be smaller than
        the true one.

    >>> score_range(np.array([[0.25, 0.75, 0.5], [0.25, 0.75, np.nan]])).tolist()
    [0.5, nan]
    """
    return np.asarray(np.max(scores, axis=-1) - np.min(scores, axis=-1))


def mean_score(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis (trial): shape (..., trial) -> (...). NaN where any trial is NaN."""
    return np.asarray(np.mean(scores, axis=-1, dtype=np.float64))


def misclassified(predicted: NDArray[np.integer], label: NDArray[np.integer]) -> NDArray[np.float64]:
    """Share of trials whose predicted class is not the label. The paper's square marker is "share above 0".

    Args:
        predicted: (..., trial), class indices, -1 where undefined.
        label: (...), or one for all, the true class; -1 where there is none.

    Returns:
        Shape (...), 0..1. NaN where any prediction is undefined, or the label.

    >>> misclassified(np.array([[1, 2, 1, 1], [1, 1, 1, -1]]), np.array([1, 1])).tolist()
    [0.25, nan]
    """
    wrong = np.mean(predicted != np.asarray(label)[..., None], axis=-1)
    return np.where((predicted == -1).any(axis=-1) | (np.asarray(label) == -1), np.nan, wrong)


def _wrong_trials(predicted: Any, label: Any) -> NDArray[np.float64]:
    return misclassified(predicted, label[:, None])


def _wrong(predicted: Any, label: Any) -> NDArray[np.float64]:
    share = _wrong_trials(predicted, label)
    return np.where(np.isnan(share), np.nan, share > 0)


def within_rounding(spread: NDArray[np.float64], floor: NDArray[np.float64], *, trials: int) -> NDArray[np.bool_]:
    """Whether a range of log-odds over so many trials is no more than rounding may do.

    range(r) <= `statistics.rounding_range_factor`(T) * floor; the floor is a range over 8 copies of the clean image,
    and the range of rounding alone grows with T. Arrays in nat that broadcast; False where one is NaN.
    """
    with np.errstate(invalid="ignore"):
        return np.asarray(spread <= rounding_range_factor(trials) * floor)


def _below_floor(log_odds: Any, floor: Any) -> NDArray[np.float64]:
    spread, floors = score_range(log_odds), floor[:, None]
    return np.where(np.isnan(spread + floors), np.nan, within_rounding(spread, floors, trials=log_odds.shape[-1]))


class FamilyScores(NamedTuple):
    """The scores of one family of perturbations: names of their variables, quantities, and words for pictures."""

    score: str
    log_odds: str
    predicted: str
    runner_up: str
    variables: tuple[Variable, ...]
    range: Quantity
    """Of the probability, or cosine."""
    log_odds_range: Quantity
    mean: Quantity
    wrong: Quantity
    """Whether any trial is misclassified."""
    wrong_trials: Quantity
    below_floor: Quantity
    """Whether the range of the log-odds is not above what rounding may do over as many trials."""
    figure: str
    """Stem of the figure's file name."""
    figure_title: str
    noise: str
    """What was varied, in the plural."""
    short: str
    """The same in a legend."""
    ideal: str
    """What a network without any range would be."""

    @property
    def names(self) -> tuple[str, str, str]:
        """Variables of score, log-odds and predicted class."""
        return self.score, self.log_odds, self.predicted

    def observe(self, seen: TrueClass) -> dict[str, NDArray[Any]]:
        """The variables of one image, shape (radius, trial)."""
        return dict(zip((*self.names, self.runner_up), seen, strict=True))


def family_scores(
    prefix: str, *, what: str, title: str, figure: str, figure_title: str, noise: str, short: str, ideal: str
) -> FamilyScores:
    """The scores of one family under the names `prefix_...`.

    what: the noise, for the variables' descriptions. title: with a place for {what} has a range.
    """
    score, log_odds, predicted, runner_up = (
        f"{prefix}_{name}" for name in ("score", "log_odds", "predicted", "runner_up_log_odds")
    )
    dims = ("image", "radius", "trial")
    wrong = Quantity(
        f"{prefix}_misclassified", (predicted, "label"), _wrong, more_robust=LOWER, kind=FLAG, needs=CLASSES
    )
    return FamilyScores(
        score,
        log_odds,
        predicted,
        runner_up,
        variables=(
            Variable(score, dims, "1", f"score of the true class, or cosine to the clean embedding, {what}"),
            Variable(log_odds, dims, "nat", f"log-odds of the true class, {what}"),
            Variable(predicted, dims, "1", f"predicted class index, {what}", integer=True),
            Variable(runner_up, dims, "nat", f"log-odds against the runner-up, {what}"),
        ),
        range=Quantity(
            f"{prefix}_range",
            (score,),
            score_range,
            more_robust=LOWER,
            by_trials=True,
            title=title.format(what="true-class score"),
        ),
        log_odds_range=Quantity(
            f"{prefix}_log_odds_range",
            (log_odds,),
            score_range,
            "nat",
            more_robust=LOWER,
            floor="log_odds_noise_floor",
            needs=LOG_ODDS,
            by_trials=True,
            title=title.format(what="log-odds, in each network's own scale"),
        ),
        mean=Quantity(f"{prefix}_score", (score,), mean_score, more_robust=HIGHER),
        wrong=wrong,
        wrong_trials=replace(wrong, name=f"{prefix}_misclassified_trials", reduce=_wrong_trials, kind=FRACTION),
        below_floor=Quantity(
            f"{prefix}_below_noise_floor", (log_odds, "log_odds_noise_floor"), _below_floor, kind=FLAG, needs=LOG_ODDS
        ),
        figure=figure,
        figure_title=figure_title,
        noise=noise,
        short=short,
        ideal=ideal,
    )
