"""What a card means in a graph: which input takes the image, which tensor holds the scores, which tensors to tap."""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto

from analyzer.card import CHANNELS, EMBEDDING, Card
from analyzer.errors import InputError
from analyzer.graph import walk
from analyzer.graph.dtypes import FLOATS, type_name
from analyzer.graph.index import Index, image_inputs, shape_of
from analyzer.graph.layers import find_feature, resolve_layer
from analyzer.graph.patterns import expand
from analyzer.graph.quantised import as_read, scale_of
from analyzer.graph.scores import Scores, find_scores

INPUT_TYPES: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
    TensorProto.UINT8: "uint8",
}


def choose_input(model: ModelProto, name: str | None, path: Path) -> ValueInfoProto:
    """The graph input that takes the image. Raises InputError listing the inputs where that is not clear."""
    candidates = image_inputs(model)
    listed = ", ".join(repr(value.name) for value in candidates) or "none"
    if name is not None:
        for value in candidates:
            if value.name == name:
                return value
        raise InputError(f"{path}: no input {name!r:.80} (the card's input.name); its inputs: {listed}")
    if len(candidates) != 1:
        raise InputError(f"{path}: inputs: {listed}; one is expected, so name the image's in the card's input.name")
    return candidates[0]


def choose_output(model: ModelProto, name: str | None, path: Path) -> str:
    """The tensor the card means by its output. Raises InputError listing the outputs where that is not clear."""
    outputs: list[str] = [value.name for value in model.graph.output]
    if name is None:
        if len(outputs) != 1:
            raise InputError(
                f"{path}: outputs: {', '.join(map(repr, outputs))}; one is expected, so name the class scores in the "
                "card's output.name"
            )
        return outputs[0]
    if name not in outputs and not any(name in node.output for node in model.graph.node):
        raise InputError(
            f"{path}: no output {name!r:.80} (the card's output.name); its outputs: {', '.join(map(repr, outputs))}"
        )
    return name


def fit_input(image: ValueInfoProto, card: Card, path: Path) -> int | None:
    """Give the image input the card's size, with the batch size as declared, which is returned."""
    tensor = image.type.tensor_type
    if tensor.elem_type not in INPUT_TYPES:
        given = type_name(tensor.elem_type) if tensor.elem_type else "no tensor"
        raise InputError(
            f"{path}: input {image.name!r:.80} takes {given}; one of {', '.join(INPUT_TYPES.values())} works"
        )
    channels, (height, width) = CHANNELS[card.channels], card.size
    wanted = (channels, height, width) if card.layout == "NCHW" else (height, width, channels)
    shape = shape_of(image)
    if shape is None:
        tensor.shape.SetInParent()
        for _ in range(4):
            tensor.shape.dim.add()
        shape = (None,) * 4
    fits = len(shape) == 4 and all(d is None or d == w for d, w in zip(shape[1:], wanted, strict=True))
    if not fits:
        shown = [d if d is not None else "free" for d in shape]
        raise InputError(
            f"{path}: input {image.name!r:.80} has shape {shown}; the card says {card.layout} {card.channels} of size "
            f"{list(card.size)}, that is [N, {', '.join(map(str, wanted))}]: correct the card"
        )
    for dim, size in zip(tensor.shape.dim[1:], wanted, strict=True):
        dim.dim_value = size
    return shape[0]


def scores(
    model: ModelProto,
    index: Index,
    card: Card,
    path: Path,
    constant: Callable[[str], NDArray[Any] | None] = lambda name: None,
    *,
    own: bool = False,
) -> Scores:
    """The tensor to read the scores from: logits where the graph has them, else what the card calls its output.

    constant: gives the values of constant tensors. own: take the output itself in any case. Raises InputError where
    card and graph contradict each other.
    """
    output = choose_output(model, card.output_name, path)
    elem_type = index.elem_type(output)
    if elem_type is not None and elem_type not in FLOATS and scale_of(index, output) is None:
        raise InputError(
            f"{path}: output {output!r:.80} holds {type_name(elem_type)}, not floats; "
            "name the class scores in the card's output.name"
        )
    if card.kind == EMBEDDING:
        return Scores(as_read(index, output, outputs_of(model)), EMBEDDING, output=output)
    scores = find_scores(index, output, walk.opset(model), path, constant)
    if scores.final in ("Softmax", "LogSoftmax") and is_single(index.shape(scores.tensor)):
        raise InputError(
            f"{path}: output {output!r:.80} is a {scores.final} over one score for an image, the same for all; "
            f"name {scores.tensor!r:.80} in output.name, with output.kind logits"
        )
    if scores.final == "Softmax" and card.kind != "probabilities":
        raise InputError(
            f"{path}: output {output!r:.80} ends in a Softmax but the card says {card.kind}; set output.kind to "
            f'"probabilities" (the logits before it are then used), or output.name to {scores.tensor!r:.80}'
        )
    if scores.final == "Sigmoid" and card.kind != "sigmoid":
        raise InputError(
            f"{path}: output {output!r:.80} ends in a Sigmoid, one decision for each class, but the card says "
            f'{card.kind}; set output.kind to "sigmoid" (the log-odds before it are then used)'
        )
    if not own and scores.final and card.kind in ("probabilities", "sigmoid"):
        if card.kind == "sigmoid" and scores.final != "Sigmoid":
            raise InputError(
                f"{path}: output {output!r:.80} ends in a {scores.final} but the card says sigmoid; set output.kind to "
                '"probabilities"'
            )
        return scores
    kind = "logits" if scores.final == "LogSoftmax" else card.kind  # logarithms of probabilities are logits too
    return dataclasses.replace(scores, tensor=output, kind=kind, notes=(), final="")


def is_single(shape: tuple[int | None, ...] | None) -> bool:
    """Whether an output of this shape holds one number for an image, as far as is known."""
    return shape is not None and len(shape) > 1 and all(size == 1 for size in shape[1:])


def feature(index: Index, card: Card, scores: Scores, path: Path) -> str | None:
    """The layer just before the classification: the card's, else `find_feature`'s, None where there is none.

    Of an embedding it is the embedding itself.
    """
    if card.feature_name is not None or card.kind == EMBEDDING:
        return card.feature_name or scores.output
    try:
        return find_feature(index, scores.tensor, path)
    except InputError:
        return None


def outputs_of(model: ModelProto) -> set[str]:
    """The names of a graph's outputs."""
    return {output.name for output in model.graph.output}


class Layers(NamedTuple):
    """names: as the user knows them. taps: their tensors. quantised: those taken as their quantisation leaves them."""

    names: tuple[str, ...]
    taps: tuple[str, ...]
    quantised: tuple[str, ...]


def layers(
    index: Index,
    card: Card,
    asked: Sequence[str],
    scores: Scores,
    path: Path,
    notes: list[str],
    outputs: Collection[str],
) -> Layers:
    """The layers to measure. outputs: of the graph.

    These are the layers `asked` for, else the card's feature, an embedding, or what `find_feature` finds. "all" and
    patterns stand for many layers, see `patterns.expand`. Remarks are added to `notes`. Raises InputError for layers
    that do not exist or hold no floats.
    """
    fixed = card.feature_name is not None or card.kind == EMBEDDING
    named = feature(index, card, scores, path) if fixed else None
    names = expand(index, asked, scores.tensor, path) or ([] if named is None else [named])
    if len(set(names)) != len(names):
        raise InputError(f"{path}: a layer is named twice: {', '.join(names)}; name each once")
    if not names:
        names = [find_feature(index, scores.tensor, path)]
        notes.append(f"Feature layer found: {names[0]}.")
    taps, quantised = [], []
    for name in names:
        tensor, remarks = resolve_layer(index, name, path)
        read = as_read(index, tensor, outputs)
        taps.append(read)
        notes += remarks if read == tensor else (f"Layer {name} is taken as its quantisation leaves it.",)
        quantised += [name] if read != tensor else []
    return Layers(tuple(names), tuple(taps), tuple(quantised))
