"""Whose decisions differ: on the clean images, and on the perturbed ones."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from analyzer.measures import REGISTRY
from analyzer.measures.ranges import FamilyScores
from analyzer.statistics import mean_share, share
from analyzer.store import Outcome, Run
from analyzer.store.documents import Candidate
from analyzer.summary import name_of
from analyzer.verdicts.compare.paired import sign_test_p
from analyzer.verdicts.drift.numbers import Array, Number, median, number
from analyzer.verdicts.pairing import OpenRun

FLIPS = ("flip", "negative_flip", "positive_flip", "both_wrong")
"""Of all rows: other class; reference right and candidate wrong; the other way round; both wrong, other class."""


class CleanImages(NamedTuple):
    """Images that the selection passes of both runs saw: predictions (image,), labels or -1, |difference| in nat."""

    reference: NDArray[np.intp]
    candidate: NDArray[np.intp]
    label: NDArray[np.intp]
    log_odds: Array


def is_labelled(run: Run) -> bool:
    """Whether every image of a run came with a label."""
    return run.calibration is not None and run.calibration["unlabelled"] == 0


def clean_images(reference: Run, candidate: Run) -> CleanImages:
    """What both passes saw, selected or not. Selection by confidence would hide most decisions that differ."""
    seen, others = _seen(reference), _seen(candidate)
    common = [(seen[sha256], others[sha256]) for sha256 in seen if sha256 in others]
    labelled = is_labelled(reference) and is_labelled(candidate)
    return CleanImages(
        np.array([a["predicted"] for a, _ in common], dtype=np.intp),
        np.array([b["predicted"] for _, b in common], dtype=np.intp),
        np.array([a["label"] if labelled and a["label"] == b["label"] else -1 for a, b in common], dtype=np.intp),
        np.array([_difference(a, b) for a, b in common], dtype=np.float64),
    )


def _seen(run: Run) -> dict[str, Candidate]:
    candidates = run.calibration["candidates"] if run.calibration else []
    left_out = (Outcome.BAD, Outcome.DUPLICATE)
    return {c["sha256"]: c for c in candidates if c["outcome"] not in left_out}


def _difference(a: Candidate, b: Candidate) -> float:
    first, second = a.get("log_odds"), b.get("log_odds")
    if first is None or second is None or a["label"] != b["label"]:
        return np.nan
    return abs(first - second)


def of_clean(images: CleanImages) -> dict[str, Number]:
    """Shares of images whose class differs, with Wilson's interval, and how far the log-odds are apart."""
    rows = flips(images.reference, images.candidate, images.label)
    found = {f"drift_clean_{name}_share": number(share(row)) for name, row in rows.items() if np.isfinite(row).any()}
    if np.isfinite(images.log_odds).any():
        found["drift_clean_log_odds_median"] = median(images.log_odds)
    return found


class Churn(TypedDict):
    """Right decisions that become wrong on clean images, wrong ones that become right, and McNemar's exact p."""

    negative: int
    positive: int
    p: float


def churn(images: CleanImages) -> Churn | None:
    """Whether the candidate is better or worse on labelled images (McNemar, Psychometrika 12, 1947; exact, two-sided).

    None without labels.
    """
    if not (images.label >= 0).any():
        return None
    rows = flips(images.reference, images.candidate, images.label)
    negative, positive = (int(np.nansum(rows[name])) for name in ("negative_flip", "positive_flip"))
    return {"negative": negative, "positive": positive, "p": sign_test_p(positive, negative)}


def flips(a: NDArray[np.integer], b: NDArray[np.integer], label: NDArray[np.integer]) -> dict[str, Array]:
    """{one of FLIPS: 1, 0, or NaN where it is unknown}, of class indices that broadcast, -1 where unknown."""
    label = np.broadcast_to(label, a.shape)
    known, judged = (a >= 0) & (b >= 0), label >= 0
    right, still = a == label, b == label
    found = {
        "flip": (a != b, known),
        "negative_flip": (right & ~still, known & judged),
        "positive_flip": (~right & still, known & judged),
        "both_wrong": (~right & ~still & (a != b), known & judged),
    }
    return {name: np.where(defined, flag, np.nan) for name, (flag, defined) in found.items()}


def families(reference: OpenRun, candidate: OpenRun) -> dict[str, FamilyScores]:
    """The variables of the scores of each family of perturbations that both runs have."""
    return {
        measure.family: measure.scores
        for measure in REGISTRY.values()
        if measure.scores and all(measure.scores.predicted in run.dataset for run in (reference, candidate))
    }


def of_rows(
    predicted: Mapping[str, tuple[NDArray[np.integer], NDArray[np.integer]]],
    label: NDArray[np.integer],
    radii: Sequence[float],
) -> dict[str, Number]:
    """Mean over images of the share of an image's rows whose class differs, by family and radius.

    predicted: {family: (image, radius, trial) of reference and candidate}. label: (image,), -1 where there
    is none.
    """
    found: dict[str, Number] = {}
    for family, (a, b) in predicted.items():
        prefix = "" if family == "noise" else f"{family}_"
        rows = flips(a, b, label[:, None, None])
        for name in FLIPS:
            for k, radius in enumerate(radii):
                shares = _share_of_rows(rows[name][:, k])
                if np.isfinite(shares).any():
                    found[name_of(f"drift_{prefix}{name}_share", radius=radius)] = number(mean_share(shares))
    return found


def _share_of_rows(flags: Any) -> Array:
    known = np.isfinite(flags)
    counted = known.sum(axis=-1)
    return np.where(counted > 0, np.where(known, flags, 0.0).sum(axis=-1) / np.maximum(counted, 1), np.nan)
