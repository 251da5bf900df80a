"""What a reader of a summary has to know besides its numbers, in sentences."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from analyzer.card import EMBEDDING
from analyzer.measures import NUMBERS, REGISTRY
from analyzer.statistics import FEW_IMAGES, MEAN_IMAGES, Estimate
from analyzer.store import ImageStatus, LogOddsStatus, Outcome
from analyzer.store.documents import Calibration, Manifest
from analyzer.store.manifest import in_class_means
from analyzer.summary import reach
from analyzer.summary.names import by_radius, parts, radius_text


def warnings(
    dataset: Any, measured: Any, rows: Mapping[str, Estimate], calibration: Calibration, manifest: Manifest
) -> Iterator[str]:
    """The warnings about a run. dataset: of its finished images; measured: of those that were measured."""
    n = measured.sizes["image"]
    identity = manifest["identity"]
    selected, asked = len(calibration["selected"]), identity["limit"]
    if dataset.sizes["image"] < selected:
        yield f"Partial: {dataset.sizes['image']} of {selected} images."
    if asked is not None and selected < asked:
        yield f"{selected} images count, {asked} were asked for; none is used twice."
    if n == 1:
        yield "One image: no intervals but those of shares."
    yield from _left_out(calibration)
    if identity["trials"] < 10 and "topology" in identity["measures"]:
        yield f"{identity['trials']} trials: participation ratio, alpha and the p-values mean little below 10."
    beyond = [radius_text(radius) for radius in identity["radii"] if radius > 255 and identity["norm"] == "linf"]
    if beyond:
        yield f"Radius {', '.join(beyond)}: more than a pixel's whole range, 0..255 grey levels."
    if n and "input_distance_l2" in measured:
        lost = (measured["input_distance_l2"].values == 0).mean(axis=(0, 2))
        gone = [f"{radius_text(r)} ({s:.0%})" for r, s in zip(measured["radius"].values, lost, strict=True) if s > 0]
        if gone:
            yield f"Rounding left nothing of some perturbations, at radius {', '.join(gone)}: choose larger radii."
    if n:
        yield from reach.warnings(measured, calibration)
    yield from _images(dataset, measured, str(manifest["context"].get("kind", "")))
    if n and manifest["context"].get("kind") == EMBEDDING:
        moved = reach.rounding_of_embeddings(measured)
        faint = int((moved > _FAINT).sum())
        if faint:
            yield (
                f"The embeddings of {faint} images, which are nearly zero, change by more than {_FAINT:.0%} (up to "
                f"{np.nanmax(moved):.0%}) under rounding alone: their cosines are rounding too."
            )
    yield from _hosts(dataset, manifest)
    yield from _normalised(identity["measures"], calibration)
    if n:
        yield from _undefined(identity["measures"], measured)
    yield from _optimistic(rows)
    yield from _rounding(rows)
    yield from manifest["context"].get("notes", [])


CARD_FIELDS = (
    "input.channels (RGB or BGR), input.mean and input.std (of 0..255 pixels), input.resize and its interpolation, "
    "input.layout, the order of output.labels, output.kind"
)
"""What to look at where a network does badly, the likeliest first."""
_FAINT = 0.01
"""Of an embedding's length."""
FEW = 0.1
"""Of images that count: with fewer, the card is suspected."""


def suspected_card(counts: Mapping[str, int]) -> str:
    """What to check where at least 90 % of the images are classified wrongly or fall below the confidence; else ""."""
    left_out = counts[Outcome.WRONG] + counts[Outcome.BELOW_CONFIDENCE]
    judged = left_out + counts[Outcome.GOOD]
    if not judged or counts[Outcome.GOOD] > FEW * judged:
        return ""
    unsure = counts[Outcome.BELOW_CONFIDENCE]
    sure = f" ({unsure} are right but unsure: a lower minimum confidence lets them in)" if unsure else ""
    return (
        f"{left_out} of {judged} images are classified wrongly or fall below the confidence{sure}; where the network "
        f"is better than that, `analyzer check-card` tries the card's usual mistakes: {CARD_FIELDS}."
    )


def _left_out(calibration: Calibration) -> Iterator[str]:
    """Of the folder, and of the selection pass."""
    yield from calibration.get("notes", [])
    if suspicion := suspected_card(calibration["counts"]):
        yield suspicion
    if calibration.get("scores_in_unit_range"):
        yield (
            "The card says logits, but every score of every image lies in 0..1; where each class has a sigmoid of its "
            'own, set output.kind to "sigmoid".'
        )
    members = in_class_means(calibration)
    labels = Counter(candidate["label"] for candidate in members)
    if single := sum(labels[c["label"]] == 1 for c in members if c["outcome"] == Outcome.WRONG):
        yield f"{single} images left out: the only one of their class, whose mean takes two or more."
    duplicates = calibration["counts"][Outcome.DUPLICATE]
    if duplicates:
        yield f"{duplicates} images left out: the same file as another one."
    converted = Counter(note for candidate in calibration["candidates"] for note in candidate.get("notes", []))
    for note, count in converted.items():
        yield f"{count} image{'s' * (count != 1)}: {note}."


def _images(dataset: Any, measured: Any, kind: str) -> Iterator[str]:
    """Of images that were selected, and of their log-odds."""
    status = dataset["image_status"].values
    not_finite = (status == ImageStatus.NON_FINITE_MODEL_OUTPUT).sum()
    if not_finite:
        what = "embedding was all zeros, or not finite," if kind == EMBEDDING else "output was not finite"
        yield f"{not_finite} images left out: the model's {what} for some perturbation."
    unreadable = (status == ImageStatus.UNREADABLE_OR_CHANGED_SINCE_SELECTION).sum()
    if unreadable:
        yield f"{unreadable} images left out: removed or changed since they were selected."
    failed = (status == ImageStatus.FAILED_ON_WORKERS).sum()
    if failed:
        yield f"{failed} images left out: every worker that measured them failed; the same command tries them again."
    rounded = int((measured["log_odds_status"].values == LogOddsStatus.PROBABILITY_ROUNDED_TO_ZERO_OR_ONE).sum())
    if rounded:
        yield (
            f"{rounded} images: some log-odds are undefined, since the graph gives probabilities only and they round "
            "to 0 or 1; an exported graph with logits would have them."
        )


def _hosts(dataset: Any, manifest: Manifest) -> Iterator[str]:
    """What images were measured on, where that is more than one thing."""
    hosts, places = manifest.get("hosts", []), dataset["measured_on"].values if "measured_on" in dataset else ()
    counts = Counter(hosts[place] for place in places if 0 <= place < len(hosts))
    if len(counts) > 1:
        listed = "; ".join(f"{count} on {host}" for host, count in sorted(counts.items()))
        yield f"Images were measured on {len(counts)} hosts: {listed}."


def _normalised(measures: Sequence[str], calibration: Calibration) -> Iterator[str]:
    """Where numbers depend on the ranges of g and h."""
    if not any(number.quantity.normalised for name in measures for number in REGISTRY[name].numbers):
        return
    if calibration["calibration_images"] < 100:
        yield (
            f"The ranges of g and h come from {calibration['calibration_images']} images; below 100 the "
            "normalised Lipschitz ratio depends on which images those are."
        )
    for layer, width in calibration["feature_range"].items():
        if width == 0:
            yield f"Layer {layer} does not vary over the calibration images: its Lipschitz ratio is undefined."


def _undefined(measures: Sequence[str], measured: Any) -> Iterator[str]:
    """Where a measure's own status says that something is undefined."""
    for variable in (v for name in measures for v in REGISTRY[name].variables if v.status):
        defined = next(iter(variable.status or ()))  # the first of a status says that all is well
        undefined = measured[variable.name].values != defined
        if undefined.any():
            what = variable.long_name.removeprefix("why ").removesuffix(" is undefined")
            yield (
                f"{WORDS.get(what, what)} is undefined in {undefined.sum()} of {undefined.size} cases (image, radius, "
                f"layer): `{variable.name}` says why."
            )


WORDS = {"mantel_r": "Mantel's r"}
"""A variable as a sentence names it."""


def _optimistic(rows: Mapping[str, Estimate]) -> Iterator[str]:
    """Which intervals rest on values being nearly normal from image to image."""
    stems: dict[str, int] = {}
    for name, estimate in rows.items():
        number = NUMBERS.get(parts(name).stem)
        if number is None:
            continue
        few = FEW_IMAGES <= estimate.n < MEAN_IMAGES and math.isfinite(estimate.low)
        if number.statistic == "mean" and number.quantity.near_normal and few:
            stems[number.name] = estimate.n
    if stems:
        yield (
            f"Intervals of {len(stems)} mean{'s' * (len(stems) > 1)} rest on {min(stems.values())} images: too narrow "
            "where a few of these differ much from all others."
        )


def _rounding(rows: Mapping[str, Estimate]) -> Iterator[str]:
    """Where the ranges of the log-odds are not above the noise floor, of the first family that was measured."""
    families = [measure.scores for measure in REGISTRY.values() if measure.scores]
    below = by_radius(rows, f"{families[0].below_floor.name}_share")
    radii = [radius_text(radius) for radius, estimate in below.items() if estimate.value >= 0.5]
    if radii:
        yield (
            f"Not above what repeats of the clean image span over as many trials: log-odds ranges at radius "
            f"{', '.join(radii)}, for half of the images or more; they are no response to the noise."
        )
