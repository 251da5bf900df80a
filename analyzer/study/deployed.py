"""Whether what is measured is what is deployed: the file itself against the tapped graph, rows against batches."""

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from analyzer import graph
from analyzer.errors import InputError, UsageError
from analyzer.session import Runner, Session, batching
from analyzer.session.function import as_deployed
from analyzer.session.split import Split
from analyzer.statistics import FLOOR_COPIES
from analyzer.store.documents import Batches, Checks, Fidelity
from analyzer.study.consistency import EXAMPLES
from analyzer.study.model import Model
from analyzer.study.protocol import Protocol

_FLOORS = 10  # times the noise floor: more is no rounding
_ROUNDING = 32  # units in the last place of the largest score
_EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
_FLOAT32 = 2.0**-23
_COARSE = {"float16": 4e-3, "bfloat16": 3e-2}  # of a row's largest value: a few units in the last place
_LARGEST = 1e300  # stands for infinite in JSON

Array = NDArray[np.float64]
Rows = NDArray[np.float32]


def proved(model: Model, file: Path, protocol: Protocol) -> tuple[Model, Checks]:
    """The model to be measured, and what was checked of it on a few real images.

    Where marking layers as outputs changes the scores, these come from a graph without layers, and the layers from
    graphs of their own. A layer that changes them even so, by more than the rounding of the graph's declared type, is
    left out. Raises InputError where no layer is left that the protocol needs; UsageError where memory does not do.
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

    eps: of its element type; least: its smallest number above 0; step: how far neighbouring values are apart.
    """

    scores: Array | None
    kind: str
    eps: float = 0.0
    least: float = 0.0
    step: float = 0.0
    why_not: str = ""


def _own(model: Model, file: Path, rows: Rows) -> _Own:
    prepared, session = model.prepared, model.session
    kind = {"Softmax": "probabilities", "LogSoftmax": "logits", "Sigmoid": "sigmoid"}.get(prepared.final, prepared.kind)
    if not prepared.own:
        return _Own(None, kind, why_not="the file by itself does not give the scores, or may not end")
    try:
        given = as_deployed(file, prepared, session.backend, card=model.card)(rows)
    except (InputError, UsageError) as e:
        return _Own(None, kind, why_not=f"the file by itself does not run: {e}")
    numbers = 1 if prepared.binary else session.classes
    if given.dtype.kind != "f" or given.shape[:1] != (len(rows),) or given.size != len(rows) * numbers:
        return _Own(None, kind, why_not=f"the file by itself gives {given.dtype} of shape {list(given.shape)}")
    type_ = np.finfo(given.dtype)
    step = prepared.step if kind != prepared.kind else 0.0
    scores = given.astype(np.float64).reshape(len(rows), -1)
    if prepared.binary and kind == "logits":
        scores = np.hstack([-scores / 2, scores / 2])
    elif prepared.binary:  # 1 - p errs by as much as p, however small it is
        scores, kind, step = np.hstack([1 - scores, scores]), "probabilities", max(step, float(type_.eps))
    return _Own(scores, kind, float(type_.eps), float(type_.smallest_subnormal), step)


class _Answers:
    """Answers of several graphs of one network to the same rows, held against each other class by class.

    Compared are the logarithms of the probabilities of a softmax, and the log-odds of sigmoids, in nat: what does not
    hang on which of both a graph gives, nor on a constant added to all logits.
    """

    def __init__(self, model: Model, rows: Rows, *, own: _Own) -> None:
        self.model, self.rows, self.own = model, rows, own
        self.floor = self._floor()

    def fidelity(self, session: Runner) -> Fidelity:
        """How far a session is from the file itself."""
        document: Fidelity = {
            "images": len(self.rows),
            "largest": None,
            "differs": False,
            "noise_floor": None if math.isnan(self.floor) else self.floor,
            "other_class": 0,
            "separate": False,
            "dropped": [],
            "why_not": self.own.why_not,
        }
        if self.own.scores is None:
            return document
        scores = self._scores(session)
        same = _best(scores) == _best(self.own.scores) if self.model.has_classes else np.ones(len(scores), np.bool_)
        apart, coarse = self._apart(scores)
        resolved = coarse < 1  # nat
        if resolved.any():
            document["largest"] = min(float(apart[resolved].max()), _LARGEST)
        document["other_class"] = int((~same).sum())
        beyond = (apart > self._rounding(scores) + coarse) & resolved
        document["differs"] = bool(beyond.any() or (~same & ~resolved.any(axis=1)).any())
        return document

    def agree(self, one: Runner, other: Runner, *, declared: bool = False) -> bool:
        """Whether two sessions give the same scores, up to rounding; declared: of the type that the graph declares."""
        return self.largest(one, other) <= self._rounding(self._scores(other), declared=declared)

    def largest(self, one: Runner, other: Runner) -> float:
        """How far two sessions are apart at most, nat; infinite where only one is finite."""
        kind = self.model.prepared.kind
        return float(_distance(*(_natural(self._scores(session), kind) for session in (one, other))).max(initial=0.0))

    def _apart(self, scores: Array) -> tuple[Array, Array]:
        """(n, K) each: how far the file's answer is from `scores`, and what is for want of its precision, nat."""
        assert self.own.scores is not None
        theirs, coarse = _natural(self.own.scores, self.own.kind), np.zeros_like(self.own.scores)
        if self.own.kind in ("probabilities", "sigmoid"):
            p = np.clip(self.own.scores, 0.0, 1.0)
            slope = 1 / np.maximum(p * (1 - p) if self.own.kind == "sigmoid" else p, 1e-300)
            # A sigmoid errs by so much whatever it is, a softmax in proportion.
            rounded = max(self.own.step, self.own.least, self.own.eps if self.own.kind == "sigmoid" else 0.0)
            size = np.where(np.isfinite(theirs), np.abs(theirs), np.inf)
            coarse = 2 * rounded * slope + 4 * self.own.eps * (1 + size)
        return _distance(theirs, _natural(scores, self.model.prepared.kind)), coarse

    def _rounding(self, scores: Array, *, declared: bool = False) -> float:
        """By how much a number of `scores` may differ for its rounding, nat.

        declared: for rounding to the type that the graph declares, though the runtime may compute in a finer one.
        """
        coarse = declared or not self.floor > 0  # whole numbers as input have no neighbours to tell a floor
        eps = _EPS.get(self.model.prepared.precision, _FLOAT32) if coarse else _FLOAT32
        largest = np.abs(scores[np.isfinite(scores)]).max(initial=1.0)
        return float(max(_FLOORS * np.nan_to_num(self.floor), _ROUNDING * eps * largest))

    def _floor(self) -> float:
        """The largest range of a number over copies of a row that differ in their last bits, nat."""
        ranges = [0.0] if len(self.rows) else []
        for row in self.rows:
            scores, _ = self.model.session.run(self.model.preprocessing.last_bit_copies(row, FLOOR_COPIES))
            seen = _natural(scores.astype(np.float64), self.model.prepared.kind)
            known = np.isfinite(seen).all(axis=0)
            ranges.append(float(np.ptp(seen[:, known], axis=0).max(initial=0.0)))
        return max(ranges, default=math.nan)

    def _scores(self, session: Runner) -> Array:
        scores, _ = session.run(self.rows)
        return scores.astype(np.float64)


def _natural(scores: Array, kind: str) -> Array:
    """(n, K) logarithms of the probabilities of a softmax, or log-odds of sigmoids."""
    with np.errstate(divide="ignore", invalid="ignore"):
        match kind:
            case "logits":
                return np.asarray(log_softmax(scores, axis=1))
            case "probabilities":
                return np.log(scores)
            case "sigmoid":
                return np.log(scores) - np.log1p(-scores)
            case _:
                return scores


def _distance(a: Array, b: Array) -> Array:
    """|a - b|; 0 where both are the same infinity or both NaN, infinite where only one is finite."""
    finite = np.isfinite(a) & np.isfinite(b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        return np.where(finite, np.abs(a - b), np.where(same, 0.0, np.inf))


def _best(scores: Array) -> NDArray[np.intp]:
    best: NDArray[np.intp] = np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)
    return best


def _split(
    model: Model, session: Session, bare: Session, answers: _Answers, protocol: Protocol
) -> tuple[Model, Fidelity]:
    """The model with its scores from `bare` and every layer that leaves them alone from a session of its own."""
    apart = answers.largest(session, bare)
    kept: list[int] = []
    dropped: list[str] = []
    for place, layer in enumerate(model.layers):
        with contextlib.closing(_opened(model, session, (place,))) as alone:
            # Where nothing reads features one layer stays all the same, since a run has one.
            agrees = answers.agree(alone, bare, declared=True) or not (protocol.needs_features or place)
        if agrees:
            kept.append(place)
        else:
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
    sessions = [_opened(model, bare, kept)]
    if len(kept) > 1 and not answers.agree(sessions[0], bare, declared=True):
        sessions.pop().close()
        sessions = [_opened(model, bare, (place,)) for place in kept]
    prepared = graph.tapped(model.prepared, kept)
    others = "the layers from another" if len(sessions) == 1 else "each layer from a graph of its own"
    said = [
        f"Marking layers as outputs changes the scores by up to {apart:.2g} nat; they come from a graph without, "
        f"{others}."
    ]
    said += [f"Left out, since they change the scores even alone: {', '.join(dropped):.300}."] if dropped else []
    prepared = dataclasses.replace(prepared, notes=(*prepared.notes, *said))
    split = Split(bare, sessions)
    return dataclasses.replace(model, prepared=prepared, session=split, reduces=False), {
        **answers.fidelity(split),
        "separate": True,
        "dropped": dropped,
    }


def _opened(model: Model, session: Session, layers: Sequence[int]) -> Session:
    """The network with only these layers, by their places, in a session like `session`."""
    return Session(
        dataclasses.replace(graph.tapped(model.prepared, layers), unbounded=()),  # the whole graph has been tried
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
    tolerance = _COARSE.get(model.prepared.precision, batching.TOLERANCE)
    document: Batches = {"images": len(rows), "sizes": [], "places": 0, "faults": 0, "largest": None, "first": None}

    def visit(opened: Session) -> None:
        for size in sizes:
            found = list(batching.faults(opened.forward, rows, [size], alone, tolerance=tolerance))
            document["sizes"] = sorted({*document["sizes"], size})
            document["places"] += len(rows) * size
            document["faults"] += len(found)
            worst = max((fault.difference for fault in found), default=0.0)
            document["largest"] = max(document["largest"] or 0.0, min(worst, _LARGEST)) or None
            if found and document["first"] is None:
                document["first"] = {"size": size, "position": found[0].position, "image": found[0].row}

    try:
        alone = [[output[:1] for output in session.forward(np.repeat(row[None], base, axis=0))] for row in rows]
        visit(session)
        with contextlib.closing(_opened(model, session, range(len(model.layers)))) as fresh:
            visit(fresh)
    except (InputError, UsageError, MemoryError) as e:  # such as memory that does not do for another session
        document["stopped"] = str(e)
    return document
