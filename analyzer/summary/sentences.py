"""What the numbers of a summary say, in plain words: one sentence a measure and layer."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from analyzer.measures import REGISTRY, Measure
from analyzer.measures.quantities import REACH
from analyzer.measures.scores import in_words_of
from analyzer.measures.topology import clear_of_linear
from analyzer.statistics import FEW_IMAGES, Estimate
from analyzer.summary.names import by_radius, name_of
from analyzer.text import short

Rows = Mapping[str, Estimate]

SAME_RATIO = (0.8, 1.25)
"""By what factor L_x may change over the radii and still count as that of a linear map."""
SAME_RANGE = 0.1
"""How far the range under reordering may be from that under fresh noise, as a share of it, and still count as equal."""

_RARE = 1e-6
"""Below it, what a normal tail gives is no more than very rare."""


def sentences(measures: Sequence[str], rows: Rows, suffixes: Sequence[str], kind: str = "") -> Iterator[str]:
    """The sentences of a run's measures; of one that is not among SENTENCES, its first column at both ends.

    kind: of the scores; an embedding's are cosines.
    """
    if not rows:
        yield "Nothing could be measured: no image had finite outputs throughout."
        return
    for name in measures:
        measure = REGISTRY[name]
        say = SENTENCES.get(name) or _by_its_table(measure)
        for suffix in suffixes if measure.layered else [""]:
            sentence = in_words_of([kind], say(rows, suffix))
            if sentence:
                yield sentence if not suffix else f"{suffix[1:]}: {sentence}"
    if "flip_radius_median" in rows:
        yield _flips(rows)


def _by_its_table(measure: Measure) -> Callable[[Rows, str], str]:
    def say(rows: Rows, suffix: str) -> str:
        for number in measure.columns:
            at = by_radius(rows, number.name, suffix)
            defined = {radius: at[radius] for radius in sorted(at) if np.isfinite(at[radius].value)}
            if defined:
                ends = sorted({min(defined), max(defined)})
                each = [f"{short(defined[r].value, number.form)} at radius {r:g}" for r in ends]
                return f"{measure.title}: {number.heading} {' and '.join(each)}."
        return ""

    return say


def _isotropy(rows: Rows, suffix: str) -> str:
    wrong = by_radius(rows, "misclassified_share")
    if not any(estimate.n for estimate in wrong.values()):
        return f"Isotropy: {_spread(rows, 'isotropy')}."
    flips = [radius for radius, estimate in wrong.items() if estimate.value > 0]
    flipped = (
        f"noise first misclassified an image at radius {min(flips):g}"
        if flips
        else "no perturbation changed the predicted class"
    )
    return f"Isotropy: {_spread(rows, 'isotropy')}; {flipped}."


def _symmetry(rows: Rows, suffix: str) -> str:
    start = f"Symmetry: reordering one noise vector, {_spread(rows, 'symmetry')}"
    relative = rows.get("symmetry_relative_excess_mean")
    if relative is None or relative.n == 0:
        fresh = by_radius(rows, "isotropy_log_odds_range_median") or by_radius(rows, "isotropy_range_median")
        if fresh and all(estimate.value == 0 for estimate in fresh.values()):
            return f"{start}; fresh noise does not move it either, so there is nothing to compare."
        return f"{start}; isotropy was not measured, or has no log-odds, to compare it with fresh noise."
    if relative.n < FEW_IMAGES or not np.isfinite(relative.low):
        return f"{start}; {relative.n} image(s) are too few, or too skewed, to compare it with fresh noise."
    interval = f"{relative.low:+.0%} to {relative.high:+.0%}, paired over images"
    if max(-relative.low, relative.high) < SAME_RANGE:
        within = f"within {SAME_RANGE:.0%} of what fresh noise does"
        return f"{start}; that is {within} ({interval}), so it adds nothing to isotropy here."
    if relative.low <= 0 <= relative.high:
        return f"{start}; it cannot be told from fresh noise ({interval})."
    return f"{start}; that differs from fresh noise by {relative.value:+.0%} ({interval})."


def _spread(rows: Rows, prefix: str) -> str:
    """The range at the smallest and largest radius, in nat where log-odds are defined, else as a probability."""
    for name, what, unit in (
        ("log_odds_range_median", "log-odds of the true class spread", " nat"),
        ("range_median", "true-class probability spreads", ""),
    ):
        ranges = {radius: e for radius, e in by_radius(rows, f"{prefix}_{name}").items() if np.isfinite(e.value)}
        if ranges:
            faint = by_radius(rows, f"{prefix}_below_noise_floor_share")
            within = {r for r in ranges if r in faint and faint[r].value >= 0.5}
            each = [
                f"{short(ranges[r].value, '.2g')}{unit} at radius {r:g}{', within the noise floor' * (r in within)}"
                for r in sorted({min(ranges), max(ranges)})
            ]
            return f"the {what} over {' and '.join(each)} (median of {ranges[max(ranges)].n} images)"
    return "the range is undefined"


def _topology(rows: Rows, suffix: str) -> str:
    """Mantel's r beside its linear reference, over all radii: one comparison, not one a radius."""
    r, linear, difference, significant = (
        rows[f"mantel_{name}{suffix}"]
        for name in ("r_mean", "r_linear_mean", "r_minus_linear_mean", "p_below_05_share")
    )
    if not np.isfinite(r.value):
        return "Topology: Mantel's r is undefined at every radius; `mantel_status` in the results says why."
    chance = f", with p ≤ 0.05 in {significant.value:.0%} of the cases (5 % by chance)" if significant.n else ""
    if not np.isfinite(linear.value):
        return (
            f"Topology: Mantel's r averages {r.value:+.3f} over the radii{chance}; its linear reference is undefined."
        )
    start = (
        f"Topology: Mantel's r averages {r.value:+.3f} over the radii{chance}; a linear map of the same participation "
        f"ratio would have {linear.value:+.3f}"
    )
    if difference.n < FEW_IMAGES or not np.isfinite(difference.low):
        return f"{start}; {difference.n} image(s) are too few, or too skewed, to tell them apart."
    if not clear_of_linear(difference, linear=linear.value):
        return f"{start}: it cannot be told from a linear map, so this is no evidence of non-linearity."
    return (
        f"{start}: the difference, {difference.low:+.3f} to {difference.high:+.3f}, is more than the reference errs by."
    )


def _lipschitz(rows: Rows, suffix: str) -> str:
    below = rows[f"lipschitz_below_one_share{suffix}"]
    median = rows[f"lipschitz_median{suffix}"]
    if not np.isfinite(median.value):
        return "Lipschitz: the ratio is undefined: nothing was added, or the features do not vary over the image set."
    radii = by_radius(rows, "lipschitz_median", suffix)
    growth = rows.get(f"lipschitz_growth_median{suffix}")
    changes = ""
    if growth and len(radii) > 1 and changes_clearly(growth):
        changes = (
            f" It changes by a factor of {growth.value:.2g} ({growth.low:.2g} to {growth.high:.2g}) from radius "
            f"{min(radii):g} to {max(radii):g}: not locally linear."
        )
    medians = f"median {short(median.value, '.2g')}"
    largest = by_radius(rows, "lipschitz_q95", suffix)
    if still := [radius for radius in sorted(radii) if largest[radius].value == 0]:
        each = [f"{short(radii[r].value, '.2g')} at radius {r:g}" for r in sorted(radii) if r not in still]
        nothing = f"0 at radius {', '.join(f'{r:g}' for r in still)}, where the layer does not move"
        medians = f"medians: {', '.join([*each, nothing])}"
    return (
        f"Lipschitz: {below.value:.1%} of the perturbations have a normalised ratio below 1 ({medians}), measured by "
        f"the ranges of the image set.{changes} Random noise sees a lower bound of the local constant."
    )


def _linearity(rows: Rows, suffix: str) -> str:
    found = {r: e for r, e in by_radius(rows, "linearity_median", suffix).items() if np.isfinite(e.value)}
    if not found:
        return "Linearity: undefined: the features do not answer, or pixels have to be whole numbers."
    faint = by_radius(rows, "linearity_below_floor_share", suffix)
    said: list[str] = []
    for radius in sorted({min(found), max(found)}):
        rounding = ", within rounding" if radius in faint and faint[radius].value >= 0.5 else ""
        of = "of it" if said else "of their response"
        said.append(f"{short(found[radius].value, '.2g')} {of} at radius {radius:g}{rounding}")
    return (
        f"Linearity: the features depart from a linear response by {' and '.join(said)} (N, median of "
        f"{found[max(found)].n} images; a quadratic form has 1.5)."
    )


def _certified(rows: Rows, suffix: str) -> str:
    shares, radii, capped = (
        by_radius(rows, f"certified_{name}") for name in ("share", "radius_median", "capped_share")
    )
    each = [
        f"at sigma {sigma:g} {shares[sigma].value:.0%} of {shares[sigma].n} images within a median L2 radius of "
        f"{short(radii[sigma].value, '.3g')} grey levels"
        + (", the most that so many trials can certify" if capped[sigma].value > 0.5 else "")
        for sigma in sorted(shares)
    ]
    return (
        f"Certified: {'; '.join(each)} (0 for an image without; each certificate is wrong with probability at most "
        "0.001). It holds for the network smoothed by this noise, not for the network itself."
    )


def _flips(rows: Rows) -> str:
    flip, margins = rows["flip_radius_median"], by_radius(rows, "margin_noise_units_median")
    if not flip.n:
        return "Flips: undefined: the log-odds against the runner-up are not known."
    largest = max(margins)
    start = _outside(flip, margins) if math.isinf(flip.value) else _flip_radius(flip, largest, rows)
    margin, counted, most, tail = (
        rows[name_of(stem, radius=largest)]
        for stem in (
            "margin_noise_units_median",
            "flip_probability_mean",
            "flip_probability_bound",
            "flip_probability_tail_mean",
        )
    )
    known = math.isfinite(margin.value)
    units = f"the margin to the runner-up is {short(margin.value, '.3g')} deviations, and " if known else ""
    rare = short(tail.value, ".1g") if tail.value > _RARE else f"less than {short(_RARE, '.1g')}"
    normal = f"the normal tail says {rare}" if math.isfinite(tail.value) else "the normal tail is not known"
    share = rows[name_of("misclassified_share", radius=largest)] if counted.value else counted
    hit = f", on {round(share.value * share.n)} of {share.n} images" if math.isfinite(share.value) else ""
    seen = (
        f"{short(counted.value, '.2g')} of all trials flipped{hit}"
        if counted.value
        else f"none flipped, so that at most {_up(most.value)} of such noise does (95 %, of these images; {normal})"
    )
    return f"{start}. At radius {largest:g} {units}{seen}."


def _up(bound: float) -> str:
    """An upper bound in two digits, rounded upwards."""
    step = 10.0 ** (math.floor(math.log10(bound)) - 1)
    return short(math.ceil(bound / step * (1 - 1e-12)) * step, ".2g")


def _grey(radius: float) -> str:
    return f"{radius:.2g}" if radius < 100 else f"{radius:.0f}"


def _outside(flip: Estimate, radii: Iterable[float]) -> str:
    above = flip.value > 0
    place = f"above {REACH * max(radii):g}" if above else f"below {min(radii) / REACH:g}"
    why = "twice the largest radius" if above else "half the smallest radius"
    end, way = (flip.low, "more") if above else (flip.high, "less")
    known = f"; 95 %: {_grey(end)} or {way}" if math.isfinite(end) else ""
    when = "only" if above else "already"
    return f"Flips: of the median image, noise would flip one trial {when} {place}, {why}{known}"


def _flip_radius(flip: Estimate, largest: float, rows: Rows) -> str:
    ends = [_grey(end) if math.isfinite(end) else ("beyond" if end > 0 else "below") for end in flip[1:3]]
    interval = f"{ends[0]} to {ends[1]}; " if not any(map(math.isnan, flip[1:3])) else ""
    start = f"Flips: by the normal tail, noise would flip one trial of the median image at radius {_grey(flip.value)}"
    start += f" ({interval}{flip.n} images)"
    if flip.value <= largest:
        return start
    departs = by_radius(rows, "log_odds_linearity_median").get(largest)
    known = departs is not None and math.isfinite(departs.value)
    warned = f", where the log-odds depart from a line by N = {departs.value:.2g}" if departs and known else ""
    return f"{start}, extrapolated beyond {largest:g}{warned}"


def changes_clearly(growth: Estimate) -> bool:
    """Whether the ratio's factor from the smallest radius to the largest is not that of a linear map.

    The median over at least FEW_IMAGES images, with its interval clear of SAME_RATIO.
    """
    if growth.n < FEW_IMAGES or not (np.isfinite(growth.low) and np.isfinite(growth.high)):
        return False
    return growth.low > SAME_RATIO[1] or growth.high < SAME_RATIO[0]


SENTENCES: dict[str, Callable[[Rows, str], str]] = {
    "isotropy": _isotropy,
    "symmetry": _symmetry,
    "topology": _topology,
    "lipschitz": _lipschitz,
    "linearity": _linearity,
    "certified": _certified,
}
