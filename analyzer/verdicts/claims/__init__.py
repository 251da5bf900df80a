"""The paper's four claims, put to the test on one run: the figure that decides each, its interval, and a verdict.

(1) isotropic at epsilon, not at radius 1 and beyond (section 2.1); (2) not symmetric (2.2); (3) |Mantel r| below 0.1
already at epsilon (2.3); (4) L_x below 1 for most perturbations, although the global Lipschitz bound is above 1 (2.4).
Epsilon is the run's smallest radius, below 1 grey level. Claims about features are about the layer just before the
classification.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from analyzer.store import Run
from analyzer.verdicts.claims.judging import Claim, feature_layer, judge

__all__ = ["Claim", "ClaimDocument", "ClaimsDocument", "claims", "feature_layer", "judge", "to_document"]


class ClaimDocument(TypedDict):
    """A claim as JSON; figures: name -> value, low, high, n."""

    number: int
    claim: str
    figures: dict[str, dict[str, float]]
    verdict: str
    reason: str


class ClaimsDocument(TypedDict):
    """The claims on a run of which so many images are finished."""

    run: str
    finished: int
    selected: int
    claims: list[ClaimDocument]


def claims(run: Path, *, model: Path | None = None, card: Path | None = None) -> ClaimsDocument:
    """Put the paper's four claims to the test on a run, also on one that is not complete. Prints nothing.

    Args:
        run: the run directory.
        model: the run's model, to compute the global Lipschitz bound of claim (4), which takes its time.
        card: its card, if not the one beside it.

    Returns:
        For each claim its text, the figures behind the verdict with intervals, the verdict and why.

    Raises:
        InputError: there is no run, or a model or card that cannot be used.
        UsageError: another model or card than the run's.
        IncompleteError: the run is damaged.

    Example:
        >>> [claim["verdict"] for claim in claims(Path("runs/a"))["claims"]]  # doctest: +SKIP
    """
    reader = Run(run)
    state = reader.state
    if state.written:
        reader.check_results()
    with reader.open() as dataset:
        bound, no_bound = None, "was not computed (give `model`)"
        if model is not None:
            from analyzer.analyses.bound import bound as global_bound

            layer = feature_layer(dataset)
            document = global_bound(model, card=card, run=run, layers=(layer,), iterations=0)
            (entry,) = (each for each in document["bounds"] if each["what"] == "layer")
            bound, no_bound = entry["bound_normalised"], f"is unavailable: {entry['reason'] or 'no range'}"
        judged = judge(dataset, bound=bound, no_bound=no_bound)
    return {
        "run": str(run),
        "finished": state.finished,
        "selected": state.selected,
        "claims": to_document(judged),
    }


def to_document(judged: Sequence[Claim]) -> list[ClaimDocument]:
    """The claims as JSON: number, claim, figures (name -> value, low, high, n), verdict, reason."""
    return [
        {
            "number": claim.number,
            "claim": claim.claim,
            "figures": {figure.name: figure.estimate._asdict() for figure in claim.figures},
            "verdict": claim.verdict,
            "reason": claim.reason,
        }
        for claim in judged
    ]
