"""THE onnx place: reading models as untrusted input, finding scores and feature layer, and rebuilding the graph."""

from analyzer.graph.check import check
from analyzer.graph.compose import composed, tapped
from analyzer.graph.describe import Description, describe, draft_card, first_operators, metadata, tensor_names
from analyzer.graph.files import files_of, sha256
from analyzer.graph.prepare import Prepared, prepare
from analyzer.graph.reduce import reduced

__all__ = [
    "Description",
    "Prepared",
    "check",
    "composed",
    "describe",
    "draft_card",
    "files_of",
    "first_operators",
    "metadata",
    "prepare",
    "reduced",
    "sha256",
    "tapped",
    "tensor_names",
]
