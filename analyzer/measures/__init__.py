"""The measures: pure functions of arrays, usable without ONNX. `REGISTRY` lists those that a run can take."""

from analyzer.measures import geometry, isotropy, lipschitz, scores, symmetry, topology
from analyzer.measures.base import Measure, Neighbourhood, Variable

REGISTRY: dict[str, Measure] = {
    "isotropy": isotropy,
    "symmetry": symmetry,
    "topology": topology,
    "lipschitz": lipschitz,
}

__all__ = [
    "REGISTRY",
    "Measure",
    "Neighbourhood",
    "Variable",
    "geometry",
    "isotropy",
    "lipschitz",
    "scores",
    "symmetry",
    "topology",
]
