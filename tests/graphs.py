"""Tiny ONNX models whose answers are known in closed form; each function writes one, with its card beside it.

Each of these functions returns (path of the model, Card). Inputs are (N, 3, 8, 8) float32 unless a size is given. Cards
have mean 0 and std 1 unless said otherwise, and all tensors are named so that tests can tap them.
"""

from pathlib import Path

import numpy as np
import onnx
import onnx.reference
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from analyzer import card as cards
from analyzer.card import Card, Resize

OPSET = 17
IR_VERSION = 10
TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}

# The convnet's card; its uint8 variant does the same inside the graph.
CONVNET_MEAN, CONVNET_STD = 127.5, 64.0


def make_card(size=(8, 8), *, layout="NCHW", channels="RGB", mean=0.0, std=1.0, kind="logits", feature=None, **names):
    """A card whose images must already have the model's size."""
    count = cards.CHANNELS[channels]
    return Card(
        layout=layout,
        size=size,
        channels=channels,
        resize=Resize("none"),
        mean=(float(mean),) * count,
        std=(float(std),) * count,
        kind=kind,
        feature_name=feature,
        **names,
    )


def tensor(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def node(operator, inputs, outputs, **attributes):
    outputs = outputs.split()
    return helper.make_node(operator, inputs.split(), outputs, name=f"node_{outputs[0]}", **attributes)


def value(name, shape, elem_type=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, elem_type, shape)


def save(folder, name, nodes, inputs, outputs, weights, card, *, opset=OPSET, ir_version=IR_VERSION, domains=()):
    """Assemble, write NAME.onnx and NAME.json into `folder`, and return (path, card)."""
    graph = helper.make_graph(nodes, name, inputs, outputs, weights)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(graph, ir_version=ir_version, opset_imports=opsets, producer_name="analyzer tests")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.onnx"
    path.write_bytes(model.SerializeToString())
    cards.write(card, cards.beside(path))
    return path, card


def constant(folder, logits=(5.0, 0.0), size=(8, 8)):
    """Logits and feature ("feature", 4 ones) that do not depend on the input."""
    dim = 3 * size[0] * size[1]
    nodes = [
        node("Flatten", "x", "flat"),
        node("Gemm", "flat zeros ones", "feature"),
        node("Gemm", "feature no_weight bias", "logits"),
    ]
    weights = [
        tensor("zeros", np.zeros((dim, 4))),
        tensor("ones", np.ones(4)),
        tensor("no_weight", np.zeros((4, len(logits)))),
        tensor("bias", logits),
    ]
    inputs, outputs = [value("x", ["N", 3, *size])], [value("logits", ["N", len(logits)])]
    return save(folder, "constant", nodes, inputs, outputs, weights, make_card(size, feature="feature"))


def pixel_mean(folder, weights=(0.05, -0.05), size=(8, 8)):
    """logits = weights * mean of all inputs: unchanged by any permutation of the perturbation. Feature: the mean."""
    nodes = [
        node("Flatten", "x", "flat"),
        node("ReduceMean", "flat", "feature", axes=[1], keepdims=1),
        node("Gemm", "feature weights", "logits"),
    ]
    inputs, outputs = [value("x", ["N", 3, *size])], [value("logits", ["N", len(weights)])]
    constants = [tensor("weights", np.reshape(weights, (1, -1)))]
    return save(folder, "pixel_mean", nodes, inputs, outputs, constants, make_card(size, feature="feature"))


def distance(folder, centre):
    """logits = [-||x - centre||_2, 0]; feature = that distance. `centre`: (3, H, W), the model's input for an image."""
    centre = np.asarray(centre, np.float32)
    size = tuple(int(n) for n in centre.shape[1:])
    nodes = [
        node("Flatten", "x", "flat"),
        node("Sub", "flat centre", "difference"),
        node("ReduceL2", "difference", "feature", axes=[1], keepdims=1),
        node("Gemm", "feature weights", "logits"),
    ]
    inputs, outputs = [value("x", ["N", 3, *size])], [value("logits", ["N", 2])]
    constants = [tensor("centre", centre.reshape(1, -1)), tensor("weights", [[-1.0, 0.0]])]
    return save(folder, "distance", nodes, inputs, outputs, constants, make_card(size, feature="feature"))


def linear(folder, matrix, size=(8, 8)):
    """feature = matrix @ flatten(x), matrix (F, D), D = C * H * W; logits = its first two entries (0 where F is 1)."""
    matrix = np.asarray(matrix, np.float32)
    count = matrix.shape[1] // (size[0] * size[1])
    channels = {1: "L", 3: "RGB"}[count]
    readout = np.eye(matrix.shape[0], 2)
    nodes = [
        node("Flatten", "x", "flat"),
        node("Gemm", "flat matrix", "feature", transB=1),
        node("Gemm", "feature readout", "logits"),
    ]
    inputs, outputs = [value("x", ["N", count, *size])], [value("logits", ["N", 2])]
    constants = [tensor("matrix", matrix), tensor("readout", readout)]
    card = make_card(size, channels=channels, feature="feature")
    return save(folder, "linear", nodes, inputs, outputs, constants, card)


def nan(folder, threshold, weights=(0.05, -0.05), size=(8, 8)):
    """`pixel_mean`, but every logit is NaN where the mean input is above `threshold`."""
    nodes = [
        node("Flatten", "x", "flat"),
        node("ReduceMean", "flat", "feature", axes=[1], keepdims=1),
        node("Sub", "threshold feature", "room"),
        node("Sqrt", "room", "root"),
        node("Mul", "root zero", "zero_or_nan"),
        node("Gemm", "feature weights", "product"),
        node("Add", "product zero_or_nan", "logits"),
    ]
    inputs, outputs = [value("x", ["N", 3, *size])], [value("logits", ["N", len(weights)])]
    constants = [
        tensor("weights", np.reshape(weights, (1, -1))),
        tensor("threshold", [threshold]),
        tensor("zero", [0.0]),
    ]
    return save(folder, "nan", nodes, inputs, outputs, constants, make_card(size, feature="feature"))


def convnet(
    folder,
    *,
    layout="NCHW",
    channels="RGB",
    softmax=False,
    seed=0,
    fixed_batch=None,
    input_type="float32",
    external_data=False,
    size=16,
    classes=5,
    opset=OPSET,
    name="convnet",
):
    """Conv-Relu-MaxPool-Conv-Relu-GlobalAveragePool-Flatten-Gemm-Relu ("fc2")-Gemm ("logits") [-Softmax ("scores")].

    The same seed gives the same weights whatever else is asked for. The BGR variant's first layer is mirrored and the
    NHWC variant transposes inside, so that the canonical image gives the same logits; so does the uint8 variant (mean
    and std inside the graph, 0 and 1 in its card), while the float16 one has rounded weights. A fixed batch also has a
    Reshape to [n, 16] for the Flatten. The cards name no tensors: feature and logits are to be found.
    """
    generator = np.random.default_rng(seed)
    count = cards.CHANNELS[channels]
    arrays = _convnet_weights(generator, classes)
    arrays["w1"] = {"RGB": arrays["w1"], "BGR": arrays["w1"][:, ::-1], "L": arrays["w1"].sum(1, keepdims=True)}[
        channels
    ]
    dtype: type = np.float16 if input_type == "float16" else np.float32
    elem_type = TYPES["float16"] if input_type == "float16" else TensorProto.FLOAT
    weights = [tensor(key, array, dtype) for key, array in arrays.items()]

    batch = "N" if fixed_batch is None else fixed_batch
    shape = [batch, count, size, size] if layout == "NCHW" else [batch, size, size, count]
    nodes, current = [], "x"
    if input_type == "uint8":
        nodes += [
            node("Cast", current, "pixels", to=TensorProto.FLOAT),
            node("Sub", "pixels mean", "centred"),
            node("Div", "centred std", "normalised"),
        ]
        weights += [tensor("mean", CONVNET_MEAN), tensor("std", CONVNET_STD)]
        current = "normalised"
    if layout == "NHWC":
        nodes.append(node("Transpose", current, "nchw", perm=[0, 3, 1, 2]))
        current = "nchw"
    nodes += [
        node("Conv", f"{current} w1 b1", "conv1", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu", "conv1", "relu1"),
        node("MaxPool", "relu1", "pool1", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "pool1 w2 b2", "conv2", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Relu", "conv2", "relu2"),
        node("GlobalAveragePool", "relu2", "pool2"),
    ]
    if fixed_batch is None:
        nodes.append(node("Flatten", "pool2", "flat"))
    else:
        weights.append(tensor("flat_shape", [fixed_batch, 16], np.int64))
        nodes.append(node("Reshape", "pool2 flat_shape", "flat"))
    nodes += [
        node("Gemm", "flat w3 b3", "fc2_pre"),
        node("Relu", "fc2_pre", "fc2"),
        node("Gemm", "fc2 w4 b4", "logits"),
    ]
    if softmax:
        nodes.append(node("Softmax", "logits", "scores", axis=1))
    output = "scores" if softmax else "logits"

    inputs = [value("x", shape, TYPES[input_type])]
    outputs = [value(output, [batch, classes], elem_type)]
    mean, std = (0.0, 1.0) if input_type == "uint8" else (CONVNET_MEAN, CONVNET_STD)
    kind = "probabilities" if softmax else "logits"
    card = make_card((size, size), layout=layout, channels=channels, mean=mean, std=std, kind=kind)
    if external_data:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        externalise([w for w in weights if w.data_type != TensorProto.INT64], folder / f"{name}.data")
    return save(folder, name, nodes, inputs, outputs, weights, card, opset=opset)


def _convnet_weights(generator: np.random.Generator, classes: int) -> dict[str, NDArray[np.floating]]:
    def draw(*shape: int, fan_in: int) -> NDArray[np.floating]:
        return generator.standard_normal(shape) * np.sqrt(2.0 / fan_in)

    return {
        "w1": draw(8, 3, 3, 3, fan_in=27),
        "b1": draw(8, fan_in=20),
        "w2": draw(16, 8, 3, 3, fan_in=72),
        "b2": draw(16, fan_in=20),
        "w3": draw(16, 12, fan_in=16),
        "b3": draw(12, fan_in=20),
        "w4": draw(12, classes, fan_in=1),
        "b4": draw(classes, fan_in=20),
    }


def externalise(tensors: list[onnx.TensorProto], path: Path) -> None:
    """Move the bytes of `tensors` into the file `path`, 64-byte aligned, and refer to it by its name."""
    content = b""
    for item in tensors:
        raw = item.raw_data
        content += b"\0" * (-len(content) % 64)
        item.ClearField("raw_data")
        refer(item, location=path.name, offset=len(content), length=len(raw))
        content += raw
    path.write_bytes(content)


def refer(item: onnx.TensorProto, **entries) -> None:
    """Declare `item` external with these entries (location, offset, length)."""
    item.data_location = TensorProto.EXTERNAL
    del item.external_data[:]
    for key, content in entries.items():
        item.external_data.add(key=key, value=str(content))


def edit(path, change):
    """Apply `change(model)` to the model file in place."""
    model = onnx.load(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def evaluate(content, feeds):
    """All outputs of a serialised model by onnx's own evaluator."""
    return onnx.reference.ReferenceEvaluator(onnx.load_from_string(content)).run(None, feeds)


def pixels(count=3, size=16, seed=1):
    """Whole grey levels 0..255, (count, 3, size, size) float32."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3, size, size)).astype(np.float32)


def normalise(images, card):
    """Network input of `images` for a card whose channels share mean and std."""
    return (images - np.float32(card.mean[0])) / np.float32(card.std[0])
