"""Preprocessing that a graph does itself, right after its input: nothing of it is the card's to say."""

from collections.abc import Iterator
from pathlib import Path

from analyzer import graph
from analyzer.drafting.found import Found

_ARITHMETIC = {"Sub", "Add", "Div", "Mul", "BatchNormalization"}
_BEFORE = _ARITHMETIC | {"Cast", "Transpose", "Identity", "Resize", "Reshape", "Gather", "Concat", "Split", "Slice"}
_MOST = 12  # operators that are looked at


def preprocessing_inside(model: Path, *, channels: int) -> Iterator[Found]:
    """That mean and std are inside the graph, where arithmetic with constants comes before the first convolution."""
    seen = graph.first_operators(model, most=_MOST)
    before = []
    for operator in seen:
        if operator not in _BEFORE:
            break
        before.append(operator)
    if not _ARITHMETIC & {*before} or len(before) == len(seen):
        return
    found = Found("the graph itself", {"mean": [0.0] * channels, "std": [1.0] * channels})
    listed = ", ".join(before)
    found.notes.append(f"the graph begins with {listed}: mean 0 and std 1 are right if that is its normalisation")
    if "Resize" in before:
        found.notes.append("the graph resizes its input itself")
    yield found
