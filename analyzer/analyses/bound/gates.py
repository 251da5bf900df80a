"""Activations that exporters write as a product of a tensor with a function of itself: Swish, HardSwish, GELU, Mish.

A product of two tensors has no Lipschitz constant in general, but these have. The elementwise operators that lead to
the product are evaluated on numbers, and the result is compared with the known functions: how they are written does not
matter.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, expit

from analyzer.analyses.bound import pointwise
from analyzer.analyses.bound.base import Rule
from analyzer.graph.operators import Operator, OperatorGraph

Array = NDArray[np.float64]
_POINTS = np.linspace(-12.0, 12.0, 481)
_DEEP = 12  # operators of one such pattern
_CLOSE = 1e-5  # constants in the graph are float32

_ACTIVATIONS: tuple[tuple[str, float, Callable[[Array], Array]], ...] = (
    ("Swish", pointwise.SWISH, lambda x: x * expit(x)),
    ("HardSwish", pointwise.HARD_SWISH, lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    ("GELU", pointwise.GELU, lambda x: x * (1 + erf(x / np.sqrt(2))) / 2),
    ("GELU (tanh)", pointwise.GELU_TANH, lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2),
    ("GELU (sigmoid)", pointwise.SWISH, lambda x: x * expit(1.702 * x)),
    ("Mish", pointwise.MISH, lambda x: x * np.tanh(np.logaddexp(0, x))),
)

_ELEMENTWISE: dict[str, Callable[..., Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Pow": np.power,
    "Sigmoid": expit,
    "Tanh": np.tanh,
    "Erf": erf,
    "Softplus": lambda x: np.logaddexp(0, x),
    "Relu": lambda x: np.maximum(x, 0),
    "Identity": lambda x: x,
}


def recognise(op: Operator, network: OperatorGraph) -> Rule | None:
    """The rule of the activation whose last step is the product `op`, or None. Its base is the activation's input."""
    makers = {name: maker for maker in network.operators for name in maker.outputs}
    for base in _ancestors(op, makers, network):
        values = _evaluate(op.outputs[0], base, makers, network)
        if values is None:
            continue
        for name, norm, function in _ACTIVATIONS:
            exact = function(_POINTS)
            factor = float(values @ exact / (exact @ exact))
            if np.abs(values - factor * exact).max() <= _CLOSE * np.abs(values).max():
                times = "" if abs(factor - 1) < _CLOSE else f" times {factor:.4g}"
                return Rule(abs(factor) * norm, f"derivative of {name}{times}, from {base}", base=base)
    return None


def _ancestors(op: Operator, makers: dict[str, Operator], network: OperatorGraph) -> list[str]:
    """Tensors that `op` is made of by elementwise operators, the nearest first."""
    ancestors: dict[str, None] = {}
    waiting = [op]
    for maker in waiting:
        for name in maker.inputs:
            if name in network.live and name not in ancestors and len(ancestors) < 2 * _DEEP:
                ancestors[name] = None
                if name in makers and _is_elementwise(makers[name]):
                    waiting.append(makers[name])
    return list(ancestors)


def _is_elementwise(op: Operator) -> bool:
    return op.kind in _ELEMENTWISE or op.kind in ("Clip", "HardSigmoid")


def _evaluate(
    name: str, base: str, makers: dict[str, Operator], network: OperatorGraph, left: int = _DEEP
) -> Array | None:
    """The tensor as a function of `base` at `_POINTS`; None where it is no elementwise function of it."""
    if name == base:
        return _POINTS
    if name not in network.live:
        value = network.constant(name)
        return None if value is None or value.size != 1 else np.full_like(_POINTS, float(value.reshape(-1)[0]))
    op = makers.get(name)
    if op is None or left == 0 or not _is_elementwise(op):
        return None
    given = [_evaluate(entry, base, makers, network, left - 1) for entry in op.inputs if entry]
    inputs = [values for values in given if values is not None]
    if len(inputs) != len(given):
        return None
    if op.kind == "HardSigmoid":
        slope, offset = float(op.attributes.get("alpha", 0.2)), float(op.attributes.get("beta", 0.5))
        return np.clip(slope * inputs[0] + offset, 0, 1)
    if op.kind == "Clip":
        low, high = (op.attributes.get(k) for k in ("min", "max"))
        bounds = [value for entry, value in zip(op.inputs[1:], inputs[1:], strict=False) if entry]
        if len(op.inputs) == 3 and all(op.inputs):
            low, high = (float(b[0]) for b in bounds)
        return None if low is None or high is None else np.asarray(np.clip(inputs[0], low, high), np.float64)
    with np.errstate(all="ignore"):
        values = np.asarray(_ELEMENTWISE[op.kind](*inputs), np.float64)
    return values if np.isfinite(values).all() else None
