"""The global Lipschitz bound: known answers, dense matrices, and never below what sampling finds."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf, expit

from analyzer import graph
from analyzer.analyses import bound as bounds
from analyzer.analyses.bound import layers, pointwise, power, spectral, windows
from analyzer.analyses.bound.propagate import propagate
from analyzer.card import beside, read
from analyzer.cli import bounding, commands
from analyzer.errors import InputError, UsageError
from analyzer.graph.convolution import convolution_and_transpose
from analyzer.graph.operators import Operator, OperatorGraph, operators
from analyzer.session import Backend, Session
from analyzer.session.function import as_function
from tests import graphs
from tests.graphs import node, tensor, value
from tests.runs import measure, write_images

SIZE = (4, 4)
assert bounding.app is not None  # importing it registers the command
DIMENSION = 48


def matrix(singular, rows, columns, seed=0):
    """A matrix with these singular values."""
    generator = np.random.default_rng(seed)
    left = np.linalg.qr(generator.standard_normal((rows, rows)))[0][:, : len(singular)]
    right = np.linalg.qr(generator.standard_normal((columns, columns)))[0][:, : len(singular)]
    return (left * singular) @ right.T


def network(folder, nodes, weights, *, feature="feature", classes=2, std=1.0, size=SIZE, name="net", channels="RGB"):
    count = 1 if channels == "L" else 3
    card = graphs.make_card(size, feature=feature, std=std, channels=channels)
    inputs, outputs = [value("x", ["N", count, *size])], [value("logits", ["N", classes])]
    return graphs.save(folder, name, nodes, inputs, outputs, weights, card)[0]


def entries(document):
    return {entry["what"]: entry for entry in document["bounds"]}


def described(folder, nodes, weights, **options):
    path = network(folder, nodes, weights, **options)
    return operators(path, card=read(beside(path)))


def test_two_linear_layers_multiply(tmp_path):
    nodes = [
        node("Flatten", "x", "flat"),
        node("Gemm", "flat a", "feature", transB=1),
        node("Gemm", "feature b", "logits", transB=1),
    ]
    weights = [tensor("a", matrix([5, 2, 1], 6, DIMENSION)), tensor("b", matrix([3, 0.5], 2, 6))]
    rows = entries(bounds.bound(network(tmp_path, nodes, weights, std=4.0)))
    assert rows["layer"]["bound"] == pytest.approx(5, rel=1e-6)
    assert rows["layer"]["bound_per_grey_level"] == pytest.approx(5 / 4, rel=1e-6)
    assert rows["scores"]["bound"] == pytest.approx(15, rel=1e-6)
    assert rows["layer"]["reason"] is None


@pytest.mark.parametrize(
    ("join", "expected"),
    [
        (node("Add", "p q", "feature"), 7),
        (node("Concat", "p q", "feature", axis=1), 5),
        (node("Sub", "p p", "feature"), 6),
    ],
    ids=["add", "concat", "same branch twice"],
)
def test_branches(tmp_path, join, expected):
    nodes = [
        node("Flatten", "x", "flat"),
        node("Gemm", "flat a", "p"),
        node("Gemm", "flat b", "q"),
        join,
        node("Relu", "feature", "positive"),
        node("ReduceMean", "positive", "mean", axes=[1]),
        node("Gemm", "mean c", "logits"),
    ]
    weights = [
        tensor("a", matrix([3, 1], DIMENSION, 4)),
        tensor("b", matrix([4, 1], DIMENSION, 4, seed=1)),
        tensor("c", [[1.0, 0.0]]),
    ]
    assert entries(bounds.bound(network(tmp_path, nodes, weights)))["layer"]["bound"] == pytest.approx(
        expected, rel=1e-6
    )


def dense(weights, size, *, strides, pads, dilations, group):
    """The matrix of a zero-padded 2-D convolution, written out."""
    maps, depth, *kernel = weights.shape
    out = [(size[i] + pads[i] + pads[2 + i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i in range(2)]
    full = np.zeros((maps, *out, depth * group, *size))
    for m, y, x, c, i, j in np.ndindex(maps, *out, depth, *kernel):
        row, column = y * strides[0] - pads[0] + i * dilations[0], x * strides[1] - pads[1] + j * dilations[1]
        if 0 <= row < size[0] and 0 <= column < size[1]:
            full[m, y, x, m // (maps // group) * depth + c, row, column] += weights[m, c, i, j]
    return full.reshape(maps * out[0] * out[1], -1)


LAYERS = {
    "plain": ((4, 3, 3, 3), (6, 7), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "strided": ((4, 3, 3, 3), (7, 6), (2, 2), (1, 1, 1, 1), (1, 1), 1),
    "stride beyond kernel": ((4, 2, 1, 2), (7, 7), (3, 3), (0, 0, 0, 0), (1, 1), 1),
    "dilated": ((3, 2, 3, 2), (8, 8), (1, 1), (2, 0, 2, 1), (2, 3), 1),
    "dilated and strided": ((3, 2, 3, 3), (9, 8), (2, 3), (2, 2, 2, 2), (2, 2), 1),
    "grouped": ((6, 2, 3, 3), (5, 5), (1, 1), (1, 1, 1, 1), (1, 1), 3),
    "depthwise": ((4, 1, 5, 5), (9, 9), (2, 2), (2, 2, 2, 2), (1, 1), 4),
    "uneven": ((4, 3, 2, 4), (6, 9), (1, 2), (1, 0, 0, 3), (1, 1), 1),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_convolution_against_the_dense_matrix(layer):
    shape, size, strides, pads, dilations, group = layer
    weights = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    options = {"strides": strides, "dilations": dilations, "group": group}
    exact = np.linalg.norm(dense(weights.astype(np.float64), size, pads=pads, **options), 2)
    gram = as_function(convolution_and_transpose(weights, size, pads=pads, **options))
    estimate = power.iterate(gram, (1, shape[1] * group, *size), iterations=2000, tolerance=1e-7)
    assert estimate.value == pytest.approx(exact, rel=1e-3)
    assert estimate.value <= exact * (1 + 1e-5)
    padded = [size[i] + pads[i] + pads[2 + i] for i in range(2)]
    for extents in (padded, [None, None]):
        certified, factor = spectral.convolution_norm(weights, size=extents, **options)
        assert exact <= certified <= 1.35 * factor * exact  # small inputs do not fill the torus
        assert 1 <= factor < 1.05


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_certified_convolution_is_never_below_the_dense_one(data):
    def two(low, high):
        return tuple(data.draw(st.integers(low, high)) for _ in range(2))

    kernel, strides, dilations, group = two(1, 3), two(1, 3), two(1, 2), data.draw(st.integers(1, 2))
    pads = two(0, 2) + two(0, 2)
    size = tuple(data.draw(st.integers((k - 1) * d + 1, 7)) for k, d in zip(kernel, dilations, strict=True))
    weights = np.random.default_rng(data.draw(st.integers(0, 99))).standard_normal((2 * group, 2, *kernel))
    options = {"strides": strides, "dilations": dilations, "group": group}
    exact = np.linalg.norm(dense(weights, size, pads=pads, **options), 2)
    padded = [size[i] + pads[i] + pads[2 + i] for i in range(2)]
    assert spectral.convolution_norm(weights, size=padded, **options)[0] >= exact
    assert spectral.convolution_norm(weights, size=[None, None], **options)[0] >= exact


def circular(weights, size):
    """The largest singular value of the circular convolution: Sedghi, Gupta and Long 2019, Theorem 6."""
    spectrum = np.fft.fft2(weights, size, axes=(2, 3)).transpose(2, 3, 0, 1)
    return np.linalg.svd(spectrum, compute_uv=False).max()


def test_convolution_against_the_fourier_formula():
    weights = np.random.default_rng(3).standard_normal((5, 4, 3, 3))
    options = {"strides": (1, 1), "dilations": (1, 1), "group": 1}
    # On the torus of 10 x 10, 8 x 8 inputs do not wrap around: the same frequencies.
    assert spectral.convolution_norm(weights, size=(8, 8), **options)[0] == pytest.approx(
        circular(weights, (10, 10)), rel=1e-9
    )
    certified, factor = spectral.convolution_norm(weights, size=(None, None), **options)
    for size in (7, 16, 61, 128):
        assert circular(weights, (size, size)) <= certified
    assert certified <= factor * circular(weights, (128, 128))


def test_a_one_by_one_convolution_is_its_matrix():
    weights = matrix([2.5, 1.0], 6, 5)
    certified, factor = spectral.convolution_norm(
        weights[:, :, None, None], strides=(2, 2), dilations=(1, 1), group=1, size=(9, 9)
    )
    assert (certified, factor) == (pytest.approx(2.5, rel=1e-9), 1.0)


@pytest.mark.parametrize("shape", [(700, 300), (300, 700), (80, 90), (7, 5)])
def test_matrix_norm_is_certified_and_tight(shape):
    values = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    exact = np.linalg.norm(values.astype(np.float64), 2)
    assert exact <= spectral.matrix_norm(values) <= exact * (1 + 1e-4)


def test_wide_convolution_goes_by_factorisation():
    weights = np.random.default_rng(1).standard_normal((90, 80, 3, 3))
    certified, factor = spectral.convolution_norm(weights, strides=(1, 1), dilations=(1, 1), group=1, size=(None, None))
    grid = circular(weights, (16, 16))
    assert grid * factor <= certified * (1 + 1e-12) <= grid * factor * (1 + 1e-4)


def test_zero_weights_and_zero_maps():
    assert spectral.matrix_norm(np.zeros((300, 400))) == 0
    assert power.iterate(lambda v: 0 * v, (1, 3)) == (0.0, 1, 0.0)


def test_power_iteration_says_what_it_did():
    gram = np.diag([4.0, 1.0]).astype(np.float32)
    iteration = power.iterate(lambda v: v @ gram, (2,), iterations=3, tolerance=0.0)
    assert iteration.iterations == 3
    assert iteration.value < 2
    assert 0 < iteration.change < 1
    assert power.iterate(lambda v: v @ gram, (2,)).value == pytest.approx(2, rel=1e-4)


AXES = [
    windows.Axis(7, 3, 2),
    windows.Axis(8, 3, 2, ceil=True),
    windows.Axis(9, 3, 1, before=1, after=1),
    windows.Axis(6, 2, 3),
    windows.Axis(11, 3, 2, dilation=2, before=1, after=2),
    windows.Axis(5, 5, 1, before=2, after=2),
]


@pytest.mark.parametrize("axis", AXES)
def test_max_pooling_overlap_is_the_worst_spike(axis):
    def pooled(x):
        padded = np.concatenate([np.full(axis.before, -np.inf), x, np.full(axis.after + axis.kernel, -np.inf)])
        return padded[windows.covered(axis)].max(axis=1)

    spikes = [np.linalg.norm(pooled(5.0 * row) - pooled(0 * row)) / 5 for row in np.eye(axis.size)]
    assert windows.maximum_norm([axis]) == pytest.approx(max(spikes))
    assert windows.overlap(axis._replace(size=None)) >= windows.overlap(axis)


@pytest.mark.parametrize("count_padding", [False, True])
@pytest.mark.parametrize(
    ("k", "s", "p", "ceil"), [(3, 2, 1, 0), (2, 2, 0, 0), (3, 1, 1, 0), (3, 2, 0, 1), (5, 3, 2, 1)]
)
def test_average_pooling_is_the_norm_of_its_matrix(tmp_path, k, s, p, ceil, count_padding):
    attributes = {"kernel_shape": [k, k], "strides": [s, s], "pads": [p] * 4, "ceil_mode": ceil}
    nodes = [
        node("AveragePool", "x", "pool", count_include_pad=int(count_padding), **attributes),
        node("Flatten", "pool", "feature"),
        node("ReduceMean", "feature", "mean", axes=[1]),
        node("Gemm", "mean c", "logits"),
    ]
    path = network(tmp_path, nodes, [tensor("c", [[1.0, 0.0]])], size=(7, 8), channels="L")
    session = Session(graph.prepare(path, card=read(beside(path))), pixel_shape=(1, 7, 8), backend=Backend("cpu"))
    columns = session.run(np.eye(56, dtype=np.float32).reshape(56, 1, 7, 8))[1][0]
    exact = np.linalg.norm(columns.astype(np.float64), 2)
    norm = entries(bounds.bound(path))["layer"]["bound"]
    assert norm >= exact * (1 - 1e-6)
    if not (ceil and count_padding):  # what counts beyond the padding differs between versions: the largest is taken
        assert norm == pytest.approx(exact, rel=1e-5)


def lrn_jacobian(x, *, alpha, beta, bias, size):
    n = len(x)
    a = alpha / size
    near = np.zeros((n, n))
    for i in range(n):
        near[i, max(0, i - (size - 1) // 2) : i + math.ceil((size - 1) / 2) + 1] = 1
    s = bias + a * near @ x**2
    return np.diag(s**-beta) - 2 * a * beta * np.outer(x * s ** (-beta - 1), x) * near


@pytest.mark.parametrize("size", [1, 2, 5, 9])
@pytest.mark.parametrize("beta", [0.25, 0.75, 1.0, 2.0])
def test_lrn_bound_is_never_beaten(size, beta):
    options = {"alpha": 2.0, "beta": beta, "bias": 1.5, "size": size}
    limit = layers.lrn_norm(**options)
    generator = np.random.default_rng(0)
    seen = [
        np.linalg.norm(lrn_jacobian(scale * generator.standard_normal(12) ** power, **options), 2)
        for scale in (0.0, 0.3, 1.0, 3.0, 10.0)
        for power in (1, 3)
        for _ in range(40)
    ]
    assert max(seen) <= limit
    if size == 1:
        assert limit == pytest.approx(max(seen))  # at 0 it is bias^-beta
    assert limit <= 2.1 * max(seen)


def test_lrn_jacobian_is_that_of_the_operator(tmp_path):
    options = {"alpha": 0.8, "beta": 0.75, "bias": 2.0, "size": 3}
    nodes = [
        node("Conv", "x w", "wide"),
        node("LRN", "wide", "normal", **options),
        node("Flatten", "normal", "feature"),
        node("Gemm", "feature c", "logits"),
    ]
    weights = [tensor("w", matrix([1, 1, 1], 6, 3)[:, :, None, None]), tensor("c", np.eye(6, 2))]
    path = network(tmp_path, nodes, weights, size=(1, 1))
    assert entries(bounds.bound(path))["layer"]["bound"] == pytest.approx(layers.lrn_norm(**options), rel=1e-6)


ACTIVATIONS = {
    "Gelu": (pointwise.GELU, lambda x: x * (1 + erf(x / math.sqrt(2))) / 2),
    "GELU (tanh)": (
        pointwise.GELU_TANH,
        lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    ),
    "Swish": (pointwise.SWISH, lambda x: x * expit(x)),
    "Mish": (pointwise.MISH, lambda x: x * np.tanh(np.logaddexp(0, x))),
    "HardSwish": (pointwise.HARD_SWISH, lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "Sigmoid": (0.25, expit),
    "Tanh": (1.0, np.tanh),
    "Erf": (2 / math.sqrt(math.pi), erf),
    "Softplus": (1.0, lambda x: np.logaddexp(0, x)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives_of_activations(name):
    norm, function = ACTIVATIONS[name]
    x = np.linspace(-20, 20, 400_001)
    steepest = np.abs(np.diff(function(x)) / np.diff(x)).max()
    assert steepest <= norm * (1 + 1e-9)
    assert steepest >= norm * (1 - 2e-4)


def one(kind, attributes=(), *constants, shapes=None, opset=17):
    """The rule of one operator on a tensor "x" of shape (N, 3, 4, 4) and these constants."""
    names = tuple(f"c{k}" for k in range(len(constants)))
    op = Operator(kind, "it", ("x", *names), ("y",), dict(attributes))
    stored = dict(zip(names, map(np.asarray, constants), strict=True))
    net = OperatorGraph(
        operators=(op,),
        input="x",
        scores="y",
        layers=(),
        live=frozenset({"x", "y"}),
        shapes={"x": (None, 3, 4, 4), "y": (None, 3, 4, 4), **(shapes or {})},
        constant=stored.get,
        opset=opset,
    )
    return propagate(net).steps[0]


@pytest.mark.parametrize(
    ("step", "norm"),
    [
        (one("Relu"), 1),
        (one("LeakyRelu", {"alpha": -3.0}), 3),
        (one("PRelu", {}, [0.2, -1.5]), 1.5),
        (one("Elu", {"alpha": 2.0}), 2),
        (one("Selu"), 1.0507009873554805 * 1.6732632423543772),
        (one("HardSigmoid"), 0.2),
        (one("Softmax"), 0.5),
        (one("LogSoftmax", {"axis": 1}), math.sqrt(3)),
        (one("Transpose", {"perm": (0, 2, 3, 1)}), 1),
        (one("Cast", {"to": 10}), 1),
        (one("GlobalAveragePool"), 1 / 4),
        (one("ReduceMean", {"axes": (2, 3)}), 1 / 4),
        (one("ReduceSum", {}, [1]), math.sqrt(3)),
        (one("Mul", {}, [[[2.0]], [[-4.0]], [[1.0]]]), 4),
        (one("Div", {}, [0.5]), 2),
        (one("Add", {}, [7.0]), 1),
        (one("Add", {}, np.ones((5, 1, 1, 1)), shapes={"x": (1, 3, 4, 4), "y": (5, 3, 4, 4)}), math.sqrt(5)),
        (one("Gather", {"axis": 1}, [2, 0, 2, -1]), math.sqrt(3)),
        (one("Pad", {"mode": "reflect"}, [0, 0, 1, 1, 0, 0, 1, 1]), math.sqrt(2 * 2)),
        (one("Pad", {"mode": "edge"}, [0, 0, 0, 0, 0, 0, 0, 2]), math.sqrt(3)),
        (one("Resize", {"mode": "nearest"}, shapes={"y": (None, 3, 8, 12)}), math.sqrt(6)),
        (one("Tile", {}, [1, 1, 2, 2]), 2),
        (one("BatchNormalization", {"epsilon": 0.0}, [1.0, -3.0], [0, 0], [0, 0], [4.0, 9.0]), 1),
        (one("LayerNormalization", {"epsilon": 0.01}, [2.0, -3.0]), 30),
        (one("MaxPool", {"kernel_shape": (3, 3), "strides": (2, 2)}, shapes={"x": (None, 3, 9, 9)}), 2),
        (one("MatMul", {}, np.diag([3.0, 1.0, 2.0, 0.5])), 3),
    ],
    ids=lambda v: v.operator.kind if hasattr(v, "operator") else "",
)
def test_rules(step, norm):
    assert step.norm == pytest.approx(norm, rel=1e-6), step.how
    assert step.bound == step.norm


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (one("Exp"), "no rule"),
        (one("QuantizeLinear", {}, 0.1), "no rule"),
        (one("com.example:Relu"), "no rule"),
        (one("Cast", {"to": 6}), "whole numbers"),
        (one("Div", {}, [0.0]), "divides by 0"),
        (one("Conv", {}, np.full((2, 3, 1, 1), np.nan)), "not finite"),
        (one("MatMul", {}, np.ones((2, 4, 4))), "matrix is expected"),
        (one("Resize", {"mode": "linear"}), "no rule for its mode"),
        (one("AveragePool", {"kernel_shape": (2, 2)}, shapes={"x": (None, 3, None, None)}), "size of its input"),
        (one("Gather", {"axis": 9}, [1]), "do not fit"),
        (one("BatchNormalization", {}, [1.0], [0.0], [0.0], [-1.0]), "variance"),
        (one("LRN", {"size": 5, "bias": 0.0}), "bias"),
        (one("Conv", {"strides": (2**31, 1)}, np.ones((2, 3, 1, 1))), "huge"),
        (one("Conv", {"dilations": (4096, 4096)}, np.ones((2, 3, 9, 9))), "too large"),
        (one("MaxPool", {"kernel_shape": (3, 3), "pads": (0, 0, -1, 0)}), "negative"),
        (one("ThresholdedRelu"), "no rule"),
    ],
    ids=lambda v: v.operator.kind if hasattr(v, "operator") else "",
)
def test_what_has_no_rule_has_a_reason(step, why):
    assert step.norm is None
    assert step.bound is None
    assert why in step.how


GATES = {
    "swish": ([node("Sigmoid", "x", "s"), node("Mul", "x s", "y")], {}, pointwise.SWISH),
    "hard swish": ([node("HardSigmoid", "x", "s", alpha=1 / 6), node("Mul", "s x", "y")], {}, 1.5),
    "hard swish by clip": (
        [
            node("Add", "x three", "a"),
            node("Clip", "a zero six", "b"),
            node("Mul", "x b", "c"),
            node("Div", "c six", "y"),
        ],
        {"three": 3.0, "zero": 0.0, "six": 6.0},
        1.5,
    ),
    "gelu": (
        [
            node("Div", "x root", "a"),
            node("Erf", "a", "b"),
            node("Add", "b one", "c"),
            node("Mul", "x c", "d"),
            node("Mul", "d half", "y"),
        ],
        {"root": math.sqrt(2), "one": 1.0, "half": 0.5},
        pointwise.GELU,
    ),
}


@pytest.mark.parametrize("name", GATES)
def test_activations_written_as_products_are_recognised(tmp_path, name):
    pattern, constants, norm = GATES[name]
    nodes = [*pattern, node("Flatten", "y", "feature"), node("Gemm", "feature readout", "logits")]
    nodes = [node("Conv", "image w", "x"), *nodes]
    weights = [tensor(key, number) for key, number in constants.items()]
    weights += [tensor("w", 2 * np.eye(3)[:, :, None, None]), tensor("readout", np.eye(DIMENSION, 2))]
    card = graphs.make_card(SIZE, feature="feature")
    inputs, outputs = [value("image", ["N", 3, *SIZE])], [value("logits", ["N", 2])]
    path, _ = graphs.save(tmp_path, "gate", nodes, inputs, outputs, weights, card)
    assert entries(bounds.bound(path))["layer"]["bound"] == pytest.approx(2 * norm, rel=1e-5)


def test_an_unknown_operator_is_named_and_nothing_behind_it_has_a_bound(tmp_path, capsys):
    nodes = [
        node("Flatten", "x", "flat"),
        node("Gemm", "flat a", "early"),
        node("Exp", "early", "grown"),
        node("Relu", "grown", "feature"),
        node("Gemm", "feature b", "logits"),
    ]
    weights = [tensor("a", matrix([2, 1], DIMENSION, 4)), tensor("b", np.eye(4, 2))]
    path = network(tmp_path, nodes, weights)
    document = bounds.bound(path)
    rows = {row["operator"]: row for row in document["operators"]}
    assert rows["Gemm"]["bound"] is None  # the last one
    assert rows["Gemm"]["norm"] == pytest.approx(1, rel=1e-6)
    assert document["operators"][1]["bound"] == pytest.approx(2, rel=1e-6)
    assert [m["operator"] for m in document["missing"]] == ["Exp"]
    for entry in document["bounds"]:
        assert entry["bound"] is None
        assert "Exp (node_grown)" in entry["reason"]
    commands.call(["bound", str(path), "--json"])
    assert json.loads(capsys.readouterr().out) == document
    commands.call(["bound", str(path)])
    shown = capsys.readouterr().out
    assert "Exp (node_grown) has no rule" in shown
    assert "unavailable, because of Exp" in shown


def test_a_product_beyond_float64_is_no_bound():
    chain = tuple(Operator("Mul", f"m{k}", (f"t{k}", "c"), (f"t{k + 1}",)) for k in range(3))
    names = [f"t{k}" for k in range(4)]
    net = OperatorGraph(
        chain, "t0", "t3", (), frozenset(names), dict.fromkeys(names, (None, 2)), {"c": np.array(1e200)}.get, 17
    )
    result = propagate(net)
    assert [step.bound for step in result.steps] == [1e200, None, None]
    assert "beyond float64" in result.blame["t3"].how


def test_a_product_of_two_branches_is_not_guessed(tmp_path):
    nodes = [
        node("GlobalAveragePool", "x", "pool"),
        node("Sigmoid", "pool", "gate"),
        node("Mul", "x gate", "gated"),
        node("Flatten", "gated", "feature"),
        node("Gemm", "feature c", "logits"),
    ]
    rows = entries(bounds.bound(network(tmp_path, nodes, [tensor("c", np.eye(DIMENSION, 2))])))
    assert rows["layer"]["bound"] is None
    assert "Mul" in rows["layer"]["reason"]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["Relu", "Tanh", "Sigmoid", "Elu", "LRN", "Softplus"]))
def test_no_sampled_ratio_exceeds_the_bound(tmp_path_factory, seed, activation):
    generator = np.random.default_rng(seed)
    bent = node(activation, "sum", "bent", **({"size": 3, "alpha": 1.0} if activation == "LRN" else {}))
    nodes = [
        node("Conv", "x w1 b1", "one", pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        node("Conv", "x w2", "two", kernel_shape=[1, 1]),
        node("Add", "one two", "sum"),
        bent,
        node("MaxPool", "bent", "top", kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1]),
        node("AveragePool", "bent", "mean", kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1]),
        node("Concat", "top mean", "both", axis=1),
        node("Flatten", "both", "feature"),
        node("Gemm", "feature c", "logits"),
    ]
    weights = [
        tensor("w1", generator.standard_normal((2, 3, 3, 3))),
        tensor("b1", generator.standard_normal(2)),
        tensor("w2", generator.standard_normal((2, 3, 1, 1))),
        tensor("c", generator.standard_normal((64, 2))),
    ]
    path = network(tmp_path_factory.mktemp("nets"), nodes, weights)
    card = read(beside(path))
    result = propagate(operators(path, card=card))
    session = Session(graph.prepare(path, card=card), pixel_shape=(3, *SIZE), backend=Backend("cpu"))
    x = generator.standard_normal((64, 3, *SIZE)).astype(np.float32)
    y = x + (10.0 ** generator.uniform(-2, 1, (64, 1, 1, 1)) * generator.standard_normal(x.shape)).astype(np.float32)
    (scores, features), (other_scores, other) = session.run(x), session.run(y)
    moved = np.linalg.norm((y - x).reshape(64, -1), axis=1)
    for values, tensor_name in ((features[0] - other[0], "feature"), (scores - other_scores, "logits")):
        assert (np.linalg.norm(values, axis=1) / moved).max() <= result.tensors[tensor_name] * (1 + 1e-4)


def test_both_bundled_layouts_and_external_weights_agree(tmp_path):
    plain, _ = graphs.convnet(tmp_path / "plain")
    outside, _ = graphs.convnet(tmp_path / "outside", external_data=True)
    nhwc, _ = graphs.convnet(tmp_path / "nhwc", layout="NHWC", channels="BGR")
    first, *others = ([e["bound"] for e in bounds.bound(p)["bounds"]] for p in (plain, outside, nhwc))
    assert all(b is not None for b in first)
    for other in others:
        assert other == pytest.approx(first, rel=1e-9)
    rows = [row for row in bounds.bound(plain)["operators"] if row["operator"] == "Conv"]
    for row in rows:
        assert 0.7 * row["norm"] <= row["estimate"]["value"] <= row["norm"]
    assert all(row["estimate"] is None for row in bounds.bound(plain, iterations=0)["operators"])


def test_weights_behind_simple_steps_are_read(tmp_path):
    plain = matrix([4, 1], 5, DIMENSION)
    nodes = [
        node("Flatten", "x", "flat"),
        node("Cast", "half", "single", to=1),
        node("Transpose", "single", "turned", perm=[1, 0]),
        node("MatMul", "flat turned", "feature"),
        node("Gemm", "feature c", "logits"),
    ]
    weights = [tensor("half", plain, np.float16), tensor("c", np.eye(5, 2))]
    rows = entries(bounds.bound(network(tmp_path, nodes, weights)))
    assert rows["layer"]["bound"] == pytest.approx(4, rel=1e-2)


def test_beside_a_run(tmp_path, capsys):
    path, _ = graphs.linear(tmp_path, matrix([6.0, 2.0, 1.0], 3, 192))
    write_images(tmp_path / "images", 3, size=8)
    measure(path, tmp_path / "images", tmp_path / "run", layers=("feature",))
    row = entries(bounds.bound(path, run=tmp_path / "run"))["layer"]
    calibration = json.loads((tmp_path / "run" / "calibration.json").read_text())
    expected = 6.0 * calibration["input_range"] / calibration["feature_range"]["feature"]
    assert row["bound_normalised"] == pytest.approx(expected, rel=1e-5)
    assert row["local"]["lipschitz_q95"]["value"] <= row["bound_normalised"]
    assert row["local"]["lipschitz_raw_q95"]["value"] <= row["bound_per_grey_level"]
    assert row["local"]["jacobian_rms_median"]["value"] < row["bound_per_grey_level"]
    commands.call(["bound", str(path), "--run", str(tmp_path / "run")])
    out = capsys.readouterr().out
    assert f"Up to layer feature: at most {row['bound']:.4g} per unit of the normalised input" in out
    assert f"ranges of g and h: at most {row['bound_normalised']:.4g}" in out
    assert "Sampled there: median" in out and "range of h / range of g" in out
    other, _ = graphs.linear(tmp_path / "other", matrix([5.0], 3, 192))
    with pytest.raises(UsageError, match="another model"):
        bounds.bound(other, run=tmp_path / "run")


def test_max_pooling_says_where_its_norm_comes_from(tmp_path):
    for kernel, norm, how in ((3, 2, "square root of overlap 4"), (2, 1, "no overlap")):
        nodes = [
            node("MaxPool", "x", "feature", kernel_shape=[kernel, kernel], strides=[2, 2]),
            node("Flatten", "feature", "flat"),
            node("Gemm", "flat w", "logits"),
        ]
        places = ((8 - kernel) // 2 + 1) ** 2
        path = network(tmp_path, nodes, [tensor("w", np.eye(3 * places, 2))], size=(8, 8), name=f"pool{kernel}")
        (row, *_) = bounds.bound(path)["operators"]
        assert (row["operator"], row["norm"], row["how"]) == ("MaxPool", pytest.approx(norm), how)


def test_refusals(tmp_path):
    path, _ = graphs.convnet(tmp_path)
    with pytest.raises(InputError, match="no layer 'nothing'"):
        bounds.bound(path, layers=("nothing",))
    beside(path).unlink()
    with pytest.raises(InputError, match="`write_card`"):
        bounds.bound(path)


def test_bound_sentences_say_no_nan():
    from analyzer.analyses.bound.sentences import still_growing, up_to

    row = {"what": "layer", "tensor": "f", "bound": np.inf, "bound_per_grey_level": np.inf, "reason": None}
    row["local"] = {
        "lipschitz_median": {"value": 0.1},
        "lipschitz_q95": {"value": None},
        "lipschitz_below_one_share": {"value": 1.0},
    }
    assert up_to(row) == "Up to layer f: unavailable, because of a norm that is not finite."
    estimate = {"change": np.nan, "iterations": 3}
    assert list(still_growing({"operators": [{"name": "c", "estimate": estimate}]})) == []
