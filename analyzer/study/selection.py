"""Which images count, and the ranges of g and h: one pass over clean images, in a fixed seeded order.

An image counts when it is classified correctly with a confidence of at least the protocol's. Without labels the clean
prediction is the label. Of an embedding every image counts, with labels those that are nearest to the mean of their
class, which the calibration images give. The pass ends when enough images count and the calibration is full, so what it
finds does not depend on the batch size; its record lets a later run with a larger limit go on where it stopped.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from analyzer.errors import InputError
from analyzer.images import ImageFile
from analyzer.store import Outcome, unit_key
from analyzer.store.documents import Calibration, Candidate, SelectedImage
from analyzer.study.embedded import Embedded
from analyzer.study.looking import Seen
from analyzer.study.model import Model
from analyzer.study.protocol import Protocol
from analyzer.summary.warnings import CARD_FIELDS

CALIBRATION_IMAGES = 2000
_FIELDS = f"{CARD_FIELDS}; `analyzer check-card` tries them"
_SUM = 1e-3  # relative: what rounding leaves of a sum that is always the same
_FEWEST = 3  # images, before something is said of their sums


def select(
    images: Sequence[ImageFile],
    model: Model,
    protocol: Protocol,
    looked_at: Callable[[Iterable[ImageFile]], Iterator[tuple[ImageFile, Seen]]],
    *,
    earlier: Calibration | None = None,
    tick: Callable[[int, int], None] = lambda done, rows: None,
) -> Calibration:
    """Calibration and selection as one JSON document; `earlier` is the document of the run that is being continued.

    images: in seeded order. looked_at: what is seen of them, in order; asked no further than need be. tick is called
    with (candidates done, rows run). Raises InputError when most images are unreadable or none counts.
    """
    state = _Pass(model, protocol, earlier)
    seen = {c["id"] for c in state.candidates}
    left = [] if state.complete else [image for image in images if image.id not in seen]
    for image, what in looked_at(left):
        state.record(image, what)
        if what.rows:
            tick(len(state.candidates), what.rows)
        if state.complete:
            break
    return state.document(found=len(images))


class _Pass:
    """The state of one pass: candidates in order, and running minima and maxima."""

    def __init__(self, model: Model, protocol: Protocol, earlier: Calibration | None) -> None:
        self.model, self.protocol = model, protocol
        self.candidates: list[Candidate] = list(earlier.get("candidates", [])) if earlier else []
        self.calibrated = earlier.get("calibration_images", 0) if earlier else 0
        self.unlabelled = earlier.get("unlabelled", 0) if earlier else 0
        self.names = names = ["input", *model.layers]
        low, high = (earlier.get("minimum", {}), earlier.get("maximum", {})) if earlier else ({}, {})
        self.low = {name: float(low.get(name, np.inf)) for name in names}
        self.high = {name: float(high.get(name, -np.inf)) for name in names}
        grid = earlier.get("input_grid") if earlier else None
        self.step = grid["step"] if grid else 0.0
        self.reach = np.inf if grid is None or grid["reach"] is None else grid["reach"]
        self.other_kind = self.inside = self.judged = self.single = 0
        self.sums = _Sums()
        self.hashes = {c["sha256"] for c in self.candidates if "sha256" in c}
        self.good = sum(c["outcome"] == Outcome.GOOD for c in self.candidates)
        self.embedded = Embedded(earlier.get("class_means") if earlier else None)

    @property
    def complete(self) -> bool:
        """Enough images count, and the calibration is full."""
        return self.good >= self.protocol.limit and self.calibrated >= CALIBRATION_IMAGES

    def record(self, image: ImageFile, what: Seen) -> None:
        """Take the next image in."""
        if what.reason:
            bad: Candidate = {"id": image.id, "label": image.label, "outcome": Outcome.BAD, "reason": what.reason}
            self.candidates.append(bad)
            return
        if what.sha256 in self.hashes:
            self.candidates.append({"id": image.id, "sha256": what.sha256, "outcome": Outcome.DUPLICATE})
            return
        self.hashes.add(what.sha256)
        self.unlabelled += image.label is None
        candidate = (self._classified if self.model.has_classes else self.embedded.candidate)(image, what)
        self.good += candidate["outcome"] == Outcome.GOOD
        if candidate["outcome"] == Outcome.GOOD and what.grid is not None:
            self.step, self.reach = max(self.step, what.grid[0]), min(self.reach, what.grid[1])
        if what.notes:
            candidate["notes"] = list(what.notes)
        self.candidates.append(candidate)
        if self.calibrated < CALIBRATION_IMAGES:
            self.calibrated += 1
            for name, low, high in zip(self.names, what.low, what.high, strict=True):
                if np.isfinite(low):
                    self.low[name] = min(self.low[name], low)
                    self.high[name] = max(self.high[name], high)
            if self.calibrated == CALIBRATION_IMAGES:
                self._settle()

    def _settle(self) -> None:
        self.embedded.settle(self.calibrated)
        self.good = sum(candidate["outcome"] == Outcome.GOOD for candidate in self.candidates)

    def _classified(self, image: ImageFile, what: Seen) -> Candidate:
        scores, label = what.scores, image.label
        self._refuse_other_kind(image, scores)
        if label is None:
            label = max(int(self.model.true_class(scores, label=0).predicted), 0)
        seen = self.model.true_class(scores, label=label)
        confidence, log_odds = float(seen.score), float(seen.log_odds)
        if seen.predicted == -1:
            outcome = Outcome.NON_FINITE
        elif seen.predicted != label:
            outcome = Outcome.WRONG
        else:
            outcome = Outcome.GOOD if confidence >= self.protocol.min_confidence else Outcome.BELOW_CONFIDENCE
        return {
            "id": image.id,
            "sha256": what.sha256,
            "label": label,
            "predicted": int(seen.predicted),
            "confidence": confidence if np.isfinite(confidence) else None,
            "log_odds": log_odds if np.isfinite(log_odds) else None,
            "outcome": outcome,
        }

    def _refuse_other_kind(self, image: ImageFile, scores: NDArray[np.floating]) -> None:
        if not np.isfinite(scores).all():
            return
        prepared, total = self.model.prepared, float(scores.sum())
        inside = scores.min() >= -1e-3 and scores.max() <= 1 + 1e-3
        # Each of K quantised probabilities errs by half a step.
        adds_up = abs(total - 1) <= 1e-2 + scores.size * prepared.step / 2
        self.judged += 1
        self.sums.add(scores)
        self.inside += inside
        self.single += prepared.binary and prepared.kind == "logits" and not prepared.final and 0 <= scores[1] <= 0.5
        self.other_kind += inside and adds_up
        if prepared.kind in ("probabilities", "sigmoid") and not inside:
            raise InputError(
                f"{image.id}: the card says {self.model.card.kind}, but the scores go from {scores.min():.3g} to "
                f"{scores.max():.3g} and add up to {total:.3g}; set output.kind to logits"
            )
        if prepared.kind == "probabilities" and not adds_up:
            raise InputError(
                f"{image.id}: the card says probabilities, but the scores, all in 0..1, add up to {total:.3g}, not 1; "
                'where each class has a sigmoid of its own, set output.kind to "sigmoid"'
            )

    def document(self, *, found: int) -> Calibration:
        """The pass as JSON, with the first images that count, up to the limit, selected.

        Raises InputError when there is nothing to measure.
        """
        self._settle()
        counts = {str(outcome): 0 for outcome in Outcome}
        for candidate in self.candidates:
            counts[candidate["outcome"]] += 1
        if self.model.card.kind == "logits" and self.judged and self.other_kind == self.judged:
            raise InputError(
                "the card says logits, but the scores of every image lie in 0..1 and add up to 1; "
                "set output.kind to probabilities"
            )
        if self.single >= _FEWEST and self.single == self.judged:
            raise InputError(
                "the card says logits, but the one score of every image lies in 0..1, as a probability does; set "
                "output.kind to sigmoid"
            )
        if self.model.card.kind == "logits" and (total := self.sums.constant):
            raise InputError(
                f"the card says logits, but the scores of every image add up to {total:.6g} and have one sign, as "
                "probabilities in other units do; name the tensor of the logits, or of the probabilities in 0..1, in "
                "output.name"
            )
        if counts[Outcome.BAD] * 2 > len(self.candidates):
            first = next(c for c in self.candidates if c["outcome"] == Outcome.BAD)
            raise InputError(
                f"{counts[Outcome.BAD]} of {len(self.candidates)} images cannot be read, first {first['id']}: "
                f"{first['reason']}; is this the right folder?"
            )
        if not counts[Outcome.GOOD]:
            raise InputError(self._none_counts(counts))
        varied = {name: np.isfinite(self.low[name]) for name in self.low}
        ranges = {name: self.high[name] - self.low[name] if varied[name] else 0.0 for name in self.low}
        document: Calibration = {
            "input_range": ranges["input"],
            "feature_range": {name: ranges[name] for name in self.model.layers},
            "minimum": {name: self.low[name] for name in self.low if varied[name]},
            "maximum": {name: self.high[name] for name in self.high if varied[name]},
            "calibration_images": self.calibrated,
            "found": found,
            "unlabelled": self.unlabelled,
            "counts": counts,
            "candidates": self.candidates,
            "limit": self.protocol.limit,
            "selected": chosen(self.candidates, self.protocol.limit),
        }
        if self.model.prepared.input_grid is not None:
            document["input_grid"] = {"step": self.step, "reach": self.reach or None}
        if self.model.card.kind == "logits" and self.judged and self.inside == self.judged:
            document["scores_in_unit_range"] = True
        if (means := self.embedded.document) is not None:
            document["class_means"] = means
        return document

    def _none_counts(self, counts: dict[str, int]) -> str:
        if counts[Outcome.NON_FINITE] and not any(counts[o] for o in (Outcome.WRONG, Outcome.BELOW_CONFIDENCE)):
            first = next(c for c in self.candidates if c["outcome"] == Outcome.NON_FINITE)
            return (
                f"no image counts: the scores of {counts[Outcome.NON_FINITE]} images are not finite, first "
                f"{first['id']}; the weights are not finite, or overflow; run the file by itself to see"
            )
        sure = sorted(
            (c for c in self.candidates if c["outcome"] == Outcome.BELOW_CONFIDENCE),
            key=lambda c: c["confidence"] or 0.0,
            reverse=True,
        )
        if sure:
            best = ", ".join(f"{c['id']} {c['confidence']:.4f}" for c in sure[:3])
            correctly = "" if self.unlabelled else " correctly"
            return (
                f"no image is classified{correctly} with confidence {self.protocol.min_confidence:g} or more; best: "
                f"{best}. Lower `min_confidence`, or check in the card, in this order: {_FIELDS}"
            )
        if not self.model.has_classes:
            return (
                f"no image counts: {counts[Outcome.WRONG]} are nearer to the mean of another class, where a class "
                "takes two images or more to have one. Leave the labels out, or check them and in the card, in this "
                f"order: {_FIELDS}"
            )
        return (
            f"no image counts: {counts[Outcome.WRONG]} classified wrongly, {counts[Outcome.NON_FINITE]} with outputs "
            f"that are not finite. Check the labels and in the card, in this order: {_FIELDS}"
        )


class _Sums:
    """Whether the scores of all images have one sum and one sign though they vary: probabilities, times something."""

    def __init__(self) -> None:
        self.totals: list[float] = []
        self.signs: set[float] = set()
        self.first: NDArray[np.floating] | None = None
        self.varies = False

    def add(self, scores: NDArray[np.floating]) -> None:
        """The finite scores of an image, (K,)."""
        values = scores.astype(np.float64)
        self.totals.append(float(values.sum()))
        self.signs |= set(np.sign(values[values != 0]).tolist())
        self.first = values if self.first is None else self.first
        self.varies = self.varies or float(np.abs(values - self.first).max()) > _SUM * float(np.abs(values).max())

    @property
    def constant(self) -> float:
        """That sum; 0 where there is none."""
        low, high = min(self.totals, default=0.0), max(self.totals, default=0.0)
        one = len(self.totals) >= _FEWEST and len(self.signs) == 1 and self.varies
        return high if one and high - low <= _SUM * abs(high) else 0.0


def chosen(candidates: Iterable[Candidate], limit: int) -> list[SelectedImage]:
    """The first images that count, up to the limit."""
    return [_selected(c) for c in candidates if c["outcome"] == Outcome.GOOD][:limit]


def _selected(candidate: Candidate) -> SelectedImage:
    image_id, sha256, label = candidate["id"], candidate["sha256"], candidate["label"]
    assert label is not None  # an image that counts has one
    return {"id": image_id, "sha256": sha256, "label": label, "key": unit_key(image_id, sha256)}
