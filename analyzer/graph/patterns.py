"""Many layers asked for in one text: a list, "all" activations on the way to the scores, or what a pattern fits."""

import fnmatch
from collections.abc import Sequence
from pathlib import Path

from analyzer.errors import InputError
from analyzer.graph import walk
from analyzer.graph.index import Index
from analyzer.graph.layers import ACTIVATIONS, find_feature
from analyzer.graph.quantised import holds_values
from analyzer.graph.scores import RESHAPING

ALL = "all"
_GATES = frozenset({"Sigmoid", "HardSigmoid", "Clip", "Tanh"})


def expand(index: Index, asked: Sequence[str], scores: str, path: Path) -> list[str]:
    """The layers `asked` for: lists, "all" and patterns (`*`, `?`, `[...]`) replaced by the names they stand for.

    A text with commas is a list of names, unless it is itself the name of a tensor or a node. Where "all" or a pattern
    is among them, the result is in the order of the graph, each tensor once; else it is in the order asked for. The
    exact name of a tensor is never taken for a pattern. Raises InputError for a pattern that matches nothing, and for
    "all" where the graph has no activation.
    """
    asked = _split(index, asked)
    names: dict[str, None] = {}
    needed = _needed(index, scores)
    many = False
    for name in asked:
        if name in index.types or name in index.producer or not (name == ALL or set(name) & set("*?[")):
            names[_tensor(index, name)] = None
            continue
        many = True
        tensors = (
            _activations(index, needed, scores, path)
            if name == ALL
            else [tensor for tensor in needed if fnmatch.fnmatchcase(tensor, name)]
        )
        if not tensors:
            what = "finds no activation" if name == ALL else "matches no tensor before the scores"
            listed = ", ".join(needed[-5:]) or "none"
            raise InputError(f"{path}: `layers` {name!r:.120} {what}; name tensors or a pattern, e.g. {listed}")
        names.update(dict.fromkeys(tensors))
    place = {name: number for number, name in enumerate(needed)}
    return sorted(names, key=lambda name: place.get(name, len(place))) if many else list(asked)


def _split(index: Index, asked: Sequence[str]) -> list[str]:
    """One name each: a text that is not itself one is taken apart at its commas, blanks around them dropped."""
    nodes = {node.name for node in index.nodes if node.name}
    names: list[str] = []
    for text in asked:
        own = text in index.types or text in index.producer or text in nodes
        names += [text] if own else [part.strip() for part in text.split(",") if part.strip()]
    return names


def _tensor(index: Index, name: str) -> str:
    """The tensor of a node's own name, or `name`."""
    if name in index.types or name in index.producer:
        return name
    return next((node.output[0] for node in index.nodes if node.name == name and node.output), name)


def _needed(index: Index, scores: str) -> list[str]:
    """Float tensors that depend on the image and that the scores depend on, first to last, the scores left out."""
    needed = {scores}
    for node in reversed(index.nodes):
        if not needed.isdisjoint(node.output):
            needed.update(walk.reads(node))
    outputs = (name for node in index.nodes for name in node.output)
    same = {scores}  # the scores themselves, before a reshaping
    last = index.producer.get(scores)
    while last is not None and last.op_type in RESHAPING:
        same.add(last.input[0])
        last = index.producer.get(last.input[0])
    return [n for n in outputs if n in needed and n in index.live and n not in same and holds_values(index, n)]


def _activations(index: Index, needed: Sequence[str], scores: str, path: Path) -> list[str]:
    """The output of each activation operator, and the feature layer.

    Where an activation is a gate, that is, where its output only multiplies (as in Swish, HardSwish and Mish written
    out), the product is taken instead.
    """
    activations: set[str] = set()
    for name in needed:
        node = index.producer[name]
        if node.op_type not in ACTIVATIONS:
            continue
        readers = index.consumers.get(name, ())
        gate = node.op_type in _GATES and readers and all(reader.op_type == "Mul" for reader in readers)
        activations.update(output for reader in readers for output in reader.output) if gate else activations.add(name)
    if activations:
        activations.add(find_feature(index, scores, path))
    return [name for name in needed if name in activations]
