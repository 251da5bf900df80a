"""The paper's four claims, put to the test on one run: the figure that decides each, its interval, and a verdict.

(1) isotropic at epsilon, not at radius 1 and beyond (section 2.1); (2) not symmetric (2.2); (3) |Mantel r| below 0.1
already at epsilon (2.3); (4) L_x below 1 for most perturbations, although the global Lipschitz bound is above 1 (2.4).
Epsilon is the run's smallest radius, below 1 grey level. Claims about features are about the run's last layer.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer.measures import base, lipschitz
from analyzer.measures.isotropy import score_range
from analyzer.measures.symmetry import relative_excess
from analyzer.statistics import FEW_IMAGES, Estimate, mean_share, over_images, quantile_over_images, share
from analyzer.summary import MEASURED, radius_text

HOLDS, FAILS, UNKNOWN = "holds", "does not hold", "cannot be told"
AS_LINEAR = "holds, but a linear map would do the same"
NO_MORE = "holds, but symmetry adds nothing beyond isotropy here"
SAME_SCORE = 0.01
"""A range of the true-class probability below which "the score does not significantly change"."""
LOW_MANTEL = 0.1
LINEAR_ERROR = 0.25
"""The linear reference itself errs by up to a quarter."""


class Figure(NamedTuple):
    """A number that a verdict rests on."""

    name: str
    estimate: Estimate


class Claim(NamedTuple):
    """One claim: its text, the figures behind the verdict, the verdict, and why."""

    number: int
    claim: str
    figures: tuple[Figure, ...]
    verdict: str
    reason: str


Verdict = tuple[tuple[Figure, ...], str, str]


def claims(dataset: Any, *, bound: float | None = None, no_bound: str = "was not computed") -> list[Claim]:
    """The verdicts on a run, of which `analyzer.open_run` gives the data set, also on one that is not complete.

    bound: the global Lipschitz bound in the normalised units of L_x; where it is None, `no_bound` says why. A claim
    whose measure was not run, or with fewer than 10 images, cannot be told.
    """
    measured = dataset.isel(image=np.flatnonzero(dataset["image_status"].values == MEASURED))
    count = measured.sizes["image"]
    table: tuple[tuple[str, str, Callable[[Any], Verdict]], ...] = (
        ("isotropic at epsilon, not at radius 1 and beyond", "isotropy_log_odds", _isotropy),
        ("not symmetric", "symmetry_log_odds", _symmetry),
        (f"|Mantel r| < {LOW_MANTEL:g} already at epsilon", "mantel_r", _topology),
        (
            "L_x < 1 for most perturbations, although the global bound is > 1",
            "feature_distance",
            partial(_lipschitz, bound=bound, no_bound=no_bound),
        ),
    )
    result = []
    for number, (text, variable, judge) in enumerate(table, 1):
        if variable not in measured:
            verdict: Verdict = (), UNKNOWN, "the run has not measured it"
        elif count < FEW_IMAGES:
            verdict = (), UNKNOWN, f"{count} image(s): below {FEW_IMAGES}, intervals mislead"
        else:
            verdict = judge(measured)
        result.append(Claim(number, text, *verdict))
    return result


def to_document(judged: Sequence[Claim]) -> list[dict[str, Any]]:
    """The claims as JSON: number, claim, figures (name -> value, low, high, n), verdict, reason."""
    return [{**c._asdict(), "figures": {f.name: f.estimate._asdict() for f in c.figures}} for c in judged]


def _isotropy(measured: Any) -> Verdict:
    radii = measured["radius"].values
    epsilon, later = radii[0], [k for k, radius in enumerate(radii) if radius >= 1]
    if epsilon >= 1 or not later:
        return (), UNKNOWN, "the claim needs a radius below 1 and one from 1 on"

    def ranges(score: Any, log_odds: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        return score_range(score), score_range(log_odds)

    scores, log_odds = base.by_image(measured, ("isotropy_score", "isotropy_log_odds"), ranges)
    near, far = (quantile_over_images(scores[:, k], 0.5) for k in (0, later[0]))
    floor = 2 * measured["log_odds_noise_floor"].values
    heard = np.where(log_odds[:, 0] > floor, log_odds[:, 0], np.nan)
    growth = quantile_over_images(log_odds[:, later[0]] / heard, 0.5)
    one = radius_text(radii[later[0]])
    figures: tuple[Figure, ...] = (
        Figure(f"isotropy_range_median@{radius_text(epsilon)}", near),
        Figure(f"isotropy_range_median@{one}", far),
        Figure(f"isotropy_log_odds_range_growth_to_{one}", growth),
    )
    steps = float(radii[later[0]] / epsilon)
    grows = (
        f"; the log-odds range grows {growth.value:.2g}-fold from {radius_text(epsilon)} to {one}, where that of "
        f"a linear map grows {steps:.2g}-fold"
        if np.isfinite(growth.value)
        else ""
    )
    said = f"the score's range is {near.value:.2g} at epsilon and {far.value:.2g} at radius {one} (median)"
    same, other = near.high < SAME_SCORE, far.low >= SAME_SCORE
    if same and other:
        alike = np.isfinite(growth.low) and growth.low <= 1.1 * steps and growth.high >= 0.9 * steps
        return figures, AS_LINEAR if alike else HOLDS, said + grows
    if far.high < SAME_SCORE:
        last = quantile_over_images(scores[:, -1], 0.5)
        figures += (Figure(f"isotropy_range_median@{radius_text(radii[-1])}", last),)
        beyond = f", {last.value:.2g} at radius {radius_text(radii[-1])}"
        return figures, FAILS, f"{said}{beyond}: below {SAME_SCORE:g} beyond epsilon as well{grows}"
    if near.low >= SAME_SCORE:
        return figures, FAILS, f"{said}: {SAME_SCORE:g} or more at epsilon already{grows}"
    return figures, UNKNOWN, f"{said}; an interval holds {SAME_SCORE:g}, or there is none{grows}"


def _symmetry(measured: Any) -> Verdict:
    radii = measured["radius"].values
    k = next((k for k, radius in enumerate(radii) if radius >= 1), len(radii) - 1)
    (permuted,) = base.by_image(measured, ("symmetry_log_odds",), lambda values: (score_range(values),))
    floor = measured["log_odds_noise_floor"].values
    above = share(np.where(np.isnan(permuted[:, k]), np.nan, permuted[:, k] > 2 * floor))
    figures = [Figure(f"symmetry_above_noise_floor_share@{radius_text(radii[k])}", above)]
    said = f"at radius {radius_text(radii[k])}, reordering the noise moves {above.value:.0%} of the images' log-odds"
    if above.n == 0:
        return tuple(figures), UNKNOWN, "the log-odds are undefined throughout"
    if not above.low > 0.5:
        verdict = FAILS if above.high < 0.5 else UNKNOWN
        return tuple(figures), verdict, f"{said} above the noise floor"
    if "isotropy_log_odds" not in measured:
        return tuple(figures), HOLDS, f"{said}; isotropy was not measured, to compare it with fresh noise"
    (relative,) = base.by_image(
        measured, ("symmetry_log_odds", "isotropy_log_odds"), lambda one, other: (relative_excess(one, other),)
    )
    excess = over_images(base.mean_of_known(relative), np.mean)
    figures.append(Figure("symmetry_relative_excess_mean", excess))
    interval = f"{excess.low:+.1%} to {excess.high:+.1%} of the range, paired over images"
    if excess.low <= 0 <= excess.high:
        return tuple(figures), NO_MORE, f"{said}, as much as fresh noise does ({interval})"
    return tuple(figures), HOLDS, f"{said}; reordered and fresh noise differ ({interval})"


def _topology(measured: Any) -> Verdict:
    radius, layer = radius_text(measured["radius"].values[0]), str(measured["layer"].values[-1])
    r, linear = (measured[name].values[:, 0, -1] for name in ("mantel_r", "mantel_r_linear"))
    mean, difference = over_images(r, np.mean), over_images(r - linear, np.mean)
    expected = over_images(linear, np.mean)
    figures = (
        Figure(f"mantel_r_mean@{radius}", mean),
        Figure(f"mantel_r_linear_mean@{radius}", expected),
        Figure(f"mantel_r_minus_linear_mean@{radius}", difference),
    )
    said = (
        f"r averages {mean.value:+.3f} at radius {radius} (layer {layer}), that of a linear map of equal participation "
        f"ratio {expected.value:+.3f}; the difference is {difference.low:+.3f} to {difference.high:+.3f}"
    )
    if not (np.isfinite(mean.low) and np.isfinite(difference.low)) or mean.n < FEW_IMAGES:
        return figures, UNKNOWN, f"{said}; r is defined on {mean.n} image(s)"
    if mean.low >= LOW_MANTEL or mean.high <= -LOW_MANTEL:
        return figures, FAILS, said
    if mean.low <= -LOW_MANTEL or mean.high >= LOW_MANTEL:
        return figures, UNKNOWN, f"{said}; the interval holds {LOW_MANTEL:g}"
    allowed = LINEAR_ERROR * abs(expected.value)
    alike = difference.low <= allowed and difference.high >= -allowed
    return figures, AS_LINEAR if alike else HOLDS, said


def _lipschitz(measured: Any, *, bound: float | None, no_bound: str) -> Verdict:
    layer = str(measured["layer"].values[-1])
    input_range, (width,) = lipschitz.ranges(json.loads(measured.attrs["calibration"]), [layer])

    def below(moved: Any, added: Any) -> tuple[NDArray[Any]]:
        ratios = lipschitz.ratio(moved[..., -1], added, input_range=input_range, feature_range=width)
        return (lipschitz.share_below(ratios.reshape(len(ratios), -1), 1.0),)

    (shares,) = base.by_image(measured, ("feature_distance", "input_distance_l2"), below)
    most = mean_share(shares)
    figures = [Figure("lipschitz_below_one_share", most)]
    if most.n == 0:
        return tuple(figures), UNKNOWN, "the ratio is undefined throughout"
    said = f"{most.value:.1%} of the perturbations have L_x < 1 (layer {layer}); random noise sees a lower bound"
    if bound is None:
        beside = f"; the global bound {no_bound}"
    else:
        figures.append(Figure("global_bound_normalised", Estimate(bound, np.nan, np.nan, 1)))
        beside = f"; the global bound is {bound:.3g}"
    if most.high < 0.5 or (bound is not None and bound <= 1):
        return tuple(figures), FAILS, said + beside
    # Where all images agree there is no interval, or Wilson's.
    low = most.low if np.isfinite(most.low) else most.value
    if low <= 0.5 or bound is None:
        return tuple(figures), UNKNOWN, said + beside
    return tuple(figures), HOLDS, said + beside
