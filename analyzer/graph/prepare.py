"""From a model file and its card to one graph that the session can run: one input, and taps on scores and layers."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from onnx import ModelProto, TensorProto, inliner

from analyzer.card import EMBEDDING, Card
from analyzer.errors import InputError
from analyzer.graph import (
    batch,
    constants,
    external,
    files,
    match,
    opset,
    quantised,
    safety,
    surgery,
    training,
    walk,
    work,
)
from analyzer.graph.dtypes import FLOATS
from analyzer.graph.index import Index, build

_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)


_BINARY = {"logits": "logits", "sigmoid_logits": "logits", "sigmoid": "probabilities"}
"""What one score of two classes becomes, once it is made both of theirs."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A graph ready for the session. Its input is always float32 (N, C, H, W), RGB or L, normalised by the caller.

    model: the serialised graph. folder: where its external data lies. input: name of the input.
    outputs: scores (N, K) first, then one tensor for each of `layers`.
    kind: what the scores are: "logits", "probabilities", "sigmoid" or "sigmoid_logits" (see `graph.scores`).
    layers: names as the user knows them. notes: sentences for the user.
    input_type: the model's own element type; for "uint8" the caller gives whole numbers 0..255.
    declared_batch: the batch size that the file fixes, None where it leaves it free.
    precision: element type of the scores. row_bytes: estimated activation memory of one image.
    unbounded: operators whose time or memory the graph does not tell, to be tried under limits first.
    source: the file, for messages.
    parts: the inputs of a graph that computes its input itself (see `graph.composed`), else empty.
    reduced: whether each layer's output is a Gram matrix of the batch (see `graph.reduced`).
    feature: the layer just before the classification, measured or not; None where there is none.
    final: the operator that makes the model's own output of the scores, "" where these are that output.
    step: how far neighbouring values of that output are apart for want of precision; infinite where unknown.
    input_grid: how the graph quantises its input at once (see `quantised.input_grid`); None where it does not.
    unproved: whether types or shapes of the outputs, or that these are the logits, are to be seen in a real run.
    work: (node, multiply-adds for one image) of the convolutions and matrix products whose shapes are known.
    own: the output of the file that the scores are made from, "" where the file by itself does not give it, or its
    time or memory is not known.
    integers: whether it has quantised arithmetic, whose results hang on the instructions that a CPU has.
    binary: whether the file's own output is one number, of the second of two classes.
    quantised: the layers that are taken as their quantisation leaves them (see `quantised.as_read`).
    """

    model: bytes
    folder: Path
    input: str
    outputs: tuple[str, ...]
    kind: str
    layers: tuple[str, ...]
    notes: tuple[str, ...]
    input_type: str
    declared_batch: int | None = None
    precision: str = "float32"
    row_bytes: int = 0
    unbounded: tuple[str, ...] = ()
    source: str = "the model"
    parts: tuple[str, ...] = ()
    reduced: bool = False
    feature: str | None = None
    final: str = ""
    step: float = 0.0
    input_grid: quantised.Grid | None = None
    unproved: bool = False
    work: tuple[tuple[str, int], ...] = ()
    integers: bool = False
    own: str = ""
    binary: bool = False
    quantised: tuple[str, ...] = ()


def prepare(
    model: Path, *, card: Card, layers: Sequence[str] = (), device: str = "cpu", own: bool = False, bare: bool = False
) -> Prepared:
    """Rebuild the graph of `model` around one canonical input and taps on the scores and on `layers`.

    Without `layers`, the card's feature; without that, the input of the last layer with weights. For "cuda" a newer
    opset is lowered to 21 where possible. External data is not loaded. own: read the scores from the model's own
    output, even where logits stand before it. bare: instead of scores and layers as they are measured, give the model's
    own output, the scores and the layers as they are in the graph, of whatever type and shape.
    Raises InputError naming the file where model, card and layers cannot work together. Run `check` first on files from
    people you do not know.
    """
    proto = files.read(model)
    located = safety.inspect(proto, model)
    notes = list(located.notes)
    proto = inline(proto, model)
    notes += training.to_inference(proto, model)
    walk.forget_unproved_shapes(proto)
    if device in ("cuda", "tensorrt"):
        notes += opset.lower_for_cuda(proto)
    image = match.choose_input(proto, card.input_name, model)
    declared = match.fit_input(image, card, model)
    index = build(proto, model)
    safety.refuse_huge_results(index, model)
    constant = constants.reader(proto, located, model)
    scores = match.scores(proto, index, card, model, constant, own=own)
    given = match.outputs_of(proto)
    whole = [node.op_type for node in proto.graph.node if node.op_type in walk.GROWING | walk.CONTROL_FLOW]
    grid = quantised.input_grid(index, image.name, constant)
    notes += scores.notes
    names, taps, coded = match.layers(index, card, layers, scores, model, notes, given)
    if scores.kind == EMBEDDING and names and scores.output not in names:
        notes.append(f"Features are those of {', '.join(names[:3])}, not of the embedding {scores.output}.")

    prefix = "analyzer_"
    while any(name.startswith(prefix) for name in (*index.types, *index.producer)):
        prefix += "_"
    if declared is not None:
        batch.free_reshapes(proto, index, declared, prefix=prefix)
        notes.append(f"Batch dimension {declared} made free.")
    first, rest = (scores.output, (scores.tensor, *taps)) if bare else (scores.tensor, taps)
    work.name_heavy(proto, prefix)
    binary = _BINARY.get(scores.kind, "") if match.is_single(index.shape(scores.tensor)) else ""
    if binary:
        notes.append("One score for an image: that of the second of two classes.")
    interface = surgery.rebuild(proto, index, image, card, first, rest, prefix, bare=bare, binary=binary)
    _refuse_other_inputs(proto, interface.input, model)
    operators = {node.op_type for node in walk.nodes(proto)}
    if drawn := sorted(operators & _RANDOM):
        notes.append(f"The graph draws random numbers ({', '.join(drawn)}); expect a large noise floor.")
    folder = external.relocate(proto, located, model)
    elem_type = index.elem_type(scores.tensor)
    return Prepared(
        model=_serialised(proto, model),
        folder=folder,
        input=interface.input,
        outputs=interface.outputs,
        kind=binary or scores.kind,
        layers=names,
        notes=tuple(notes),
        input_type=match.INPUT_TYPES[image.type.tensor_type.elem_type],
        declared_batch=declared,
        precision=FLOATS.get(elem_type or TensorProto.FLOAT, "float32"),
        row_bytes=_row_bytes(index, declared or 1, taps),
        unbounded=_unbounded(proto, index),
        feature=match.feature(index, card, scores, model),
        final=scores.final,
        step=scores.step,
        input_grid=grid,
        unproved=bool(scores.final) or interface.adapted,
        work=tuple(work.multiply_adds(proto, index, declared)),
        own=scores.output if scores.output in given and not _lacks_bounds(proto, index, whole) else "",
        integers=quantised.computes_with_codes(proto),
        binary=bool(binary),
        quantised=coded,
        source=str(model),
    )


def inline(model: ModelProto, path: Path) -> ModelProto:
    """`model` with its local functions expanded, so that every tensor has a name in one graph."""
    if not model.functions:
        return model
    try:
        return inliner.inline_local_functions(model)
    except (RuntimeError, ValueError) as e:
        raise InputError(f"{path}: its local functions cannot be expanded: {e}; export without functions") from e


def _refuse_other_inputs(model: ModelProto, own: str, path: Path) -> None:
    others = [value.name for value in model.graph.input if value.name != own]
    if others:
        raise InputError(
            f"{path}: besides the image it needs the inputs {', '.join(map(repr, others))}; export it with these fixed"
        )


def _lacks_bounds(kept: ModelProto, index: Index, whole: Sequence[str]) -> bool:
    """Whether the file's own graph may take any time or memory: by what is kept of it, or by what is not.

    whole: its operators that loop, or make tensors of a computed size. Nothing is known of those that are not kept.
    """
    left = [node.op_type for node in kept.graph.node if node.op_type in walk.GROWING | walk.CONTROL_FLOW]
    return len(left) < len(whole) or bool(_unbounded(kept, index))


def _unbounded(model: ModelProto, index: Index) -> tuple[str, ...]:
    operators = {node.op_type for node in walk.nodes(model)} & walk.CONTROL_FLOW
    for node in model.graph.node:
        if node.op_type in walk.GROWING and node.output[0] not in index.live:
            shape = index.shape(node.output[0])
            if shape is None or None in shape:
                operators.add(node.op_type)
    return tuple(sorted(operators))


def _row_bytes(index: Index, batch_size: int, taps: Sequence[str]) -> int:
    """The largest operator's inputs and outputs, and the taps, which all have to be kept until the pass ends."""

    def size(name: str) -> int:
        elem_type, shape = index.types.get(name, (None, None))
        if name not in index.live or elem_type is None or shape is None:
            return 0
        return walk.size_of(elem_type, [d for d in shape if d is not None])

    largest = max((sum(map(size, {*node.input, *node.output})) for node in index.nodes), default=0)
    return -(-(largest + sum(map(size, taps))) // batch_size)


def _serialised(model: ModelProto, path: Path) -> bytes:
    try:
        content: bytes = model.SerializeToString()
    except ValueError as e:  # protobuf's 2 GiB limit
        raise InputError(f"{path}: too large once rebuilt; export it with its weights as external data") from e
    return content
