"""What a drift means, in words: a verdict of one line, and sentences with the figures behind it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from analyzer.estimate import ABOVE, BELOW
from analyzer.statistics import FEW_IMAGES
from analyzer.summary import name_of, parts, radius_text
from analyzer.verdicts.drift.decisions import Churn
from analyzer.verdicts.drift.numbers import Number

_JUMP = 3.0
"""A layer whose relative error is so many times that of the layer before it is where the drift comes in."""


class Found(NamedTuple):
    """What there is to speak of. numbers: by name. images: that both runs measured; clean: that both passes saw.

    rows: perturbed rows that were compared. changed: how many of them have another class. equal: whether all
    differences are rounding. layers: (name, suffix of its numbers) along the depth. churn: of labelled images.
    steps: whether the candidate answers small noise with rounding steps.
    """

    numbers: Mapping[str, Number]
    reference: str
    candidate: str
    radii: Sequence[float]
    images: int
    clean: int
    rows: int
    changed: int
    equal: bool
    layers: Sequence[tuple[str, str]]
    churn: Churn | None
    steps: bool


def verdict(found: Found) -> str:
    """One line a candidate: what a person needs to decide."""
    if found.equal:
        return f"equal up to rounding ({_images(found)})"
    parts = [_size(found), _decisions(found), _resolved(found), _first_layer(found)]
    return "; ".join(part for part in parts if part)


def _size(found: Found) -> str:
    equivalent, what = found.numbers.get("drift_equivalent_noise_median"), ""
    if (equivalent is None or not equivalent["n"]) and found.layers:
        name, suffix = found.layers[-1]
        equivalent = found.numbers.get(f"drift_equivalent_feature_noise_median{suffix}")
        what = f", by the features of {name}"
    if equivalent is None or not equivalent["n"]:
        return "differs by an unknown amount: neither log-odds nor features are known in both runs"
    return f"{_noise(found, equivalent)}{what}"


def _noise(found: Found, equivalent: Number) -> str:
    if equivalent.get("censored") == BELOW:
        return f"differs by less than noise of {_grey(min(found.radii))}"
    if equivalent.get("censored") == ABOVE:
        return f"differs by more than noise of {_grey(max(found.radii))}"
    low, high = equivalent["low"], equivalent["high"]
    if math.isnan(low) and math.isnan(high):
        return f"differs by as much as noise of {_grey(equivalent['value'])}"
    ends = ["below the radii" if math.isnan(low) else f"{low:.3g}", "above them" if math.isnan(high) else f"{high:.3g}"]
    return f"differs by as much as noise of {_grey(equivalent['value'])} ({' to '.join(ends)})"


def _grey(radius: float) -> str:
    return f"{radius:.3g} grey level{'' if radius == 1 else 's'}"


def _decisions(found: Found) -> str:
    clean = found.numbers.get("drift_clean_flip_share")
    if clean is not None and clean["value"] > 0:
        worse = found.numbers.get("drift_clean_negative_flip_share")
        count = round(clean["value"] * clean["n"])
        for_the_worse = f", {_percent(worse['value'])} for the worse" if worse is not None else ""
        return f"changes {_percent(clean['value'])} of decisions ({count} of {clean['n']} images){for_the_worse}"
    if found.changed:
        share, radius = _worst_radius(found)
        none = f"no decision on {clean['n']} clean images, but " if clean is not None else ""
        return f"changes {none}{_percent(share)} of those under noise of radius {radius_text(radius)}"
    return f"no decision changes ({_images(found)})" if found.rows or clean is not None else ""


def _images(found: Found) -> str:
    """How many decisions were compared, and what none of them leaves possible, over images."""
    said = []
    rows = f"0 of {found.rows:,} perturbed rows of {found.images} images"
    for what, name in (
        (f"0 of {found.clean} clean images", "drift_clean_flip_share"),
        (rows, name_of("drift_flip_share", radius=found.radii[0])),
    ):
        flip = found.numbers.get(name)
        if flip is not None:
            below = f", below {_percent(flip['high'])} with 95 %" if math.isfinite(flip["high"]) else ""
            said.append(f"{what}{below}")
    return "; ".join(said) or f"the features of {found.images} images"


def _worst_radius(found: Found) -> tuple[float, float]:
    shares = []
    for name, number in found.numbers.items():
        stem, radius, _ = parts(name)
        judged = stem.endswith(("negative_flip_share", "positive_flip_share"))
        if stem.endswith("flip_share") and radius is not None and not judged:
            shares.append((number["value"], radius))
    return max(shares)


def _resolved(found: Found) -> str:
    resolved = found.numbers.get("drift_resolved_radius_median")
    if resolved is None or not resolved["n"] or resolved.get("censored") == BELOW:
        return ""
    if resolved.get("censored") == ABOVE:
        return f"at no radius does it answer noise as {found.reference} does"
    return f"{_not_yet(found, resolved)} this build {_otherwise(found)}"


def _not_yet(found: Found, resolved: Number) -> str:
    """Up to where a build does not answer as the reference: the measured radius before the one at which it does."""
    if "not_yet" not in resolved:
        return f"below radius {resolved['value']:.3g}"
    return f"up to radius {radius_text(resolved['not_yet'])} at least, and from {resolved['value']:.3g} on no more,"


def _otherwise(found: Found) -> str:
    return "answers with its rounding steps" if found.steps else f"does not answer noise as {found.reference} does"


def _first_layer(found: Found) -> str:
    errors = [
        (name, found.numbers[key]["value"])
        for name, suffix in found.layers
        if (key := name_of("drift_clean_feature_relative_median", suffix=suffix)) in found.numbers
    ]
    errors = [(name, value) for name, value in errors if math.isfinite(value)]
    if len(errors) < 2 or max(value for _, value in errors) == 0:
        return ""
    before = 0.0
    for name, value in errors:
        if value > _JUMP * before and value > max(v for _, v in errors) / _JUMP:
            earlier = f", {_percent(before)} before it" if name != errors[0][0] else ""
            return f"look first at layer {name} ({_percent(value)} off{earlier})"
        before = max(before, value)
    name, value = max(errors, key=lambda each: each[1])
    return f"the layers drift little by little, most at {name} ({_percent(value)} off)"


def sentences(found: Found) -> Iterator[str]:
    """The figures behind the verdict, one thing a sentence."""
    numbers = found.numbers
    largest = numbers.get("drift_log_odds_largest")
    if largest is not None and math.isfinite(largest["value"]):
        yield f"The log-odds of no row are further apart than {largest['value']:.2g} nat."
    resolved = numbers.get("drift_resolved_radius_median")
    if resolved is not None and "value" in resolved and math.isfinite(resolved["value"]):
        steps = ": its ranges and Lipschitz ratios there are those of its rounding steps" if found.steps else ""
        yield (
            f"{_not_yet(found, resolved).capitalize()} the log-odds of {found.candidate} move otherwise than those of "
            f"{found.reference} (correlation over the trials below 0.9){steps}."
        )
    elif resolved is not None and resolved.get("censored") == ABOVE:
        steps = ": its ranges and Lipschitz ratios are those of its rounding steps" if found.steps else ""
        yield (
            f"At no radius up to {radius_text(max(found.radii))} do the log-odds of {found.candidate} move as those of "
            f"{found.reference} (correlation over the trials below 0.9){steps}."
        )
    if found.churn is not None and (found.churn["negative"] or found.churn["positive"]):
        yield (
            f"On clean images {found.churn['negative']} right decision(s) become wrong and {found.churn['positive']} "
            f"wrong one(s) right: McNemar's exact p = {found.churn['p']:.2g}."
        )
    if found.images < FEW_IMAGES:
        yield f"{found.images} images are few: {FEW_IMAGES} or more are needed before a share means anything."


def _percent(value: float) -> str:
    return f"{100 * value:.{2 if value < 0.995 else 3}g} %"
