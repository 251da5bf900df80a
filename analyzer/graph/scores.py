"""Finding the class scores of a graph, as logits where it has them."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from analyzer.errors import InputError
from analyzer.graph import quantised, walk
from analyzer.graph.index import Index, Shape

RESHAPING = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Transpose", "Cast", "Dropout"})
_SOFTMAX = frozenset({"Softmax", "LogSoftmax", "QLinearSoftmax"})
_SIGMOID = frozenset({"Sigmoid", "QLinearSigmoid"})
_ELEMENTWISE = frozenset(
    {
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Neg",
        "Abs",
        "Exp",
        "Log",
        "Sqrt",
        "Reciprocal",
        "Clip",
        "Relu",
        "Round",
        "Floor",
    }
)
"""Operators that do the same to each value, where one of their inputs varies with the image."""
_CHOICES = {
    "TopK": "the largest scores in falling order, not one score for each class",
    "ArgMax": "the index of a class, not its score",
    "ArgMin": "the index of a class, not its score",
    "NonMaxSuppression": "a list of boxes, not class scores",
}
_COARSE: dict[int | None, float] = {TensorProto.FLOAT16: 2.0**-10, TensorProto.BFLOAT16: 2.0**-7}


@dataclasses.dataclass(frozen=True)
class Scores:
    """The tensor to read the class scores from, and what they are.

    kind: "logits" of a softmax, "probabilities" that add up to 1, "sigmoid": a probability for each class by itself,
    "sigmoid_logits": the log-odds before that, or "embedding". output: what the card means, the model's own answer;
    final: the operator that makes it of `tensor`, "" where they are the same. step: how far two neighbouring values of
    the output are apart for want of precision, infinite where the graph does not tell.
    """

    tensor: str
    kind: str
    notes: tuple[str, ...] = ()
    output: str = ""
    final: str = ""
    step: float = 0.0


def find_scores(
    index: Index,
    output: str,
    opset: int,
    path: Path,
    constant: Callable[[str], NDArray[Any] | None] = lambda name: None,
) -> Scores:
    """The tensor that enters the Softmax, LogSoftmax or Sigmoid which ends in `output`; else `output` itself.

    The way back leads over operators that keep each class where it is: reshapes, casts, quantisation. What enters a
    Softmax are logits. An `output` without one is called "probabilities"; whether that is right, only the card can
    tell. `constant` gives the values of constant tensors. Raises InputError where the Softmax does not run over the
    classes, or the output has no (N, K) shape.
    """
    _check_class_shape(index, output, path)
    _refuse_choices(index, output, path)
    name, step, is_known = output, 0.0, True
    while (node := index.producer.get(name)) is not None:
        if node.op_type in _SOFTMAX | _SIGMOID:
            break
        if not node.input or node.input[0] not in index.live or not _keeps_order(index, node):
            break
        if node.op_type in quantised.QUANTISING:
            step, is_known = (
                max(step, quantised.step(node, constant) or 0.0),
                is_known and _has_constant_step(node, constant),
            )
        step = max(step, _COARSE.get(index.elem_type(name), 0.0))
        name = node.input[0]
    if node is None or node.op_type not in _SOFTMAX | _SIGMOID or node.input[0] not in index.live:
        return Scores(output, "probabilities", output=output, step=step if is_known else float("inf"))
    if node.op_type.startswith("QLinear"):
        step, is_known = (
            max(step, quantised.step(node, constant) or 0.0),
            is_known and _has_constant_step(node, constant),
        )
    step = max(step, _COARSE.get(index.elem_type(name), 0.0)) if is_known else float("inf")
    final = node.op_type.removeprefix("QLinear")
    logits = node.input[0]
    note = f"Logits found before the final {final}: {logits}."
    if final == "Sigmoid":
        return Scores(logits, "sigmoid_logits", (note,), output, final, step)
    _check_axis(index, node, opset, path)
    return Scores(logits, "logits", (note,), output, final, step)


def _has_constant_step(node: NodeProto, constant: Callable[[str], NDArray[Any] | None]) -> bool:
    return quantised.step(node, constant) is not None


def _keeps_order(index: Index, node: NodeProto) -> bool:
    """Whether the classes that leave `node` are those that enter it, in the same order."""
    if node.op_type in quantised.QUANTISING:
        return True
    entering, leaving = index.shape(node.input[0]), index.shape(node.output[0])
    if node.op_type == "Transpose":
        return entering is not None and _moves_no_class(node, entering)
    if node.op_type in ("Reshape", "Flatten"):  # keeps the row-major order, but may mix images
        return _count(entering) == _count(leaving) or None in (_count(entering), _count(leaving))
    return node.op_type in RESHAPING


def _moves_no_class(node: NodeProto, shape: Shape) -> bool:
    order = next((list(a.ints) for a in node.attribute if a.name == "perm"), list(range(len(shape)))[::-1])
    if len(order) != len(shape) or not order or order[0] != 0:
        return False
    real = [axis for axis in order[1:] if shape[axis] != 1]
    return real == sorted(real)


def _count(shape: Shape | None) -> int | None:
    """How many scores an image has."""
    count = 1
    for size in shape[1:] if shape else ():
        if size is None:
            return None
        count *= size
    return count if shape else None


def _refuse_choices(index: Index, output: str, path: Path) -> None:
    """Refuse an output that is chosen from the scores, whatever is done to each value afterwards."""
    name = output
    while (node := index.producer.get(name)) is not None:
        known = node.op_type in RESHAPING | _SOFTMAX | _SIGMOID | _CHOICES.keys()
        if known and not node.input:
            raise InputError(
                f"{path}: not valid ONNX: its {node.op_type} before {name!r:.80} has no input; export it again"
            )
        if node.op_type in _CHOICES:
            raise InputError(
                f"{path}: output {output!r:.80} is the result of {node.op_type}: {_CHOICES[node.op_type]}; name the "
                "tensor with the class scores in the card's output.name"
            )
        live = [tensor for tensor in node.input if tensor in index.live]
        if len(live) != 1 or not (known or node.op_type in quantised.QUANTISING | _ELEMENTWISE):
            return
        name = live[0]


def seems(shape: tuple[int | None, ...]) -> str:
    """What an output of this shape, batch first, seems to be where it is no (N, classes); "" where it is one."""
    wide = sum(size is None or size > 1 for size in shape[1:])
    certainly_wide = sum(size is not None and size > 1 for size in shape[1:])
    if len(shape) < 2:
        return "one number for an image, such as the index of a class"
    if certainly_wide <= 1 or wide <= 1:
        return ""
    return "a map, as of a segmentation" if len(shape) == 4 else "a list, as of boxes or of sequences"


def _check_class_shape(index: Index, output: str, path: Path) -> None:
    shape = index.shape(output)
    if shape is not None and (what := seems(shape)):
        raise not_scores(f"{path}", output, f"has shape {list(shape)}", what)


def not_scores(path: str, output: str, given: str, what: str) -> InputError:
    """The error for an output that holds no class scores."""
    return InputError(
        f"{path}: output {output!r:.80} {given}, where a classifier's (N, classes) is expected: {what}; name "
        "the output with the class scores in the card's output.name, or measure it, or an inner layer, with "
        "output.kind embedding"
    )


def _check_axis(index: Index, node: NodeProto, opset: int, path: Path) -> None:
    shape = index.shape(node.input[0])
    opset = walk.attribute(node, "opset", opset)  # QLinearSoftmax says which one it follows
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
