"""Finding the class scores of a graph, as logits where it has them."""

import dataclasses
from pathlib import Path

from onnx import NodeProto

from analyzer.errors import InputError
from analyzer.graph import walk
from analyzer.graph.index import Index

RESHAPING = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Transpose", "Cast", "Dropout"})
_SOFTMAXES = ("Softmax", "LogSoftmax")


@dataclasses.dataclass(frozen=True)
class Scores:
    """The tensor to read the class scores from, and whether these are "logits" or "probabilities"."""

    tensor: str
    kind: str
    notes: tuple[str, ...] = ()


def find_scores(index: Index, output: str, opset: int, path: Path) -> Scores:
    """The tensor that enters the Softmax or LogSoftmax which ends in `output`; where there is none, `output` itself.

    What enters a Softmax are logits. An `output` without one is called "probabilities"; whether that is right, only the
    card can tell. Raises InputError where the Softmax does not run over the classes, or the output has no (N, K) shape.
    """
    _check_class_shape(index, output, path)
    name = output
    while (node := index.producer.get(name)) is not None:
        if node.op_type in (*_SOFTMAXES, *RESHAPING) and not node.input:
            raise InputError(
                f"{path}: not valid ONNX: its {node.op_type} before {name!r:.80} has no input; export it again"
            )
        if node.op_type in _SOFTMAXES:
            _check_axis(index, node, opset, path)
            return Scores(node.input[0], "logits", (f"Logits found before the final {node.op_type}: {node.input[0]}.",))
        if node.op_type not in RESHAPING or node.input[0] not in index.live:
            break
        name = node.input[0]
    notes: tuple[str, ...] = ()
    if node is not None and node.op_type == "Sigmoid":
        notes = (f"The output {output} ends in a Sigmoid, one decision per class; its values are taken as they are.",)
    return Scores(output, "probabilities", notes)


def ends_in_softmax(index: Index, scores: Scores) -> bool:
    """Whether a Softmax follows the logits that `find_scores` returned: the model's output then holds probabilities."""
    return scores.kind == "logits" and any(n.op_type == "Softmax" for n in index.consumers.get(scores.tensor, ()))


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
