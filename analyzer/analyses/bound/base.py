"""What a rule is, and what rules need to know about an operator and its surroundings."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from analyzer.graph.operators import Operator, OperatorGraph

_LARGEST = 4096  # of a layer's kernel, stride, dilation or padding; a hostile file may say anything
SUM, ROOT = "sum", "root of the sum of squares"


class Rule(NamedTuple):
    """Lipschitz constant of an operator: output bound = norm * merge of the bounds of its inputs.

    merge: SUM where the inputs add up, ROOT where they stand side by side; they are the same for one input. how: where
    the norm comes from. base: the tensor that the rule starts from, where it is about several operators at once.
    """

    norm: float
    how: str
    merge: str = SUM
    base: str | None = None


class Placement(TypedDict):
    """Where a kernel is applied, one number an axis; pads in ONNX's order: all beginnings, then all ends."""

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]


class NoRule(Exception):
    """There is no finite bound, or none is known; the text says why."""


Function = Callable[[Operator, OperatorGraph], Rule]


def live_inputs(op: Operator, network: OperatorGraph) -> list[str]:
    """The inputs that depend on the image, one entry an input."""
    return [name for name in op.inputs if name in network.live]


def only_first(op: Operator, network: OperatorGraph) -> None:
    """Refuse an operator in which anything but the first input depends on the image."""
    if op.inputs[0] not in network.live or len(live_inputs(op, network)) != 1:
        raise NoRule("an input other than its first depends on the image")


def constant(op: Operator, place: int, network: OperatorGraph, what: str) -> NDArray[Any]:
    """The value of input `place`, which has to be constant and finite."""
    name = op.inputs[place] if place < len(op.inputs) else ""
    value = network.constant(name) if name and name not in network.live else None
    if value is None:
        raise NoRule(f"its {what} are not constants that can be read")
    if value.dtype.kind in "fc" and not np.isfinite(value).all():
        raise NoRule(f"its {what} are not finite")
    return value


def numbers(op: Operator, place: int, attribute: str, network: OperatorGraph) -> tuple[int, ...] | None:
    """Integers given as a constant input or, in older opsets, as an attribute; None where not given."""
    if attribute in op.attributes:
        given = op.attributes[attribute]
        return tuple(given) if isinstance(given, tuple) else (given,)
    if place >= len(op.inputs) or not op.inputs[place]:
        return None
    return tuple(int(v) for v in constant(op, place, network, attribute).reshape(-1))


def spatial(name: str, count: int, network: OperatorGraph) -> list[int | None]:
    """The last `count` dimensions of a tensor, None where unknown."""
    shape = network.shape(name)
    return [None] * count if shape is None or len(shape) != count + 2 else list(shape[2:])


def placement(op: Operator, kernel: Sequence[int], network: OperatorGraph) -> tuple[list[int | None], Placement]:
    """Spatial size of the input of a convolution or pooling, and its placement, `auto_pad` resolved."""
    count = len(kernel)
    size = spatial(op.inputs[0], count, network)
    strides = tuple(op.attributes.get("strides", (1,) * count))
    dilations = tuple(op.attributes.get("dilations", (1,) * count))
    pads = tuple(op.attributes.get("pads", (0,) * 2 * count))
    automatic = op.attributes.get("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        before, after = [], []
        for extent, k, s, d in zip(size, kernel, strides, dilations, strict=True):
            if extent is None:
                raise NoRule("the size of its input is not known, and its padding follows from it")
            total = max((math.ceil(extent / s) - 1) * s + (k - 1) * d + 1 - extent, 0)
            small = total // 2
            before.append(small if automatic == "SAME_UPPER" else total - small)
            after.append(total - before[-1])
        pads = (*before, *after)
    elif automatic == "VALID":
        pads = (0,) * 2 * count
    if min(pads) < 0 or min(*strides, *dilations, *kernel) < 1 or max(*pads, *strides, *dilations, *kernel) > _LARGEST:
        raise NoRule("its padding, strides, dilations or kernel are negative or huge")
    return size, {"strides": strides, "dilations": dilations, "pads": pads}


def repeats(source: str, target: str, network: OperatorGraph) -> int:
    """How often broadcasting from `source` to `target` repeats each element."""
    before, after = network.shape(source), network.shape(target)
    if before is None or after is None:
        raise NoRule("how often broadcasting repeats its input is not known: no shape")
    before = (1,) * (len(after) - len(before)) + before
    count = 1
    for place, (old, new) in enumerate(zip(before, after, strict=True)):
        if old == new and (old is not None or place == 0):
            continue  # a free first dimension is the batch
        if old != 1 or new is None:
            raise NoRule("how often broadcasting repeats its input is not known: a dimension is free")
        count *= new
    return count


def broadcast(op: Operator, network: OperatorGraph) -> int:
    """How often an elementwise `op` repeats an element of a live input, at most."""
    others = [network.constant(name) for name in op.inputs if name not in network.live]
    if len(live_inputs(op, network)) == 1 and all(value is not None and value.size == 1 for value in others):
        return 1  # whatever the shapes are
    return max(repeats(name, op.outputs[0], network) for name in live_inputs(op, network))
