"""Where the nodes of a graph really run."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from analyzer.graph.work import HEAVY
from analyzer.session.interface import InferenceSession

CPU = "CPUExecutionProvider"
# Arithmetic on shapes and indices belongs on the CPU whatever the provider.
_SHAPE_WORK = frozenset(
    {"Shape", "Size", "Gather", "Concat", "Slice", "Squeeze", "Unsqueeze", "Cast", "Constant", "ConstantOfShape"}
    | {"Reshape", "Range", "Add", "Sub", "Mul", "Div", "Mod", "Floor", "Ceil", "Equal", "Where", "Identity", "Less"}
    | {"Greater", "ReduceProd", "ReduceMax", "ReduceMin", "Expand", "Split", "Transpose", "NonZero", "ScatterND"}
)


class Placed(NamedTuple):
    """A node and the full name of the provider that runs it."""

    provider: str
    operator: str
    node: str


def placement(session: InferenceSession) -> list[Placed] | None:
    """Every node of a session; None where this runtime does not tell."""
    try:
        assigned = session.get_provider_graph_assignment_info()
    except (AttributeError, RuntimeError):
        return None
    return [Placed(part.ep_name, node.op_type, node.name) for part in assigned for node in part.get_nodes()]


def shares(nodes: Sequence[Placed] | None, work: Mapping[str, int]) -> dict[str, float]:
    """Provider -> its part of the work, 0..1; empty where the runtime does not tell.

    work: node -> multiply-adds (`Prepared.work`). Where no node of the graph is among them, each convolution and matrix
    product counts the same, and where there is none of these, each node.
    """
    if not nodes:
        return {}
    weights = [_work_of(placed.node, work) for placed in nodes]
    if not any(weights):
        heavy = [placed.operator in HEAVY for placed in nodes]
        weights = [int(one) for one in heavy] if any(heavy) else [1] * len(nodes)
    sums = Counter[str]()
    for placed, weight in zip(nodes, weights, strict=True):
        sums[placed.provider] += weight
    total = math.fsum(sums.values())
    return {provider: count / total for provider, count in sums.items()}


def _work_of(node: str, work: Mapping[str, int]) -> int:
    """The runtime names what it fuses after the first node, as in fc/MatMulAddFusion."""
    return work.get(node, 0) or work.get(node.rpartition("/")[0], 0)


def left_on_cpu(nodes: Sequence[Placed]) -> str:
    """What the CPU runs beside arithmetic on shapes, as in "2 MaxPool, 1 Resize"; empty where nothing."""
    left = Counter(placed.operator for placed in nodes if placed.provider == CPU and placed.operator not in _SHAPE_WORK)
    return ", ".join(f"{count} {operator}" for operator, count in sorted(left.items()))
