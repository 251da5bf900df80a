"""Rules of layers: convolutions, matrices, normalisation, pooling, softmax."""

import math

import numpy as np

from analyzer.analyses.bound import spectral
from analyzer.analyses.bound import windows as pooling
from analyzer.analyses.bound.base import Function, NoRule, Rule, constant, only_first, placement, spatial
from analyzer.graph.operators import Operator, OperatorGraph


def _convolution(op: Operator, network: OperatorGraph) -> Rule:
    only_first(op, network)
    weights = constant(op, 1, network, "weights")
    if weights.ndim < 3:
        raise NoRule("its weights have no spatial axes")
    transposed = op.kind == "ConvTranspose"
    size, layer = placement(op, weights.shape[2:], network)
    count = len(size)
    # Of a transposed convolution the output, which is not needed, would be the size.
    padded = [
        None if extent is None or transposed else extent + layer["pads"][i] + layer["pads"][count + i]
        for i, extent in enumerate(size)
    ]
    norm, factor = spectral.convolution_norm(
        weights,
        strides=layer["strides"],
        dilations=layer["dilations"],
        group=op.attributes.get("group", 1),
        size=padded,
    )
    return Rule(norm, "spectrum" + (f", grid +{factor - 1:.1%}" if factor > 1 else ""))


def _gemm(op: Operator, network: OperatorGraph) -> Rule:
    if op.attributes.get("transA", 0):
        raise NoRule("it mixes the images of a batch (transA)")
    only_first(op, network)
    norm = spectral.matrix_norm(_matrix(op, 1, network))
    return Rule(abs(op.attributes.get("alpha", 1.0)) * norm, "singular value")


def _matmul(op: Operator, network: OperatorGraph) -> Rule:
    live = [place for place, name in enumerate(op.inputs) if name in network.live]
    if len(live) != 1:
        raise NoRule("a product of two tensors that depend on the image is not Lipschitz")
    norm = spectral.matrix_norm(_matrix(op, 1 - live[0], network))
    return Rule(norm, "singular value")


def _matrix(op: Operator, place: int, network: OperatorGraph) -> np.ndarray:
    weights = constant(op, place, network, "weights")
    if weights.ndim != 2 or 0 in weights.shape:
        raise NoRule(f"its weights have shape {list(weights.shape)}, where a matrix is expected")
    return weights if weights.dtype == np.float32 else weights.astype(np.float64)


def _batch_normalization(op: Operator, network: OperatorGraph) -> Rule:
    only_first(op, network)
    if op.attributes.get("training_mode", 0):
        raise NoRule("it normalises by the batch (training_mode)")
    scale, variance = (constant(op, k, network, "statistics").astype(np.float64) for k in (1, 4))
    spread = variance + op.attributes.get("epsilon", 1e-5)
    if not (spread > 0).all():
        raise NoRule("its variance is not above 0")
    return Rule(float(np.abs(scale / np.sqrt(spread)).max()), "gamma / sigma")


def _standardisation(op: Operator, network: OperatorGraph) -> Rule:
    """The Jacobian of (x - mean) / s, s^2 = variance + epsilon, is a projection minus z z^T / n, over s."""
    only_first(op, network)
    scale = constant(op, 1, network, "scales").astype(np.float64)
    epsilon = op.attributes.get("epsilon", 1e-5)
    if epsilon <= 0:
        raise NoRule("its epsilon is not above 0")
    return Rule(float(np.abs(scale).max()) / math.sqrt(epsilon), "scale / sqrt(epsilon)")


def lrn_norm(*, alpha: float, beta: float, bias: float, size: int) -> float:
    """A bound of the Jacobian of y_i = x_i s_i^-beta, s_i = bias + a sum of x_j^2 over N(i), a = alpha / size.

    Let u = a x_i^2 and t = s_i - bias, so 0 <= u <= t. As a function of t, beta t / s^(beta + 1) is largest at
    t = bias / beta, where it is bias^-beta q, q = (beta / (beta + 1))^(beta + 1) < 1 / e. The diagonal of the Jacobian,
    s^-beta (1 - 2 beta u / s), lies between -2 q bias^-beta and bias^-beta, so its absolute value is at most
    bias^-beta. The rest of row i is -2 a beta x_i x_j s^(-beta - 1) for the other j in N(i), of length
    2 beta sqrt(u (t - u)) s^(-beta - 1) <= beta t s^(-beta - 1) <= q bias^-beta. Every j occurs in the rest of at most
    size - 1 rows, so norm(rest v)^2 <= (q bias^-beta)^2 (size - 1) norm(v)^2. Hence bias^-beta (1 + q sqrt(size - 1)).
    What bounds the Jacobian everywhere bounds the distances.
    """
    return math.pow(bias, -beta) * (1 + math.sqrt(size - 1) * math.pow(beta / (beta + 1), beta + 1))


def _lrn(op: Operator, network: OperatorGraph) -> Rule:
    values = {"alpha": 1e-4, "beta": 0.75, "bias": 1.0} | {
        k: v for k, v in op.attributes.items() if k in ("alpha", "beta", "bias")
    }
    size = op.attributes.get("size", 0)
    if min(values["alpha"], values["beta"]) < 0 or values["bias"] <= 0 or size < 1:
        raise NoRule("its alpha or beta is below 0, or its bias or size not above 0")
    return Rule(lrn_norm(**values, size=size), "Jacobian")


def _max_pool(op: Operator, network: OperatorGraph) -> Rule:
    kernel = op.attributes.get("kernel_shape", ())
    size, layer = placement(op, kernel, network)
    norm = pooling.maximum_norm(pooling.axes(size, kernel, ceil=bool(op.attributes.get("ceil_mode", 0)), **layer))
    most = round(norm**2)
    return Rule(norm, f"square root of overlap {most}" if most > 1 else "no overlap")


def _average_pool(op: Operator, network: OperatorGraph) -> Rule:
    kernel = op.attributes.get("kernel_shape", ())
    size, layer = placement(op, kernel, network)
    if None in size:
        raise NoRule("the size of its input is not known")
    along = pooling.axes(size, kernel, ceil=bool(op.attributes.get("ceil_mode", 0)), **layer)
    norm = pooling.average_norm(along, count_padding=bool(op.attributes.get("count_include_pad", 0)))
    return Rule(norm, "exact")


def _global_average(op: Operator, network: OperatorGraph) -> Rule:
    shape = network.shape(op.inputs[0])
    size = spatial(op.inputs[0], len(shape) - 2 if shape else 0, network)
    if not size or None in size:
        raise NoRule("the size of its input is not known")
    return Rule(1 / math.sqrt(math.prod(n for n in size if n)), "exact")


def _softmax(op: Operator, network: OperatorGraph) -> Rule:
    """diag(p) - p p^T: by Gershgorin's circles at most max_i 2 p_i (1 - p_i) <= 1/2, attained at (1/2, 1/2)."""
    return Rule(0.5, "sharp: 1/2")


def _log_softmax(op: Operator, network: OperatorGraph) -> Rule:
    """I - 1 p^T is an oblique projection of norm sqrt(K) norm(p) <= sqrt(K), K >= 2 classes."""
    shape = network.shape(op.inputs[0])
    default = 1 if network.opset < 13 else -1
    axis = op.attributes.get("axis", default)
    group = shape[axis % len(shape) :] if shape and network.opset < 13 else (shape[axis],) if shape else (None,)
    if None in group:
        raise NoRule("the number of classes is not known")
    return Rule(math.sqrt(math.prod(n for n in group if n)), "sqrt(classes)")


RULES: dict[str, Function] = {
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_normalization,
    "LayerNormalization": _standardisation,
    "InstanceNormalization": _standardisation,
    "LRN": _lrn,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average,
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
}
