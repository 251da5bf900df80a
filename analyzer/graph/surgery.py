"""Giving every model the same interface: one canonical float32 NCHW input, and outputs for scores and layers."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from analyzer.card import CHANNELS, Card
from analyzer.graph import walk
from analyzer.graph.index import Index

BATCH = "analyzer_batch"


@dataclasses.dataclass(frozen=True)
class Interface:
    """Names of the canonical input and of the outputs, scores first."""

    input: str
    outputs: tuple[str, ...]


def rebuild(
    model: ModelProto, index: Index, image: ValueInfoProto, card: Card, scores: str, taps: tuple[str, ...], prefix: str
) -> Interface:
    """Give `model` new inputs and outputs, in place, and remove what the new outputs do not need.

    The canonical input is (batch, C, H, W) float32 in RGB or L; channel order, layout and element type are adapted
    inside the graph. Scores become (N, K) float32 or float64, each tap float32. `prefix` starts every new name.
    """
    entry, head, weights = _adapters(image, card, prefix)
    tail: list[NodeProto] = []
    outputs: list[ValueInfoProto] = []
    _emit(scores, index, prefix + "scores", tail, outputs, doubles=True, flat=True)
    for number, tap in enumerate(taps):
        _emit(tap, index, f"{prefix}layer_{number}", tail, outputs, doubles=False, flat=False)

    graph = model.graph
    needed = {output.name for output in outputs}
    kept: list[NodeProto] = []
    for node in reversed([*head, *graph.node, *tail]):
        if not needed.isdisjoint(node.output):
            needed.update(walk.reads(node))
            kept.append(node)
    _replace(graph.node, kept[::-1])
    for number in reversed(range(len(graph.initializer))):  # one by one: a list would copy the weights
        if graph.initializer[number].name not in needed:
            del graph.initializer[number]
    graph.initializer.extend(weights)
    others = [v for v in graph.input if v.name in needed and v.name not in (image.name, entry.name)]
    stored = {t.name for t in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    # Weights listed as inputs could be overridden, so the runtime would not treat them as constants.
    _replace(graph.input, [entry, *(v for v in others if v.name not in stored)])
    _replace(graph.output, outputs)
    for stale in (graph.value_info, graph.quantization_annotation, model.training_info, model.metadata_props):
        del stale[:]
    model.ir_version = max(model.ir_version, 4)  # before 4 every weight had to be listed as an input
    return Interface(entry.name, tuple(output.name for output in outputs))


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
    doubles: bool,
    flat: bool,
) -> None:
    elem_type, shape = index.elem_type(tensor), index.shape(tensor)
    kept = {TensorProto.FLOAT, TensorProto.DOUBLE} if doubles else {TensorProto.FLOAT}
    current, final = tensor, elem_type
    if final is None or final not in kept:
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
    outputs.append(helper.make_tensor_value_info(current, final, None))


def _outputs_of(nodes: list[NodeProto]) -> list[str]:
    return [name for node in nodes for name in node.output]


def _replace(field: Any, items: Iterable[Any]) -> None:
    copies = list(items)
    del field[:]
    field.extend(copies)
