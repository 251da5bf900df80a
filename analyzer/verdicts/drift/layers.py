"""Which layer drifts: sketches of the features of two runs, held against each other along the depth."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from analyzer.errors import UsageError
from analyzer.sketch import coarser
from analyzer.store import Run
from analyzer.summary import name_of
from analyzer.verdicts.drift.numbers import Array, Number, censored_median, median, within_image
from analyzer.verdicts.drift.responses import equivalent_noise, resolved_radius

_SUFFIXES = re.compile(
    r"_(Quantize|Dequantize|QuantizeLinear|DequantizeLinear|QuantizeInput|quantized|dequantized|Cast|cast_to_[a-z0-9]+)"
    r"(_Input|_Output)?(_\d+)?$"
)
"""What ONNX Runtime's and onnxconverter-common's tools append to the names of tensors."""


_FLOORS = 4.0
"""Times the noise floor: the lengths of sketches err by a quarter, and two builds have a floor each."""


class Match(NamedTuple):
    """A layer of the reference and the one of the candidate that it is held against, by place and name."""

    reference: int
    candidate: int
    name: str
    other: str


def parse(match: Sequence[str]) -> list[tuple[str, str]]:
    """["A=B", ...] -> [(layer of the reference, layer of the candidate)]; a name may itself hold "="."""
    pairs = []
    for text in match:
        first, equals, second = text.partition("=")
        if not (first and equals and second):
            raise UsageError(f"`match` {text!r:.80}: expected REFERENCE=CANDIDATE, two names of layers")
        pairs.append((first, second))
    return pairs


def matched(reference: Run, candidate: Run, asked: Sequence[str]) -> list[Match]:
    """Layers that belong together, in the reference's order: those asked for, those of one name, those whose names
    without what quantisation appends are the same for one layer on either side only; the only layer of each.

    Raises UsageError where a layer that is asked for is not there.
    """
    mine, theirs = reference.layers, candidate.layers
    found: dict[str, str] = {}
    for text in asked:
        splits = [(text[:k], text[k + 1 :]) for k, letter in enumerate(text) if letter == "="]
        fitting = [(a, b) for a, b in splits if a in mine and b in theirs]
        if not fitting:
            parse([text])
            raise UsageError(
                f"`match` {text!r:.80}: {reference.name} has the layers {', '.join(mine)}; "
                f"{candidate.name} has {', '.join(theirs)}"
            )
        found |= dict(fitting[:1])
    left = [name for name in theirs if name not in found.values()]
    for name in mine:
        if name not in found and name in left:
            found[name] = name
            left.remove(name)
    for name in mine:
        alike = [other for other in left if _stem(other) == _stem(name)]
        if name not in found and len(alike) == 1 and sum(_stem(name) == _stem(other) for other in mine) == 1:
            found[name] = alike[0]
            left.remove(alike[0])
    if not found and len(mine) == len(theirs) == 1:
        found[mine[0]] = theirs[0]
    return [Match(mine.index(a), theirs.index(found[a]), a, found[a]) for a in mine if a in found]


def _stem(name: str) -> str:
    while (shorter := _SUFFIXES.sub("", name)) != name:
        name = shorter
    return name


def sizes_differ(pair: Match, reference: Run, candidate: Run) -> bool:
    """Whether the two layers are known to have different numbers of features."""
    sizes = reference.context.get("feature_sizes", {}), candidate.context.get("feature_sizes", {})
    a, b = sizes[0].get(pair.name), sizes[1].get(pair.other)
    return a is not None and b is not None and a != b


class Features(NamedTuple):
    """What two runs stored of one layer, of the common images: of the first without, of the second with `other_`.

    clean, other_clean: (image, fine bucket). moved, other_moved: (image, radius, trial, bucket), f(x + nu) - f(x).
    norm: (image,), of the reference's clean features. signal: (image, radius, trial), their response to the noise.
    floor: (image,), of the reference.
    """

    clean: Array
    other_clean: Array
    moved: Array
    other_moved: Array
    norm: Array
    signal: Array
    floor: Array


def read(a: Any, b: Any, pair: Match) -> Features:
    """From two data sets of the same images in one order, each with sketches."""

    def of(dataset: Any, name: str, layer: int) -> Array:
        return np.asarray(dataset[name].isel(layer=layer).values, dtype=np.float64)

    moved = of(a, "feature_sketch", pair.reference)
    if "feature_distance" in a:
        signal = of(a, "feature_distance", pair.reference)[..., : moved.shape[2]]
    else:
        signal = _length(moved)
    return Features(
        of(a, "clean_sketch", pair.reference),
        of(b, "clean_sketch", pair.candidate),
        moved,
        of(b, "feature_sketch", pair.candidate),
        of(a, "clean_feature_norm", pair.reference),
        signal,
        of(a, "feature_noise_floor", pair.reference),
    )


class Drift(NamedTuple):
    """Of each image: relative (image,) on the clean image and (image, radius) under noise; to_signal (image, radius);
    resolved and equivalent (image,), grey levels; rounding (image,), 1 where all rows differ by no more than that."""

    clean: Array
    relative: Array
    to_signal: Array
    resolved: Array
    equivalent: Array
    rounding: Array


def drift(features: Features, radii: Sequence[float]) -> Drift:
    """||f_A - f_B|| / ||f_A||, and against the signal ||f_A(x + nu) - f_A(x)||: medians over the trials of each image.

    Distances are those of the sketches; the norms they are held against are exact.
    """
    apart = features.clean - features.other_clean
    coarse, coarse_clean = coarser(apart), coarser(features.clean)
    rows = coarse[:, None, None, :] + features.moved - features.other_moved
    distance, whole = _length(rows), _length(coarse_clean[:, None, None, :] + features.moved)
    with np.errstate(divide="ignore", invalid="ignore"):
        clean = _ratio(_length(apart), features.norm)
        # The length under noise from that of the clean features, so that the sketch's error in both cancels.
        noisy = features.norm[:, None, None] * _ratio(whole, _length(coarse_clean)[:, None, None])
        relative = within_image(_ratio(distance, noisy), 0.5)
        to_signal = within_image(_ratio(distance, features.signal), 0.5)
    response = within_image(features.signal, 0.5)
    heard = response > 2 * features.floor[:, None]
    resolved = resolved_radius(_correlation(features), radii, defined=heard)
    equivalent = equivalent_noise(response, _length(apart), radii)
    largest = np.maximum(_length(apart), distance.max(axis=(1, 2)))
    return Drift(clean, relative, to_signal, resolved, equivalent, (largest <= _FLOORS * features.floor).astype(float))


def numbers(found: Drift, radii: Sequence[float], suffix: str) -> Iterator[tuple[str, Number]]:
    """The numbers of one layer, by their names."""
    yield name_of("drift_clean_feature_relative_median", suffix=suffix), median(found.clean)
    for k, radius in enumerate(radii):
        yield name_of("drift_feature_relative_median", radius=radius, suffix=suffix), median(found.relative[:, k])
    for k, radius in enumerate(radii):
        yield name_of("drift_feature_to_signal_median", radius=radius, suffix=suffix), median(found.to_signal[:, k])
    yield (
        name_of("drift_resolved_feature_radius_median", suffix=suffix),
        censored_median(found.resolved),
    )
    yield name_of("drift_equivalent_feature_noise_median", suffix=suffix), censored_median(found.equivalent)


def _length(rows: Array) -> Array:
    return np.asarray(np.sqrt(np.square(rows).sum(axis=-1)))


def _ratio(a: Array, b: Array) -> Array:
    """a / b; 0 where both are 0, NaN where only b is."""
    return np.where(b > 0, a / np.where(b > 0, b, 1.0), np.where(a == 0, 0.0, np.nan))


def _correlation(features: Features) -> Array:
    """Of the two responses over all trials of a radius, each about its mean over the trials: (image, radius)."""
    a, b = (moved - moved.mean(axis=2, keepdims=True) for moved in (features.moved, features.other_moved))
    size = np.sqrt(np.square(a).sum(axis=(-2, -1)) * np.square(b).sum(axis=(-2, -1)))
    with np.errstate(invalid="ignore"):
        return np.where(size > 0, (a * b).sum(axis=(-2, -1)) / np.where(size > 0, size, 1.0), np.nan)
