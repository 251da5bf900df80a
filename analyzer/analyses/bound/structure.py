"""Rules of operators that move, select, repeat, join, add up or scale values."""

import math

import numpy as np

from analyzer.analyses.bound import gates
from analyzer.analyses.bound.base import (
    ROOT,
    Function,
    NoRule,
    Rule,
    broadcast,
    constant,
    live_inputs,
    numbers,
    only_first,
    repeats,
)
from analyzer.graph.operators import Operator, OperatorGraph


def _moves(op: Operator, network: OperatorGraph) -> Rule:
    only_first(op, network)
    return Rule(1.0, "moves values")


def _dropout(op: Operator, network: OperatorGraph) -> Rule:
    training = constant(op, 2, network, "training mode") if len(op.inputs) > 2 and op.inputs[2] else np.array(False)
    if training.any():
        raise NoRule("it is in training mode")
    return Rule(1.0, "passes values on")


def _gather(op: Operator, network: OperatorGraph) -> Rule:
    only_first(op, network)
    indices = constant(op, 1, network, "indices").reshape(-1)
    shape = network.shape(op.inputs[0])
    axis = op.attributes.get("axis", 0)
    extent = shape[axis] if shape is not None else None
    if extent is None and (indices < 0).any() and (indices >= 0).any():
        raise NoRule("which of its indices are the same is not known")
    most = np.unique(indices % extent if extent is not None else indices, return_counts=True)[1].max(initial=0)
    return Rule(math.sqrt(most), f"sqrt({most} copies)")


def _repeated(op: Operator, network: OperatorGraph) -> Rule:
    only_first(op, network)
    if op.kind == "Tile":
        count = math.prod(int(n) for n in constant(op, 1, network, "repeats"))
    else:
        count = repeats(op.inputs[0], op.outputs[0], network)
    return Rule(math.sqrt(count), f"sqrt({count} copies)")


def _pad(op: Operator, network: OperatorGraph) -> Rule:
    only_first(op, network)
    mode, shape = op.attributes.get("mode", "constant"), network.shape(op.inputs[0])
    if mode == "constant":
        return Rule(1.0, "pads by constants")
    pads = numbers(op, 1, "pads", network)
    if mode not in ("edge", "reflect", "wrap") or pads is None or shape is None or len(pads) != 2 * len(shape):
        raise NoRule(f"its padding ({mode}) is not known")
    most = 1
    for place, extent in enumerate(shape):
        ends = pads[place], pads[len(shape) + place]
        if not any(ends):
            continue
        if extent is None or min(ends) < 0:
            raise NoRule(f"its padding ({mode}) is not known")
        most *= int(np.bincount(np.pad(np.arange(extent), ends, mode=mode)).max())
    return Rule(math.sqrt(most), f"sqrt({most} copies)")


def _resize(op: Operator, network: OperatorGraph) -> Rule:
    """Nearest neighbour: along each axis, how often the most used input position is copied."""
    only_first(op, network)
    before, after = network.shape(op.inputs[0]), network.shape(op.outputs[0])
    where = op.attributes.get("coordinate_transformation_mode", "half_pixel")
    how = op.attributes.get("nearest_mode", "round_prefer_floor")
    if op.attributes.get("mode", "nearest") != "nearest" or where not in ("half_pixel", "asymmetric", "align_corners"):
        raise NoRule(f"no rule for its mode ({op.attributes.get('mode', 'nearest')}, {where})")
    if before is None or after is None:
        raise NoRule("its sizes are not known")
    most = 1
    for place, (old, new) in enumerate(zip(before, after, strict=True)):
        if old == new and (old is not None or place == 0):
            continue
        if old is None or new is None:
            raise NoRule("its sizes are not known")
        most *= _most_taken(old, new, where, how)
    return Rule(math.sqrt(most), f"sqrt({most} copies)")


def _most_taken(old: int, new: int, where: str, how: str) -> int:
    k = np.arange(new, dtype=np.float64)
    at = {
        "half_pixel": (k + 0.5) * old / new - 0.5,
        "asymmetric": k * old / new,
        "align_corners": k * (old - 1) / max(new - 1, 1),
    }[where]
    rounding = {
        "round_prefer_floor": np.ceil(at - 0.5),
        "round_prefer_ceil": np.floor(at + 0.5),
        "floor": np.floor(at),
        "ceil": np.ceil(at),
    }
    if how not in rounding:
        raise NoRule(f"no rule for its rounding ({how})")
    return int(np.bincount(np.clip(rounding[how], 0, old - 1).astype(np.int64)).max())


def _add(op: Operator, network: OperatorGraph) -> Rule:
    """The bounds of the inputs add up; constants do not matter."""
    count = broadcast(op, network)
    scale = 1 / len(op.inputs) if op.kind == "Mean" else 1.0
    many = len(live_inputs(op, network)) > 1
    return Rule(scale * math.sqrt(count), "branches add up" if many else "adds a constant")


def _extreme(op: Operator, network: OperatorGraph) -> Rule:
    """|max(x, y) - max(x', y')|^2 <= |x - x'|^2 + |y - y'|^2."""
    count = broadcast(op, network)
    return Rule(math.sqrt(count), "branches side by side", ROOT)


def _concat(op: Operator, network: OperatorGraph) -> Rule:
    return Rule(1.0, "branches side by side", ROOT)


def _scale(op: Operator, network: OperatorGraph) -> Rule:
    live = [place for place, name in enumerate(op.inputs) if name in network.live]
    if len(live) != 1:
        if op.kind == "Mul" and (activation := gates.recognise(op, network)) is not None:
            return activation
        raise NoRule("a product or quotient of two tensors that depend on the image is not Lipschitz without bounds")
    if op.kind == "Div" and live[0] == 1:
        raise NoRule("a constant over a tensor that depends on the image is not Lipschitz")
    factors = np.abs(constant(op, 1 - live[0], network, "factors").astype(np.float64))
    if op.kind == "Div":
        if not (factors > 0).all():
            raise NoRule("it divides by 0")
        factors = 1 / factors
    count = broadcast(op, network)
    return Rule(float(factors.max(initial=0.0)) * math.sqrt(count), "largest factor")


def _reduce(op: Operator, network: OperatorGraph) -> Rule:
    only_first(op, network)
    shape, given = network.shape(op.inputs[0]), numbers(op, 1, "axes", network)
    if op.kind in ("ReduceMax", "ReduceMin", "ReduceL2", "GlobalMaxPool"):
        return Rule(1.0, "derivative")
    if given is None and op.attributes.get("noop_with_empty_axes", 0):
        return Rule(1.0, "passes values on")
    if shape is None or given is None:
        raise NoRule("which axes it reduces is not known")
    sizes = [shape[axis] for axis in given]
    if None in sizes:
        raise NoRule("the size of its input is not known")
    count = math.prod(n for n in sizes if n)
    mean = op.kind == "ReduceMean"
    return Rule(math.sqrt(count) / (count if mean else 1), "exact")


_MOVES = ("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "DepthToSpace", "SpaceToDepth")

RULES: dict[str, Function] = {
    **dict.fromkeys(_MOVES, _moves),
    "Dropout": _dropout,
    "Gather": _gather,
    "Expand": _repeated,
    "Tile": _repeated,
    "Pad": _pad,
    "Resize": _resize,
    **dict.fromkeys(("Add", "Sub", "Sum", "Mean"), _add),
    **dict.fromkeys(("Max", "Min"), _extreme),
    "Concat": _concat,
    **dict.fromkeys(("Mul", "Div"), _scale),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2"), _reduce),
    "GlobalMaxPool": _reduce,
}
