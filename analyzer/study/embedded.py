"""Candidates of an embedding: they have no classes but those whose mean they are nearest to, once means are known."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer.errors import InputError
from analyzer.images import ImageFile
from analyzer.measures.scores import class_means, cosines_to_means, unit
from analyzer.store import Outcome
from analyzer.store.documents import Calibration, Candidate, ClassMeans
from analyzer.store.manifest import in_class_means

if TYPE_CHECKING:
    from analyzer.study.looking import Seen

_MOST = 2 * 10**7  # numbers of all class means together
_HELD = 2 * 10**8  # numbers of the images that wait
_NOTHING = 1e-3  # length of a sum of unit vectors of which none is left, but for rounding


class Means(NamedTuple):
    """Class means of an embedding. sums: (C, K) of unit embeddings, NaN for a class without any. members: the SHA-256
    of the images in them."""

    sums: NDArray[np.float64]
    members: frozenset[str]

    def without(self, sha256: str, label: int, clean: NDArray[np.floating]) -> NDArray[np.float64]:
        """(C, K) unit vectors: the means, that of the image's class without itself; `clean` is its embedding."""
        sums = self.sums.copy()
        if sha256 in self.members and label >= 0:
            left = sums[label] - unit(clean)
            sums[label] = left if np.sqrt(np.square(left).sum()) > _NOTHING else np.nan
        return unit(sums)


def means_of(calibration: Calibration) -> Means | None:
    """The class means of a selection pass; None where there are none."""
    document = calibration.get("class_means")
    if document is None:
        return None
    return Means(_as_array(document["sums"]), frozenset(c["sha256"] for c in in_class_means(calibration)))


class Embedded:
    """Judges candidates of an embedding; those with a label wait until `settle`, which comes once.

    means: (C, K) of an earlier pass, None where there was none.
    """

    def __init__(self, means: ClassMeans | None) -> None:
        self.means: NDArray[np.float64] | None = None if means is None else _as_array(means["sums"])
        self._images = 0 if means is None else means["images"]
        self._waiting: list[tuple[Candidate, NDArray[np.floating]]] = []

    def candidate(self, image: ImageFile, what: "Seen") -> Candidate:
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
                if (len(self._waiting) + 1) * what.scores.size > _HELD:
                    raise InputError(
                        f"class means of {what.scores.size} numbers take too many of them at once; leave the labels "
                        "out, or name a smaller layer in output.name"
                    )
                self._waiting.append((found, what.scores))
            else:
                _judge(found, unit(what.scores) @ unit(self.means).T)
        return found

    def settle(self, images: int) -> None:
        """Take the means of all that wait, and judge each by the means without itself.

        images: how many were looked at so far and can be read. Raises InputError where the means would be too large to
        be kept.
        """
        if not self._waiting:
            return
        rows = np.stack([scores for _, scores in self._waiting])
        labels = np.array([candidate["label"] for candidate, _ in self._waiting])
        if (labels.max() + 1) * rows.shape[1] > _MOST:
            raise InputError(
                f"class means of {labels.max() + 1} classes and {rows.shape[1]} numbers each are more than {_MOST:g}; "
                "leave the labels out, or name a smaller layer in output.name"
            )
        for (candidate, _), cosines in zip(self._waiting, cosines_to_means(rows, labels), strict=True):
            _judge(candidate, cosines)
        means = class_means(rows, labels)
        self.means, self._images, self._waiting = means, images, []

    @property
    def document(self) -> ClassMeans | None:
        """The means as JSON, float32; None where there are none."""
        if self.means is None:
            return None
        sums = [None if np.isnan(row).any() else row.astype(np.float32).tolist() for row in self.means]
        return {"images": self._images, "sums": sums}


def _as_array(means: Sequence[Sequence[float] | None]) -> NDArray[np.float64]:
    """Class means of a calibration document: (C, K), NaN for a class without images."""
    width = max(len(row) for row in means if row is not None)
    return np.array([[np.nan] * width if row is None else row for row in means], np.float64)


def _judge(candidate: Candidate, cosines: NDArray[np.float64]) -> None:
    """By the class with the largest of its cosines, (C,); NaN for one that there is not."""
    predicted = int(np.where(np.isnan(cosines), -np.inf, cosines).argmax())
    candidate["predicted"] = predicted
    if predicted != candidate["label"]:
        candidate["outcome"] = Outcome.WRONG
