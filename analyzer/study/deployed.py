"""Whether what is measured is what is deployed: the file itself against the tapped graph, rows against batches."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer import graph
from analyzer.errors import InputError
from analyzer.measures.scores import true_class
from analyzer.session import Runner, Session, batching
from analyzer.session.function import as_deployed
from analyzer.session.split import Split
from analyzer.statistics import FLOOR_COPIES
from analyzer.store.documents import Batches, Checks, Fidelity
from analyzer.study.consistency import EXAMPLES
from analyzer.study.model import Model
from analyzer.study.protocol import Protocol

_FLOORS = 10  # times the noise floor: more is no rounding
_EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float64": 2.0**-52}
_FLOAT32 = 2.0**-23
_EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
_ROUNDING = 32  # units in the last place of the largest score, where nothing else tells a floor

Array = NDArray[np.float64]
Rows = NDArray[np.float32]


def proved(model: Model, file: Path, protocol: Protocol) -> tuple[Model, Checks]:
    """The model to be measured, and what was checked of it on a few real images.

    Where marking layers as outputs changes the scores, these come from a
    graph without layers, and each layer from one of its own. A layer that changes them by more than the rounding of the
    graph's declared type is left out. Raises InputError where no layer is left that the protocol needs.
    """
    session = model.session
    assert isinstance(session, Session)  # as `open_model` leaves it
    rows = session.rows_to_try(EXAMPLES)
    batches = _batches(model, session, rows)
    if batches["faults"] and session.independent:
        session.run_alone()
        model = dataclasses.replace(model, reduces=False)
    answers = _Answers(model, rows, own=_own(model, file, rows))
    fidelity = answers.fidelity(session)
    if fidelity["differs"] or fidelity["why_not"]:
        bare = _opened(model, session, ())
        if answers.agree(session, bare):
            bare.close()
        else:
            model, fidelity = _split(model, session, bare, answers, protocol)
    return model, {"fidelity": fidelity, "batches": batches}


# --- the file as it is ------------------------------------------------------------------------------------------------


class _Own(NamedTuple):
    """What the file itself answers: (n, K) of a kind as `true_class` names it, or why there is no answer.

    step: how far neighbouring values are apart.
    """

    scores: Array | None
    kind: str
    step: float = 0.0
    why_not: str = ""


def _own(model: Model, file: Path, rows: Rows) -> _Own:
    prepared, session = model.prepared, model.session
    kind = {"Softmax": "probabilities", "LogSoftmax": "logits", "Sigmoid": "sigmoid"}.get(prepared.final, prepared.kind)
    if not prepared.own:
        return _Own(None, kind, why_not="the file by itself does not give the scores, or may not end")
    try:
        given = as_deployed(file, prepared, session.backend, card=model.card)(rows)
    except InputError as e:
        return _Own(None, kind, why_not=f"the file by itself does not run: {e}")
    if given.dtype.kind != "f" or given.shape[:1] != (len(rows),) or given.size != len(rows) * session.classes:
        return _Own(None, kind, why_not=f"the file by itself gives {given.dtype} of shape {list(given.shape)}")
    return _Own(given.astype(np.float64).reshape(len(rows), -1), kind, prepared.step)


class _Answers:
    """Answers of several graphs of one network to the same rows, held against each other by log-odds.

    The class is the one that the file itself predicts, or the first session where it does not run.
    """

    def __init__(self, model: Model, rows: Rows, *, own: _Own) -> None:
        self.model, self.rows, self.own = model, rows, own
        first = own.scores if own.scores is not None else self._scores(model.session)
        self.classes = [int(c) for c in np.nan_to_num(first, nan=-np.inf).argmax(axis=1)]
        self.floor = self._floor()

    def fidelity(self, session: Runner) -> Fidelity:
        """How far a session is from the file itself."""
        document: Fidelity = {
            "images": len(self.rows),
            "log_odds_largest": None,
            "differs": self.own.scores is not None and not self.hold(session),
            "noise_floor": None if math.isnan(self.floor) else self.floor,
            "other_class": 0,
            "separate": False,
            "dropped": [],
            "why_not": self.own.why_not,
        }
        if self.own.scores is None:
            return document
        scores = self._scores(session)
        apart, tolerance = self._apart(scores)
        resolved = np.isfinite(apart) & np.isfinite(tolerance)
        if resolved.any():
            document["log_odds_largest"] = float(apart[resolved].max())
        document["other_class"] = int((scores.argmax(axis=1) != self.classes).sum())
        return document

    def hold(self, session: Runner) -> bool:
        """Whether a session answers as the file does."""
        scores = self._scores(session)
        apart, tolerance = self._apart(scores)
        same = scores.argmax(axis=1) == self.classes
        return bool(np.where(np.isfinite(apart) & np.isfinite(tolerance), apart <= tolerance, same).all())

    def agree(self, one: Runner, other: Runner, *, declared: bool = False) -> bool:
        """Whether two sessions give the same scores, up to rounding; declared: of the type that the graph declares."""
        return self.largest(one, other) <= self._rounding(self._scores(other), declared=declared)

    def largest(self, one: Runner, other: Runner) -> float:
        """How far the log-odds of two sessions are apart at most, nat; infinite where only one is finite."""
        a, b = (self._log_odds(self._scores(session), self.model.prepared.kind) for session in (one, other))
        if (np.isfinite(a) != np.isfinite(b)).any():
            return math.inf
        return float(np.abs(a - b)[np.isfinite(a)].max(initial=0.0))

    def _apart(self, scores: Array) -> tuple[Array, Array]:
        """|log-odds of the file - those of `scores`| for each row, and what rounding accounts for; NaN: unresolved."""
        assert self.own.scores is not None
        theirs = self._log_odds(self.own.scores, self.own.kind)
        ours = self._log_odds(scores, self.model.prepared.kind)
        tolerance = np.full(len(theirs), self._rounding(scores))
        if (
            self.own.step and self.own.kind != self.model.prepared.kind
        ):  # of probabilities: d log-odds = dp / (p (1 - p)), which is at least dp / min(p, 1 - p)
            smaller = 1.0 / (1.0 + np.exp(np.abs(theirs)))
            coarse = self.own.step / np.where(smaller > 0, smaller, np.nan)
            tolerance = np.where(coarse < 1, tolerance + 2 * coarse, np.nan)
        return np.abs(theirs - ours), tolerance

    def _rounding(self, scores: Array, *, declared: bool = False) -> float:
        """What log-odds of `scores` may differ by for their rounding, nat.

        declared: for rounding to the type that the graph declares, though the runtime may compute in a finer one.
        """
        coarse = declared or not self.floor > 0  # whole numbers as input have no neighbours to tell a floor
        eps = _EPS.get(self.model.prepared.precision, _FLOAT32) if coarse else _FLOAT32
        largest = np.abs(scores[np.isfinite(scores)]).max(initial=1.0)
        return float(max(_FLOORS * np.nan_to_num(self.floor), _ROUNDING * eps * largest))

    def _floor(self) -> float:
        """The largest range of log-odds over copies of a row that differ in their last bits, nat."""
        prepare, ranges = self.model.preprocessing, []
        for row, label in zip(self.rows, self.classes, strict=True):
            copies = prepare.last_bit_copies(row, FLOOR_COPIES)
            scores, _ = self.model.session.run(copies)
            seen = true_class(scores, label=label, kind=self.model.prepared.kind).log_odds
            if np.isfinite(seen).all():
                ranges.append(float(seen.max() - seen.min()))
        return max(ranges, default=math.nan)

    def _scores(self, session: Runner) -> Array:
        scores, _ = session.run(self.rows)
        return scores.astype(np.float64)

    def _log_odds(self, scores: Array, kind: str) -> Array:
        return np.array(
            [true_class(row, label=c, kind=kind).log_odds for row, c in zip(scores, self.classes, strict=True)]
        )


def _split(
    model: Model, session: Session, bare: Session, answers: _Answers, protocol: Protocol
) -> tuple[Model, Fidelity]:
    """The model with its scores from `bare` and every layer that leaves them alone from a session of its own."""
    apart = answers.largest(session, bare)
    kept: list[int] = []
    sessions: list[Session] = []
    dropped: list[str] = []
    for place, layer in enumerate(model.layers):
        alone = _opened(model, session, (place,))
        # Where nothing reads features one layer stays all the same, since a run has one.
        if answers.agree(alone, bare, declared=True) or not (protocol.needs_features or place):
            kept.append(place)
            sessions.append(alone)
        else:
            alone.close()
            dropped.append(layer)
    bare.notes[:0] = [note for note in session.notes if note not in bare.notes]
    session.close()
    if not kept:
        raise InputError(
            f"{model.prepared.source}: marking {' or '.join(map(repr, dropped)):.200} as an output changes the scores "
            f"by {apart:.2g} nat, so the network that would be measured is not the one that is deployed; name another "
            "tensor with `layers`, leave the features out with `measures` isotropy,symmetry, or measure the graph as "
            "it is written with `optimizations` off"
        )
    prepared = graph.tapped(model.prepared, kept)
    said = [
        f"Marking layers as outputs changes the scores by up to {apart:.2g} nat; they come from a graph without, each "
        "layer from a graph of its own."
    ]
    said += [f"Left out, since they change the scores even alone: {', '.join(dropped):.300}."] if dropped else []
    prepared = dataclasses.replace(prepared, notes=(*prepared.notes, *said))
    split = Split(bare, sessions)
    return Model(prepared, split, model.card), {**answers.fidelity(split), "separate": True, "dropped": dropped}


def _opened(model: Model, session: Session, layers: Sequence[int]) -> Session:
    """The network with only these layers, by their places, in a session like `session`."""
    return Session(
        graph.tapped(model.prepared, layers),
        pixel_shape=model.shape,
        backend=session.backend,
        batch_size=session.batch_size,
        examples=session.rows_to_try(EXAMPLES),
    )


# --- rows against batches ---------------------------------------------------------------------------------------------


def _batches(model: Model, session: Session, rows: Rows) -> Batches:
    """Every row at every place of batches of 1, 2 and the session's size, here and in a fresh session."""
    base = 1 if session.independent else session.batch_size
    sizes = sorted({1, 2, session.batch_size if session.independent else batching.DEFAULT} if base == 1 else {base})
    document: Batches = {"images": len(rows), "sizes": [], "places": 0, "faults": 0, "largest": None, "first": None}
    try:
        alone = [[output[:1] for output in session.forward(np.repeat(row[None], base, axis=0))] for row in rows]
        fresh = _opened(model, session, range(len(model.layers)))
        for opened in (session, fresh):
            for size in sizes:
                found = list(batching.faults(opened.forward, rows, [size], alone))
                document["sizes"] = sorted({*document["sizes"], size})
                document["places"] += len(rows) * size
                document["faults"] += len(found)
                worst = max((fault.difference for fault in found), default=0.0)
                document["largest"] = max(document["largest"] or 0.0, min(worst, 1e300)) or None
                if found and document["first"] is None:
                    document["first"] = {"size": size, "position": found[0].position, "image": found[0].row}
        fresh.close()
    except (InputError, MemoryError) as e:
        document["stopped"] = str(e)
    return document
