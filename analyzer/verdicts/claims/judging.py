"""The verdict on each claim, from a run's data set."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer.card import EMBEDDING
from analyzer.measures import isotropy, lipschitz, symmetry, topology
from analyzer.measures.quantities import by_image, mean_of_known, per_image
from analyzer.measures.ranges import within_rounding
from analyzer.statistics import FEW_IMAGES, Estimate, mean_over_images, mean_share, quantile_over_images, share
from analyzer.store import scales_of
from analyzer.summary import layer_suffix, measured_images, name_of, radius_text, reach
from analyzer.summary.sentences import SAME_RANGE, changes_clearly
from analyzer.verdicts.claims.figures import Figure, departures, interval_of

HOLDS, FAILS, UNKNOWN = "holds", "does not hold", "cannot be told"
AS_LINEAR = "holds, but a linear map would do the same"
NOT_LINEAR = "holds, also met by a linear map, but this network is not one"
NO_MORE = "holds, but symmetry adds nothing beyond isotropy here"
SAME_SCORE = 0.01
"""A range of the true-class probability below which "the score does not significantly change"."""
LOW_MANTEL = 0.1
SAME_GROWTH = 0.25
"""How far the growth of a range may be from that of a linear map and still count as its."""


class Claim(NamedTuple):
    """One claim: its text, the figures behind the verdict, the verdict, and why."""

    number: int
    claim: str
    figures: tuple[Figure, ...]
    verdict: str
    reason: str


Verdict = tuple[tuple[Figure, ...], str, str]


def judge(dataset: Any, *, bound: float | None = None, no_bound: str = "was not computed") -> list[Claim]:
    """The verdicts on a run, of which `analyzer.open_run` gives the data set, also on one that is not complete.

    bound: the global Lipschitz bound in the normalised units of L_x; where it is None, `no_bound` says why. A claim
    whose measure was not run, or with fewer than 10 images, cannot be told.
    """
    measured = measured_images(dataset)
    count = measured.sizes["image"]
    layer, wanted = _feature(measured)
    embedded = json.loads(measured.attrs["manifest"])["context"].get("kind") == EMBEDDING
    bound = bound if bound is not None and np.isfinite(bound) else None
    table: tuple[tuple[str, str, Callable[[Any], Verdict]], ...] = (
        ("isotropic at epsilon, not at radius 1 and beyond", isotropy.SCORES.log_odds, _isotropy),
        ("not symmetric: reordering moves the log-odds by more than rounding", symmetry.SCORES.log_odds, _symmetry),
        (f"|Mantel r| < {LOW_MANTEL:g} already at epsilon", topology.R.reads[0], partial(_topology, layer=layer or 0)),
        (
            "L_x < 1 for most perturbations, although the global bound is > 1",
            lipschitz.RAW.reads[0],
            partial(_lipschitz, layer=layer or 0, bound=bound, no_bound=no_bound),
        ),
    )
    stepping = reach.steps(measured) if count else 0.0
    in_steps = f"; below about radius {stepping:.2g} the network answers with its rounding steps" if stepping else ""
    result = []
    for number, (text, variable, decide) in enumerate(table, 1):
        if embedded and "log_odds" in variable:
            verdict: Verdict = (), UNKNOWN, "it is about the score of the true class, and an embedding has none"
        elif variable not in measured:
            verdict = (), UNKNOWN, "the run has not measured it"
        elif count < FEW_IMAGES:
            verdict = (), UNKNOWN, f"{count} image(s): below {FEW_IMAGES}, intervals mislead"
        elif layer is None and "layer" in measured[variable].dims:
            verdict = (), UNKNOWN, f"the layer before the classification, {wanted}, is not among the run's layers"
        else:
            figures, word, reason = decide(measured)
            verdict = figures, word, reason + in_steps
        result.append(Claim(number, text, *verdict))
    return result


def _feature(measured: Any) -> tuple[int | None, str]:
    """Place and name of the layer just before the classification: the only one, or the one the run says it is."""
    layers = [str(name) for name in measured["layer"].values]
    wanted = str(json.loads(measured.attrs["manifest"])["context"].get("feature"))
    if len(layers) == 1:
        return 0, layers[0]
    return (layers.index(wanted) if wanted in layers else None), wanted


def feature_layer(dataset: Any) -> str:
    """Name of the layer that claims (3) and (4) are about."""
    return _feature(dataset)[1]


def _few(what: str, estimate: Estimate) -> str:
    if estimate.n >= FEW_IMAGES:
        return f"{what} has no interval over its {estimate.n} images, being skewed or the same for all"
    return f"{what} is defined on {estimate.n} image(s); {FEW_IMAGES} are needed"


def _isotropy(measured: Any) -> Verdict:
    radii = measured["radius"].values
    later = [k for k, radius in enumerate(radii) if radius >= 1]
    if radii[0] >= 1 or not later:
        return (), UNKNOWN, "the claim needs a radius below 1 and one from 1 on"

    quantities = (isotropy.SCORES.range, isotropy.SCORES.log_odds_range)
    scores, log_odds = per_image(measured, quantities, scales_of(measured))
    medians = [quantile_over_images(column, 0.5) for column in scores.T]
    names = [name_of(f"{isotropy.SCORES.range.name}_median", radius=radius) for radius in radii]
    near, far = medians[0], medians[later[0]]
    floor = measured["log_odds_noise_floor"].values
    rounding = within_rounding(log_odds[:, 0], floor, trials=measured.sizes["trial"])
    above_floor = np.where(rounding, np.nan, log_odds[:, 0])
    growth = quantile_over_images(log_odds[:, later[0]] / above_floor, 0.5)
    steps = float(radii[later[0]] / radii[0])
    figures = (
        Figure(names[0], near),
        Figure(names[later[0]], far),
        Figure(f"{isotropy.SCORES.log_odds_range.name}_growth", growth),
    )
    one, growing = radius_text(radii[later[0]]), interval_of(growth)
    text = (
        f"the score's range is {near.value:.2g} at radius {radius_text(radii[0])} and {far.value:.2g} at {one} (median)"
    )
    compared = (
        f"; the log-odds range grows {growth.value:.2g}-fold in between, that of a linear map {steps:.2g}-fold"
        if growing
        else "; how its log-odds grow cannot be compared with a linear map"
    )
    around, beyond = interval_of(near), interval_of(far)
    if around is None or beyond is None:
        return figures, UNKNOWN, _few("the range", near)
    if around[1] < SAME_SCORE <= beyond[0]:
        margin = SAME_GROWTH * steps
        alike = growing is not None and steps - margin <= growing[0] and growing[1] <= steps + margin
        return figures, AS_LINEAR if alike else HOLDS, text + compared
    if beyond[1] < SAME_SCORE:
        reached = [k for k in later if medians[k].value >= SAME_SCORE]
        where = (
            f"it reaches {SAME_SCORE:g} first at radius {radius_text(radii[reached[0]])}"
            if reached
            else f"it stays below {SAME_SCORE:g} up to radius {radius_text(radii[-1])} ({medians[-1].value:.2g})"
        )
        return figures, FAILS, f"{text}: below {SAME_SCORE:g} there too; {where}{compared}"
    if around[0] >= SAME_SCORE:
        return figures, FAILS, f"{text}: {SAME_SCORE:g} or more at the smallest radius already{compared}"
    return figures, UNKNOWN, f"{text}; an interval holds {SAME_SCORE:g}{compared}"


def _symmetry(measured: Any) -> Verdict:
    radii = measured["radius"].values
    k = next((k for k, radius in enumerate(radii) if radius >= 1), len(radii) - 1)
    (permuted,) = per_image(measured, (symmetry.SCORES.log_odds_range,), scales_of(measured))
    floor = measured["log_odds_noise_floor"].values
    rounding = within_rounding(permuted[:, k], floor, trials=measured.sizes["trial"])
    above = share(np.where(np.isnan(permuted[:, k]), np.nan, ~rounding))
    figures: tuple[Figure, ...] = (Figure(f"symmetry_above_noise_floor_share@{radius_text(radii[k])}", above),)
    bounds = interval_of(above)
    if bounds is None:
        return figures, UNKNOWN, _few("the log-odds range", above)
    text = (
        f"at radius {radius_text(radii[k])}, reordering moves the log-odds by more than rounding may "
        f"in {above.value:.0%} of the images"
    )
    if bounds[0] <= 0.5:
        return figures, FAILS if bounds[1] < 0.5 else UNKNOWN, text
    if not symmetry.RELATIVE_EXCESS.measured_in(measured):
        return figures, HOLDS, f"{text}; isotropy was not measured, to compare it with fresh noise"
    (relative,) = per_image(measured, (symmetry.RELATIVE_EXCESS,), scales_of(measured))
    excess = mean_over_images(mean_of_known(relative), near_normal=symmetry.RELATIVE_EXCESS.near_normal)
    figures += (Figure(f"{symmetry.RELATIVE_EXCESS.name}_mean", excess),)
    between = interval_of(excess)
    if between is None:
        return figures, HOLDS, f"{text}; {_few('the difference from fresh noise', excess)}"
    interval = f"{between[0]:+.1%} to {between[1]:+.1%} of the range, paired over images"
    if max(-between[0], between[1]) < SAME_RANGE:
        return figures, NO_MORE, f"{text}, within {SAME_RANGE:.0%} of what fresh noise does ({interval})"
    if between[0] <= 0 <= between[1]:
        return figures, HOLDS, f"{text}; it cannot be told from fresh noise ({interval})"
    return figures, HOLDS, f"{text}; reordered and fresh noise differ ({interval})"


def _topology(measured: Any, *, layer: int) -> Verdict:
    radii, name = measured["radius"].values, str(measured["layer"].values[layer])
    if radii[0] >= 1:
        return (), UNKNOWN, "the claim needs a radius below 1"
    r, linear = (measured[variable].values[:, 0, layer] for variable in ("mantel_r", "mantel_r_linear"))
    mean, expected, difference = (mean_over_images(values, near_normal=True) for values in (r, linear, r - linear))
    low = share(np.where(np.isnan(r), np.nan, np.abs(r) < LOW_MANTEL))
    where = name_of("", radius=radii[0], suffix=layer_suffix(name, measured.sizes["layer"]))
    figures: tuple[Figure, ...] = (
        Figure(f"mantel_r_below_{LOW_MANTEL:g}_share{where}", low),
        Figure(f"mantel_r_mean{where}", mean),
        Figure(f"mantel_r_linear_mean{where}", expected),
        Figure(f"mantel_r_minus_linear_mean{where}", difference),
    )
    around, apart = interval_of(low), interval_of(difference)
    if around is None:
        return figures, UNKNOWN, _few("r", mean)
    text = (
        f"|r| < {LOW_MANTEL:g} in {low.value:.0%} of the images at radius {radius_text(radii[0])} (layer {name}, mean "
        f"{mean.value:+.3f}); a linear map of equal participation ratio has {expected.value:+.3f}"
    )
    if apart is None:
        text += f"; {_few('the difference', difference)}"
    else:
        text += f", the difference is {apart[0]:+.3f} to {apart[1]:+.3f}"
    if around[0] <= 0.5:
        return figures, FAILS if around[1] < 0.5 else UNKNOWN, text
    if apart is None:
        return figures, UNKNOWN, text
    # The reference itself errs: what lies within its error of a linear map cannot be told from one, by r alone.
    clear = topology.clear_of_linear(difference, linear=expected.value)
    straight = departures(measured, layer)
    figures, text = figures + straight.figures, text + straight.text
    reference = interval_of(expected)
    if reference is not None and reference[0] >= LOW_MANTEL:  # a linear map would not meet the claim
        return figures, HOLDS if clear else UNKNOWN, text
    if straight.smallest is None:
        return figures, NOT_LINEAR if clear else AS_LINEAR, text
    if straight.smallest:
        return figures, NOT_LINEAR, text
    if clear:
        return figures, UNKNOWN, f"{text}; a response that is linear and an r that is not a linear map's do not fit"
    return figures, AS_LINEAR, f"{text}; so affine maps explain how the topology changes, as the paper says"


def _lipschitz(measured: Any, *, layer: int, bound: float | None, no_bound: str) -> Verdict:
    name = str(measured["layer"].values[layer])
    scales = scales_of(measured)

    def below(moved: Any, added: Any) -> tuple[NDArray[Any]]:
        ratios = lipschitz.ratio(moved[..., layer], added, input_range=scales.h, feature_range=scales.g[layer])
        return (lipschitz.share_below(ratios.reshape(len(ratios), -1), 1.0),)

    (shares,) = by_image(measured, lipschitz.RAW.reads, below)
    most = mean_share(shares)
    figures: tuple[Figure, ...]
    figures = (Figure(f"{lipschitz.BELOW_ONE.name}_share{layer_suffix(name, measured.sizes['layer'])}", most),)
    around = interval_of(most)
    if around is None:
        return figures, UNKNOWN, _few("the ratio", most)
    text = f"{most.value:.1%} of the perturbations have L_x < 1 (layer {name}); random noise sees a lower bound"
    if bound is None:
        text += f"; the global bound {no_bound}"
    else:
        figures += (Figure("global_bound_normalised", Estimate(bound, np.nan, np.nan, 1)),)
        text += f"; by the same ranges of g and h, the global bound is {bound:.3g}"
    if around[1] < 0.5 or (bound is not None and bound <= 1):
        return figures, FAILS, text
    if around[0] <= 0.5 or bound is None:
        return figures, UNKNOWN, text
    rms, growth = _linear_part(measured, layer, scales.ratio[layer])
    figures += (Figure("jacobian_normalised_median", rms), Figure("lipschitz_growth_median", growth))
    below_one = interval_of(rms)
    if below_one is None:
        return figures, HOLDS, f"{text}; {_few('norm_F(J) / sqrt(D)', rms)}"
    text += (
        f"; norm_F(J) / sqrt(D), which is what random noise sees of a linear map, is {rms.value:.2g} in the same units"
    )
    if below_one[0] >= 1:
        return figures, HOLDS, text
    straight = departures(measured, layer)
    figures, text = figures + straight.figures, text + straight.text
    ends = f"from radius {measured['radius'].values[0]:g} to {measured['radius'].values[-1]:g}"
    if straight.largest:
        return figures, NOT_LINEAR, text
    if straight.largest is False and changes_clearly(growth):
        return figures, UNKNOWN, f"{text}; but the ratio changes by a factor of {growth.value:.2g} {ends}"
    if not changes_clearly(growth):
        known = f" changes by a factor of {growth.value:.2g}" if np.isfinite(growth.value) else " has no known change"
        return figures, AS_LINEAR, f"{text}; the ratio{known} {ends}"
    return figures, NOT_LINEAR, f"{text}; the ratio changes by a factor of {growth.value:.2g} {ends}"


def _linear_part(measured: Any, layer: int, scale: float) -> tuple[Estimate, Estimate]:
    """Medians over images of norm_F(J) / sqrt(D) over all radii, normalised, and of the ratio's change over them.

    The change is that from the smallest radius to the largest; undefined with one radius, and where the smallest lies
    below the steps of a quantised input.
    """
    roots, growth = per_image(measured, (lipschitz.RMS, lipschitz.GROWTH), scales_of(measured))
    calibration = json.loads(measured.attrs["calibration"])
    one = measured.sizes["radius"] < 2 or reach.starts_below_steps(measured, calibration)
    return (
        quantile_over_images(mean_of_known(roots[..., layer]) * scale, 0.5),
        quantile_over_images(np.full(len(growth), np.nan) if one else growth[:, layer], 0.5),
    )
