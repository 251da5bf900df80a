"""What this installation can do, and whether its own arithmetic gives the answers known in advance."""

from typing import Any

import numpy as np

from analyzer import bundled, session, store, study
from analyzer.errors import AnalyzerError
from analyzer.measures import geometry, topology
from analyzer.perturbations import random_words
from analyzer.statistics import reference_mantel

# Philox4x64-10 of key 0, counter 1: the first output of numpy's stream, the same on every machine.
PHILOX_FIRST = 0x2F4BA6408E4D89B


def examine() -> dict[str, Any]:
    """Versions, providers (see `session.available`) and checks, each {"name", "passed", "detail"}."""
    checks = [_philox(), _mantel(), _bundled()]
    try:
        providers = session.available()
    except AnalyzerError as e:
        providers = []
        checks.append({"name": "onnxruntime", "passed": False, "detail": str(e)})
    return {"versions": study.versions(), "providers": providers, "checks": checks, "run_schema": store.SCHEMA}


def _philox() -> dict[str, Any]:
    first = int(random_words(0, 1)[0])
    return {
        "name": "random stream",
        "passed": first == PHILOX_FIRST,
        "detail": f"first Philox word {first:#018x}, expected {PHILOX_FIRST:#018x}",
    }


def _mantel() -> dict[str, Any]:
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


def _bundled() -> dict[str, Any]:
    try:
        return {"name": "bundled networks", "passed": True, "detail": str(bundled.folder())}
    except AnalyzerError as e:
        return {"name": "bundled networks", "passed": False, "detail": str(e)}
