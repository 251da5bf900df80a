"""One image: its perturbations through the session, and what the measures make of the answers.

The path of one image: clean row, then for each radius the noise family and the permutation family, then neighbours of
the clean row that differ in the last bit and show the noise floor. They are packed into one reused batch; every full
batch goes through the session; its scores are reduced at once to those of the true class, and its features to
distances and a Gram matrix as soon as a radius is complete.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.card import Card
from analyzer.measures import REGISTRY, Neighbourhood, geometry
from analyzer.measures.scores import TrueClass, true_class
from analyzer.perturbations import Perturbations, derived_key
from analyzer.study.packing import Piece, run_rows
from analyzer.study.parallel import one_blas_thread
from analyzer.study.protocol import Protocol
from analyzer.study.rows import Clean, Neighbours, Perturbed, Preprocessing, Source

MEASURED, NON_FINITE, UNREADABLE = range(3)
FLOOR_ROWS = 8
LOG_ODDS_DEFINED, LOG_ODDS_ROUNDED, LOG_ODDS_NON_FINITE = range(3)


class _Answers:
    """Collects what the session says of one image's rows, reduced as it comes."""

    def __init__(self, *, kind: str, label: int, protocol: Protocol, layers: int, reduced: bool) -> None:
        shape = (len(protocol.radii), protocol.trials)
        self.kind, self.label, self.reduced = kind, label, reduced
        self.scores = {family: TrueClass.undefined(shape) for family in protocol.families}
        self.layers = layers if protocol.needs_features else 0
        self.clean_scores: list[TrueClass] = []
        self.resolution = 0.0
        self.clean_features: list[NDArray[np.float32]] = []
        self.feature_floor = np.zeros(self.layers)
        self.rows: list[NDArray[np.float32]] = []
        self.feature_gram = np.full((shape[0], self.layers, shape[1], shape[1]), np.nan)
        self.feature_distance = np.full((*shape, self.layers), np.nan)
        self.input_gram = np.full((*shape, shape[1]), np.nan)
        self.input_l2, self.input_linf = np.full(shape, np.nan), np.full(shape, np.nan)

    def take(self, pieces: list[Piece], scores: NDArray[Any], features: list[NDArray[np.float32]]) -> None:
        seen = true_class(scores, label=self.label, kind=self.kind)
        start = 0
        for source, trials in pieces:
            rows = slice(start, start + len(trials))
            start = rows.stop
            piece = seen.at(rows)
            kept = [f[rows, rows] if self.reduced else f[rows] for f in features[: self.layers]]
            if isinstance(source, Perturbed):
                self._perturbed(source, slice(trials.start, trials.stop), piece, kept)
            else:
                if self.kind == "logits":  # the difference of two float32 logits moves in such steps
                    self.resolution = 2 * float(np.spacing(np.abs(scores[rows]).max().astype(np.float32)))
                self._clean(piece, kept)

    def _clean(self, seen: TrueClass, features: list[NDArray[np.float32]]) -> None:
        self.clean_scores.append(seen)
        if not self.clean_features:
            self.clean_features = [f[0].copy() for f in features]
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
        if not self.rows:
            self.rows = [np.empty((source.count, f.shape[1]), np.float32) for f in features]
        for rows, values in zip(self.rows, features, strict=True):
            rows[trials] = values
        if trials.stop == source.count:
            self._radius_complete(source)

    def _inputs(self, source: Perturbed) -> None:
        k = source.radius
        self.input_gram[k], self.input_l2[k], self.input_linf[k] = source.distances()

    def _radius_complete(self, source: Perturbed) -> None:
        k = source.radius
        self._inputs(source)
        for layer, (rows, clean) in enumerate(zip(self.rows, self.clean_features, strict=True)):
            self.feature_gram[k, layer] = geometry.centred_gram(rows)
            self.feature_distance[k, :, layer] = geometry.distance_from(rows, clean)


def rows_of(protocol: Protocol, batch_size: int, *, reduced: bool = False) -> int:
    """Forward passes of one image, the padding of its batches included."""
    sources = len(protocol.families) * len(protocol.radii)
    if reduced:
        return (sources + 1) * batch_size
    return -(-(1 + FLOOR_ROWS + sources * protocol.trials) // batch_size) * batch_size


def reduced_batch(protocol: Protocol) -> int:
    """Rows of a reduced graph's batch: the clean image and all trials of a radius, or the rows of the noise floor."""
    return 1 + max(protocol.trials, FLOOR_ROWS)


def observe(
    session: Any,
    pixels: NDArray[np.float32],
    *,
    sha256: str,
    label: int,
    card: Card,
    kind: str,
    protocol: Protocol,
    input_type: str = "float32",
    tick: Callable[[int], None] = lambda rows: None,
) -> dict[str, NDArray[Any]]:
    """Everything a run stores about one image, by variable name, without the image axis.

    session: a `Session`, or what has its batch_size, composes, reduces, feature_sizes and run. pixels: (C, H, W)
    float32, 0..255, RGB or L. label: class index. kind: what the session's scores are, "logits" or "probabilities".
    input_type: the model's own. tick is called with the number of rows after each forward pass.
    """
    shape = card.pixel_shape
    prepare = Preprocessing(card, input_type)
    clean = prepare.apply(pixels).reshape(shape)
    answers = _Answers(
        kind=kind, label=label, protocol=protocol, layers=len(session.feature_sizes), reduced=session.reduces
    )

    def sources() -> Iterator[Source]:
        if not session.reduces:  # there each batch has it
            yield Clean(1)
        for k, radius in enumerate(protocol.radii):
            for family in protocol.families:
                drawn = Perturbations(
                    seed=protocol.seed,
                    sha256=sha256,
                    shape=shape,
                    family=family,
                    radius=radius,
                    trials=protocol.trials,
                    norm=protocol.norm,
                )
                yield Perturbed(drawn, k, pixels=pixels, clean=clean, prepare=prepare, protocol=protocol)
        yield Neighbours(prepare.neighbours(clean, FLOOR_ROWS))

    def take(pieces: list[Piece], scores: NDArray[Any], features: list[NDArray[np.float32]]) -> None:
        answers.take(pieces, scores, features)
        tick(len(scores))

    with one_blas_thread():
        run_rows(session, sources(), clean=clean, take=take, finished=protocol.clip or protocol.round)
        return _variables(answers, protocol=protocol, sha256=sha256, dimension=int(np.prod(shape)))


def _variables(answers: _Answers, *, protocol: Protocol, sha256: str, dimension: int) -> dict[str, NDArray[Any]]:
    features = answers.layers > 0
    around = Neighbourhood(
        scores=answers.scores,
        input_gram=answers.input_gram if features else None,
        feature_gram=answers.feature_gram if features else None,
        feature_distance=answers.feature_distance if features else None,
        feature_floor=answers.feature_floor if features else None,
        dimension=dimension,
        norm=protocol.norm,
        permutations=protocol.permutations,
        key=derived_key("mantel", protocol.seed, sha256, protocol.trials),
    )
    clean_log_odds = np.concatenate([seen.log_odds for seen in answers.clean_scores])
    clean = answers.clean_scores[0]
    everything = [*answers.clean_scores, *answers.scores.values()]
    finite = all((seen.predicted >= 0).all() for seen in everything)
    defined = all(np.isfinite(seen.log_odds).all() for seen in everything)
    result: dict[str, Any] = {
        "label": np.int32(answers.label),
        "clean_predicted": clean.predicted[0],
        "clean_score": clean.score[0],
        "clean_log_odds": clean.log_odds[0],
        "log_odds_noise_floor": max(np.ptp(clean_log_odds), answers.resolution),
        "image_status": np.int8(MEASURED if finite else NON_FINITE),
        "log_odds_status": np.int8(
            LOG_ODDS_NON_FINITE if not finite else LOG_ODDS_DEFINED if defined else LOG_ODDS_ROUNDED
        ),
    }
    if features:
        result["feature_noise_floor"] = answers.feature_floor
    if "noise" in protocol.families:
        result |= {"input_distance_l2": answers.input_l2, "input_distance_linf": answers.input_linf}
    for name in protocol.measures:
        result |= REGISTRY[name].observe(around)
    return {name: np.asarray(value) for name, value in result.items()}
