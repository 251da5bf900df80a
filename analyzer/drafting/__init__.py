"""Cards from what people have: the graph, what is written inside or beside the model, and what is still a guess.

    sources     one function for each kind of document: timm, torchvision, Keras, Ultralytics, OpenVINO, ...
    huggingface Hugging Face's two
    found       what they have in common
    known       the cards in models/
    inside      preprocessing that the graph does itself

Sources are asked in one order; of two that say something about a field the first is believed, and the other named where
it says something else. Nothing is downloaded.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from analyzer import graph
from analyzer.document import CardDocument
from analyzer.drafting.found import Found
from analyzer.drafting.inside import preprocessing_inside
from analyzer.drafting.known import Known, by_hash, by_names
from analyzer.drafting.sources import FILES, KERAS, classifies, of_document, of_keras, of_metadata, of_openvino
from analyzer.errors import InputError, UsageError

__all__ = ["Draft", "draft"]

_LARGEST = 64 * 2**20  # bytes of a document
_GUESSES = {  # what `graph.draft_card` calls a guess, by the field that settles it
    "mean and std": ("mean",),
    "the graph leaves the size open": ("size",),
    "RGB is a guess": ("channels",),
    "resize and its interpolation": ("resize",),
    "output.kind is a guess": ("kind",),
    "add output.name": ("name",),
    "output.name is a guess": ("name",),
}


class Draft(NamedTuple):
    """A card's document, and for each field that is no guess where it is from, in the order of the card."""

    document: CardDocument
    origins: dict[str, str]


def draft(model: Path, *, source: str | None = None) -> Draft:
    """A card for a model from the graph and from what lies in or beside it.

    Args:
        model: The .onnx file.
        source: A document that is asked first: its path, or keras:caffe, keras:tf, keras:torch.

    Raises:
        InputError: The model is none, or has no image input.
        UsageError: `source` is not there, or nothing that is known.
    """
    metadata, description = graph.metadata(model), graph.describe(model)
    document: dict[str, Any] = {**graph.draft_card(model, classes=classifies(metadata), description=description)}
    known = Known(model, document["source"]["sha256"], description.parameters)
    todo = list(document["source"]["fill_in"])
    origins: dict[str, str] = {}
    for found in _found(known, metadata, source, channels=len(document["input"]["mean"])):
        for part, values in (("input", found.input), ("output", found.output)):
            for field, value in values.items():
                name = f"{part}.{field}"
                if name not in origins:
                    origins[name] = found.origin
                    document[part] = {**document[part], field: value}
                elif document[part][field] != value:
                    todo.append(f"{name} is from {origins[name]}; {found.origin} says {json.dumps(value):.80}")
        todo += [f"{note} ({found.origin})" for note in found.notes if f"{note} ({found.origin})" not in todo]
    settled = {name.partition(".")[2] for name in origins}
    document["source"] = {
        **document["source"],
        "from": origins,
        "fill_in": [item for item in todo if not _settles(item, settled)],
    }
    if len(document["input"]["mean"]) != {"L": 1}.get(document["input"]["channels"], 3):
        raise InputError(f"{model}: {origins.get('input.mean', 'mean')} has another number of channels than the graph")
    return Draft(document, origins)  # type: ignore[arg-type]


def _settles(item: str, settled: set[str]) -> bool:
    """Whether what was a guess is known now."""
    return any(item.startswith(start) and set(fields) <= settled for start, fields in _GUESSES.items())


def _found(known: Known, metadata: Mapping[str, str], source: str | None, *, channels: int) -> Iterator[Found]:
    """What each source says, the one that was named first."""
    model = known.model
    if source is not None:
        yield _named(source)
    yield from by_hash(known)
    yield from of_metadata(metadata)
    for name in FILES:
        path = model.parent / name
        if path.is_file() and (found := of_document(_document(path), path.name)) is not None:
            yield found
    twin = model.with_suffix(".xml")
    if twin.is_file():
        yield from of_openvino(_text(twin), twin.name)
    yield from by_names(known)
    yield from preprocessing_inside(model, channels=channels)


def _named(source: str) -> Found:
    kind, colon, mode = source.partition(":")
    if colon and kind == "keras":
        if mode not in KERAS:
            raise UsageError(f"`from` {source}: expected keras:{', keras:'.join(KERAS)}")
        return of_keras(mode)
    path = Path(source)
    if not path.is_file():
        raise UsageError(f"`from` {source}: no such file; give a document, or keras:caffe, keras:tf, keras:torch")
    if path.suffix.lower() == ".xml":
        if not (inside := of_openvino(_text(path), path.name)):
            raise UsageError(f"`from` {source}: no OpenVINO model with rt_info")
        return inside[0]
    found = of_document(_document(path), path.name)
    if found is None:
        raise UsageError(
            f"`from` {source}: nothing that is known: expected a card, or the preprocessing of Hugging Face, timm or "
            "torchvision as JSON"
        )
    return found


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(_text(path))
    except (ValueError, RecursionError) as e:
        raise InputError(f"{path}: cannot be read as JSON: {e}") from e
    return document if isinstance(document, dict) else {}


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path}: larger than {_LARGEST} bytes, which is no configuration")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f"{path}: cannot be read: {e}") from e
