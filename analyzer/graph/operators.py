"""The operators between the image and the tensors of interest, described without onnx."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto

from analyzer.card import Card
from analyzer.graph import constants, files, index, match, safety, training, walk
from analyzer.graph.prepare import inline

Shape = tuple[int | None, ...]
_PLAIN = {
    AttributeProto.FLOAT,
    AttributeProto.INT,
    AttributeProto.STRING,
    AttributeProto.FLOATS,
    AttributeProto.INTS,
    AttributeProto.STRINGS,
}


@dataclasses.dataclass(frozen=True)
class Operator:
    """One node: kind is its type ("Conv", or "com.microsoft:Gelu"), an omitted input is ""; only plain attributes."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class OperatorGraph:
    """The operators between a model's image input and its scores and layers.

    operators: in order. input, scores: tensors; layers: (name as the user knows it, tensor). live: tensors that depend
    on the image. shapes: inferred, None for a free or unknown dimension; the batch comes first and is free or declared.
    constant: tensor -> its value, or None where it depends on the image or is too complicated to compute.
    """

    operators: tuple[Operator, ...]
    input: str
    scores: str
    layers: tuple[tuple[str, str], ...]
    live: frozenset[str]
    shapes: Mapping[str, Shape]
    constant: Callable[[str], NDArray[Any] | None]
    opset: int
    notes: tuple[str, ...] = ()

    def shape(self, name: str) -> Shape | None:
        """Dimensions of a tensor, None for an unknown rank."""
        return self.shapes.get(name)


def operators(model: Path, *, card: Card, layers: Sequence[str] = ()) -> OperatorGraph:
    """Describe `model` from the image to its scores and layers, without running it.

    The input, scores and layers are those that `prepare` would take. Raises InputError where `prepare` does; run
    `check` first.
    """
    proto = files.read(model)
    located = safety.inspect(proto, model)
    proto = inline(proto, model)
    notes = list(training.to_inference(proto, model))
    image = match.choose_input(proto, card.input_name, model)
    match.fit_input(image, card, model)
    graph_index = index.build(proto, model)
    safety.refuse_huge_results(graph_index, model)
    scores = match.scores(proto, graph_index, card, model)
    notes += scores.notes
    outputs = match.outputs_of(proto)
    names, taps, _ = match.layers(graph_index, card, layers, scores, model, notes, outputs)
    needed, kept = {scores.tensor, *taps}, []
    for node in reversed(graph_index.nodes):
        if not needed.isdisjoint(node.output) and not graph_index.live.isdisjoint(node.output):
            needed.update(name for name in walk.reads(node) if name in graph_index.live)
            kept.append(_operator(node))
    return OperatorGraph(
        operators=tuple(kept[::-1]),
        input=image.name,
        scores=scores.tensor,
        layers=tuple(zip(names, taps, strict=True)),
        live=graph_index.live,
        shapes={name: shape for name, (_, shape) in graph_index.types.items() if shape is not None},
        constant=constants.reader(proto, located, model),
        opset=walk.opset(proto),
        notes=tuple(notes),
    )


def _operator(node: NodeProto) -> Operator:
    kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}:{node.op_type}"
    attributes = {a.name: _plain(onnx.helper.get_attribute_value(a)) for a in node.attribute if a.type in _PLAIN}
    return Operator(kind, node.name or node.output[0], tuple(node.input), tuple(node.output), attributes)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str | int | float) else tuple(map(_plain, value))
