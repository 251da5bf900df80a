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
_ALIKE = 0.01  # of the standing: so much do other interpolations gain over a right card


class Row(TypedDict):
    """One card. field, name: in which it differs, and what it has there; both "" for the card itself.

    accuracy: share of images with the label's class. log_probability: mean over images of that of the label, nat, at
    the temperature that suits them best. gain: mean over images of that minus the card's. standing: mean over images of
    the standard score of the label's logit among all logits of the image; NaN below three classes, and of sigmoids. p:
    of Wilcoxon's signed-rank test that the standing, where there is none the log-probability, is above the card's,
    times the number of cards (Bonferroni). alike: whether these images cannot tell it from the best one. confidence:
    mean of the predicted class. most_frequent: share of images with the most frequent class. information: mutual
    information of image and class, nat. agreement: share of images with the class that the card predicts.
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
    ranked = _ranked(tried, labelled)
    rows = [_row(variant, answers, own, asker.labels, len(ranked), alike) for variant, answers, alike in ranked]
    best, field = ranked[0][0], ""
    if best.field and (not labelled or rows[0]["p"] <= _LEVEL):
        field = best.field
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


def _ranked(tried: Sequence[tuple[Variant, Answers]], labelled: int) -> list[tuple[Variant, Answers, bool]]:
    """The best card first, and whether each is alike it. tried: the card itself first.

    With labels by the mean standing of the right class, and where there is none by its mean log-probability; of cards
    under which the right class is less probable than under the card itself always by that, behind all others. Without
    labels by the mutual information of image and class. The card is not displaced by what is alike.
    """
    own = tried[0][1]
    by_standing = bool(labelled and np.isfinite(own.standing).any())

    def merit(answers: Answers) -> tuple[bool, float]:
        if not labelled:
            return True, -math.inf if math.isnan(answers.information) else answers.information
        right, least = float(np.nanmean(answers.right)), float(np.nanmean(own.right)) - _AS_GOOD
        no_worse = right >= least
        return no_worse, float(np.nanmean(answers.standing)) if by_standing and no_worse else right

    merits = [merit(answers) for _, answers in tried]
    margin = _ALIKE * abs(max(value for no_worse, value in merits if no_worse)) if by_standing else _AS_GOOD
    order = sorted(
        range(len(tried)), key=lambda k: (merits[k][0], merits[k][1] + margin * (tried[k][0].field == "")), reverse=True
    )
    best = merits[order[0]][1]
    return [(*tried[k], merits[k][0] and merits[k][1] >= best - margin) for k in order]


def _as_good(rows: Sequence[Row]) -> list[str]:
    """The names of other cards that labels cannot tell from the best one."""
    return [row["name"] for row in rows[1:] if row["field"] and row["alike"]]


def _marked(card: cards.Card, field: str, others: Sequence[str], images: int) -> cards.Card:
    """The card with a word on what of it is still a guess: a choice among cards that did as well."""
    if not others:
        return card
    todo = f"{field} was chosen by check-card on {images} images, where {len(others)} others did as well"
    return dataclasses.replace(card, source={**card.source, "fill_in": [*card.source.get("fill_in", []), todo]})


def _row(variant: Variant, answers: Answers, own: Answers, labels: NDArray[np.intp], cards: int, alike: bool) -> Row:
    known = labels >= 0
    gains, standing = (answers.right - own.right)[known], answers.standing[known]
    higher = standing - own.standing[known] if np.isfinite(standing).any() else gains
    better = float(wilcoxon(higher, alternative="greater").pvalue) if higher.any() else 1.0
    right = (answers.classes == labels)[known]
    _, counts = np.unique(answers.classes, return_counts=True)
    return {
        "field": variant.field,
        "name": variant.name,
        "accuracy": entry(share(right)) if known.any() else entry(_UNKNOWN),
        "log_probability": float(answers.right[known].mean()) if known.any() else math.nan,
        "gain": float(gains.mean()) if known.any() else math.nan,
        "standing": float(standing.mean()) if known.any() else math.nan,
        "p": min(1.0, better * cards) if known.any() else math.nan,
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
        fields = " and of ".join(dict.fromkeys(row["field"] for row in alike))
        near = min(alike, key=lambda row: row["p"])
        little = (
            f" But the right class stands out a little more on most of them with {near['name']} (p = {near['p']:.1g}): "
            f"look at {near['field']}."
            if near["p"] <= _LEVEL
            else ""
        )
        return (
            f"None of {len(rows) - 1} others is better than the card: {right}. These images cannot tell it from "
            f"{len(alike)} of them, of {fields}.{little}"
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
