"""A graph of one convolution, to see whether a provider really works."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from analyzer.graph.prepare import Prepared

SHAPE = (1, 4, 4)


def one_convolution() -> Prepared:
    """Sums each 3x3 neighbourhood of a (N, 1, 4, 4) image, at opset 13: ones give 9 at each of the 2x2 places."""
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3])],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *SHAPE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((1, 1, 3, 3), np.float32), "w")],
    )
    model = helper.make_model(graph, ir_version=7, opset_imports=[helper.make_opsetid("", 13)])
    return Prepared(
        model=model.SerializeToString(),
        folder=Path(),
        input="x",
        outputs=("y",),
        kind="logits",
        layers=(),
        notes=(),
        input_type="float32",
        source="the probe",
    )
