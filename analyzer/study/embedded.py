"""Candidates of an embedding: they have no classes but those whose mean they are nearest to, once means are known."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from analyzer.errors import InputError
from analyzer.images import ImageFile
from analyzer.measures.scores import class_means, similarity, unit
from analyzer.store import Outcome
from analyzer.store.documents import Candidate
from analyzer.study.looking import Seen

_MOST = 2 * 10**7  # numbers of all class means together


class Embedded:
    """Judges candidates of an embedding; those with a label wait until `settle`, which comes once.

    means: (C, K) of an earlier pass, None where there was none.
    """

    def __init__(self, means: Sequence[Sequence[float] | None] | None) -> None:
        self.means = None if means is None else as_array(means)
        self._waiting: list[tuple[Candidate, NDArray[np.floating]]] = []

    def candidate(self, image: ImageFile, what: Seen) -> Candidate:
        """An image that was looked at: it counts where its embedding has a direction, for now whatever its label."""
        label = -1 if image.label is None else image.label
        finite = bool(np.isfinite(unit(what.scores)).all())
        found: Candidate = {
            "id": image.id,
            "sha256": what.sha256,
            "label": label,
            "predicted": -1,
            "confidence": None,
            "log_odds": None,
            "outcome": Outcome.GOOD if finite else Outcome.NON_FINITE,
        }
        if finite and label >= 0:
            if self.means is None:
                self._waiting.append((found, what.scores))
            else:
                _judge(found, what.scores, self.means)
        return found

    def settle(self) -> None:
        """Take the means of all that wait, and judge each by the means without itself.

        Raises InputError where the means would be too large to be kept.
        """
        if not self._waiting:
            return
        rows = np.stack([unit(scores) for _, scores in self._waiting])
        labels = np.array([candidate["label"] for candidate, _ in self._waiting])
        if (labels.max() + 1) * rows.shape[1] > _MOST:
            raise InputError(
                f"class means of {labels.max() + 1} classes and {rows.shape[1]} numbers each are more than {_MOST:g}; "
                "leave the labels out, or name a smaller layer in output.name"
            )
        means = class_means(rows, labels)
        for (candidate, scores), row in zip(self._waiting, rows, strict=True):
            label = candidate["label"]
            own = means[label].copy()
            means[label] = np.nan if (labels == label).sum() == 1 else own - row
            _judge(candidate, scores, means)
            means[label] = own
        self.means, self._waiting = means, []

    @property
    def document(self) -> list[list[float] | None] | None:
        """The means as JSON, float32; None where there are none."""
        if self.means is None:
            return None
        return [None if np.isnan(row).any() else row.astype(np.float32).tolist() for row in self.means]


def as_array(means: Sequence[Sequence[float] | None]) -> NDArray[np.float64]:
    """Class means of a calibration document: (C, K), NaN for a class without images."""
    width = max(len(row) for row in means if row is not None)
    return np.array([[np.nan] * width if row is None else row for row in means], np.float64)


def _judge(candidate: Candidate, scores: NDArray[np.floating], means: NDArray[np.float64]) -> None:
    predicted = int(similarity(scores, scores, means=means).predicted)
    candidate["predicted"] = predicted
    if predicted != candidate["label"]:
        candidate["outcome"] = Outcome.WRONG
