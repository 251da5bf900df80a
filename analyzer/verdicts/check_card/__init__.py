"""Whether a card is right: the network's answers under it, and under its usual mistakes.

With labels every card is judged by how far the right class stands out, paired over images; without, only what can be
seen is shown. The same answers say how far the small print of preprocessing moves the network.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from analyzer import card as cards
from analyzer import graph
from analyzer.errors import UsageError
from analyzer.estimate import Entry, entry
from analyzer.images import find_set, seeded_order
from analyzer.session import Backend
from analyzer.statistics import Estimate, mean_over_images, share
from analyzer.verdicts.check_card.asking import Answers, Asker
from analyzer.verdicts.check_card.differences import Difference, differences
from analyzer.verdicts.check_card.variants import Variant, variants

__all__ = ["CardCheck", "check_card"]

_UNKNOWN = Estimate(math.nan, math.nan, math.nan, 0)
_LEVEL = 0.05
_AS_GOOD = 0.02  # nat an image: less is no difference between cards
_TELLING = 0.1  # nat of information: with less, answers tell no images apart
_ALIKE = 0.01  # of the standing: so much do other interpolations gain over a right card


class Row(TypedDict):
    """One card. field, name: in which it differs, and what it has there; both "" for the card itself.

    accuracy: share of images with the label's class. log_probability: mean over images of that of the label, nat, at
    the temperature that suits them best. gain: mean over images of that minus the card's. standing: mean over images of
    the standard score of the label's logit among all logits of the image; NaN without logits of three classes. p: of
    Wilcoxon's signed-rank tests that the one or the other is above the card's, where its mean is by more than counts;
    the smaller, times the number of tests and cards (Bonferroni). alike: whether it is no worse than the card that is
    to be kept, or written. confidence: mean of the predicted class. most_frequent: share of images with the most
    frequent class. information: mutual information of image and class, nat. agreement: share of images with the class
    that the card predicts.
    """

    field: str
    name: str
    accuracy: Entry
    log_probability: float
    gain: float
    standing: float
    p: float
    alike: bool
    confidence: Entry
    most_frequent: float
    information: float
    agreement: float


class CardCheck(TypedDict):
    """A checked card. rows: the best first. field: which one is to be looked at, "" where none.

    fixed: whether the card's file was changed.
    """

    model: str
    card: str
    images: int
    unreadable: int
    labelled: int
    rows: list[Row]
    unusable: list[str]
    field: str
    sentence: str
    differences: list[Difference]
    fixed: bool


def check_card(
    model: Path,
    images: Path,
    *,
    card: Path | None = None,
    labels: Path | None = None,
    limit: int = 50,
    seed: int = 0,
    provider: str = "auto",
    threads: int | None = None,
    fix: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CardCheck:
    """Ask a network about clean images under its card and under its usual mistakes. Prints nothing.

    Args:
        model: The .onnx file.
        images: Folder of images, or of one sub-folder a class.
        card: The model card, if not the one beside the model.
        labels: CSV with the columns file,label.
        limit: How many images at most; 20 to 200 do.
        seed: Of the choice of images, and of the noise that differences are measured by.
        provider: "auto", "cpu", "cuda", ...
        threads: Of the CPU provider; the runtime's choice by default.
        fix: Write the best card in place of the card, where labels show that it is better.
        progress: Called with the number of images that were asked under some card, and that of all.

    Returns:
        A `CardCheck`; numbers that are undefined are NaN.

    Raises:
        UsageError: A provider that cannot be had, a limit below 2, or a card that cannot be written.
        InputError: A model, card, label or image set that cannot be used.

    Example:
        >>> from analyzer import bundled, check_card
        >>> folder = bundled.folder()
        >>> labels = folder / "demo" / "labels.csv"
        >>> check = check_card(folder / "gtsrb_ciresan2012.onnx", folder / "demo", labels=labels, limit=20)
        >>> check["field"], check["rows"][0]["accuracy"]["value"]
        ('', 1.0)
    """
    if limit < 2:
        raise UsageError(f"`limit` {limit}: at least 2 images are needed")
    path = cards.locate(model, card)
    graph.check(model)
    own_card = cards.read(path)
    candidates = seeded_order(find_set(images, card=own_card, labels=labels).images, seed=seed)[:limit]
    asker = Asker(model, own_card, candidates, Backend(provider, threads))
    own = asker.under(own_card)
    assert own is not None  # it was opened with it
    tried: list[tuple[Variant, Answers]] = [(Variant("", "", own_card), own)]
    unusable = []
    others = list(variants(own_card, resized=asker.resized, normalised=asker.normalised))
    for done, variant in enumerate(others, start=1):
        progress(done * len(own.classes), (1 + len(others)) * len(own.classes))
        if (answers := asker.under(variant.card, own)) is None:
            unusable.append(variant.name)
        else:
            tried.append((variant, answers))
    labelled = int((asker.labels >= 0).sum())
    margin = _ALIKE * max(abs(_stands(answers)) for _, answers in tried) if _has_standing(own) else 0.0
    ranked = _ranked(tried, labelled, margin=margin)
    better = [min(1.0, len(ranked) * _better(each, own, margin=margin)) if labelled else math.nan for _, each in ranked]
    best, field = ranked[0][0], ""
    if best.field and (better[0] <= _LEVEL if labelled else ranked[0][1].information >= _TELLING):
        field = best.field
    kept = ranked[0][1] if field else own
    rows = [
        _row(*each, own, asker.labels, p, alike=bool(labelled) and _alike(each[1], kept, margin=margin))
        for each, p in zip(ranked, better, strict=True)
    ]
    fixed = bool(fix and field and labelled)
    if fixed:
        cards.write(_marked(best.card, field, _as_good(rows), len(own.classes)), path)
    return {
        "model": model.name,
        "card": str(path),
        "images": len(own.classes),
        "unreadable": len(candidates) - len(own.classes),
        "labelled": labelled,
        "rows": rows,
        "unusable": unusable,
        "field": field,
        "sentence": _sentence(rows, field, labelled),
        "differences": differences(asker, own, tried, seed=seed)
        if asker.normalised and asker.model.has_classes
        else [],
        "fixed": fixed,
    }


def _ranked(tried: Sequence[tuple[Variant, Answers]], labelled: int, *, margin: float) -> list[tuple[Variant, Answers]]:
    """The best card first. tried: the card itself first; it is not displaced by what is hardly better.

    With labels by the mean log-probability of the right class; of cards that are as good as the best by that, and where
    there is one, by the mean standing of the right class. Without labels by the mutual information of image and class.
    """
    values = [_right(answers) if labelled else answers.information for _, answers in tried]
    values = [-math.inf if math.isnan(value) else value for value in values]
    least = max(values) - _AS_GOOD if _has_standing(tried[0][1]) else math.inf

    def merit(k: int) -> tuple[bool, float]:
        itself = not tried[k][0].field
        if values[k] >= least:
            return True, _stands(tried[k][1]) + margin * itself
        return False, values[k] + _AS_GOOD * itself

    return [tried[k] for k in sorted(range(len(tried)), key=merit, reverse=True)]


def _right(answers: Answers) -> float:
    return float(np.nanmean(answers.right))


def _stands(answers: Answers) -> float:
    return float(np.nanmean(answers.standing))


def _has_standing(answers: Answers) -> bool:
    return bool(np.isfinite(answers.standing).any())


def _better(answers: Answers, own: Answers, *, margin: float) -> float:
    """p of the card being better than `own`, of the tests of what is higher by more than counts; 1 of none."""
    tests = [(answers.right - own.right, _AS_GOOD)]
    if _has_standing(own):
        tests.append((answers.standing - own.standing, margin))
    known = [(gains[np.isfinite(gains)], least) for gains, least in tests]
    p = [wilcoxon(g, alternative="greater").pvalue for g, least in known if g.size and g.mean() > least]
    return min([1.0, *(len(tests) * float(each) for each in p)])


def _alike(answers: Answers, kept: Answers, *, margin: float) -> bool:
    """Whether a card is no worse than the one that is kept, by more than counts."""
    as_probable = _right(answers) >= _right(kept) - _AS_GOOD
    return bool(as_probable and (not _has_standing(kept) or _stands(answers) >= _stands(kept) - margin))


def _as_good(rows: Sequence[Row]) -> list[str]:
    """The names of other cards that labels cannot tell from the best one."""
    return [row["name"] for row in rows[1:] if row["field"] and row["alike"]]


def _marked(card: cards.Card, field: str, others: Sequence[str], images: int) -> cards.Card:
    """The card with a word on what of it is still a guess: a choice among cards that did as well."""
    if not others:
        return card
    todo = f"{field} was chosen by check-card on {images} images, where {len(others)} others did as well"
    return dataclasses.replace(card, source={**card.source, "fill_in": [*card.source.get("fill_in", []), todo]})


def _row(variant: Variant, answers: Answers, own: Answers, labels: NDArray[np.intp], p: float, *, alike: bool) -> Row:
    known = labels >= 0
    gains, standing = (answers.right - own.right)[known], answers.standing[known]
    right = (answers.classes == labels)[known]
    _, counts = np.unique(answers.classes, return_counts=True)
    return {
        "field": variant.field,
        "name": variant.name,
        "accuracy": entry(share(right)) if known.any() else entry(_UNKNOWN),
        "log_probability": float(answers.right[known].mean()) if known.any() else math.nan,
        "gain": float(gains.mean()) if known.any() else math.nan,
        "standing": float(np.nanmean(standing)) if np.isfinite(standing).any() else math.nan,
        "p": p,
        "alike": alike,
        "confidence": entry(mean_over_images(answers.confidence)),
        "most_frequent": float(counts.max() / len(answers.classes)),
        "information": answers.information,
        "agreement": float((answers.classes == own.classes).mean()),
    }


def _sentence(rows: Sequence[Row], field: str, labelled: int) -> str:
    own = next(row for row in rows if not row["field"])
    first = rows[0]
    if not labelled:
        if not field and first["information"] < _TELLING:
            return (
                f"Without labels no card can be called right; under none of {len(rows)} do the answers tell the images "
                "apart: the network is sure of nothing, or gives all of them the same class."
            )
        if not field:
            return (
                f"Without labels no card can be called right; of {len(rows)}, the answers under this one tell the "
                "images apart best."
            )
        return (
            f"Without labels no card can be called right; under {first['name']} the answers tell the images apart "
            f"better ({first['information']:.2g} nat of information against {own['information']:.2g}): look at "
            f"{field}, and give `labels` to decide."
        )
    if not field:
        right = f"{_percent(own)} of {own['accuracy']['n']} images are right"
        alike = [row for row in rows if row["field"] and row["alike"]]
        if not alike:
            return f"The card is the best of {len(rows)}: {right}."
        fields = "; ".join(dict.fromkeys(row["field"] for row in alike))
        return (
            f"None of {len(rows) - 1} others is better than the card: {right}. These images cannot tell it from "
            f"{len(alike)} of them, which differ in: {fields}."
        )
    others = _as_good(rows)
    as_well = f" {len(others)} others do as well, such as {others[0]}: these images cannot tell." if others else ""
    return (
        f"{first['name'][0].upper()}{first['name'][1:]} gives {_percent(first)} where the card gives {_percent(own)}, "
        f"and {_more(first, own)}: check {field}.{as_well}"
    )


def _more(first: Row, own: Row) -> str:
    if math.isnan(first["standing"]):
        return f"{first['gain']:.2g} nat more for the right class"
    return f"the right class stands out more (standard score {first['standing']:.2f} against {own['standing']:.2f})"


def _percent(row: Row) -> str:
    return f"{row['accuracy']['value']:.0%}"
