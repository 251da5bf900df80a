"""One small network in float and in the three forms of INT8, and other ends of a graph, made by hand.

Cards have mean 128 and std 64, so that an input scale of 1/64 quantises in steps of one grey level.
"""

import graphs
import literal
import numpy as np
import onnxruntime
from graphs import node, tensor, value
from onnx import TensorProto

MEAN, STD = 128.0, 64.0


def card(kind="logits", *, mean=MEAN):
    return graphs.make_card(mean=mean, std=STD, kind=kind)


def weights(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def head(folder, name, nodes, constants, classes, *, kind, opset=17, mean=MEAN, domains=(), shape="declared", gain=4):
    """x -> mean of each channel "f" (N, 3) -> logits "l" (N, classes) -> `nodes` -> "y". shape None: undeclared."""
    matrix = gain * weights(3, classes, seed=3)
    first = [node("GlobalAveragePool", "x", "a"), node("Flatten", "a", "f"), node("MatMul", "f W", "l")]
    stored = [tensor(key, array, np.asarray(array).dtype) for key, array in {"W": matrix, **constants}.items()]
    output = value("y", ["N", classes] if shape == "declared" else shape)
    inputs = [value("x", ["N", 3, 8, 8])]
    made = card(kind, mean=mean)
    return graphs.save(folder, name, first + nodes, inputs, [output], stored, made, opset=opset, domains=domains)


def microsoft(operator, inputs, outputs, **attributes):
    made = node(operator, inputs, outputs, **attributes)
    made.domain = "com.microsoft"
    return made


def network(folder, form):
    """conv "c" - relu "r" - mean "a" - "f" - matrix "y", as "float", "qdq", "qoperator" or "dynamic"."""
    kernel, matrix = weights(8, 3, 3, 3, seed=1) / 5, weights(8, 4, seed=2)
    small = {"x": 1 / STD, "r": 4 / 255, "a": 2 / 255, "y": 4 / 127}
    codes = {
        name: (np.rint(array / np.abs(array).max() * 127).astype(np.int8), np.abs(array).max() / 127)
        for name, array in (("C", kernel), ("W", matrix))
    }
    arrays = {"C": kernel, "W": matrix} if form == "float" else {}
    for name, (array, scale) in codes.items() if form != "float" else ():
        arrays |= {f"{name}_q": array, f"{name}_s": np.float32(scale), f"{name}_z": np.int8(0)}
    if form in ("qdq", "qoperator"):
        for name, scale in small.items():
            zero = np.uint8(128 if name in "xy" else 0)
            arrays |= {f"{name}_s": np.float32(scale), f"{name}_z": zero}
    stored = [tensor(name, array, np.asarray(array).dtype) for name, array in arrays.items()]
    inputs, outputs = [value("x", ["N", 3, 8, 8])], [value("y", ["N", 4])]
    return graphs.save(folder, form, _nodes(form), inputs, outputs, stored, card(), domains=("com.microsoft",))


def _nodes(form):
    def there_and_back(name):
        return [
            node("QuantizeLinear", f"{name} {name}_s {name}_z", f"{name}_q"),
            node("DequantizeLinear", f"{name}_q {name}_s {name}_z", f"{name}_d"),
        ]

    if form == "float":
        nodes = [node("Conv", "x C", "c"), node("Relu", "c", "r"), node("GlobalAveragePool", "r", "a")]
        return [*nodes, node("Flatten", "a", "f"), node("Gemm", "f W", "y")]
    if form == "qdq":
        return [
            node("DequantizeLinear", "C_q C_s C_z", "C"),
            node("DequantizeLinear", "W_q W_s W_z", "W"),
            *there_and_back("x"),
            node("Conv", "x_d C", "c"),
            node("Relu", "c", "r"),
            *there_and_back("r"),
            node("GlobalAveragePool", "r_d", "a"),
            *there_and_back("a"),
            node("Flatten", "a_d", "f"),
            node("Gemm", "f W", "y"),
        ]
    if form == "qoperator":
        return [
            node("QuantizeLinear", "x x_s x_z", "x_q"),
            node("QLinearConv", "x_q x_s x_z C_q C_s C_z r_s r_z", "r_q"),
            microsoft("QLinearGlobalAveragePool", "r_q r_s r_z a_s a_z", "a_q"),
            node("Flatten", "a_q", "f_q"),
            microsoft_gemm(),
            node("DequantizeLinear", "y_q y_s y_z", "y"),
        ]
    return [
        node("DynamicQuantizeLinear", "x", "x_q x_s x_z"),
        node("Mul", "x_s C_s", "xC_s"),
        node("ConvInteger", "x_q C_q x_z C_z", "c_i"),
        node("Cast", "c_i", "c_f", to=TensorProto.FLOAT),
        node("Mul", "c_f xC_s", "c"),
        node("Relu", "c", "r"),
        node("GlobalAveragePool", "r", "a"),
        node("Flatten", "a", "f"),
        node("DynamicQuantizeLinear", "f", "f_q f_s f_z"),
        node("Mul", "f_s W_s", "fW_s"),
        node("MatMulInteger", "f_q W_q f_z W_z", "y_i"),
        node("Cast", "y_i", "y_f", to=TensorProto.FLOAT),
        node("Mul", "y_f fW_s", "y"),
    ]


def microsoft_gemm():
    made = microsoft("QGemm", "f_q a_s a_z W_q W_s W_z no_bias y_s y_z", "y_q")
    made.input[6] = ""
    return made


def quantised_softmax(folder, *, classes=100, contrib=False, name="quantised_softmax"):
    """A softmax behind a pair of QuantizeLinear and DequantizeLinear, or com.microsoft's QLinearSoftmax."""
    constants = {"s": np.float32(1 / 256), "z": np.uint8(0), "ls": np.float32(0.05), "lz": np.uint8(128)}
    nodes = [
        node("Softmax", "l", "p", axis=1),
        node("QuantizeLinear", "p s z", "q"),
        node("DequantizeLinear", "q s z", "y"),
    ]
    if contrib:
        nodes = [
            node("QuantizeLinear", "l ls lz", "lq"),
            microsoft("QLinearSoftmax", "lq ls lz s z", "q", axis=-1, opset=13),
            node("DequantizeLinear", "q s z", "y"),
        ]
    domains = ("com.microsoft",)
    return head(folder, name, nodes, constants, classes, kind="probabilities", domains=domains, gain=1)


def multi_label(folder, *, spelt_out=False, kind="probabilities"):
    """One sigmoid a class; spelt out, 1 / (1 + exp(-l)), where the graph does not show it."""
    nodes = [node("Sigmoid", "l", "y")]
    if spelt_out:
        nodes = [node("Neg", "l", "n"), node("Exp", "n", "e"), node("Add", "e one", "d"), node("Reciprocal", "d", "y")]
    return head(folder, "multi_label", nodes, {"one": np.float32(1)}, 5, kind=kind)


def permuted_classes(folder):
    """A softmax over classes that stand as 2 x 3, transposed before the output."""
    nodes = [
        node("Reshape", "l s1", "b"),
        node("Softmax", "b", "p", axis=1),
        node("Transpose", "p", "t", perm=[0, 2, 1]),
        node("Reshape", "t s2", "y"),
    ]
    shapes = {"s1": np.array([0, 2, 3]), "s2": np.array([0, 6])}
    return head(folder, "permuted", nodes, shapes, 6, kind="probabilities", opset=11)


def coarse_input(folder, *, mean=128.3, scale=0.5):
    """An input quantised in steps of 64 * scale grey levels, whose borders lie mean - 128 from whole numbers."""
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("GlobalAveragePool", "d", "a"),
        node("Flatten", "a", "f"),
        node("Gemm", "f W", "y"),
    ]
    stored = [tensor("W", weights(3, 4)), tensor("s", scale), tensor("z", 128, np.uint8)]
    inputs, outputs = [value("x", ["N", 3, 8, 8])], [value("y", ["N", 4])]
    return graphs.save(folder, "coarse", nodes, inputs, outputs, stored, card(mean=mean))


def own_output(model, card, images):
    """What the model itself says of each image, by name."""
    session = onnxruntime.InferenceSession(str(model))
    named = {}
    for path in sorted(images.glob("*.png")):
        row = graphs.normalise(literal.pixels_of(path), card)[None].astype(np.float32)
        named[path.name] = session.run(["y"], {"x": row})[0][0]
    return named
