"""Whether a build or a backend is still the same function around one's images: two runs held together row by row.

Runs of one protocol have the same perturbations to the bit, wherever they were made. So what differs between two rows
is the build: its weights, its precision, the runtime, the device. Differences come in the units that a decision needs:
decisions that change, nat of log-odds, and the radius of noise that changes the reference as much.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np

from analyzer.card import EMBEDDING
from analyzer.errors import UsageError
from analyzer.measures.ranges import within_rounding
from analyzer.store import Run
from analyzer.store.schema import SKETCHES
from analyzer.summary import layer_suffix
from analyzer.text import one_line
from analyzer.verdicts import pairing
from analyzer.verdicts.drift import decisions, layers, responses, words
from analyzer.verdicts.drift.numbers import UNKNOWN, Number, median, upper
from analyzer.verdicts.pairing import OpenRun

SCHEMA = 1
_BLOCK = 16  # images whose sketches are held at once

__all__ = ["SCHEMA", "Document", "check_shapes", "drift", "drift_opened"]


class Described(TypedDict):
    """One of the runs."""

    name: str
    path: str
    model: str
    provider: str
    precision: str


Document = dict[str, Any]
"""{"schema", "reference": Described, "candidates": [...], "images", "notes"}; see `drift`."""


def drift(
    reference: Path, candidates: Sequence[Path], *, match: Sequence[str] = (), names: Sequence[str] | None = None
) -> Document:
    """How far each candidate is from the reference, around every image that both measured. Prints nothing.

    Args:
        reference: The run directory of the build that the others are to replace.
        candidates: Run directories of one protocol and of the same images.
        match: "A=B" for layers of the reference and of the candidates that belong together under different names.
        names: What the runs are called, the reference first; their folders by default.

    Returns:
        {"schema": 1, "reference": {"name", "path", "model", "provider", "precision"}, "candidates": [...], "images":
        measured by all, "notes": sentences}. A candidate has the same keys as the reference, "images", "clean_images"
        (seen by both selection passes), "mcnemar" ({"negative", "positive", "p"} of labelled clean images, or None),
        "layers" ([{"reference", "candidate"}]), "verdict", "sentences" and numbers,
        {"value", "low", "high", "n"} each, NaN where undefined, the median over images where nothing else is said:

        drift_clean_flip_share, drift_clean_negative_flip_share, ..._positive_flip_..., ..._both_wrong_...: share of the
            clean images of both selection passes whose class differs; with labels, right -> wrong, wrong -> right,
            wrong -> another wrong one.
        drift_flip_share@r, drift_negative_flip_share@r, ...: mean over images of the share of rows; of other families
            of perturbations drift_<family>_flip_share@r.
        drift_clean_log_odds_median, drift_log_odds_median@r, drift_log_odds_q95@r (of each image's 95 % quantile over
            the trials), drift_log_odds_largest: |difference| in nat. drift_reference_floor_median and
            drift_candidate_floor_median: the noise floors beside them. drift_reference_response_median@r and
            drift_candidate_response_median@r: |log-odds(x + nu) - log-odds(x)| of either.
        drift_equivalent_noise_median, drift_resolved_radius_median, and of features
            drift_equivalent_feature_noise_median[/layer], drift_resolved_feature_radius_median[/layer]: grey levels;
            the value is NaN and "censored" is "below" or "above" where it lies outside the radii.
        drift_clean_feature_relative_median[/layer], drift_feature_relative_median@r[/layer],
            drift_feature_to_signal_median@r[/layer]: of the sketches of the features.

    Raises:
        UsageError: No candidate, the reference among them, other protocols, pixel shapes or class counts, a match that
            is not there.
        InputError: There is no run, or no common image.
        IncompleteError: A run is damaged or has no image yet.

    Example:
        >>> document = drift(Path("runs/fp32"), [Path("runs/int8")])  # doctest: +SKIP
        >>> document["candidates"][0]["verdict"]  # doctest: +SKIP
    """
    paths = [Path(path) for path in (reference, *candidates)]
    if len(paths) < 2 or len({path.resolve() for path in paths}) < len(paths):
        raise UsageError(
            f"drift needs a reference and other runs as candidates, got {', '.join(map(one_line, paths)) or 'none'}"
        )
    names, readers = names or pairing.names_of(paths), [Run(path) for path in paths]
    pairing.check_protocols(readers, names)
    check_shapes(readers, names)
    with ExitStack() as stack:
        return drift_opened(
            [stack.enter_context(pairing.opened(run, name)) for run, name in zip(readers, names, strict=True)], match
        )


def check_shapes(runs: Sequence[Run], names: Sequence[str]) -> None:
    """Raise UsageError where pixel shapes or class counts differ from those of the first run."""
    for name, run in zip(names[1:], runs[1:], strict=True):
        for key in ("pixel_shape", "classes", "embedding"):
            contexts = ({**each.context, "embedding": each.kind == EMBEDDING} for each in (runs[0], run))
            a, b = (context[key] for context in contexts)
            if a != b:
                raise UsageError(
                    f"{names[0]} and {name} differ in {key}: {a} and {b}\n"
                    "builds of one network have the same; other networks are for `compare`"
                )


def drift_opened(runs: Sequence[OpenRun], match: Sequence[str] = ()) -> Document:
    """`drift` of runs that are open and of one protocol, the reference first."""
    everywhere = pairing.matched(runs)
    return {
        "schema": SCHEMA,
        "reference": _described(runs[0]),
        "candidates": [_candidate(runs[0], run, match) for run in runs[1:]],
        "images": len(everywhere[0]),
        "notes": [*pairing.unfinished(runs), *_notes(runs)],
    }


def _described(run: OpenRun) -> Described:
    context = run.run.context
    return {
        "name": run.name,
        "path": str(run.run.path),
        "model": context["model"],
        "provider": context["provider"],
        "precision": context["precision"],
    }


def _notes(runs: Sequence[OpenRun]) -> Iterator[str]:
    reference = runs[0]
    for run in runs[1:]:
        yield from pairing.settings([reference, run])
        places = pairing.matched([reference, run])
        measured = [len(each.positions) for each in (reference, run)]
        if any(n > len(places[0]) for n in measured):
            yield (
                f"{len(places[0])} images are common to {reference.name} (of {measured[0]}) and {run.name} (of "
                f"{measured[1]}): rows are compared on these, clean decisions on all that both selection passes saw."
            )
        labels = [each.dataset["label"].values[at] for each, at in zip((reference, run), places, strict=True)]
        if other := int((labels[0] != labels[1]).sum()):
            yield (
                f"{other} common image(s) have another label in {run.name}; without labels the clean prediction is the "
                "label. Their log-odds are of different classes and are left out."
            )
    if not all(decisions.is_labelled(run.run) for run in runs):
        yield "Without labels for all images nothing is said of better or worse."
    if reference.dataset.sizes["trial"] < responses.FEWEST_TRIALS:
        yield f"No resolved radius: it takes {responses.FEWEST_TRIALS} trials or more."


def _candidate(reference: OpenRun, candidate: OpenRun, match: Sequence[str]) -> Document:
    """Everything about one candidate."""
    places = pairing.matched([reference, candidate])
    pair = list(zip((reference, candidate), places, strict=True))
    radii = [float(radius) for radius in reference.dataset["radius"].values]
    seen = decisions.clean_images(reference.run, candidate.run)
    labels = [_of(run, "label", at) for run, at in pair]
    labelled = all(decisions.is_labelled(run.run) for run, _ in pair)
    judged = np.where(labelled & (labels[0] == labels[1]), labels[0], -1)
    families = decisions.families(reference, candidate)
    predicted = {
        family: (_of(reference, names.predicted, places[0]), _of(candidate, names.predicted, places[1]))
        for family, names in families.items()
    }
    known = [(a >= 0) & (b >= 0) for a, b in predicted.values()]
    changed = sum(int((there & (a != b)).sum()) for there, (a, b) in zip(known, predicted.values(), strict=True))
    noise = families.get("noise")
    scores = _scores(pair, noise.log_odds if noise else None, labels[0] == labels[1], radii)
    pairs = layers.matched(reference.run, candidate.run, match)
    kept = [each for each in pairs if _has_sketches(reference, candidate, each)]
    suffixes = [layer_suffix(each.name, len(reference.run.layers)) for each in kept]
    numbers = decisions.of_clean(seen) | decisions.of_rows(predicted, judged, radii) | scores.numbers
    drifts = [_layer(pair, each, radii) for each in kept]
    for each, suffix in zip(drifts, suffixes, strict=True):
        numbers |= dict(layers.numbers(each, radii, suffix))
    embedded = reference.run.kind == EMBEDDING
    seen_whole = reference.run.context["feature"] in [each.name for each in kept]
    equal = seen_whole and all(bool(each.rounding.all()) for each in drifts) if embedded else scores.equal
    found = words.Found(
        numbers=numbers,
        reference=reference.name,
        candidate=candidate.name,
        radii=radii,
        images=len(places[0]),
        clean=len(seen.label),
        rows=sum(int(there.sum()) for there in known),
        changed=changed,
        equal=equal and not changed and not (seen.reference != seen.candidate).any(),
        layers=[(each.name, suffix) for each, suffix in zip(kept, suffixes, strict=True)],
        churn=decisions.churn(seen),
        steps=scores.steps,
    )
    return {
        **_described(candidate),
        "images": found.images,
        "clean_images": found.clean,
        "mcnemar": found.churn,
        "layers": [{"reference": each.name, "candidate": each.other} for each in kept],
        "verdict": words.verdict(found),
        "sentences": [*words.sentences(found), *_without_layers(reference, candidate, pairs, kept)],
        **numbers,
    }


def _of(run: OpenRun, name: str, places: Any) -> Any:
    return run.dataset[name].values[places]


class _Scores(NamedTuple):
    """Numbers of the log-odds; whether all differences are no more than rounding; whether small noise meets steps."""

    numbers: dict[str, Number]
    equal: bool
    steps: bool


def _scores(pair: Sequence[tuple[OpenRun, Any]], name: str | None, same: Any, radii: Sequence[float]) -> _Scores:
    """name: variable of the log-odds under noise, if both have it. same: (image,), whether both have one label."""
    floors = [_of(run, "log_odds_noise_floor", at) for run, at in pair]
    clean = [np.where(same, _of(run, "clean_log_odds", at), np.nan) for run, at in pair]
    numbers = {"drift_reference_floor_median": median(floors[0]), "drift_candidate_floor_median": median(floors[1])}
    apart, both = np.abs(clean[0] - clean[1]), floors[0] + floors[1]
    if name is None:
        return _Scores(numbers, bool(within_rounding(apart, both, trials=1).all()), False)
    a, b = (np.where(same[:, None, None], _of(run, name, at), np.nan) for run, at in pair)
    own, other = a - clean[0][:, None, None], b - clean[1][:, None, None]
    numbers |= responses.of_scores(a - b, radii) | responses.of_responses(own, other, apart, floors[0], radii)
    largest = np.maximum(apart, np.abs(a - b).max(axis=(1, 2)))
    equal = bool(within_rounding(largest, both, trials=a.shape[-1]).all())
    resolved = numbers.get("drift_resolved_radius_median", UNKNOWN)
    return _Scores(numbers, equal, responses.answers_in_steps(own, other, radii, resolved=upper(resolved)))


def _has_sketches(reference: OpenRun, candidate: OpenRun, pair: layers.Match) -> bool:
    held = all(name in run.dataset for run in (reference, candidate) for name in SKETCHES)
    return held and not layers.sizes_differ(pair, reference.run, candidate.run)


def _layer(pair: Sequence[tuple[OpenRun, Any]], match: layers.Match, radii: Sequence[float]) -> layers.Drift:
    parts = []
    for start in range(0, len(pair[0][1]), _BLOCK):
        blocks = (run.dataset.isel(image=at[start : start + _BLOCK]) for run, at in pair)
        parts.append(layers.drift(layers.read(next(blocks), next(blocks), match), radii))
    return layers.Drift(*map(np.concatenate, zip(*parts, strict=True)))


def _without_layers(
    reference: OpenRun, candidate: OpenRun, pairs: Sequence[layers.Match], kept: Sequence[layers.Match]
) -> Iterator[str]:
    for run in (reference, candidate):
        if not all(name in run.dataset for name in SKETCHES):
            why = "it was made by an earlier version" if "feature_noise_floor" in run.dataset else "it has no features"
            yield f"{run.name} has no sketches of its features ({why}): nothing is said of layers."
            return
    if not pairs:
        yield (
            f"No layer of {reference.name} ({', '.join(reference.run.layers)}) is one of {candidate.name} "
            f"({', '.join(candidate.run.layers)}) by its name; name two that belong together with `match` A=B."
        )
    for each in pairs:
        if each not in kept:
            yield f"{each.name} and {each.other} have different numbers of features: not compared."
