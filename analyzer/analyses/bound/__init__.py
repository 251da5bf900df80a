"""Global Lipschitz bound of a network from its graph (Szegedy et al. 2014, section 4.3; section 2.4 of the paper).

An upper bound of norm(Phi(x) - Phi(y)) / norm(x - y), L2, over all x and y: each operator's own constant, composed
along the graph. It holds in exact arithmetic; norms of weights are certified (see `spectral`), not iterated from below.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analyzer import card as cards
from analyzer import graph
from analyzer.analyses.bound import local
from analyzer.analyses.bound.base import NoRule, placement
from analyzer.analyses.bound.power import Estimate, iterate
from analyzer.analyses.bound.propagate import Bounds, Step, propagate
from analyzer.graph.operators import Operator, OperatorGraph, operators
from analyzer.graph.single import convolution_and_transpose
from analyzer.session.single import as_function

SCHEMA = 1
CERTIFIED = (
    "Norms of weights are certified upper bounds: a convolution's from its spectrum on a grid of frequencies, with "
    "what the grid may miss added, a matrix's by Cholesky factorisation. Power iteration at the layer's real input "
    "size comes from below and is shown as a check only."
)
CAVEAT = (
    "A product of worst cases that never occur together: usually larger by many orders of magnitude than what any "
    "perturbation does. It holds everywhere; the sampled ratios, where they were measured."
)


def bound(
    model: Path,
    *,
    card: Path | None = None,
    run: Path | None = None,
    layers: Sequence[str] = (),
    iterations: int = 50,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """The bound document of `model`, from its input and from pixels to the feature layer and to the scores.

    layers: instead of the card's feature. run: a run of this model, whose layers, ranges and local ratios are shown
    beside. iterations: of the power iteration on each convolution, shown beside its certified norm; 0 for none.
    Raises InputError for a model or card that cannot be used, UsageError for a run of another model.
    """
    card_path = cards.locate(model, card)
    graph.check(model)
    the_card = cards.read(card_path)
    around = local.read(run, model=model, card=card_path) if run is not None else None
    network = operators(model, card=the_card, layers=layers or (around.layers if around else ()))
    found = propagate(
        network, estimate=lambda op, network: power_iteration(op, network, iterations=iterations), tick=tick
    )
    smallest = min(the_card.std)
    targets = [("layer", name, tensor) for name, tensor in network.layers]
    targets.append(("scores", network.scores, network.scores))
    return {
        "schema": SCHEMA,
        "model": model.name,
        "input": network.input,
        "smallest_std": smallest,
        "operators": [_row(step) for step in found.steps],
        "bounds": [_target(*target, found, smallest, around) for target in targets],
        "missing": [
            {"name": s.operator.name, "operator": s.operator.kind, "reason": s.how}
            for s in found.steps
            if s.norm is None
        ],
        "notes": [*network.notes, CERTIFIED, CAVEAT],
    }


def power_iteration(op: Operator, network: OperatorGraph, *, iterations: int = 50) -> Estimate | None:
    """Power iteration on a Conv at its real input size, through the runtime; None for anything else."""
    if op.kind != "Conv" or iterations < 1 or op.inputs[0] not in network.live or op.inputs[1] in network.live:
        return None
    weights = network.constant(op.inputs[1])
    if weights is None:
        return None
    try:
        size, layer = placement(op, weights.shape[2:], network)
    except NoRule:
        return None
    known = [extent for extent in size if extent is not None]
    if len(known) != len(size):
        return None
    group = op.attributes.get("group", 1)
    source = f"Conv {op.name!r:.80}"
    single = convolution_and_transpose(weights.astype(np.float32), known, group=group, source=source, **layer)
    shape = (1, weights.shape[1] * group, *known)
    return iterate(as_function(single), shape, iterations=iterations)


def _row(step: Step) -> dict[str, Any]:
    return {
        "name": step.operator.name,
        "operator": step.operator.kind,
        "output": step.operator.outputs[0],
        "norm": step.norm,
        "estimate": step.estimate._asdict() if step.estimate is not None else None,
        "how": step.how,
        "bound": step.bound,
    }


def _target(
    what: str, name: str, tensor: str, found: Bounds, smallest: float, around: local.Local | None
) -> dict[str, Any]:
    """One result: bound per unit of the normalised input, per grey level, and by the ranges of a run."""
    value = found.tensors.get(tensor)
    per_grey_level = None if value is None else value / smallest
    made: dict[str, Any] = {
        "what": what,
        "tensor": name,
        "bound": value,
        "bound_per_grey_level": per_grey_level,
        "reason": None,
    }
    if value is None:
        step = found.blame[tensor]
        made["reason"] = f"{step.operator.kind} ({step.operator.name}): {step.how}"
    if around is not None and what == "layer":
        width = around.feature_range.get(name)
        made["bound_normalised"] = None
        if per_grey_level is not None and width and around.input_range:
            made["bound_normalised"] = per_grey_level * around.input_range / width
        made["local"] = around.numbers.get(name, {})
    return made
