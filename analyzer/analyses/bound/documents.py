"""The bound of a network as a document: what `analyzer bound --json` prints."""

from typing import Literal, NotRequired, TypedDict

from analyzer.analyses.bound import sentences
from analyzer.analyses.bound.local import Local
from analyzer.analyses.bound.propagate import Bounds, Step
from analyzer.graph.operators import OperatorGraph

SCHEMA = 1


class PowerIterationRow(TypedDict):
    """A norm from below; change: the relative one of the last iteration."""

    value: float
    iterations: int
    change: float


class OperatorRow(TypedDict):
    """One operator. norm: its own; bound: from the input to its output; both None where there is none: see `how`."""

    name: str
    operator: str
    output: str
    norm: float | None
    estimate: PowerIterationRow | None
    how: str
    bound: float | None


class SampledFigure(TypedDict):
    """A figure of the run over its n images, with the 95 % interval; None or NaN where undefined."""

    value: float | None
    low: float | None
    high: float | None
    n: int


class BoundRow(TypedDict):
    """The bound of one target; None where there is none, and `reason` says why."""

    what: Literal["layer", "scores"]
    tensor: str
    bound: float | None
    bound_per_grey_level: float | None
    reason: str | None
    bound_normalised: NotRequired[float | None]
    """In the unit of L_x, by the ranges of the run. This and `local` only for a layer beside a run."""
    local: NotRequired[dict[str, SampledFigure]]
    """The run's own figures, by name."""


class MissingRow(TypedDict):
    """An operator without a norm, and why."""

    name: str
    operator: str
    reason: str


class BoundDocument(TypedDict):
    """operators: in the graph's order. bounds: the layers, then the scores. smallest_std: the card's, grey levels."""

    schema: int
    model: str
    input: str
    smallest_std: float
    operators: list[OperatorRow]
    bounds: list[BoundRow]
    missing: list[MissingRow]
    notes: list[str]


def document(
    bounds: Bounds, network: OperatorGraph, *, model: str, smallest_std: float, sampled: Local | None
) -> BoundDocument:
    """The bounds of a network's layers and scores. sampled: of a run, shown beside them."""
    rows = [_bound_row("layer", name, tensor, bounds, smallest_std, sampled) for name, tensor in network.layers]
    rows.append(_bound_row("scores", network.scores, network.scores, bounds, smallest_std, None))
    return {
        "schema": SCHEMA,
        "model": model,
        "input": network.input,
        "smallest_std": smallest_std,
        "operators": [_operator_row(step) for step in bounds.steps],
        "bounds": rows,
        "missing": [
            {"name": step.operator.name, "operator": step.operator.kind, "reason": step.how}
            for step in bounds.steps
            if step.norm is None
        ],
        "notes": [*network.notes, sentences.CERTIFIED, sentences.CAVEAT],
    }


def _operator_row(step: Step) -> OperatorRow:
    below = step.estimate
    return {
        "name": step.operator.name,
        "operator": step.operator.kind,
        "output": step.operator.outputs[0],
        "norm": step.norm,
        "estimate": {"value": below.value, "iterations": below.iterations, "change": below.change} if below else None,
        "how": step.how,
        "bound": step.bound,
    }


def _bound_row(
    what: Literal["layer", "scores"], name: str, tensor: str, bounds: Bounds, smallest_std: float, sampled: Local | None
) -> BoundRow:
    value = bounds.tensors.get(tensor)
    row: BoundRow = {
        "what": what,
        "tensor": name,
        "bound": value,
        "bound_per_grey_level": None if value is None else value / smallest_std,
        "reason": None,
    }
    if value is None:
        step = bounds.blame[tensor]
        row["reason"] = f"{step.operator.kind} ({step.operator.name}): {step.how}"
    if sampled is not None:
        feature_range = sampled.feature_range.get(name)
        row["bound_normalised"] = None
        if value is not None and feature_range and sampled.input_range:
            row["bound_normalised"] = value / smallest_std * sampled.input_range / feature_range
        row["local"] = sampled.numbers.get(name, {})
    return row
