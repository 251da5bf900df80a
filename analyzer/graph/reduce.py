"""Features reduced inside the graph: of each layer come back a Gram matrix of the batch and sketches of its first rows.

The nodes made here mean the same at every opset, so that a graph stays at its own.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from analyzer.graph.compose import unused
from analyzer.graph.prepare import Prepared


def reduced(
    prepared: Prepared, signs: Sequence[NDArray[np.float32]], *, buckets: int, rows: int, batch: int
) -> Prepared:
    """`prepared` with each layer's output f, (n, ...), replaced by (n, n + B + 1): Gram matrix, sketches, a length.

    With F = flatten(f) - flatten(f)[0], columns 0..n-1 are G = F F^T. Row 0 of the batch must be the clean image. The
    features of perturbed images hardly differ from its features, so float32 products of the raw features would lose
    the differences; products of the differences keep them. The runtime frees a layer's features once their product is
    taken, so memory does not grow with layers x features.

    The next B columns are sketches as `analyzer.sketch` defines them: in row 0 of the raw clean features, in rows
    1..`rows` of F, in others 0. The last column is the squared length of the raw clean features, in row 0.

    Args:
        prepared: The graph with its layers as outputs.
        signs: Of each layer, (F,) float32.
        buckets: B.
        rows: How many rows after the clean one are sketched.
        batch: n.
    """
    model = ModelProto.FromString(prepared.model)
    scores, *layers = prepared.outputs
    reducer = _Reducer(model, unused(model, "analyzer_grams"), buckets=buckets, rows=rows, batch=batch)
    made = [
        reducer.reduce(number, layer, drawn) for number, (layer, drawn) in enumerate(zip(layers, signs, strict=True))
    ]
    outputs = [value for value in model.graph.output if value.name == scores]
    outputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in made]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    content = model.SerializeToString()
    return dataclasses.replace(prepared, model=content, outputs=(scores, *made), reduced=True)


class _Reducer:
    """Appends the nodes of one layer after the other."""

    def __init__(self, model: ModelProto, prefix: str, *, buckets: int, rows: int, batch: int) -> None:
        self.model, self.prefix, self.buckets, self.rows, self.batch = model, prefix, buckets, rows, batch
        self.number = 0
        self.first = self._constant("first", np.array([0], np.int64))
        self.sketched = self._constant("sketched", np.arange(1, 1 + rows, dtype=np.int64))
        self.below = self._constant("below", np.zeros((batch - rows - 1, buckets + 1), np.float32))
        self.no_length = self._constant("no_length", np.zeros((rows, 1), np.float32))
        self.flat = self._constant("rows_and_buckets", np.array([1 + rows, buckets], np.int64))

    def reduce(self, number: int, layer: str, signs: NDArray[np.float32]) -> str:
        """The name of the tensor that stands for `layer`."""
        self.number = number
        flat = self._node("Flatten", [layer], "flat", axis=1)
        clean = self._node("Gather", [flat, self.first], "clean", axis=0)
        centred = self._node("Sub", [flat, clean], "centred")
        gram = self._node("MatMul", [centred, self._node("Transpose", [centred], "turned", perm=[1, 0])], "gram")
        sketches = self._sketches(clean, centred, signs)
        return self._node("Concat", [gram, sketches], "reduced", axis=1)

    def _sketches(self, clean: str, centred: str, signs: NDArray[np.float32]) -> str:
        groups = -(-len(signs) // self.buckets)
        some = self._node("Gather", [centred, self.sketched], "some", axis=0)
        taken = self._node("Concat", [clean, some], "taken", axis=0)
        drawn = self._constant(f"{self.number}/signs", signs[None])
        signed = self._node("Mul", [taken, drawn], "signed")
        if missing := groups * self.buckets - len(signs):
            filling = self._constant(f"{self.number}/filling", np.zeros((1 + self.rows, missing), np.float32))
            signed = self._node("Concat", [signed, filling], "filled", axis=1)
        shape = self._constant(f"{self.number}/shape", np.array([1 + self.rows, groups, self.buckets], np.int64))
        grouped = self._node("Reshape", [signed, shape], "grouped")
        ones = self._constant(f"{self.number}/ones", np.ones((1, groups), np.float32))
        summed = self._node("MatMul", [ones, grouped], "summed")
        sketch = self._node("Reshape", [summed, self.flat], "sketch")
        turned = self._node("Transpose", [clean], "clean_turned", perm=[1, 0])
        square = self._node("MatMul", [clean, turned], "square")
        column = self._node("Concat", [square, self.no_length], "column", axis=0)
        both = self._node("Concat", [sketch, column], "both", axis=1)
        return self._node("Concat", [both, self.below], "sketches", axis=0)

    def _node(self, kind: str, inputs: list[str], part: str, **attributes: Any) -> str:
        name = f"{self.prefix}/{self.number}/{part}"
        self.model.graph.node.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def _constant(self, part: str, values: NDArray[np.generic]) -> str:
        name = f"{self.prefix}/{part}"
        self.model.graph.initializer.append(numpy_helper.from_array(values, name))
        return name
