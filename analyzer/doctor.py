"""What this installation can do, and whether its own arithmetic gives the answers known in advance."""

from typing import TypedDict

import numpy as np

from analyzer import bundled, graph, session
from analyzer import card as cards
from analyzer.errors import AnalyzerError
from analyzer.measures import geometry, topology
from analyzer.perturbations import random_words
from analyzer.session import runtime
from analyzer.statistics import reference_mantel
from analyzer.study import provenance

# Philox4x64-10 of key 0, counter 1: the first output of numpy's stream, the same on every machine.
PHILOX_FIRST = 0x2F4BA6408E4D89B


class Check(TypedDict):
    """A check of the installation's own arithmetic or files."""

    name: str
    passed: bool
    detail: str


class Examination(TypedDict):
    """What this installation is and can do."""

    versions: dict[str, str]
    runtimes: list[runtime.Wheel]
    providers: list[session.ProviderStatus]
    checks: list[Check]


def examine() -> Examination:
    """Versions, providers that really work, and checks."""
    checks = [_philox(), _mantel(), _bundled()]
    try:
        providers = session.available()
    except AnalyzerError as e:
        providers = []
        checks.append({"name": "onnxruntime", "passed": False, "detail": str(e)})
    return {
        "versions": provenance.versions(),
        "runtimes": runtime.wheels(),
        "providers": providers,
        "checks": checks,
    }


def _philox() -> Check:
    first = int(random_words(0, 1)[0])
    return {
        "name": "random stream",
        "passed": first == PHILOX_FIRST,
        "detail": f"first Philox word {first:#018x}, expected {PHILOX_FIRST:#018x}",
    }


def _mantel() -> Check:
    points = random_words(1, 40 * 8).astype(np.float64).reshape(2, 40, 4) / 2.0**64
    x, y = (geometry.distances(geometry.centred_gram(p)) for p in points)
    r, p = topology.mantel(x, y, permutations=999, key=2)
    reference_r, reference_p = reference_mantel(x, y, permutations=999)
    difference = abs(float(r) - reference_r)
    return {
        "name": "Mantel test against scikit-bio",
        "passed": difference < 1e-9 and abs(float(p) - reference_p) < 0.1,
        "detail": f"r differs by {difference:.1e}; p {float(p):.3f}, scikit-bio {reference_p:.3f} (other permutations)",
    }


def _bundled() -> Check:
    try:
        folder = bundled.folder()
        for name in bundled.NETWORKS:
            expected = cards.read(folder / f"{name}.json").source["sha256"]
            if graph.sha256(folder / f"{name}.onnx") != expected:
                return {
                    "name": "bundled networks",
                    "passed": False,
                    "detail": f"{name}.onnx is not its card's",
                }
        return {"name": "bundled networks", "passed": True, "detail": str(folder)}
    except AnalyzerError as e:
        return {"name": "bundled networks", "passed": False, "detail": str(e)}
