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
    prepared: Prepared, signs: Sequence[NDArray[np.float32]], *, buckets: int, fine: int, rows: int, batch: int
) -> Prepared:
    """`prepared` with each layer's output f, (n, ...), replaced by (n, n + B' + 1): Gram matrix, sketches, a length.

    With F = flatten(f) - flatten(f)[0], columns 0..n-1 are G = F F^T. Row 0 of the batch must be the clean image. The
    features of perturbed images hardly differ from its features, so float32 products of the raw features would lose
    the differences; products of the differences keep them. The runtime frees a layer's features once their product is
    taken, so memory does not grow with layers x features.

    The next B' columns are sketches as `analyzer.sketch` defines them: in row 0 of the raw clean features, B' buckets;
    in rows 1..`rows` of F, B buckets and zeros; in others 0. The last column is the squared length of the raw clean
    features, in row 0.

    Args:
        prepared: The graph with its layers as outputs.
        signs: Of each layer, (F,) float32.
        buckets, fine: B, and B' of the clean row, which is not smaller.
        rows: How many rows after the clean one are sketched.
        batch: n.
    """
    model = ModelProto.FromString(prepared.model)
    scores, *layers = prepared.outputs
    reducer = _Reducer(model, unused(model, "analyzer_grams"), buckets=buckets, fine=fine, rows=rows, batch=batch)
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

    def __init__(self, model: ModelProto, prefix: str, *, buckets: int, fine: int, rows: int, batch: int) -> None:
        self.model, self.prefix, self.buckets, self.fine, self.rows = model, prefix, buckets, fine, rows
        self.number = 0
        self.first = self._constant("first", np.array([0], np.int64))
        self.sketched = self._constant("sketched", np.arange(1, 1 + rows, dtype=np.int64))
        self.beside = self._constant("beside", np.zeros((rows, fine - buckets + 1), np.float32))
        self.below = self._constant("below", np.zeros((batch - rows - 1, fine + 1), np.float32))

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
        drawn = self._constant(f"{self.number}/signs", signs[None])
        square = self._node("MatMul", [clean, self._node("Transpose", [clean], "clean_turned", perm=[1, 0])], "square")
        top = self._node("Concat", [self._sketch(clean, drawn, len(signs), 1, self.fine), square], "top", axis=1)
        some = self._node("Gather", [centred, self.sketched], "some", axis=0)
        coarse = self._sketch(some, drawn, len(signs), self.rows, self.buckets)
        middle = self._node("Concat", [coarse, self.beside], "middle", axis=1)
        return self._node("Concat", [top, middle, self.below], "sketches", axis=0)

    def _sketch(self, values: str, signs: str, size: int, rows: int, buckets: int) -> str:
        """Sketches of `rows` rows of `size` features."""
        stem, groups = f"sketch{buckets}", -(-size // buckets)
        signed = self._node("Mul", [values, signs], f"{stem}/signed")
        if missing := groups * buckets - size:
            filling = self._constant(f"{self.number}/{stem}/filling", np.zeros((rows, missing), np.float32))
            signed = self._node("Concat", [signed, filling], f"{stem}/filled", axis=1)
        shape = self._constant(f"{self.number}/{stem}/shape", np.array([rows, groups, buckets], np.int64))
        grouped = self._node("Reshape", [signed, shape], f"{stem}/grouped")
        ones = self._constant(f"{self.number}/{stem}/ones", np.ones((1, groups), np.float32))
        summed = self._node("MatMul", [ones, grouped], f"{stem}/summed")
        flat = self._constant(f"{self.number}/{stem}/flat", np.array([rows, buckets], np.int64))
        return self._node("Reshape", [summed, flat], stem)

    def _node(self, kind: str, inputs: list[str], part: str, **attributes: Any) -> str:
        name = f"{self.prefix}/{self.number}/{part}"
        self.model.graph.node.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def _constant(self, part: str, values: NDArray[np.generic]) -> str:
        name = f"{self.prefix}/{part}"
        self.model.graph.initializer.append(numpy_helper.from_array(values, name))
        return name
