"""The first convolution of a model, as a linear map of the pixels."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.card import Card
from analyzer.errors import InputError
from analyzer.graph.operators import Operator, OperatorGraph, operators

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Convolution:
    """A zero-padded convolution of pixels in canonical channel order (RGB or L), without its bias.

    weights (M, C, kernel height, kernel width), per grey level: the operators before it and the card's std are folded
    in. strides, dilations (vertical, horizontal). pads (top, left, bottom, right). size (H, W) of the image.
    name: of its node. output: the tensor it makes. folded: the operators that stand before it.
    """

    weights: Array
    size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    name: str = ""
    output: str = ""
    folded: tuple[str, ...] = ()

    @property
    def span(self) -> tuple[int, int]:
        """Height and width that the kernel covers, dilation included."""
        height, width = (d * (k - 1) + 1 for d, k in zip(self.dilations, self.weights.shape[2:], strict=True))
        return height, width

    @property
    def positions(self) -> tuple[int, int]:
        """Height and width of the response."""
        rows, columns = (
            (n + before + after - span) // stride + 1
            for n, before, after, span, stride in zip(
                self.size, self.pads[:2], self.pads[2:], self.span, self.strides, strict=True
            )
        )
        return rows, columns


@dataclasses.dataclass
class _Way:
    """From the pixels to a tensor: its channels are `mixing` (channels, C) times the pixels', plus a constant."""

    mixing: Array
    axis: int
    pads: list[int]
    folded: list[str]


def first_convolution(model: Path, *, card: Card) -> Convolution:
    """Read the convolution that meets the image first.

    Before it there may be linear operators that act on each pixel alone: mean and std, BatchNormalization, Transpose,
    padding with a constant, and 1 x 1 convolutions. They are folded into its weights. Raises InputError naming an
    operator of another kind, or a weight that is not constant; run `check` first.
    """
    network = operators(model, card=card)
    readers: dict[str, list[Operator]] = {}
    for node in network.operators:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    order = slice(None, None, -1) if card.channels == "BGR" else slice(None)
    way = _Way(
        np.eye(len(card.std))[order] / np.array(card.std)[:, None], 1 if card.layout == "NCHW" else 3, [0] * 4, []
    )
    current, pointwise = network.input, None
    while True:
        following = readers.get(current, [])
        operator: Operator | None = following[0] if following else None
        if operator is not None and operator.kind == "Conv":
            layer = _convolution(operator, way, network, card.size, model)
            # A pointwise convolution directly before this one makes a single linear map with it.
            if not _is_pointwise(layer) or len(following) > 1:
                return layer
            pointwise = pointwise or layer
            way = _Way(layer.weights[:, :, 0, 0], 1, way.pads, [*way.folded, operator.name])
        elif operator is None or len(following) > 1 or not _passed(operator, way, network, current):
            break
        current = operator.outputs[0]
    if pointwise is not None:
        return pointwise
    first = f"{operator.kind} {operator.name!r:.80}" if operator is not None else "the scores"
    raise InputError(
        f"{model}: {first} meets the image before any Conv does; a network whose first layer is a convolution is needed"
    )


def _convolution(
    operator: Operator, way: _Way, network: OperatorGraph, size: tuple[int, int], model: Path
) -> Convolution:
    weights = network.constant(operator.inputs[1]) if len(operator.inputs) > 1 else None
    if weights is None:
        raise InputError(
            f"{model}: the weight of its first layer, Conv {operator.name!r:.80}, is no stored constant; export it so"
        )
    group = int(operator.attributes.get("group", 1))
    own = np.asarray(weights, np.float64)
    if way.axis != 1 or own.ndim != 4 or own.shape[1] * group != len(way.mixing) or len(own) % group:
        raise InputError(
            f"{model}: Conv {operator.name!r:.80} has weights {list(own.shape)} in {group} group(s), which does "
            f"not fit {len(way.mixing)} channels"
        )
    kernel = own.shape[2:]
    strides, dilations = (_pair(operator.attributes.get(name)) for name in ("strides", "dilations"))
    extents = [n + way.pads[i] + way.pads[i + 2] for i, n in enumerate(size)]
    pads = _pads(operator.attributes, kernel, extents, strides, dilations)
    dense = np.zeros((len(own), len(way.mixing), *kernel))
    for number, (rows, part) in enumerate(zip(np.split(dense, group), np.split(own, group), strict=True)):
        rows[:, number * own.shape[1] : (number + 1) * own.shape[1]] = part
    layer = Convolution(
        weights=np.einsum("mikl,ic->mckl", dense, way.mixing),
        size=size,
        strides=strides,
        dilations=dilations,
        pads=(way.pads[0] + pads[0], way.pads[1] + pads[1], way.pads[2] + pads[2], way.pads[3] + pads[3]),
        name=operator.name,
        output=operator.outputs[0],
        folded=tuple(way.folded),
    )
    if min(layer.positions) < 1:
        raise InputError(
            f"{model}: Conv {operator.name!r:.80} has a kernel larger than the image; correct the card's size"
        )
    return layer


def _is_pointwise(layer: Convolution) -> bool:
    return layer.weights.shape[2:] == (1, 1) and layer.strides == (1, 1) and not any(layer.pads)


def _pair(given: Sequence[int] | None) -> tuple[int, int]:
    first, second = given or (1, 1)
    return int(first), int(second)


def _pads(
    attributes: Mapping[str, Any],
    kernel: Sequence[int],
    extents: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[int]:
    """Top, left, bottom, right; `auto_pad` is resolved."""
    automatic = attributes.get("auto_pad", "NOTSET")
    if not automatic.startswith("SAME"):
        return list(attributes.get("pads", (0, 0, 0, 0))) if automatic == "NOTSET" else [0] * 4
    both = zip(kernel, extents, strides, dilations, strict=True)
    total = [max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n) for k, n, s, d in both]
    less, more = [t // 2 for t in total], [t - t // 2 for t in total]
    return less + more if automatic == "SAME_UPPER" else more + less


def _passed(operator: Operator, way: _Way, network: OperatorGraph, current: str) -> bool:
    """Whether an operator before the convolution can be folded; if so, `way` includes it."""
    rule = _RULES.get(operator.kind)
    if rule is None or not rule(operator, way, network, current):
        return False
    way.folded.append(operator.name)
    return True


def _unchanged(operator: Operator, way: _Way, network: OperatorGraph, current: str) -> bool:
    return True


def _transpose(operator: Operator, way: _Way, network: OperatorGraph, current: str) -> bool:
    perm = list(operator.attributes.get("perm", (3, 2, 1, 0)))
    spatial = [axis for axis in perm if axis not in (0, way.axis)]
    way.axis = perm.index(way.axis)
    return perm[0] == 0 and spatial == sorted(spatial)


def _arithmetic(operator: Operator, way: _Way, network: OperatorGraph, current: str) -> bool:
    others = [name for name in operator.inputs if name != current]
    value = network.constant(others[0]) if len(others) == 1 else None
    if value is None or value.ndim > 4:
        return False
    first = operator.inputs[0] == current
    if operator.kind in ("Add", "Sub"):
        return _scaled(way, 1.0 if first or operator.kind == "Add" else -1.0)
    shape = [1] * (4 - value.ndim) + list(value.shape)
    if any(n != 1 for axis, n in enumerate(shape) if axis != way.axis) or (operator.kind == "Div" and not first):
        return False
    factor = np.asarray(value, np.float64).reshape(-1, 1)
    return _scaled(way, factor if operator.kind == "Mul" else 1 / factor)


def _batch_normalization(operator: Operator, way: _Way, network: OperatorGraph, current: str) -> bool:
    scale, variance = (network.constant(operator.inputs[k]) for k in (1, 4))
    if scale is None or variance is None or way.axis != 1:
        return False
    deviation = np.sqrt(variance.astype(np.float64) + operator.attributes.get("epsilon", 1e-5))
    return _scaled(way, (scale / deviation)[:, None])


def _pad(operator: Operator, way: _Way, network: OperatorGraph, current: str) -> bool:
    """A constant border is zero for the perturbation, whatever its value is for the image."""
    pads = operator.attributes.get("pads")
    if pads is None and len(operator.inputs) > 1:
        pads = network.constant(operator.inputs[1])
    omitted = len(operator.inputs) < 4 or not operator.inputs[3]
    axes = np.arange(4) if omitted else network.constant(operator.inputs[3])
    if pads is None or axes is None or operator.attributes.get("mode", "constant") != "constant":
        return False
    by_axis = np.zeros((2, 4), int)
    by_axis[:, np.asarray(axes, int)] = np.reshape(pads, (2, -1))
    spatial = [axis for axis in (1, 2, 3) if axis != way.axis]
    if by_axis.min() < 0 or by_axis[:, [0, way.axis]].any():
        return False
    way.pads = [old + int(new) for old, new in zip(way.pads, by_axis[:, spatial].ravel(), strict=True)]
    return True


def _scaled(way: _Way, factor: Any) -> bool:
    way.mixing = way.mixing * factor
    return True


_RULES: dict[str, Callable[[Operator, _Way, OperatorGraph, str], bool]] = {
    **dict.fromkeys(("Identity", "Cast", "Dropout"), _unchanged),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _arithmetic),
    "Transpose": _transpose,
    "BatchNormalization": _batch_normalization,
    "Pad": _pad,
}
