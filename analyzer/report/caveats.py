"""What the numbers of these runs must not be taken for: only what applies to what was measured, with its figures."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from analyzer.card import EMBEDDING
from analyzer.statistics import FEW_IMAGES, Estimate
from analyzer.summary import by_radius, estimates, kind_of, last_suffix, radius_text


class Caveat(NamedTuple):
    """A heading, a paragraph, and a line for each run whose numbers it is about."""

    title: str
    text: str
    lines: tuple[str, ...]


def caveats(labels: Sequence[str], documents: Sequence[Mapping[str, Any]]) -> Iterator[Caveat]:
    """The caveats that apply to these summary documents (see `analyzer.summary`), in the order of the figures."""
    runs = list(zip(labels, documents, strict=True))

    def with_measures(*names: str) -> list[tuple[str, Mapping[str, Any]]]:
        return [(label, d) for label, d in runs if {*names} <= {*d["run"]["protocol"]["measures"]}]

    if {document["run"]["protocol"]["trials"] for document in documents} != {documents[0]["run"]["protocol"]["trials"]}:
        yield Caveat(
            "The runs have different numbers of perturbations",
            "A range is a largest minus a smallest value and grows with the number of trials; alpha depends on it too. "
            "Neither can be compared between these runs.",
            tuple(f"{label}: {d['run']['protocol']['trials']} per radius" for label, d in runs),
        )
    if about := with_measures("isotropy", "symmetry"):
        yield Caveat(
            "Permuting independent noise is almost fresh noise",
            "A reordering of independent noise is as good as a new draw when the image is large, so the ranges of "
            "isotropy and symmetry nearly coincide by themselves. Only their difference, paired over images, tells "
            "something; the two are no independent evidence.",
            _lines(about, _excess),
        )
    if about := with_measures("topology"):
        yield Caveat(
            "A low Mantel r is no evidence of non-linearity",
            "A linear map has a low r too when few of its directions carry the response. Read r beside the value of a "
            "linear map of the same participation ratio, and the share of p ≤ 0.05 beside the 5 % that chance gives. "
            "The reference assumes sensitivity spread evenly over the pixels: it is up to 20 % too low where "
            "sensitivity is local, and up to 25 % too high at participation ratios near 5.",
            _lines(about, _mantel),
        )
        yield Caveat(
            "alpha of Eq. 7 has the same weakness",
            "The departure of alpha from a multiple of the identity is far from 0 for a random linear map as well, and "
            "it depends on the number of trials: compare it with its own reference, at equal numbers of trials only.",
            _lines(about, _alpha),
        )
    if about := with_measures("lipschitz"):
        yield Caveat(
            "Random noise sees a lower bound of the Lipschitz constant",
            "Random directions see norm_F(J) / sqrt(D), the root mean square of the Jacobian's singular values, not "
            "the largest one: some direction may be far more sensitive than any that was tried. The normalised ratio "
            "is measured by the ranges of the image set, so that its size depends on those images.",
            _lines(about, _lipschitz),
        )
    if lines := _lines(runs, _resolution):
        yield Caveat(
            "Near probability 1 the score cannot show small changes",
            "A probability close to 1 saturates: changes that the log-odds still show are lost in it, and where the "
            "model gives float32 probabilities only, those below 1.2e-7 are lost altogether. Ranges of log-odds that "
            "are not above what rounding may do over as many trials are rounding, not response.",
            lines,
        )
    if lines := _lines(runs, _angle):
        yield Caveat(
            "A cosine near 1 is a larger angle than it seems",
            "Of a small angle a cosine shows the square: 0.999 is 2.6 degrees, 0.99 is 8.1. And where all embeddings "
            "of a network point about the same way, all its cosines are near 1, those of different images too: a "
            "cosine is in its network's own scale.",
            lines,
        )
    if lines := _lines(runs, _few):
        yield Caveat(
            "Few images",
            f"The image is the unit of replication, not the trial. Below {FEW_IMAGES} images intervals are wide or "
            "missing, and nothing is decided in words.",
            lines,
        )


def _lines(runs: Sequence[tuple[str, Mapping[str, Any]]], say: Callable[..., str]) -> tuple[str, ...]:
    lines = ((label, say(document, estimates(dict(document)))) for label, document in runs)
    return tuple(f"{label}: {line}" for label, line in lines if line)


def _excess(_: Mapping[str, Any], rows: Mapping[str, Estimate]) -> str:
    relative = rows.get("symmetry_relative_excess_mean")
    if relative is None or not math.isfinite(relative.value):
        return ""
    interval = _interval(relative, "+.0%")
    return (
        f"symmetry's range differs from isotropy's by {relative.value:+.0%}{interval}, paired over {relative.n} images"
    )


def _mantel(document: Mapping[str, Any], rows: Mapping[str, Estimate]) -> str:
    suffix = last_suffix(document)
    r, linear = rows.get(f"mantel_r_mean{suffix}"), rows.get(f"mantel_r_linear_mean{suffix}")
    if r is None or linear is None or not math.isfinite(r.value):
        return ""
    return f"r {r.value:+.3f}{_interval(r, '+.3f')}, a linear map {linear.value:+.3f}{_of(suffix)}"


def _alpha(document: Mapping[str, Any], rows: Mapping[str, Estimate]) -> str:
    suffix = last_suffix(document)
    seen, linear = (by_radius(rows, f"alpha_departure{name}_mean", suffix) for name in ("", "_linear"))
    defined = [r for r in sorted(seen) if r in linear and math.isfinite(seen[r].value)]
    texts = [
        f"{seen[r].value:.2f} at radius {radius_text(r)}, a linear map {linear[r].value:.2f}"
        for r in dict.fromkeys([*defined[:1], *defined[-1:]])
    ]
    return "; ".join(texts) + (_of(suffix) if texts else "")


def _lipschitz(document: Mapping[str, Any], rows: Mapping[str, Estimate]) -> str:
    suffix = last_suffix(document)
    median, below = rows.get(f"lipschitz_median{suffix}"), rows.get(f"lipschitz_below_one_share{suffix}")
    if median is None or below is None or not math.isfinite(median.value):
        return ""
    images = document["run"]["images"]["calibration"]
    return f"median {median.value:.2g}, {below.value:.1%} below 1, by the ranges of {images} images{_of(suffix)}"


def _angle(document: Mapping[str, Any], rows: Mapping[str, Estimate]) -> str:
    cosines = by_radius(rows, "isotropy_score_mean") if kind_of(document) == EMBEDDING else {}
    known = {radius: min(e.value, 1.0) for radius, e in cosines.items() if math.isfinite(e.value)}
    if not known:
        return ""
    largest = max(known)
    angle = math.degrees(math.acos(known[largest]))
    return f"mean cosine {known[largest]:.4f} at radius {radius_text(largest)}, an angle of {angle:.2g} degrees"


def _resolution(document: Mapping[str, Any], rows: Mapping[str, Estimate]) -> str:
    if kind_of(document) == EMBEDDING:
        return ""
    for prefix in ("isotropy", "symmetry"):
        ranges = by_radius(rows, f"{prefix}_range_median")
        below = by_radius(rows, f"{prefix}_below_noise_floor_share")
        buried = [radius_text(r) for r in sorted(below) if below[r].value > 0]
        tiny = [radius_text(r) for r in sorted(ranges) if ranges[r].value < 1e-4]
        texts = []
        if tiny:
            texts.append(f"median range of the probability below 1e-4 at radius {', '.join(tiny)}")
        if buried:
            texts.append(f"log-odds of some images within the noise floor at radius {', '.join(buried)}")
        if texts:
            return "; ".join(texts)
    precision = document["run"]["context"].get("precision", "float32")
    return "" if precision == "float32" else f"{precision} arithmetic errs by about 1e-3, more than small radii change"


def _few(document: Mapping[str, Any], _: Mapping[str, Estimate]) -> str:
    measured = document["run"]["images"]["measured"]
    return f"{measured} measured" if measured < FEW_IMAGES else ""


def _interval(estimate: Estimate, form: str) -> str:
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return ""
    return f" ({estimate.low:{form}} to {estimate.high:{form}})"


def _of(suffix: str) -> str:
    return f" (layer {suffix[1:]})" if suffix else ""
