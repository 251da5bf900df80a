"""The plane's numbers as a document: what `analyzer landscape --json` prints."""

import math
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from analyzer.analyses.landscape.plane import MARKED
from analyzer.analyses.landscape.sentences import sentence
from analyzer.analyses.types import FloatOrInf, FloatOrNaN

if TYPE_CHECKING:
    from analyzer.analyses.landscape import Landscape


class MarkedPoint(TypedDict):
    """The image, or one of its two perturbed copies. predicted: class index, -1 where undefined."""

    a: float
    b: float
    score: FloatOrNaN
    log_odds: FloatOrNaN
    predicted: int


class LandscapeDocument(TypedDict):
    """label_name: None where the card has no labels. extent: smallest and largest a and b. ranges: lowest, highest."""

    label: int
    label_name: str | None
    radius: float
    norm: str
    cosine: float
    extent: list[float]
    size: int
    marked: dict[str, MarkedPoint]
    score_range: list[FloatOrNaN]
    log_odds_range: list[FloatOrNaN]
    boundary_crossed: bool
    nearest_other_class: FloatOrInf
    misclassified_share: FloatOrNaN
    undefined_points: int
    sentence: str


def document(landscape: "Landscape", *, labels: tuple[str, ...] | None = None) -> LandscapeDocument:
    """The numbers of a plane, and the sentence about them. labels: the card's names of the classes."""
    marked: dict[str, MarkedPoint] = {
        name: {
            "a": a,
            "b": b,
            "score": float(landscape.marked_score[number]),
            "log_odds": float(landscape.marked_log_odds[number]),
            "predicted": int(landscape.marked_predicted[number]),
        }
        for number, (name, (a, b)) in enumerate(MARKED.items())
    }
    return {
        "label": landscape.label,
        "label_name": labels[landscape.label] if labels else None,
        "radius": landscape.radius,
        "norm": landscape.norm,
        "cosine": landscape.cosine,
        "extent": [float(landscape.a[0]), float(landscape.a[-1])],
        "size": len(landscape.a),
        "marked": marked,
        "score_range": _range(landscape.score),
        "log_odds_range": _range(landscape.log_odds),
        "boundary_crossed": landscape.crossed,
        "nearest_other_class": landscape.nearest,
        "misclassified_share": landscape.misclassified_share,
        "undefined_points": int((landscape.predicted < 0).sum()),
        "sentence": sentence(landscape),
    }


def _range(values: NDArray[np.float64]) -> list[FloatOrNaN]:
    finite = values[np.isfinite(values)]
    return [float(finite.min()), float(finite.max())] if finite.size else [math.nan, math.nan]
