"""Finding the class scores, as logits where possible, and the layer before the last weights."""

import dataclasses
import difflib
from collections.abc import Iterator
from pathlib import Path

from onnx import NodeProto, TensorProto

from analyzer.errors import InputError
from analyzer.graph import walk
from analyzer.graph.index import Index

FLOATS: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
    TensorProto.BFLOAT16: "bfloat16",
}
RESHAPING = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Transpose", "Cast", "Dropout"})
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


@dataclasses.dataclass(frozen=True)
class Scores:
    """The tensor to read the class scores from, and whether these are "logits" or "probabilities"."""

    tensor: str
    kind: str
    notes: tuple[str, ...] = ()


def find_scores(index: Index, output: str, opset: int, path: Path) -> Scores:
    """Walk back from `output` to a final Softmax or LogSoftmax and take what enters it; else `output` as it is.

    The kind is "probabilities" where no such operator ends the graph: what the numbers are is then the card's word.
    Raises InputError where the Softmax does not run over the classes, or the output has no (N, K) shape.
    """
    _check_class_shape(index, output, path)
    name = output
    while (node := index.producer.get(name)) is not None:
        if node.op_type in ("Softmax", "LogSoftmax"):
            _check_axis(index, node, opset, path)
            return Scores(node.input[0], "logits", (f"Logits found before the final {node.op_type}: {node.input[0]}.",))
        if node.op_type not in RESHAPING or node.input[0] not in index.live:
            break
        name = node.input[0]
    notes: tuple[str, ...] = ()
    if node is not None and node.op_type == "Sigmoid":
        notes = (f"The output {output} ends in a Sigmoid, one decision per class; its values are taken as they are.",)
    return Scores(output, "probabilities", notes)


def ends_in_softmax(index: Index, scores: Scores, output: str) -> bool:
    """Whether `find_scores` went past a Softmax, so that `output` itself holds probabilities."""
    return scores.kind == "logits" and any(n.op_type == "Softmax" for n in index.consumers.get(scores.tensor, ()))


def weight_layers(index: Index, scores: str) -> Iterator[tuple[str, NodeProto]]:
    """(input tensor, node) of the layers with constant weights that `scores` depends on, the last one first.

    The input is given as it was before casts, dropout and quantisation: after its activation.
    """
    needed = {scores}
    for node in reversed(index.nodes):
        if needed.isdisjoint(node.output):
            continue
        needed.update(walk.reads(node))
        sources = index.live_inputs(node)
        if node.op_type in _WEIGHTED and len(set(sources)) == 1:
            yield _before_casts(index, sources[0]), node


def find_feature(index: Index, scores: str, path: Path) -> str:
    """The input of the last layer with weights before the scores. Raises InputError where there is none."""
    for name, _ in weight_layers(index, scores):
        if index.elem_type(name) in (None, *FLOATS):
            return name
    raise InputError(
        f"{path}: found no layer with weights before the scores, so no feature layer; name one in the card's "
        f"feature.name or with --layers, e.g. one of: {', '.join(_floats(index)[-5:]) or 'none'}"
    )


def resolve_layer(index: Index, name: str, path: Path) -> tuple[str, tuple[str, ...]]:
    """The tensor that the user calls `name` (a tensor, or a node's own name), with notes about it.

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
    if elem_type is not None and elem_type not in FLOATS:
        raise InputError(f"{path}: layer {name!r:.120} holds {type_name(elem_type)}, not floats; name another")
    return tensor, _notes_on(index, tensor)


def type_name(elem_type: int) -> str:
    """numpy's word for a TensorProto data type, e.g. "float32"."""
    if elem_type not in TensorProto.DataType.values():
        return f"an unknown type ({elem_type})"
    return FLOATS.get(elem_type) or str(TensorProto.DataType.Name(elem_type)).lower()


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


def _check_class_shape(index: Index, output: str, path: Path) -> None:
    shape = index.shape(output)
    if shape is not None and (len(shape) < 2 or sum(d is not None and d > 1 for d in shape[1:]) > 1):
        raise InputError(
            f"{path}: output {output!r:.80} has shape {list(shape)}, where a classifier's (N, classes) is expected; "
            "name the output with the class scores in the card's output.name"
        )


def _check_axis(index: Index, node: NodeProto, opset: int, path: Path) -> None:
    shape = index.shape(node.input[0])
    axis = walk.attribute(node, "axis", 1 if opset < 13 else -1)
    if shape is None:
        right = axis != 0
    else:
        axis %= max(len(shape), 1)
        if opset < 13:  # everything from `axis` on is one group
            right = axis >= 1 and all(d == 1 for d in shape[1:axis])
        else:
            right = axis >= 1 and all(d == 1 for i, d in enumerate(shape) if i not in (0, axis))
    if not right:
        raise InputError(
            f"{path}: its final {node.op_type} runs over axis {axis} of shape {list(shape or ())}, not over the "
            "classes of each image; name the tensor with the class scores in the card's output.name"
        )
