"""Where each tensor of a graph comes from, who reads it, whether it depends on the image, its type and its shape."""

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from analyzer.errors import InputError
from analyzer.graph import walk

Shape = tuple[int | None, ...]
_SMALL = 4096  # elements; larger tensors decide no shapes and stay out of shape inference


@dataclasses.dataclass(frozen=True)
class Index:
    """A graph made searchable by the names of its tensors.

    nodes: in the order of the graph. producer: the node that computes a tensor. consumers: the nodes that read it.
    live: the tensors that depend on the graph's inputs. types: (element type, shape), each None where unknown.
    """

    nodes: tuple[NodeProto, ...]
    producer: Mapping[str, NodeProto]
    consumers: Mapping[str, tuple[NodeProto, ...]]
    live: frozenset[str]
    types: Mapping[str, tuple[int | None, Shape | None]]

    def elem_type(self, name: str) -> int | None:
        """TensorProto data type of a tensor, None where inference does not know it."""
        return self.types.get(name, (None, None))[0]

    def shape(self, name: str) -> Shape | None:
        """Dimensions of a tensor, each None where it is free or unknown; None where even the rank is unknown."""
        return self.types.get(name, (None, None))[1]

    def live_inputs(self, node: NodeProto) -> list[str]:
        """The inputs of `node` that depend on the image."""
        return [name for name in node.input if name in self.live]


_WITHOUT_INPUT = frozenset({"Constant", "RandomNormal", "RandomUniform", "SequenceEmpty", "Optional"})
"""Operators that need none; of any other one follows the first input back."""


def build(model: ModelProto, path: Path) -> Index:
    """Index the main graph. Raises InputError where it is not in order or not in single-assignment form."""
    graph = model.graph
    constants = {t.name for t in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    inputs = {i.name for i in graph.input} - constants
    defined = constants | inputs
    live = set(inputs)
    producer: dict[str, NodeProto] = {}
    consumers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        if not node.input and node.op_type not in _WITHOUT_INPUT:
            name = node.output[0] if node.output else node.name
            raise InputError(
                f"{path}: not valid ONNX: its {node.op_type} before {name!r:.80} has no input; export it again"
            )
        sources = list(walk.reads(node))
        for name in sources:
            if name not in defined:
                raise InputError(
                    f"{path}: nothing computes tensor {name!r:.80} before {node.op_type} reads it; damaged"
                )
            consumers.setdefault(name, []).append(node)
        for name in filter(None, node.output):
            if name in defined:
                raise InputError(
                    f"{path}: tensor {name!r:.80} is computed twice; the graph is damaged, export it again"
                )
            defined.add(name)
            producer[name] = node
            # Shapes may carry the batch size but never the image.
            if node.op_type not in ("Shape", "Size") and not live.isdisjoint(sources):
                live.add(name)
    for output in graph.output:
        if output.name not in defined:
            raise InputError(f"{path}: nothing computes the output {output.name!r:.80}; the graph is damaged")
    return Index(
        nodes=tuple(graph.node),
        producer=producer,
        consumers={name: tuple(readers) for name, readers in consumers.items()},
        live=frozenset(live),
        types=_infer(model),
    )


def image_inputs(model: ModelProto) -> list[ValueInfoProto]:
    """The graph's inputs that are not weights with a default."""
    weights = {t.name for t in model.graph.initializer} | {s.values.name for s in model.graph.sparse_initializer}
    return [value for value in model.graph.input if value.name not in weights]


def skeleton(model: ModelProto) -> ModelProto:
    """A copy in which large weights are graph inputs of the same type and shape: quick to infer, check and convert."""
    small = ModelProto(ir_version=max(model.ir_version, 4), producer_name=model.producer_name)
    small.opset_import.extend(model.opset_import)
    small.functions.extend(model.functions)
    source, graph = model.graph, small.graph
    graph.name = source.name or "graph"
    weights: list[TensorProto] = []
    for tensor in source.initializer:
        if _is_small(tensor):
            graph.initializer.append(tensor)
        else:
            weights.append(tensor)
    for sparse in source.sparse_initializer:
        graph.input.append(onnx.helper.make_tensor_value_info(sparse.values.name, sparse.values.data_type, sparse.dims))
    for node in source.node:
        constant = large_constant(node)
        if constant is None:
            graph.node.append(node)
        else:
            weights.append(TensorProto(name=node.output[0], data_type=constant.data_type, dims=constant.dims))
    names = {i.name for i in graph.input} | {t.name for t in source.initializer}
    graph.input.extend(value for value in source.input if value.name not in names)
    graph.input.extend(onnx.helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in weights)
    graph.output.extend(source.output)
    graph.value_info.extend(source.value_info)
    return small


def large_constant(node: NodeProto) -> TensorProto | None:
    """The tensor of a Constant node where it is a weight rather than a shape or a scalar."""
    if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
        for attribute in node.attribute:
            stored: TensorProto = attribute.t
            if attribute.name == "value" and not _is_small(stored):
                return stored
    return None


def _is_small(tensor: TensorProto) -> bool:
    return tensor.data_location != TensorProto.EXTERNAL and walk.size_of(TensorProto.UINT8, tensor.dims) <= _SMALL


def _infer(model: ModelProto) -> dict[str, tuple[int | None, Shape | None]]:
    small = skeleton(model)
    with contextlib.suppress(
        onnx.shape_inference.InferenceError, RuntimeError, ValueError
    ):  # else what the graph itself declares must do
        small = onnx.shape_inference.infer_shapes(small, data_prop=True)
    graph = small.graph
    types = {v.name: _type_of(v) for v in (*graph.value_info, *graph.input, *graph.output)}
    types.update({t.name: (t.data_type, tuple(t.dims)) for t in graph.initializer})
    return types


def _type_of(value: ValueInfoProto) -> tuple[int | None, Shape | None]:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        return None, None
    return tensor.elem_type or None, shape_of(value)


def shape_of(value: ValueInfoProto) -> Shape | None:
    """Declared dimensions; None for a free one (a symbol, nothing, or a number below 1)."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim)
