"""Local isotropy (section 2.1, Eq. 2 and 4; Fig. 1): equal scores at equal distance, in every direction.

An isotropic network has range 0. The range grows with the number of trials: compare it at equal T only.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.measures import base
from analyzer.statistics import Estimate, mean_share, over_images, quantile_over_images, share

FAMILY = "noise"
NEEDS_FEATURES = False
VARIABLES = base.score_variables("isotropy", "under fresh noise (Eq. 4)")
TITLE = "Isotropy: range of the true-class score over equal-length noise"
COLUMNS = (
    base.Column("median range", "isotropy_range_median", ".2g", interval=True),
    base.Column("90 % range", "isotropy_range_q90", ".2g", interval=True),
    base.Column("median range, nat", "isotropy_log_odds_range_median", ".2g", interval=True),
    base.Column("mean score", "isotropy_score_mean", ".4f"),
    base.Column("images misclassified", "misclassified_share", ".0%", interval=True),
)


def score_range(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """range(r) = max_i s_i - min_i s_i over the last axis (trial): shape (..., trial) -> (...).

    Probabilities or log-odds in, the same unit out. NaN where any trial is NaN: a range over the rest would be
    smaller than the true one.
    """
    return np.asarray(np.max(scores, axis=-1) - np.min(scores, axis=-1))


def mean_score(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis (trial): shape (..., trial) -> (...). NaN where any trial is NaN."""
    return np.asarray(np.mean(scores, axis=-1, dtype=np.float64))


def misclassified(predicted: NDArray[np.integer], label: NDArray[np.integer]) -> NDArray[np.float64]:
    """Share of trials whose predicted class is not the label: (..., trial) and (...) or scalar -> (...).

    NaN where any prediction is undefined (-1). The paper's square marker is "share above 0".
    """
    wrong = np.mean(predicted != np.asarray(label)[..., None], axis=-1)
    return np.where((predicted == -1).any(axis=-1), np.nan, wrong)


def score_rows(prefix: str, dataset: Any) -> Iterator[base.Row]:
    """Ranges, mean score and misclassification of one family, per radius: what isotropy and symmetry share."""
    floor = dataset["log_odds_noise_floor"].values
    names = ["label", *(f"{prefix}_{name}" for name in ("score", "log_odds", "predicted"))]

    def reduced(label: Any, score: Any, log_odds: Any, predicted: Any) -> tuple[NDArray[Any], ...]:
        wrong = misclassified(predicted, label[:, None])
        return score_range(score), score_range(log_odds), mean_score(score), wrong

    by_radius = [values.T for values in base.by_image(dataset, names, reduced)]
    for radius, ranges, log_odds, means, wrong in zip(dataset["radius"].values, *by_radius, strict=True):
        for name, estimate in (
            ("range_median", quantile_over_images(ranges, 0.5)),
            ("range_q90", quantile_over_images(ranges, 0.9)),
            ("log_odds_range_median", quantile_over_images(log_odds, 0.5)),
            ("log_odds_range_q90", quantile_over_images(log_odds, 0.9)),
            ("score_mean", over_images(means, np.mean)),
            ("misclassified_share", share(np.where(np.isnan(wrong), np.nan, wrong > 0))),
            ("misclassified_trials_mean", mean_share(wrong)),
            ("below_noise_floor_share", share(np.where(np.isnan(log_odds + floor), np.nan, log_odds <= 2 * floor))),
        ):
            yield base.Row(f"{prefix}_{name}", float(radius), None, estimate)


def observe(around: base.Neighbourhood) -> dict[str, NDArray[Any]]:
    """`isotropy_*` of one image, shape (radius, trial)."""
    return base.observe_scores("isotropy", around.scores[FAMILY])


def summarise(dataset: Any) -> Iterator[base.Row]:
    """Rows per radius; `misclassified_share` is the share of images with at least one misclassified trial."""
    floor = quantile_over_images(dataset["log_odds_noise_floor"].values, 0.5)
    yield base.Row("log_odds_noise_floor_median", None, None, floor)
    for row in score_rows("isotropy", dataset):
        yield row
        if row.name == "isotropy_misclassified_share":
            yield row._replace(name="misclassified_share")


def sentence(rows: Mapping[str, Estimate], suffix: str = "") -> str:
    """What the ranges say."""
    wrong = base.at(rows, "misclassified_share")
    flips = [radius for radius, estimate in wrong.items() if estimate.value > 0]
    flipped = (
        f"noise first misclassified an image at radius {min(flips):g}"
        if flips
        else "no perturbation changed the predicted class"
    )
    return f"Isotropy: {spread(rows, 'isotropy')}; {flipped}."


def spread(rows: Mapping[str, Estimate], prefix: str) -> str:
    """The range at the smallest and largest radius, in nat where log-odds are defined, else as a probability."""
    for name, what, unit in (
        ("log_odds_range_median", "log-odds of the true class spread", " nat"),
        ("range_median", "true-class probability spreads", ""),
    ):
        ranges = {radius: e for radius, e in base.at(rows, f"{prefix}_{name}").items() if np.isfinite(e.value)}
        if ranges:
            each = [f"{ranges[r].value:.2g}{unit} at radius {r:g}" for r in sorted({min(ranges), max(ranges)})]
            return f"the {what} over {' and '.join(each)} (median of {ranges[max(ranges)].n} images)"
    return "the range is undefined"
