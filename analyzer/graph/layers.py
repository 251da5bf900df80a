"""Layers with weights, the feature layer before the last of them, and the tensor that a layer's name stands for."""

import difflib
from collections.abc import Iterator
from pathlib import Path

from onnx import NodeProto

from analyzer.errors import InputError
from analyzer.graph import walk
from analyzer.graph.dtypes import FLOATS, type_name
from analyzer.graph.index import Index
from analyzer.graph.quantised import holds_values

_KEEPING = frozenset({"Identity", "Cast", "Dropout", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
_WEIGHTED = frozenset(
    {"Gemm", "MatMul", "Conv", "MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv"}
    | {"FusedGemm", "FusedMatMul", "FusedConv", "QGemm", "MatMulNBits"}  # the runtime's own
)
_BEFORE_ACTIVATION = _WEIGHTED | {"Add", "BatchNormalization"}
ACTIVATIONS = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "Tanh", "Sigmoid", "Elu", "Selu", "Celu", "Gelu", "HardSigmoid", "HardSwish", "Mish"}
    | {"Softplus", "Softsign", "ThresholdedRelu", "Clip", "Swish"}
)


def weight_layers(index: Index, scores: str) -> Iterator[tuple[str, NodeProto]]:
    """(input tensor, node) of the layers with constant weights that `scores` depends on, the last one first.

    Casts, dropout and quantisation between an activation and the layer are passed over: the input tensor is what
    enters the first of them.
    """
    needed = {scores}
    for node in reversed(index.nodes):
        if needed.isdisjoint(node.output):
            continue
        needed.update(walk.reads(node))
        if node.op_type in _WEIGHTED:
            # Quantised as they come, an activation's codes, scale and zero point all depend on the image.
            sources = {_before_casts(index, name) for name in index.live_inputs(node)}
            if len(sources) == 1:
                yield sources.pop(), node


def find_feature(index: Index, scores: str, path: Path) -> str:
    """The input of the last layer with weights before the scores. Raises InputError where there is none."""
    for name, _ in weight_layers(index, scores):
        if holds_values(index, name):
            return name
    raise InputError(
        f"{path}: found no layer with weights before the scores, so no feature layer; name one in the card's "
        f"feature.name or with `layers`, e.g. one of: {', '.join(_floats(index)[-5:]) or 'none'}"
    )


def resolve_layer(index: Index, name: str, path: Path) -> tuple[str, tuple[str, ...]]:
    """(tensor, notes about it) of the layer that the user calls `name`: a tensor's name, or a node's.

    Raises InputError where there is no such tensor (near names are listed), and where it is constant or no float.
    """
    tensor = name
    if name not in index.types and name not in index.producer:
        by_node = {node.name: node.output[0] for node in index.nodes if node.name and node.output}
        tensor = by_node.get(name, name)
    if tensor not in index.live:
        if tensor in index.types or tensor in index.producer:
            raise InputError(
                f"{path}: layer {name!r:.120} is a constant or a shape, the same for every image; name another"
            )
        names = [t for t in index.types if t in index.live]
        near = difflib.get_close_matches(name, names, n=5, cutoff=0.4) or _floats(index)[-5:]
        raise InputError(
            f"{path}: no layer {name!r:.120}; near it: {', '.join(near)} (`analyzer inspect` lists candidates)"
        )
    elem_type = index.elem_type(tensor)
    if elem_type is not None and not holds_values(index, tensor):
        raise InputError(f"{path}: layer {name!r:.120} holds {type_name(elem_type)}, not floats; name another")
    return tensor, _notes_on(index, tensor)


def _notes_on(index: Index, tensor: str) -> tuple[str, ...]:
    readers = {node.op_type for node in index.consumers.get(tensor, ())}
    node = index.producer.get(tensor)
    if node is None:
        return (f"Layer {tensor} is the network's input itself.",)
    if node.op_type in _BEFORE_ACTIVATION and len(readers) == 1 and readers <= ACTIVATIONS:
        reader = index.consumers[tensor][0]
        return (f"Layer {tensor} is taken before its {reader.op_type}, as named; {reader.output[0]} comes after it.",)
    return ()


def _before_casts(index: Index, name: str) -> str:
    while (node := index.producer.get(name)) is not None and node.op_type in _KEEPING and node.input[0] in index.live:
        name = node.input[0]
    return name


def _floats(index: Index) -> list[str]:
    names = (name for node in index.nodes for name in node.output)
    return [name for name in names if name in index.live and index.elem_type(name) in FLOATS]
