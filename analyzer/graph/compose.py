"""Perturbed rows made inside the graph, for devices other than the host: 2 bytes an element travel, not 4."""

import dataclasses
from collections.abc import Sequence

from onnx import ModelProto, TensorProto, helper

from analyzer.graph.prepare import Prepared
from analyzer.graph.surgery import prune


def unused(model: ModelProto, stem: str) -> str:
    """`stem`, lengthened until no tensor's or node's name begins with it."""
    graph = model.graph
    taken = {name for node in graph.node for name in (node.name, *node.input, *node.output)}
    taken.update(value.name for value in (*graph.input, *graph.output, *graph.initializer))
    while any(name.startswith(stem) for name in taken):
        stem += "_"
    return stem


def tapped(prepared: Prepared, layers: Sequence[int]) -> Prepared:
    """`prepared` with only some of its layers as outputs, by their places, and only the nodes that these need."""
    model = ModelProto.FromString(prepared.model)
    kept = (0, *(1 + place for place in layers))
    outputs = tuple(prepared.outputs[place] for place in kept)
    prune(model, list(model.graph.node), [value for value in model.graph.output if value.name in outputs])
    return dataclasses.replace(
        prepared,
        model=model.SerializeToString(),
        outputs=outputs,
        layers=tuple(prepared.layers[place] for place in layers),
    )


def composed(prepared: Prepared) -> Prepared:
    """`prepared` with its input computed in the graph from three others, in the order of `Prepared.parts`.

        input = float32(words) * scales + base

    words (n, C, H, W) int16, scales (n, C, 1, 1) and base (n or 1, C, H, W) float32; words and scales may have one
    row where base has n. The cast, the product and the sum are each rounded to float32, as numpy does on the host, so
    the bits are the same.
    """
    model = ModelProto.FromString(prepared.model)
    (entry,) = [value for value in model.graph.input if value.name == prepared.input]
    channels, height, width = (dim.dim_value for dim in entry.type.tensor_type.shape.dim[1:])
    stem = unused(model, "analyzer_rows")
    words, scales, base = parts = tuple(f"{stem}/{part}" for part in ("words", "scales", "base"))
    cast, scaled = f"{stem}/float", f"{stem}/scaled"
    nodes = [
        helper.make_node("Cast", [words], [cast], name=cast, to=TensorProto.FLOAT),
        helper.make_node("Mul", [cast, scales], [scaled], name=scaled),
        helper.make_node("Add", [scaled, base], [prepared.input], name=f"{stem}/sum"),
    ]
    for position, node in enumerate(nodes):
        model.graph.node.insert(position, node)
    model.graph.input.remove(entry)
    for name, kind, shape in (
        (words, TensorProto.INT16, (channels, height, width)),
        (scales, TensorProto.FLOAT, (channels, 1, 1)),
        (base, TensorProto.FLOAT, (channels, height, width)),
    ):
        model.graph.input.append(helper.make_tensor_value_info(name, kind, [f"{name}/rows", *shape]))
    return dataclasses.replace(prepared, model=model.SerializeToString(), parts=parts)
