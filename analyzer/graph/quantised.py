"""Quantised tensors: the scale and the zero point that turn their codes into values, and the steps they come in."""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto

from analyzer.graph import walk
from analyzer.graph.dtypes import FLOATS
from analyzer.graph.index import Index

QUANTISING = frozenset({"QuantizeLinear", "DequantizeLinear"})
_CODES = frozenset({TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16, TensorProto.INT32})
# Places among the inputs of (scale, zero point) of what an operator computes.
_OF_OUTPUT = {
    "QuantizeLinear": (1, 2),
    "QLinearConv": (6, 7),
    "QLinearMatMul": (6, 7),
    "QLinearAdd": (6, 7),
    "QLinearMul": (6, 7),
    "QGemm": (7, 8),
    "QLinearWhere": (7, 8),
    "QLinearConcat": (0, 1),
    "QLinearSoftmax": (3, 4),
    "QLinearSigmoid": (3, 4),
    "QLinearLeakyRelu": (3, 4),
    "QLinearAveragePool": (3, 4),
    "QLinearGlobalAveragePool": (3, 4),
    "QLinearReduceMean": (3, 4),
}
# The same of what an operator reads first.
_OF_INPUT = dict.fromkeys(
    {"DequantizeLinear", "QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul", "QGemm", "QLinearSoftmax"}
    | {"QLinearSigmoid", "QLinearLeakyRelu", "QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearReduceMean"},
    (1, 2),
)
# Codes stay codes of the same scale.
_MOVING = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "MaxPool", "Slice"})
_MOVING |= {"Gather", "Split", "Expand", "Tile"}


def computes_with_codes(model: ModelProto) -> bool:
    """Whether the graph quantises what it computes, so that the runtime may compute in integers."""
    kinds = {node.op_type for node in walk.nodes(model)}
    return not kinds.isdisjoint({*QUANTISING, *_OF_OUTPUT, "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"})


class Scale(NamedTuple):
    """Names of the tensors with scale and zero point; the latter is "" where it is 0."""

    scale: str
    zero_point: str


def scale_of(index: Index, name: str) -> Scale | None:
    """Scale and zero point of the tensor `name` where it holds codes; None where it does not, or nothing tells."""
    if index.elem_type(name) in FLOATS:
        return None
    origin = name
    while (node := index.producer.get(origin)) is not None and node.op_type in _MOVING:
        origin = node.input[0]
    if node is not None and node.op_type in _OF_OUTPUT:
        return _taken(node, _OF_OUTPUT[node.op_type])
    if index.elem_type(origin) not in (None, *_CODES):
        return None
    for reader in index.consumers.get(name, ()):
        if reader.op_type in _OF_INPUT and reader.input[0] == name:
            return _taken(reader, _OF_INPUT[reader.op_type])
    return None


def as_read(index: Index, name: str, outputs: Collection[str]) -> str:
    """The codes of a float tensor that everything reads through one quantisation; the tensor itself where some do not.

    outputs: of the graph, which the world reads.

    Quantising tools leave out an activation whose cut the codes' range makes, and give what comes before its name. What
    the layers after it read is what the codes hold.
    """
    readers = index.consumers.get(name, ())
    same = {tuple(node.input[1:]) for node in readers if node.op_type == "QuantizeLinear" and node.input[0] == name}
    alone = len(same) == 1 and all(node.op_type == "QuantizeLinear" for node in readers)
    return readers[0].output[0] if alone and name not in outputs else name


def holds_values(index: Index, name: str) -> bool:
    """Whether a tensor holds floats, or codes of known scale, or what only the runtime knows."""
    return index.elem_type(name) in (None, *FLOATS) or scale_of(index, name) is not None


def step(node: NodeProto, constant: Callable[[str], NDArray[Any] | None]) -> float | None:
    """The largest step between neighbouring values that a quantising `node` computes; None where it is not constant."""
    place = _OF_OUTPUT.get(node.op_type) or _OF_INPUT.get(node.op_type)
    taken = _taken(node, place) if place is not None else None
    scale = constant(taken.scale) if taken is not None else None
    return None if scale is None or scale.size == 0 else float(np.abs(scale.astype(np.float64)).max())


def _taken(node: NodeProto, places: tuple[int, int]) -> Scale | None:
    names = [node.input[place] if place < len(node.input) else "" for place in places]
    return Scale(*names) if names[0] else None


Grid = tuple[float, float, float, float]
"""How a network's input is quantised, in its units: scale (0: one for each image), zero point, lowest, highest code."""


def input_grid(index: Index, image: str, constant: Callable[[str], NDArray[Any] | None]) -> Grid | None:
    """How the graph quantises its input `image` before anything else; None where it does not, or nothing tells."""
    name = image
    while len(readers := index.consumers.get(name, ())) == 1 and readers[0].op_type in _MOVING | {"Cast"}:
        name = readers[0].output[0]
    if not readers or any(node.op_type not in ("QuantizeLinear", "DynamicQuantizeLinear") for node in readers):
        return None
    if readers[0].op_type == "DynamicQuantizeLinear":
        return 0.0, 0.0, 0.0, 255.0
    places = _taken(readers[0], _OF_OUTPUT["QuantizeLinear"])
    scale = constant(places.scale) if places is not None else None
    zero = constant(places.zero_point) if places is not None and places.zero_point else np.zeros((), np.uint8)
    if scale is None or zero is None or scale.size != 1 or zero.size != 1 or zero.dtype.kind not in "iu":
        return None
    if not np.isfinite(scale).all() or float(scale.ravel()[0]) <= 0:
        return None
    codes = np.iinfo(zero.dtype)
    return float(scale.ravel()[0]), float(zero.ravel()[0]), float(codes.min), float(codes.max)
