"""Making a fixed batch dimension free."""

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from analyzer.graph import walk
from analyzer.graph.index import Index


def free_reshapes(model: ModelProto, index: Index, batch: int, *, prefix: str) -> int:
    """Rewrite the constant targets of Reshapes so that their first entry follows the batch; returns how many.

    The first entry becomes -1 ("what is left"). A target that has a -1 elsewhere gets a 0 ("as in the input") instead,
    where the input's first dimension is the batch. So at the declared `batch` nothing changes.
    """
    constants = _constant_shapes(model)
    count = 0
    for node in model.graph.node:
        if node.op_type != "Reshape" or len(node.input) < 2 or node.input[0] not in index.live:
            continue
        if node.input[1] not in constants:
            continue
        freed = _freed(constants[node.input[1]], node, index, batch)
        if freed is not None:
            name = f"{prefix}shape_{count}"
            model.graph.initializer.append(numpy_helper.from_array(freed, name))
            node.input[1] = name
            kept = [a for a in node.attribute if a.name != "allowzero" or not (freed == 0).any()]
            del node.attribute[:]
            node.attribute.extend(kept)
            count += 1
    return count


def _constant_shapes(model: ModelProto) -> dict[str, np.ndarray]:
    shapes = {t.name: numpy_helper.to_array(t).reshape(-1) for t in model.graph.initializer if _is_shape(t)}
    for node in model.graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value" and _is_shape(attribute.t):
                    shapes[node.output[0]] = numpy_helper.to_array(attribute.t).reshape(-1)
                elif attribute.name == "value_ints":
                    shapes[node.output[0]] = np.array(attribute.ints, np.int64)
    return shapes


def _is_shape(tensor: TensorProto) -> bool:
    return tensor.data_type == TensorProto.INT64 and tensor.data_location != TensorProto.EXTERNAL


def _freed(target: np.ndarray, node: NodeProto, index: Index, batch: int) -> np.ndarray | None:
    copies_zero = walk.attribute(node, "allowzero", 0) == 0 or not (target == 0).any()  # else allowzero means nothing
    if target.size == 0 or target[0] < 1:
        return None
    entering = index.shape(node.input[0])
    freed = target.copy()
    if not (target == -1).any() and copies_zero:
        freed[0] = -1
    elif target[0] == batch and copies_zero and entering and entering[0] == batch:
        freed[0] = 0
    else:
        return None
    return freed
