"""The cards that come with the package, in models/: of networks that are found elsewhere."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from analyzer import bundled, graph
from analyzer.drafting.found import Found
from analyzer.errors import UsageError


class Known(NamedTuple):
    """What a file is told by: its SHA-256, and its number of weights."""

    model: Path
    sha256: str
    parameters: int


def by_hash(known: Known) -> Iterator[Found]:
    """What a card says whose `source.sha256` is that of this very file."""
    for path, card in _cards():
        if card.get("source", {}).get("sha256") == known.sha256:
            yield _found(card, f"the card {path.name} of this very file", name=True)


def by_names(known: Known) -> Iterator[Found]:
    """What the ONNX Model Zoo's card says whose tensors and number of weights a graph has; nothing where two differ."""
    zoo = [(path, card) for path, card in _cards() if card.get("source", {}).get("parameters") == known.parameters]
    names = graph.tensor_names(known.model) if zoo else set()
    fitting = [(path, card) for path, card in zoo if _names(card) <= names]
    if fitting and all(_said(card) == _said(fitting[0][1]) for _, card in fitting):
        path, card = fitting[0]
        found = _found(
            card, f"the card {path.name} of the ONNX Model Zoo, by the names of its tensors and its size", name=False
        )
        found.notes.append("a network of these names that was trained otherwise would have another card")
        yield found


def _cards() -> Iterator[tuple[Path, dict[str, Any]]]:
    try:
        folder = bundled.folder()
    except UsageError:  # an installation without them
        return
    for path in sorted([*folder.glob("*.json"), *(folder / "zoo").glob("*.json")]):
        yield path, json.loads(path.read_text(encoding="utf-8"))


def _names(card: dict[str, Any]) -> set[str]:
    return {card[part]["name"] for part in ("input", "output", "feature") if "name" in card.get(part, {})}


def _said(card: dict[str, Any]) -> tuple[Any, Any]:
    return card["input"], {**card["output"], "labels": None}


def _found(card: dict[str, Any], origin: str, *, name: bool) -> Found:
    """name: whether the names of its output and labels are this network's too."""
    inside = {key: value for key, value in card["input"].items() if key != "name"}
    output = {key: value for key, value in card["output"].items() if name or key not in ("name", "labels")}
    return Found(origin, inside, output)
