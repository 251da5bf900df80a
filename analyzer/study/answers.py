"""What the network answers to one image's rows, reduced as it comes, and the variables that a run stores of it."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer import sketch
from analyzer.measures import REGISTRY, Observation, geometry
from analyzer.measures.scores import TrueClass
from analyzer.perturbations import derived_key
from analyzer.store import ImageStatus, LogOddsStatus
from analyzer.study.model import Model
from analyzer.study.protocol import Protocol
from analyzer.study.rows import Halved, Perturbed, Piece, Source

_GRAM_RESOLUTION = 2e-3
"""What the norm of a sum of two features resolves, of their size, where it follows from float32 Gram matrices."""


class LabelledImage(NamedTuple):
    """One image to be measured: (C, H, W) float32 pixels 0..255, RGB or L; its file's SHA-256; its class, or -1."""

    pixels: NDArray[np.float32]
    sha256: str
    label: int


class Answers:
    """Scores reduced to those of the true class, features to distances and Gram matrices once a radius is complete."""

    def __init__(self, model: Model, image: LabelledImage, protocol: Protocol) -> None:
        self.model, self.image, self.protocol = model, image, protocol
        self.reduced = model.session.reduces
        shape = (len(protocol.radii), protocol.trials)
        self.scores = {family: TrueClass.undefined(shape) for family in protocol.families}
        self.layers = len(model.session.feature_sizes) if protocol.needs_features else 0
        self.clean: NDArray[Any] | None = None
        """Scores of the clean image, the first that come: an embedding's rows are held against them."""
        self.means: NDArray[np.float64] | None = None
        self.clean_scores: list[TrueClass] = []
        self.resolution = 0.0
        self.clean_features: list[NDArray[np.float32]] = []
        self.feature_floor = np.zeros(self.layers)
        self.rows: list[NDArray[np.float32]] = []
        self.feature_gram = np.full((shape[0], self.layers, shape[1], shape[1]) if self.layers else 0, np.nan)
        self.feature_distance = np.full((*shape, self.layers), np.nan)
        self.sketched = min(protocol.trials, sketch.TRIALS)
        self.clean_norm = np.full(self.layers, np.nan)
        self.clean_sketch = np.full((self.layers, sketch.FINE), np.nan, np.float32)
        self.feature_sketch = np.full((shape[0], self.sketched, self.layers, sketch.BUCKETS), np.nan, np.float32)
        self.half = TrueClass.undefined((shape[0], protocol.halved))
        self.half_defect = np.full((shape[0], protocol.halved, self.layers), np.nan)
        self.half_rows: list[NDArray[np.float32]] = []
        self.input_gram = np.full((*shape, shape[1]) if "noise" in protocol.families else 0, np.nan)
        self.input_l2, self.input_linf = np.full(shape, np.nan), np.full(shape, np.nan)

    def take(self, pieces: list[Piece], scores: NDArray[Any], features: list[NDArray[np.float32]]) -> None:
        """Take the scores (rows, K) and the layers of one batch, whose rows are those of `pieces`."""
        if self.clean is None:
            self.clean = scores[0].copy()
            if self.model.means is not None:
                self.means = self.model.means.without(self.image.sha256, self.image.label, self.clean)
        seen = self.model.true_class(scores, label=self.image.label, clean=self.clean, means=self.means)
        start = 0
        for source, trials in pieces:
            rows = slice(start, start + len(trials))
            start = rows.stop
            piece = seen.at(rows)
            kept = [f[rows, rows] if self.reduced else f[rows] for f in features[: self.layers]]
            if self.reduced:
                self._sketched(source, rows, [f[:, len(f) :] for f in features[: self.layers]])
            if isinstance(source, Halved):
                self._halved(source, slice(trials.start, trials.stop), piece, kept)
                if self.reduced:
                    self._defects_of_grams(source.radius, rows, features[: self.layers])
            elif isinstance(source, Perturbed):
                self._perturbed(source, slice(trials.start, trials.stop), piece, kept)
            else:
                # The difference of two float32 logits moves in such steps.
                if self.model.prepared.kind in ("logits", "sigmoid_logits"):
                    largest = np.abs(scores[rows][np.isfinite(scores[rows])]).max(initial=0.0)
                    self.resolution = 2 * float(np.spacing(np.float32(largest)))
                self._clean(piece, kept)

    def _clean(self, seen: TrueClass, features: list[NDArray[np.float32]]) -> None:
        self.clean_scores.append(seen)
        if not self.clean_features:
            self.clean_features = [f[0].copy() for f in features]
            if not self.reduced:
                for k, row in enumerate(self.clean_features):
                    self.clean_norm[k] = geometry.distance_from(row[None], np.zeros_like(row))[0]
                    self.clean_sketch[k] = sketch.sketch(row[None], seed=self.protocol.seed, buckets=sketch.FINE)[0]
        for k, (rows, first) in enumerate(zip(features, self.clean_features, strict=True)):
            distance = geometry.lengths(rows) if self.reduced else geometry.distance_from(rows, first)
            self.feature_floor[k] = max(self.feature_floor[k], distance.max())

    def _perturbed(
        self, source: Perturbed, trials: slice, seen: TrueClass, features: list[NDArray[np.float32]]
    ) -> None:
        self.scores[source.family].put((source.radius, trials), seen)
        if source.family != "noise":
            return
        if self.reduced:
            self._inputs(source)
            for layer, gram in enumerate(features):
                self.feature_gram[source.radius, layer] = geometry.recentred(gram)
                self.feature_distance[source.radius, :, layer] = geometry.lengths(gram)
            return
        _hold(self.rows, source.count, trials, features)
        if trials.stop == source.count:
            self._radius_complete(source)

    def _halved(self, source: Halved, trials: slice, seen: TrueClass, features: list[NDArray[np.float32]]) -> None:
        """Answers at x - a/2, which follow those at x + a of the same radius."""
        self.half.put((source.radius, trials), seen)
        if self.reduced:
            return
        _hold(self.half_rows, source.count, trials, features)
        if trials.stop == source.count:
            parts = zip(self.rows, self.half_rows, self.clean_features, strict=True)
            for layer, (whole, half, clean) in enumerate(parts):
                with np.errstate(invalid="ignore"):
                    sums = (whole[: source.count] - clean) + 2 * (half - clean)
                self.half_defect[source.radius, :, layer] = geometry.distance_from(sums, np.zeros_like(clean))

    def _defects_of_grams(self, radius: int, rows: slice, features: list[NDArray[np.float32]]) -> None:
        """norm(D(a) + 2 D(-a/2))^2 = a.a + 4 a.b + 4 b.b, of a batch whose perturbations begin behind the clean row."""
        whole = np.arange(1, 1 + rows.stop - rows.start)
        half = np.arange(rows.start, rows.stop)
        for layer, gram in enumerate(features):
            g = gram.astype(np.float64)
            squares = g[whole, whole] + 4 * g[whole, half] + 4 * g[half, half]
            self.half_defect[radius, :, layer] = np.sqrt(np.maximum(squares, 0.0))

    def _inputs(self, source: Perturbed) -> None:
        k = source.radius
        self.input_gram[k], self.input_l2[k], self.input_linf[k] = source.distances()

    def _radius_complete(self, source: Perturbed) -> None:
        k = source.radius
        self._inputs(source)
        for layer, (rows, clean) in enumerate(zip(self.rows, self.clean_features, strict=True)):
            self.feature_gram[k, layer] = geometry.centred_gram(rows)
            self.feature_distance[k, :, layer] = geometry.distance_from(rows, clean)
            with np.errstate(invalid="ignore"):
                moved = rows[: self.sketched] - clean
            self.feature_sketch[k, :, layer] = sketch.sketch(moved, seed=self.protocol.seed)

    def _sketched(self, source: Source, rows: slice, columns: list[NDArray[np.float32]]) -> None:
        """The columns behind the Gram matrices of a reduced graph: sketches, and a squared length in the first row."""
        for layer, values in enumerate(columns):
            if rows.start == 0:
                self.clean_sketch[layer] = values[0, :-1]
                self.clean_norm[layer] = np.sqrt(float(values[0, -1]))
            elif isinstance(source, Perturbed) and source.family == "noise":
                self.feature_sketch[source.radius, :, layer] = values[1 : 1 + self.sketched, : sketch.BUCKETS]

    def variables(self) -> dict[str, NDArray[Any]]:
        """Everything a run stores about the image, by variable name, once every batch was taken."""
        clean = self.clean_scores[0]
        image_status, log_odds_status = self._status()
        result: dict[str, Any] = {
            "label": np.int32(self.image.label),
            "clean_predicted": clean.predicted[0],
            "clean_score": clean.score[0],
            "clean_log_odds": clean.log_odds[0],
            "clean_runner_up_log_odds": clean.runner_up[0],
            "log_odds_noise_floor": self._log_odds_floor(),
            "image_status": np.int8(image_status),
            "log_odds_status": np.int8(log_odds_status),
        }
        if self.layers:
            result |= {
                "feature_noise_floor": self.feature_floor,
                "clean_feature_norm": self.clean_norm,
                "clean_sketch": self.clean_sketch,
                "feature_sketch": self.feature_sketch,
            }
        if "noise" in self.protocol.families:
            result |= {"input_distance_l2": self.input_l2, "input_distance_linf": self.input_linf}
        around = self._observation()
        for name in self.protocol.measures:
            result |= REGISTRY[name].observe(around)
        return {name: np.asarray(value) for name, value in result.items()}

    def _log_odds_floor(self) -> float:
        log_odds = np.concatenate([seen.log_odds for seen in self.clean_scores])
        return float(max(np.ptp(log_odds), self.resolution)) if self.model.has_classes else np.nan

    def _status(self) -> tuple[ImageStatus, LogOddsStatus]:
        everything = [*self.clean_scores, *self.scores.values()]
        if not all(np.isfinite(seen.score).all() for seen in everything):
            return ImageStatus.NON_FINITE_MODEL_OUTPUT, LogOddsStatus.NON_FINITE_MODEL_OUTPUT
        if not self.model.has_classes:
            return ImageStatus.MEASURED, LogOddsStatus.EMBEDDING
        if not all(np.isfinite(seen.log_odds).all() for seen in everything):
            return ImageStatus.MEASURED, LogOddsStatus.PROBABILITY_ROUNDED_TO_ZERO_OR_ONE
        return ImageStatus.MEASURED, LogOddsStatus.DEFINED

    def _observation(self) -> Observation:
        protocol, features = self.protocol, self.layers > 0
        return Observation(
            scores=self.scores,
            input_gram=self.input_gram if features else None,
            feature_gram=self.feature_gram if features else None,
            feature_distance=self.feature_distance if features else None,
            feature_floor=self.feature_floor if features else None,
            clean_log_odds=float(self.clean_scores[0].log_odds[0]),
            log_odds_floor=self._log_odds_floor(),
            half=self.half if protocol.halved else None,
            half_defect=self.half_defect if features and protocol.halved else None,
            half_resolution=_GRAM_RESOLUTION if self.reduced else 0.0,
            dimension=int(np.prod(self.model.shape)),
            radii=protocol.radii,
            norm=protocol.norm,
            permutations=protocol.permutations,
            key=derived_key("mantel", protocol.seed, self.image.sha256, protocol.trials),
        )


def _hold(held: list[NDArray[np.float32]], count: int, trials: slice, features: list[NDArray[np.float32]]) -> None:
    """Put the features of some trials among those of all `count`, layer by layer; the first call makes room."""
    if not held:
        held.extend(np.empty((count, f.shape[1]), np.float32) for f in features)
    for rows, values in zip(held, features, strict=True):
        rows[trials] = values
