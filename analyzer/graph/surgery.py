"""Giving every model the same interface: one canonical float32 NCHW input, and outputs for scores and layers."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from analyzer.card import CHANNELS, Card
from analyzer.graph import walk
from analyzer.graph.index import Index
from analyzer.graph.quantised import scale_of

BATCH = "analyzer_batch"
_TAPS = frozenset({TensorProto.FLOAT})
# Scores of an fp16 graph leave it rounded, as the deployed file gives them.
_SCORES = _TAPS | {TensorProto.DOUBLE, TensorProto.FLOAT16}


@dataclasses.dataclass(frozen=True)
class Interface:
    """Names of the canonical input and of the outputs, scores first.

    adapted: whether an output is not the tensor itself, since its type or shape had to be made to fit.
    """

    input: str
    outputs: tuple[str, ...]
    adapted: bool = False


def rebuild(
    model: ModelProto,
    index: Index,
    image: ValueInfoProto,
    card: Card,
    scores: str,
    taps: tuple[str, ...],
    prefix: str,
    *,
    bare: bool = False,
    binary: str = "",
) -> Interface:
    """Give `model` new inputs and outputs, in place, and remove what the new outputs do not need.

    The canonical input is (batch, C, H, W) float32 in RGB or L; channel order, layout and element type are adapted
    inside the graph. Scores become (N, K) float16, float32 or float64, each tap float32, codes of quantised tensors
    their values. `prefix` starts every new name. bare: leave type and shape of scores and taps as the runtime finds
    them. binary: what the one score of two classes becomes, those of both; see `_both_classes`.
    """
    entry, head, weights = _adapters(image, card, prefix)
    tail: list[NodeProto] = []
    outputs: list[ValueInfoProto] = []
    _emit(scores, index, prefix + "scores", tail, outputs, kept=None if bare else _SCORES, flat=not bare)
    if binary and not bare:
        _both_classes(binary, prefix, tail, outputs, weights)
    for number, tap in enumerate(taps):
        _emit(tap, index, f"{prefix}layer_{number}", tail, outputs, kept=None if bare else _TAPS, flat=False)

    graph = model.graph
    graph.initializer.extend(weights)
    needed = prune(model, [*head, *graph.node, *tail], outputs)
    others = [v for v in graph.input if v.name in needed and v.name not in (image.name, entry.name)]
    stored = {t.name for t in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    # Weights listed as inputs could be overridden, so the runtime would not treat them as constants.
    _replace(graph.input, [entry, *(v for v in others if v.name not in stored)])
    for stale in (graph.value_info, graph.quantization_annotation, model.training_info, model.metadata_props):
        del stale[:]
    model.ir_version = max(model.ir_version, 4)  # before 4 every weight had to be listed as an input
    adapted = any(node.op_type != "Identity" for node in tail)
    return Interface(entry.name, tuple(output.name for output in outputs), adapted)


def _both_classes(
    kind: str, prefix: str, tail: list[NodeProto], outputs: list[ValueInfoProto], weights: list[TensorProto]
) -> None:
    """Of the one score of two classes, that of the second, those of both: (N, 1) -> (N, 2), in place.

    kind: "logits", z becomes (-z/2, z/2); "probabilities", p becomes (1 - p, p).
    """
    (one,) = outputs
    elem_type = one.type.tensor_type.elem_type or TensorProto.FLOAT
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    factors, offsets = ([-0.5, 0.5], [0, 0]) if kind == "logits" else ([-1, 1], [1, 0])
    weights.append(numpy_helper.from_array(np.array([factors], dtype), prefix + "factors"))
    weights.append(numpy_helper.from_array(np.array([offsets], dtype), prefix + "offsets"))
    tail.append(helper.make_node("Mul", [one.name, prefix + "factors"], [prefix + "two"], name=prefix + "two"))
    tail.append(helper.make_node("Add", [prefix + "two", prefix + "offsets"], [prefix + "both"], name=prefix + "both"))
    outputs[:] = [helper.make_tensor_value_info(prefix + "both", elem_type, None)]


def prune(model: ModelProto, nodes: Sequence[NodeProto], outputs: Sequence[ValueInfoProto]) -> set[str]:
    """Give `model` these nodes and outputs, in place, without what the outputs do not need; the tensors they do."""
    graph = model.graph
    needed = {output.name for output in outputs}
    kept: list[NodeProto] = []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.output):
            needed.update(walk.reads(node))
            kept.append(node)
    _replace(graph.node, kept[::-1])
    for number in reversed(range(len(graph.initializer))):  # one by one: a list would copy the weights
        if graph.initializer[number].name not in needed:
            del graph.initializer[number]
    _replace(graph.output, outputs)
    return needed


def _adapters(
    image: ValueInfoProto, card: Card, prefix: str
) -> tuple[ValueInfoProto, list[NodeProto], list[TensorProto]]:
    steps: list[tuple[str, list[str], dict[str, Any]]] = []
    weights = []
    if card.channels == "BGR":
        weights.append(numpy_helper.from_array(np.array([2, 1, 0], np.int64), prefix + "bgr_order"))
        steps.append(("Gather", [prefix + "bgr_order"], {"axis": 1}))
    if card.layout == "NHWC":
        steps.append(("Transpose", [], {"perm": [0, 2, 3, 1]}))
    elem_type = image.type.tensor_type.elem_type
    if elem_type != TensorProto.FLOAT:
        steps.append(("Cast", [], {"to": elem_type}))
    name = prefix + "input" if steps else image.name
    entry = helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, CHANNELS[card.channels], *card.size])
    nodes = []
    for number, (operator, others, attributes) in enumerate(steps):
        output = image.name if number == len(steps) - 1 else f"{prefix}step_{number}"
        nodes.append(
            helper.make_node(operator, [name, *others], [output], name=f"{prefix}adapt_{number}", **attributes)
        )
        name = output
    return entry, nodes, weights


def _emit(
    tensor: str,
    index: Index,
    name: str,
    tail: list[NodeProto],
    outputs: list[ValueInfoProto],
    *,
    kept: frozenset[int] | None,
    flat: bool,
) -> None:
    """Make `tensor` an output. kept: element types that stay; None for all that the runtime hands over."""
    elem_type, shape = index.elem_type(tensor), index.shape(tensor)
    current, final = tensor, elem_type
    if (scale := scale_of(index, tensor)) is not None:
        tail.append(helper.make_node("DequantizeLinear", [current, *filter(None, scale)], [name + "_values"]))
        tail[-1].name = current = name + "_values"
        final = TensorProto.FLOAT
    if (final == TensorProto.BFLOAT16) if kept is None else (final is None or final not in kept):
        tail.append(helper.make_node("Cast", [current], [name + "_cast"], name=name + "_cast", to=TensorProto.FLOAT))
        current, final = name + "_cast", TensorProto.FLOAT
    if flat and (shape is None or len(shape) != 2):
        tail.append(helper.make_node("Flatten", [current], [name + "_flat"], name=name + "_flat", axis=1))
        current = name + "_flat"
    # The same tensor can be an output once only, and an input is no output.
    if current in {output.name for output in outputs} or current not in (*index.producer, *_outputs_of(tail)):
        tail.append(helper.make_node("Identity", [current], [name], name=name))
        current = name
    # No shape: what was declared may be wrong once the batch is free, and the runtime infers it.
    typed = kept is not None and final is not None
    outputs.append(
        helper.make_tensor_value_info(current, final, None) if typed else ValueInfoProto(name=current)  # type: ignore[arg-type]
    )


def _outputs_of(nodes: list[NodeProto]) -> list[str]:
    return [name for node in nodes for name in node.output]


def _replace(field: Any, items: Iterable[Any]) -> None:
    copies = list(items)
    del field[:]
    field.extend(copies)
