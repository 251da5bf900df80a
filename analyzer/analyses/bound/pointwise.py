"""Lipschitz constants of functions that act on each element alone: the largest absolute derivative."""

import math

import numpy as np

from analyzer.analyses.bound.base import Function, NoRule, Rule, constant, only_first
from analyzer.graph.operators import Operator, OperatorGraph

FLOATS = (1, 10, 11, 16)  # ONNX's numbers of float32, float16, float64 and bfloat16

GELU = 0.5 * (1 + math.erf(1.0)) + math.exp(-1.0) / math.sqrt(math.pi)  # x Phi(x): its derivative is largest at sqrt(2)
GELU_TANH = 1.1290  # x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2: its derivative's maximum, rounded up
SWISH = 1.0999  # x sigmoid(x): 1.09984, at x = 2.3994
MISH = 1.0885  # x tanh(softplus(x)): 1.08846..., rounded up
HARD_SWISH = 1.5  # x clip(x / 6 + 1 / 2, 0, 1): the derivative (2 x + 3) / 6 at x = 3
SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875

_FIXED = {
    "Relu": 1.0,
    "Tanh": 1.0,
    "Sigmoid": 0.25,
    "Softplus": 1.0,
    "Softsign": 1.0,
    "Clip": 1.0,
    "Abs": 1.0,
    "Neg": 1.0,
    "Sin": 1.0,
    "Cos": 1.0,
    "Erf": 2 / math.sqrt(math.pi),
    "Swish": SWISH,
    "Mish": MISH,
    "HardSwish": HARD_SWISH,
    "Identity": 1.0,
}


def _fixed(op: Operator, network: OperatorGraph) -> Rule:
    only_first(op, network)
    return Rule(_FIXED[op.kind], "derivative")


def _leaky(op: Operator, network: OperatorGraph) -> Rule:
    return Rule(max(1.0, abs(op.attributes.get("alpha", 0.01))), "derivative")


def _prelu(op: Operator, network: OperatorGraph) -> Rule:
    only_first(op, network)
    slope = constant(op, 1, network, "slopes")
    return Rule(max(1.0, float(np.abs(slope).max())), "derivative")


def _elu(op: Operator, network: OperatorGraph) -> Rule:
    return Rule(max(1.0, abs(op.attributes.get("alpha", 1.0))), "derivative")


def _celu(op: Operator, network: OperatorGraph) -> Rule:
    if op.attributes.get("alpha", 1.0) <= 0:
        raise NoRule("its alpha is not above 0")
    return Rule(1.0, "derivative")


def _selu(op: Operator, network: OperatorGraph) -> Rule:
    alpha, gamma = op.attributes.get("alpha", SELU_ALPHA), op.attributes.get("gamma", SELU_GAMMA)
    return Rule(abs(gamma) * max(1.0, abs(alpha)), "derivative")


def _hard_sigmoid(op: Operator, network: OperatorGraph) -> Rule:
    return Rule(abs(op.attributes.get("alpha", 0.2)), "derivative")


def _gelu(op: Operator, network: OperatorGraph) -> Rule:
    return Rule(GELU_TANH if op.attributes.get("approximate", "none") == "tanh" else GELU, "derivative")


def _cast(op: Operator, network: OperatorGraph) -> Rule:
    if op.attributes.get("to") not in FLOATS:
        raise NoRule("it rounds to whole numbers")
    return Rule(1.0, "keeps values")


RULES: dict[str, Function] = {
    **dict.fromkeys(_FIXED, _fixed),
    "Celu": _celu,
    "LeakyRelu": _leaky,
    "PRelu": _prelu,
    "Elu": _elu,
    "Selu": _selu,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "com.microsoft:Gelu": _gelu,
    "Cast": _cast,
}
