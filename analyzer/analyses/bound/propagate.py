"""From the rules of single operators to a bound of each tensor: how far it can move when the input moves by 1."""

import math
from collections.abc import Callable
from typing import NamedTuple

from analyzer.analyses.bound import layers, pointwise, structure
from analyzer.analyses.bound.base import ROOT, Function, NoRule, Rule, live_inputs
from analyzer.analyses.bound.power import PowerIteration
from analyzer.graph.operators import Operator, OperatorGraph

RULES: dict[str, Function] = {**pointwise.RULES, **layers.RULES, **structure.RULES}
_SEVERAL_OUTPUTS = frozenset({"Split"})


class Step(NamedTuple):
    """One operator. norm: its own Lipschitz constant, at most; bound: from the network's input to its output.

    Both are None where there is none. how: where the norm comes from, or why there is none. estimate: of the norm, from
    below.
    """

    operator: Operator
    norm: float | None
    bound: float | None
    how: str
    estimate: PowerIteration | None


class Bounds(NamedTuple):
    """Every step in order, the bound of each tensor, and for a tensor without one the operator that is to blame."""

    steps: tuple[Step, ...]
    tensors: dict[str, float]
    blame: dict[str, Step]


def propagate(
    network: OperatorGraph,
    *,
    estimate: Callable[[Operator, OperatorGraph], PowerIteration | None] = lambda op, network: None,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Bounds:
    """Upper bounds of the L2 Lipschitz constant from the network's input to each tensor.

    The input has the bound 1, a constant 0. An operator of norm c turns a bound b into c b. Where tensors add up, their
    bounds do; where they stand side by side, the squares of their bounds add up. Behind an operator without a rule
    there is no bound. estimate: norms from below, for show only. tick: called with the operators done and all.
    """
    bounds = {network.input: 1.0}
    blame: dict[str, Step] = {}
    steps = []
    for number, op in enumerate(network.operators):
        step, origin = _step(op, network, bounds, blame, estimate)
        steps.append(step)
        for place, name in enumerate(op.outputs):
            if place > 0 and op.kind not in _SEVERAL_OUTPUTS:
                blame[name] = step._replace(how="only its first output has a rule")
            elif step.bound is None:
                blame[name] = origin or step
            else:
                bounds[name] = step.bound
        tick(number + 1, len(network.operators))
    return Bounds(tuple(steps), bounds, blame)


def _step(
    op: Operator,
    network: OperatorGraph,
    bounds: dict[str, float],
    blame: dict[str, Step],
    estimate: Callable[[Operator, OperatorGraph], PowerIteration | None],
) -> tuple[Step, Step | None]:
    """The step, and the earlier step that is to blame where an input has no bound."""
    try:
        rule = find(op, network)
    except NoRule as e:
        origin = next((blame[name] for name in live_inputs(op, network) if name in blame), None)
        return Step(op, None, None, str(e), None), origin
    sources = [rule.base] if rule.base is not None else live_inputs(op, network)
    bound = None
    if all(name in bounds for name in sources):
        entering = [bounds[name] for name in sources]
        merged = math.sqrt(sum(b * b for b in entering)) if rule.merge == ROOT else sum(entering)
        bound = rule.norm * merged
    origin = next((blame[name] for name in sources if name in blame), None)
    step = Step(op, rule.norm, bound, rule.how, estimate(op, network))
    if bound is not None and not math.isfinite(bound):
        step = step._replace(bound=None)
        origin = step._replace(how="the product up to here is beyond float64")
    return step, origin


def find(op: Operator, network: OperatorGraph) -> Rule:
    """The rule of `op` where it stands. Raises NoRule saying why there is none."""
    if op.kind not in RULES:
        raise NoRule("no rule for this operator")
    try:
        rule = RULES[op.kind](op, network)
    except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError) as e:
        raise NoRule(f"its attributes or shapes do not fit together ({type(e).__name__})") from e
    if not math.isfinite(rule.norm):
        raise NoRule("its norm is beyond float64")
    return rule
