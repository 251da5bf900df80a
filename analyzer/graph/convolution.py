"""A graph of one convolution followed by its transpose, for power iteration on A^T A."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from analyzer.graph.prepare import Prepared


def convolution_and_transpose(
    weights: NDArray[np.float32],
    size: Sequence[int],
    *,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int,
    source: str = "the convolution",
) -> Prepared:
    """x -> A^T A x of the zero-padded convolution A with `weights` (M, C / group, *kernel); x is (1, C, *size) float32.

    pads: the beginnings of all spatial axes, then their ends, as in ONNX. source: what messages call it.
    """
    kernel = weights.shape[2:]
    count = len(kernel)
    # Input positions at the far end that no stride reaches get their zeros back.
    left = [
        (size[i] + pads[i] + pads[count + i] - (dilations[i] * (kernel[i] - 1) + 1)) % strides[i] for i in range(count)
    ]
    layer: dict[str, Any] = {
        "kernel_shape": list(kernel),
        "strides": list(strides),
        "pads": list(pads),
        "dilations": list(dilations),
        "group": group,
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["y"], **layer),
            helper.make_node("ConvTranspose", ["y", "w"], ["z"], output_padding=left, **layer),
        ],
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, weights.shape[1] * group, *size])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ascontiguousarray(weights, dtype=np.float32), "w")],
    )
    model = helper.make_model(graph, ir_version=7, opset_imports=[helper.make_opsetid("", 13)])
    return Prepared(
        model=model.SerializeToString(),
        folder=Path(),
        input="x",
        outputs=("z",),
        kind="logits",
        layers=(),
        notes=(),
        input_type="float32",
        source=source,
    )
