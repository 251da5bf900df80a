"""Global Lipschitz bound of a network from its graph (Szegedy et al. 2014, section 4.3; section 2.4 of the paper).

An upper bound of norm(Phi(x) - Phi(y)) / norm(x - y), L2, over all x and y: each operator's own constant, composed
along the graph. It holds in exact arithmetic. Norms of weights are certified upper bounds (see `spectral`).

base         what a rule is
pointwise, layers, structure, gates, windows    the rules, by kind of operator
spectral     certified norms of matrices and convolutions
propagate    from rules to a bound of each tensor
power        power iteration, a check from below
local        a run's sampled ratios, to stand beside
documents    the result as a document
sentences    the result in words
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from analyzer import card as cards
from analyzer import graph
from analyzer.analyses.bound import local, power
from analyzer.analyses.bound.documents import BoundDocument, document
from analyzer.analyses.bound.propagate import propagate
from analyzer.errors import UsageError
from analyzer.graph.operators import operators
from analyzer.store.files import plain, to_json, write_asked_for

FILE = "bound.json"
"""In the run's directory."""


def bound(
    model: Path,
    *,
    card: Path | None = None,
    run: Path | None = None,
    layers: Sequence[str] = (),
    iterations: int = 50,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> BoundDocument:
    """Bound how far a network's features and scores can move, in L2, when its input moves by 1.

    Args:
        model: the ONNX file.
        card: its card; beside the model if None.
        run: a run of this model. Its layers, ranges and local ratios are shown beside the bound, which is kept there as
            bound.json, for its report.
        layers: tensors to bound, besides the scores. Without any, those of `run`, or the card's feature layer.
        iterations: of the power iteration that is shown beside the certified norm of each convolution; 0 for none.
        tick: called with the operators done and all.

    Returns:
        A document with a row for each operator and one for each target. Bounds are in units of the target, once per
        unit of the normalised input, once per grey level of the pixels; None where an operator has none.

    Raises:
        InputError: the model, its card or a layer cannot be used.
        UsageError: `run` is of another model or card.
        IncompleteError: `run` has no finished image yet.

    >>> from analyzer import bundled
    >>> document = bound(bundled.folder() / "gtsrb_ciresan2012.onnx", iterations=0)
    >>> for row in document["bounds"]:
    ...     print(row["what"], f"{row['bound_per_grey_level']:.3g}")
    layer 5.58
    scores 15.8
    """
    card_path = cards.locate(model, card)
    graph.check(model)
    model_card = cards.read(card_path)
    sampled = local.read(run, model=model, card=card_path) if run is not None else None
    network = operators(model, card=model_card, layers=layers or (sampled.layers if sampled else ()))
    bounds = propagate(
        network,
        estimate=lambda op, network: power.of_convolution(op, network, iterations=iterations),
        tick=tick,
    )
    found = document(bounds, network, model=model.name, smallest_std=min(model_card.std), sampled=sampled)
    if run is not None:
        try:
            write_asked_for(run / FILE, (to_json(plain(found), indent=1) + "\n").encode(), parameter="run")
        except UsageError as e:  # a run that may be read only
            found["notes"].append(f"Not kept for the report: {e}.")
    return found
