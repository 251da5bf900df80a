"""Tensors that are the same for every image, as numpy arrays, one at a time and only when they are asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from analyzer.errors import InputError
from analyzer.graph import walk
from analyzer.graph.external import Located

Array = NDArray[np.generic]

# Operators that exporters leave between a stored weight and its layer. None makes a tensor larger than its inputs.
_FOLDED = frozenset(
    {"Identity", "Cast", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Concat", "Slice", "Gather"}
    | {"Add", "Sub", "Mul", "Div", "Neg", "Sqrt", "Reciprocal", "DequantizeLinear"}
)


def reader(model: ModelProto, located: Located, path: Path) -> Callable[[str], Array | None]:
    """A function from a tensor's name to its value.

    It gives None where the tensor is not constant, or is computed by operators other than the simple ones listed here.
    located: the external files of `model`, already checked. The function raises InputError where one of them has become
    shorter since.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output if name}
    order = {id(node): place for place, node in enumerate(model.graph.node)}
    opsets = {entry.domain: entry.version for entry in model.opset_import}

    def value(name: str) -> Array | None:
        if name in stored:
            return _array(stored[name], located, path)
        needed: dict[int, NodeProto] = {}
        leaves, waiting = set(), [name]
        while waiting:
            current = waiting.pop()
            if current in stored:
                leaves.add(current)
                continue
            node = makers.get(current)
            if node is None or node.op_type not in {"Constant", *_FOLDED} or node.domain not in ("", "ai.onnx"):
                return None
            if order[id(node)] not in needed:
                needed[order[id(node)]] = node
                waiting += [entry for entry in node.input if entry]
        values = {leaf: _array(stored[leaf], located, path) for leaf in leaves}
        for place in sorted(needed):
            node = needed[place]
            result = _evaluate(node, values, opsets, located, path)
            if result is None:
                return None
            values[node.output[0]] = result
        return values.get(name)

    return value


def _evaluate(
    node: NodeProto, values: dict[str, Array], opsets: dict[str, int], located: Located, path: Path
) -> Array | None:
    if node.op_type == "Constant":
        for attribute in node.attribute:
            if attribute.name == "value":
                return _array(attribute.t, located, path)
            if attribute.name in ("value_float", "value_floats"):
                return np.asarray(onnx.helper.get_attribute_value(attribute), np.float32)
            if attribute.name in ("value_int", "value_ints"):
                return np.asarray(onnx.helper.get_attribute_value(attribute), np.int64)
        return None
    given = {name: values[name] for name in node.input if name}
    try:
        results: Any = ReferenceEvaluator(node, opsets=opsets).run(None, given)
        result = results[0]
    except Exception:  # whatever the evaluator makes of attributes that do not fit: the value then stays unknown
        return None
    return np.asarray(result) if isinstance(result, np.ndarray | np.generic) else None


def _array(tensor: TensorProto, located: Located, path: Path) -> Array:
    if tensor.data_location == TensorProto.EXTERNAL:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        size = walk.size_of(tensor.data_type, tensor.dims)
        with located.files[entries["location"]].open("rb") as file:
            file.seek(int(entries.get("offset") or 0))
            content = file.read(size)
        if len(content) != size:
            raise InputError(f"{path}: external data {entries['location']!r:.200} has become shorter; copy it again")
        tensor = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, raw_data=content)
    array: Array = numpy_helper.to_array(tensor)
    return array
