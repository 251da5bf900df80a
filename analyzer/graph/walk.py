"""Iterating over everything inside a model, sub-graphs and local functions included."""

import math
from collections.abc import Iterable, Iterator

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

# By name, because the oldest onnx that will do lacks some.
_BITS: dict[int, int] = {
    getattr(TensorProto, name): bits
    for name, bits in {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}.items()
    if hasattr(TensorProto, name)
}

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training"})
"""Of operators that ONNX itself defines, and infers shapes of."""
CONTROL_FLOW = frozenset({"Loop", "Scan", "If", "SequenceMap"})
GROWING = frozenset({"ConstantOfShape", "Expand", "Tile", "Range", "Pad", "Resize", "Upsample", "OneHot", "EyeLike"})


def nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Every node of the graph, its sub-graphs and the local functions."""
    yield from nodes_in(model.graph.node)
    for function in model.functions:
        yield from nodes_in(function.node)


def nodes_in(items: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Every node of `items` and of their sub-graphs."""
    for node in items:
        yield node
        for graph in subgraphs(node):
            yield from nodes_in(graph.node)


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs that `node` carries as attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def forget_unproved_shapes(model: ModelProto) -> None:
    """Drop the shapes that a file declares of tensors behind operators that ONNX does not know: unproved."""
    behind: set[str] = set()
    for node in model.graph.node:
        if node.domain not in DOMAINS or not behind.isdisjoint(reads(node)):
            behind.update(node.output)
    for value in (*model.graph.value_info, *model.graph.output):
        if value.name in behind and value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor stored in the model: initializers and attributes, dense and sparse, at any depth."""
    yield from _tensors_of_graph(model.graph)
    for function in model.functions:
        yield from _tensors_of_nodes(function.node)
        for attribute in function.attribute_proto:
            yield from _tensors_of_attribute(attribute)
    for training in model.training_info:
        yield from _tensors_of_graph(training.initialization)
        yield from _tensors_of_graph(training.algorithm)


def _tensors_of_graph(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _tensors_of_nodes(graph.node)


def _tensors_of_nodes(items: Iterable[NodeProto]) -> Iterator[TensorProto]:
    for node in items:
        for attribute in node.attribute:
            yield from _tensors_of_attribute(attribute)


def _tensors_of_attribute(attribute: AttributeProto) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
        if sparse.HasField("values"):
            yield sparse.values
            yield sparse.indices
    if attribute.HasField("g"):
        yield from _tensors_of_graph(attribute.g)
    for graph in attribute.graphs:
        yield from _tensors_of_graph(graph)


def reads(node: NodeProto) -> Iterator[str]:
    """Names of the tensors `node` reads, with those its sub-graphs take from outside."""
    yield from (name for name in node.input if name)
    for graph in subgraphs(node):
        own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
        for inner in graph.node:
            yield from (name for name in reads(inner) if name not in own)
            own.update(inner.output)
        yield from (output.name for output in graph.output if output.name not in own)


def size_of(elem_type: int, dims: Iterable[int]) -> int:
    """Bytes of a dense tensor. Types without a fixed size (strings) and unknown types count one byte an element."""
    count = math.prod(dims)
    if elem_type in _BITS:
        return math.ceil(count * _BITS[elem_type] / 8)
    try:
        return count * onnx.helper.tensor_dtype_to_np_dtype(elem_type).itemsize
    except (KeyError, TypeError, ValueError):
        return count


def entries_of(tensor: TensorProto) -> int:
    """How many entries the typed field of an embedded tensor must have (`raw_data` aside)."""
    count: int = math.prod(tensor.dims)
    if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        return 2 * count
    if tensor.data_type in _BITS:  # packed into bytes, one in an entry
        return math.ceil(count * _BITS[tensor.data_type] / 8)
    return count


def attribute(node: NodeProto, name: str, default: int) -> int:
    """An integer attribute of `node`, or `default`."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def opset(model: ModelProto) -> int:
    """The version of the standard operators the model asks for; 1 where it names none."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=1)
