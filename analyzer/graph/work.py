"""How much arithmetic each node does: multiply-adds, by which the work of several providers is weighed."""

import math
from collections.abc import Iterator

from onnx import ModelProto, NodeProto

from analyzer.graph.index import Index, Shape

# Convolution -> place of its weights among the inputs.
_CONVOLVING = {"Conv": 1, "FusedConv": 1, "ConvInteger": 1, "QLinearConv": 3, "ConvTranspose": 1}
_MULTIPLYING = {"MatMul", "FusedMatMul", "MatMulInteger", "DynamicQuantizeMatMul", "QLinearMatMul"}
_MULTIPLYING |= {"Gemm", "FusedGemm", "QGemm"}
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
    convolving = node.op_type in _CONVOLVING
    if len(node.input) <= (_CONVOLVING[node.op_type] if convolving else 1):
        return None
    read, made = index.shape(node.input[0]), index.shape(node.output[0])
    numbers = _of_one_image((read if node.op_type == "ConvTranspose" else made) or (), batch)
    if convolving:
        weights = index.shape(node.input[_CONVOLVING[node.op_type]])
        row = math.prod(weights[1:]) if weights and None not in weights else None  # type: ignore[arg-type]
    else:
        transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        row = read[0 if transposed else -1] if read else None
    return numbers * row if numbers and row else None


def _of_one_image(shape: Shape, batch: int | None) -> int | None:
    if not shape:
        return None
    rest = shape[1:]
    if None in rest:
        return None
    first = shape[0] if batch is None or shape[0] is None else shape[0] // batch
    return (first or 1) * math.prod(rest)  # type: ignore[arg-type]
