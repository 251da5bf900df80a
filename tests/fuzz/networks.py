"""A hypothesis strategy for ONNX files: graphs of random operators, attributes, shapes and element types."""

from typing import Any

import numpy as np
from documents import damaged
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

# operator: (number of inputs, attributes by name with values that fit or do not)
OPERATORS: dict[str, tuple[int, dict[str, list[Any]]]] = {
    "Conv": (
        2,
        {"pads": [[1, 1, 1, 1], [0, 0], [-1, 0, 0, 0]], "strides": [[1, 1], [0, 0], [2**40, 1]], "group": [1, 0, 3]},
    ),
    "ConvTranspose": (2, {"strides": [[2, 2]], "output_padding": [[1, 1]]}),
    "MaxPool": (1, {"kernel_shape": [[2, 2], [2], [0, 0], [9999, 9999]], "strides": [[2, 2]], "ceil_mode": [1, 7]}),
    "AveragePool": (1, {"kernel_shape": [[2, 2], [1]], "count_include_pad": [1]}),
    "GlobalAveragePool": (1, {}),
    "Relu": (1, {}),
    "Sigmoid": (1, {}),
    "Softmax": (1, {"axis": [1, -1, 0, 9, 2**40]}),
    "LogSoftmax": (1, {"axis": [1, -9]}),
    "BatchNormalization": (5, {"epsilon": [0.0, -1.0, float("nan")], "training_mode": [0, 1]}),
    "Add": (2, {}),
    "Mul": (2, {}),
    "Div": (2, {}),
    "Sub": (2, {}),
    "MatMul": (2, {}),
    "Gemm": (3, {"transB": [0, 1, 2], "alpha": [1.0, float("inf")]}),
    "Flatten": (1, {"axis": [1, 0, -1, 99]}),
    "Reshape": (2, {"allowzero": [0, 1]}),
    "Transpose": (1, {"perm": [[0, 2, 3, 1], [0], [0, 0, 0, 0], [3, 2, 1, 9]]}),
    "Concat": (2, {"axis": [0, 1, -1, 8]}),
    "ReduceMean": (1, {"axes": [[1], [2, 3], [9]], "keepdims": [0, 1]}),
    "Squeeze": (2, {}),
    "Unsqueeze": (2, {}),
    "Clip": (3, {}),
    "Cast": (1, {"to": [1, 10, 2, 7, 9, 8, 0, 99]}),
    "Identity": (1, {}),
    "Dropout": (1, {"seed": [1]}),
    "Shape": (1, {}),
    "ConstantOfShape": (1, {}),
    "Expand": (2, {}),
    "Pad": (2, {"mode": ["constant", "reflect", "nothing"]}),
    "Resize": (3, {"mode": ["nearest", "linear", "x"]}),
    "TopK": (2, {"axis": [1, 5]}),
    "ArgMax": (1, {"axis": [1, -7]}),
    "Gather": (2, {"axis": [0, 1, 9]}),
    "Slice": (3, {}),
    "Split": (1, {"axis": [1, 3]}),
    "LRN": (1, {"size": [5, 0, -3]}),
    "Constant": (0, {}),
    "QuantizeLinear": (3, {}),
    "DequantizeLinear": (3, {}),
    "FusedConv": (2, {"activation": ["Relu", "nothing"]}),
}
TYPES = [TensorProto.FLOAT] * 6 + [TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.UINT8]
TYPES += [TensorProto.STRING, TensorProto.BFLOAT16, TensorProto.UNDEFINED, TensorProto.BOOL]
SHAPES: list[Any] = [["N", 3, 8, 8]] * 6 + [
    [1, 3, 8, 8],
    [2, 8, 8, 3],
    ["N", 3, "H", "W"],
    [],
    [0],
    None,
    [-1, 3, 8, 8],
]
SHAPES += [["N", 10], [2**31, 2**31], ["N", 1, 8, 8], ["N"]]
WEIGHTS: list[tuple[Any, tuple[int, ...]]] = [
    (np.float32, (4, 3, 3, 3)),
    (np.float32, (3, 3, 1, 1)),
    (np.float32, (3,)),
]
WEIGHTS += [(np.float32, (192, 10)), (np.float32, (10, 192)), (np.float32, ()), (np.int64, (2,)), (np.int64, (1,))]
WEIGHTS += [
    (np.int64, (4,)),
    (np.float32, (0,)),
    (np.uint8, ()),
    (np.float16, (3,)),
    (np.float64, (10,)),
    (np.int8, (3,)),
]


@st.composite
def weight(draw: Any, name: str) -> TensorProto:
    dtype, shape = draw(st.sampled_from(WEIGHTS))
    values = np.full(shape, draw(st.sampled_from([1, 0, -1, 2, 100])), np.int64).astype(dtype)
    made = numpy_helper.from_array(values, name)
    lie = draw(st.integers(0, 19))
    if lie == 0:
        made.dims[:] = draw(st.sampled_from([[2**40], [-1], [0], [3, 3], [2**62, 4]]))
    elif lie == 1:
        made.data_type = draw(st.sampled_from([0, 7, 16, 99, TensorProto.STRING]))
    elif lie == 2:
        made.data_location = TensorProto.EXTERNAL
        for key in ("location", "offset", "length")[: draw(st.integers(0, 3))]:
            made.external_data.add(key=key, value=draw(st.sampled_from(["x.data", "../x", "0", "-1", "9" * 30, ""])))
    return made


@st.composite
def graph(draw: Any, depth: int = 0) -> Any:
    """(nodes, weights, names of all tensors) of a random graph; now and then with a branch inside."""
    names, weights, nodes = ["x"], [], []
    for number in range(draw(st.integers(1, 4))):
        weights.append(draw(weight(f"w{number}")))
    constants = [made.name for made in weights]
    for number in range(draw(st.integers(1, 6))):
        operator = draw(st.sampled_from(sorted(OPERATORS)))
        count, attributes = OPERATORS[operator]
        first = [names[-1] if draw(st.integers(0, 3)) else draw(st.sampled_from(names))] if count else []
        others = [
            draw(st.sampled_from([*constants, *constants, *names, "", "nowhere"])) for _ in range(count - len(first))
        ]
        given = {key: draw(st.sampled_from(some)) for key, some in attributes.items() if draw(st.booleans())}
        if operator == "Constant":
            given["value"] = draw(weight("value"))
        domain = "com.microsoft" if operator == "FusedConv" else ""
        output = f"t{number}" if draw(st.integers(0, 30)) else draw(st.sampled_from([*names, ""]))
        inputs = (first + others)[: draw(st.sampled_from([9, 9, 9, 1, 0]))]
        nodes.append(helper.make_node(operator, inputs, [output], domain=domain, name=f"n{number}", **given))
        names.append(output)
    if depth == 0 and draw(st.integers(0, 9)) == 0:
        inner, more, last = draw(graph(depth=1))
        body = helper.make_graph(inner, "branch", [], [helper.make_tensor_value_info(last[-1], 1, None)], more)
        condition = draw(st.sampled_from(names + constants))
        nodes.append(helper.make_node("If", [condition], ["branched"], then_branch=body, else_branch=body))
        names.append("branched")
    return nodes, weights, names


@st.composite
def files(draw: Any) -> bytes:
    """The bytes of an ONNX file; one in five is damaged too."""
    nodes, weights, names = draw(graph())
    inputs = [helper.make_tensor_value_info("x", draw(st.sampled_from(TYPES)), draw(st.sampled_from(SHAPES)))]
    last = names[-1] if draw(st.integers(0, 9)) else draw(st.sampled_from(names))
    outputs = [
        helper.make_tensor_value_info(last, draw(st.sampled_from(TYPES)), draw(st.sampled_from([None, ["N", 10]])))
    ]
    outputs *= draw(st.sampled_from([1, 1, 1, 1, 2, 0]))
    made = helper.make_graph(nodes, "fuzz", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", draw(st.sampled_from([17, 17, 17, 13, 11, 7, 1, 0, 21, 99])))]
    opsets += [helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(made, ir_version=draw(st.sampled_from([10, 10, 10, 3, 8, 99])), opset_imports=opsets)
    data: bytes = model.SerializeToString()
    return draw(damaged(data)) if draw(st.integers(0, 4)) == 0 else data
