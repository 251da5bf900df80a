"""How much arithmetic each node does: multiply-adds, by which the work of several providers is weighed."""

import math
from collections.abc import Iterator

from onnx import ModelProto, NodeProto

from analyzer.graph.index import Index, Shape

# Operator -> place of its weights among the inputs.
_CONVOLVING = {"Conv": 1, "FusedConv": 1, "ConvInteger": 1, "QLinearConv": 3, "ConvTranspose": 1}
_MULTIPLYING = {"MatMul": 1, "FusedMatMul": 1, "MatMulInteger": 1, "DynamicQuantizeMatMul": 1, "QLinearMatMul": 3}
_MULTIPLYING |= {"Gemm": 1, "FusedGemm": 1, "QGemm": 3}
HEAVY = frozenset({*_CONVOLVING, *_MULTIPLYING})
"""Operators of multiply-adds."""


def name_heavy(model: ModelProto, prefix: str) -> None:
    """Give each heavy node a name of its own, in place; `prefix` starts the new ones."""
    seen: set[str] = set()
    for number, node in enumerate(model.graph.node):
        if node.op_type in HEAVY and (not node.name or node.name in seen):
            node.name = f"{prefix}work_{number}"
        seen.add(node.name)


def multiply_adds(model: ModelProto, index: Index, batch: int | None) -> Iterator[tuple[str, int]]:
    """(node, multiply-adds for one image) of the heavy nodes whose shapes are known.

    batch: what the file declares, None where it is free. A convolution takes, for each number it gives, the weights of
    one output channel; a matrix product the length of a row; a transposed convolution counts by what it reads.
    """
    for node in model.graph.node:
        if node.op_type in HEAVY and (count := _count(node, index, batch)):
            yield node.name, count


def _count(node: NodeProto, index: Index, batch: int | None) -> int | None:
    place = {**_CONVOLVING, **_MULTIPLYING}[node.op_type]
    if len(node.input) <= place:
        return None
    weights = index.shape(node.input[place])
    transposed = node.op_type == "ConvTranspose"
    counted = index.shape(node.input[0] if transposed else node.output[0])
    if not weights or None in weights or not counted:
        return None
    numbers = _of_one_image(counted, batch)
    if numbers is None:
        return None
    if node.op_type in _CONVOLVING:
        return numbers * math.prod(weights[1:])  # type: ignore[arg-type]
    # Gemm may transpose; either way all weights but those of one output.
    outputs = counted[-1]
    return numbers * (math.prod(weights[-2:]) // outputs) if outputs else None  # type: ignore[arg-type]


def _of_one_image(shape: Shape, batch: int | None) -> int | None:
    rest = shape[1:]
    if None in rest:
        return None
    first = shape[0] if batch is None or shape[0] is None else shape[0] // batch
    return (first or 1) * math.prod(rest)  # type: ignore[arg-type]
