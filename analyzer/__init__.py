"""convnet-analyzer: how a trained ConvNet behaves in the immediate neighbourhood of an image.

    run(...)            measure one model on one image set, or continue
    open_run(path)      the labelled results of a run, an xarray.Dataset
    check_card(...)     the network under its card, and under the usual mistakes in one
    merge(path)         join what shards of a run have measured
    compare, drift, gate, claims, plan, verify      what the commands of these names do; return documents, print nothing
    Protocol            radii, trials, norm, ...
    measures            pure functions of arrays: measures.topology.mantel(...)
    perturbations       keyed noise and permutation families

Names are loaded when they are first used, so that `import analyzer` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analyzer import card, images, measures, perturbations, statistics
    from analyzer.store import open_run
    from analyzer.study import Protocol, merge, run
    from analyzer.summary import verify
    from analyzer.verdicts.check_card import check_card
    from analyzer.verdicts.claims import claims
    from analyzer.verdicts.compare import compare
    from analyzer.verdicts.drift import drift
    from analyzer.verdicts.gate import gate
    from analyzer.verdicts.plan import plan

__version__ = "0.1.0"
__all__ = [
    "Protocol",
    "card",
    "check_card",
    "claims",
    "compare",
    "drift",
    "gate",
    "images",
    "measures",
    "merge",
    "open_run",
    "perturbations",
    "plan",
    "run",
    "statistics",
    "verify",
]

_HOMES = {
    "Protocol": "analyzer.study",
    "check_card": "analyzer.verdicts.check_card",
    "claims": "analyzer.verdicts.claims",
    "compare": "analyzer.verdicts.compare",
    "drift": "analyzer.verdicts.drift",
    "gate": "analyzer.verdicts.gate",
    "merge": "analyzer.study",
    "open_run": "analyzer.store",
    "plan": "analyzer.verdicts.plan",
    "run": "analyzer.study",
    "verify": "analyzer.summary",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in __all__:
        return importlib.import_module(f"analyzer.{name}")
    raise AttributeError(f"module 'analyzer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
