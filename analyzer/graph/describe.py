"""What a model file offers, for `analyzer inspect`, and a card to fill in."""

import dataclasses
import math
from pathlib import Path
from typing import NamedTuple

from onnx import TensorProto, ValueInfoProto

from analyzer.card import EMBEDDING
from analyzer.document import CardDocument, OutputDocument, ResizeDocument
from analyzer.errors import InputError
from analyzer.graph import files, safety, training, walk
from analyzer.graph.dtypes import FLOATS, type_name
from analyzer.graph.index import Index, build, image_inputs
from analyzer.graph.layers import weight_layers
from analyzer.graph.prepare import inline
from analyzer.graph.quantised import holds_values
from analyzer.graph.scores import Scores, find_scores, seems

_CANDIDATES = 8
_UNKNOWN_SIZE = 224

Named = tuple[str, str, tuple[int | str | None, ...] | None]


@dataclasses.dataclass(frozen=True)
class Description:
    """A model at a glance.

    inputs, outputs: (name, type, shape). In a shape, a free dimension is its symbol or None; the shape is None where
    even the rank is unknown. seems: of each output what it looks like, in words. output: the only one that may hold
    class scores, None where there is none, or more than one. parameters: number of weights. features: candidates for
    the feature layer as (name, shape, operator that makes it), the last layer's input first. logits: the tensor before
    a final Softmax, else the output itself; None where `output` is. softmax: whether a Softmax ends the graph. kind:
    what the card's output.kind should be, as far as the graph tells. external_files: locations of weights outside the
    file. notes: sentences for the user.
    """

    inputs: tuple[Named, ...]
    outputs: tuple[Named, ...]
    seems: tuple[str, ...]
    output: str | None
    opset: int
    producer: str
    parameters: int
    features: tuple[tuple[str, tuple[int | None, ...] | None, str], ...]
    logits: str | None
    softmax: bool
    kind: str
    external_files: tuple[str, ...]
    notes: tuple[str, ...]


def describe(model: Path) -> Description:
    """Describe `model` without running it. Raises InputError as `prepare` does for files that cannot be used."""
    proto = files.read(model)
    located = safety.inspect(proto, model)
    parameters = sum(
        math.prod(t.dims) for t in walk.tensors(proto) if t.data_type in FLOATS or t.data_type in _QUANTISED
    )
    proto = inline(proto, model)
    notes = [*located.notes, *training.to_inference(proto, model)]
    index = build(proto, model)
    outputs = [value.name for value in proto.graph.output]
    looks = [_look(index, name, walk.opset(proto), model) for name in outputs]
    logits, kind = None, "logits"
    features: list[tuple[str, tuple[int | None, ...] | None, str]] = []
    fitting = [name for name, look in zip(outputs, looks, strict=True) if look.scores is not None]
    if len(fitting) == 1:
        scores = looks[outputs.index(fitting[0])].scores
        assert scores is not None
        logits, kind = scores.tensor, _KINDS.get(scores.final, "logits")
    elif not fitting:
        kind = EMBEDDING
    for name, _ in weight_layers(index, logits or outputs[0]):
        node = index.producer.get(name)
        if holds_values(index, name) and all(name != f[0] for f in features):
            features.append((name, index.shape(name), node.op_type if node is not None else "input"))
    return Description(
        inputs=tuple(_named(value) for value in image_inputs(proto)),
        outputs=tuple(_named(value) for value in proto.graph.output),
        seems=tuple(look.words for look in looks),
        output=fitting[0] if len(fitting) == 1 else None,
        opset=walk.opset(proto),
        producer=" ".join(w for w in f"{proto.producer_name} {proto.producer_version}".split() if w != "None")
        or "unknown",
        parameters=parameters,
        features=tuple(features[:_CANDIDATES]),
        logits=logits,
        softmax=kind == "probabilities",
        kind=kind,
        external_files=tuple(sorted(located.files)),
        notes=tuple(notes),
    )


_KINDS = {"Softmax": "probabilities", "Sigmoid": "sigmoid"}
"""What the last operator makes of the scores."""
_QUANTISED = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4)


class _Look(NamedTuple):
    """What an output looks like; scores: where it may hold those of classes."""

    words: str
    scores: Scores | None


def _look(index: Index, name: str, opset: int, model: Path) -> _Look:
    shape = index.shape(name)
    if shape is not None and (what := seems(shape)):
        return _Look(what, None)
    if not holds_values(index, name):
        return _Look("whole numbers, such as the index of a class", None)
    try:
        scores = find_scores(index, name, opset, model)
    except InputError as e:
        return _Look(f"no class scores: {str(e).removeprefix(f'{model}: ')}", None)
    count = None if shape is None or None in shape[1:] else math.prod(size for size in shape[1:] if size)
    if shape is not None and len(shape) == 4 and shape[1:].count(None) > 1 and {*shape[1:]} <= {1, None}:
        return _Look("a map with as many places as the image decides, unless that is one", None)
    if count is None and shape is not None and len(shape) > 2:
        return _Look("scores of classes only where no more than one of its sizes is above 1", scores)
    of = f"of {count} classes" if count is not None else "of classes"
    if count == 1 and scores.final:
        return _Look(f"one number after a {scores.final}: the score of the second of two classes", scores)
    if scores.final:
        return _Look(f"scores {of}, after a {scores.final}", scores)
    if count == 1:
        return _Look("one number: the score of the second of two classes, or no class at all", scores)
    return _Look(f"scores {of}, or an embedding", scores)


def draft_card(model: Path, *, classes: bool = True, description: Description | None = None) -> CardDocument:
    """A card for `model` with what the graph tells; `source.fill_in` lists what is guessed or left open.

    classes: whether an output may hold class scores; else an inner layer is drafted as an embedding. description: of
    `describe`, where it is there already. Raises
    InputError where the model has several inputs or an input that is no image.
    """
    description = description or describe(model)
    if not classes:
        description = dataclasses.replace(description, output=None, kind=EMBEDDING)
    if len(description.inputs) != 1:
        listed = ", ".join(name for name, _, _ in description.inputs) or "none"
        raise InputError(f"{model}: inputs: {listed}; a card can be drafted for a model with one image input only")
    name, _, shape = description.inputs[0]
    layout, count, size = _guess(model, name, shape)
    todo = ["mean and std are placeholders: give those the network was trained with, for 0..255 pixels"]
    if size is None:
        size = (_UNKNOWN_SIZE, _UNKNOWN_SIZE)
        todo.append("the graph leaves the size open: 224 is a placeholder")
    if count == 3:
        todo.append("RGB is a guess: it may be BGR")
    todo.append("resize and its interpolation are a guess")
    square = size[0] == size[1]
    resize: ResizeDocument = {"shorter_side": size[0], "crop": "centre"} if square else {"stretch": True}
    resize["interpolation"] = "bilinear"
    output: OutputDocument = {"kind": description.kind}
    names = [entry[0] for entry in description.outputs]
    inner = next((name for name, _, operator in description.features if operator != "Softmax"), None)
    if description.output is not None:
        output = {"name": description.output, **output}
        if len(names) > 1:
            todo.append(f"output.name is a guess: the only one of {', '.join(names)} that looks like class scores")
    elif description.kind == EMBEDDING and inner is not None:
        output = {"name": inner, **output}
        listed = "; ".join(f"{name}: {look}" for name, look in zip(names, description.seems, strict=True))
        todo.append(
            f"no output is taken for class scores ({listed:.200}): the layer {inner} is measured as an embedding; "
            "name another in output.name"
        )
    else:
        todo.append(f"add output.name, one of: {', '.join(names)}")
    if description.kind == "logits":
        todo.append("output.kind is a guess: no Softmax ends the graph")
    document: CardDocument = {
        "schema": 1,
        "input": {
            "name": name,
            "layout": layout,
            "size": list(size),
            "channels": {1: "L", 3: "RGB"}[count],
            "resize": resize,
            "mean": [0] * count,
            "std": [1] * count,
        },
        "output": output,
    }
    if description.features and description.kind != EMBEDDING:
        document["feature"] = {"name": description.features[0][0]}
    document["source"] = {"sha256": files.sha256(model), "fill_in": todo}
    return document


def metadata(model: Path) -> dict[str, str]:
    """The file's own metadata_props; of a key given twice the first value. Raises InputError like `describe`."""
    found: dict[str, str] = {}
    for entry in files.read(model).metadata_props:
        found.setdefault(entry.key, entry.value)
    return found


def tensor_names(model: Path) -> set[str]:
    """The names of all tensors that a graph computes or is given. Raises InputError like `describe`."""
    proto = inline(files.read(model), model)
    return {value.name for value in proto.graph.input} | {name for node in proto.graph.node for name in node.output}


def first_operators(model: Path, *, most: int) -> list[str]:
    """The operators that an image passes one after the other from the input on, up to `most` or the first branch."""
    proto = inline(files.read(model), model)
    inputs = image_inputs(proto)
    name, found = (inputs[0].name if len(inputs) == 1 else ""), list[str]()
    while name and len(found) < most:
        readers = [node for node in proto.graph.node if name in node.input]
        if len(readers) != 1:
            break
        found.append(readers[0].op_type)
        name = readers[0].output[0] if readers[0].output else ""
    return found


def _guess(
    model: Path, name: str, shape: tuple[int | str | None, ...] | None
) -> tuple[str, int, tuple[int, int] | None]:
    """(layout, channels, (height, width) or None where free) of an input of this shape."""
    if shape is None or len(shape) != 4:
        raise InputError(f"{model}: input {name!r:.80} has shape {list(shape or ())}; an image needs 4 dimensions")
    for layout, channel, sides in (("NCHW", 1, shape[2:]), ("NHWC", 3, shape[1:3])):
        count = shape[channel]
        if count in (1, 3) and isinstance(count, int):
            height, width = sides
            size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
            return layout, count, size
    raise InputError(f"{model}: input {name!r:.80} of shape {list(shape)} has no dimension of 1 or 3 channels")


def _named(value: ValueInfoProto) -> Named:
    tensor = value.type.tensor_type
    kind = type_name(tensor.elem_type) if value.type.HasField("tensor_type") else "no tensor"
    if not tensor.HasField("shape"):
        return value.name, kind, None
    dims = (
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else d.dim_param or None for d in tensor.shape.dim
    )
    return value.name, kind, tuple(dims)
