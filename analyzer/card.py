"""The model card: how 0..255 pixels become the model's input, and what its outputs mean.

A card is a JSON file beside the model (``NAME.onnx`` and ``NAME.json``). Unknown keys and wrong types are
errors that name the key, so that a misspelt ``mean`` never silently becomes a default.
"""

import dataclasses
import hashlib
import json
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analyzer import resize as resizing
from analyzer.document import (
    CardDocument,
    InputDocument,
    Keys,
    OutputDocument,
    is_finite,
    refuse_beyond,
    refuse_repeated_keys,
    refuse_unit_range,
)
from analyzer.errors import InputError, UsageError
from analyzer.resize import INTERPOLATIONS, Resize

__all__ = [
    "CHANNELS",
    "INTERPOLATIONS",
    "Card",
    "Resize",
    "beside",
    "digest",
    "locate",
    "parse",
    "read",
    "to_document",
    "write",
]

CHANNELS = {"RGB": 3, "BGR": 3, "L": 1}
_RANGE = (1e-6, 1e6)
"""Sizes of mean and std, grey levels: beyond, float32 pixels overflow or vanish."""
EMBEDDING = "embedding"
"""The kind of an output that holds no scores of classes."""
KINDS = ("logits", "probabilities", "sigmoid", EMBEDDING)


@dataclasses.dataclass(frozen=True)
class Card:
    """A validated card.

    layout: "NCHW" or "NHWC". size: (height, width) of the input, in pixels. channels: "RGB", "BGR" or "L".
    mean, std: one number a channel, in grey levels and in the order of `channels`; the input is (pixel - mean) / std,
    pixels being 0..255. kind: what the output holds, one of `KINDS`; "sigmoid" is a probability for each class by
    itself, or one number for the second of two classes; "embedding" numbers that stand for no class. input_name,
    output_name, feature_name: tensors of the graph, None where they are to be found. labels: names of the classes, in
    order. source: where the network comes from, free text.
    """

    layout: str
    size: tuple[int, int]
    channels: str
    resize: Resize
    mean: tuple[float, ...]
    std: tuple[float, ...]
    kind: str
    input_name: str | None = None
    output_name: str | None = None
    labels: tuple[str, ...] | None = None
    feature_name: str | None = None
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def pixel_shape(self) -> tuple[int, int, int]:
        """Canonical (channels, height, width) of one image; channels are RGB or L whatever the model wants."""
        return (CHANNELS[self.channels], *self.size)


def beside(model: Path) -> Path:
    """Where the card of `model` is looked for: the same name with the suffix .json."""
    return model.parent / f"{model.stem}.json"  # `with_suffix` refuses a path without a name


def locate(model: Path, card: Path | None) -> Path:
    """Where the card of a model is: `card` where it is given, else the file beside `model`.

    Args:
        model: The .onnx file.
        card: The card's file, None for the one beside the model.

    Raises:
        InputError: No card is given, and the model has none beside it.

    >>> locate(Path("net.onnx"), None).name
    'net.json'
    """
    path = card or beside(model)
    # os.path: a name that is too long is no file; pathlib raises.
    if card is None and os.path.isfile(model) and not os.path.exists(path):  # noqa: PTH110, PTH113
        raise InputError(
            f"{model}: no card {path.name} beside it\n"
            f"`analyzer inspect {shlex.quote(str(model))}` with `write_card` writes one to fill in, or give `card`"
        )
    return path


def read(path: Path) -> Card:
    """Read and validate a card file.

    Args:
        path: The JSON file.

    Raises:
        InputError: The file cannot be read, or is no valid card; the message names the file and the key at fault.

    >>> import tempfile
    >>> card = Card("NCHW", (32, 48), "L", Resize("none"), (0.0,), (255.0,), "logits")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(card, Path(folder) / "net.json")
    ...     read(Path(folder) / "net.json") == card
    True
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=refuse_repeated_keys)
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such card; `analyzer inspect MODEL` with `write_card` writes one to fill in"
        ) from None
    except (OSError, ValueError, RecursionError) as e:  # ValueError: not UTF-8, not JSON, too long a number
        raise InputError(f"{path}: cannot be read as a JSON card: {e}") from e
    return parse(document, where=str(path))


def write(card: Card, path: Path) -> None:
    """Write a card as indented JSON, from which `read` gives the same card.

    Args:
        card: Any card.
        path: The JSON file; one that is there is replaced.

    Raises:
        UsageError: The file cannot be written.

    >>> import tempfile
    >>> card = Card("NCHW", (32, 48), "L", Resize("none"), (0.0,), (255.0,), "logits")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(card, Path(folder) / "net.json")
    ...     (Path(folder) / "net.json").read_text().splitlines()[:2]
    ['{', ' "schema": 1,']
    """
    text = json.dumps(to_document(card), indent=1, ensure_ascii=False) + "\n"
    try:
        # Only a lone surrogate cannot be encoded, and its backslash escape is the one that JSON has for it.
        path.write_bytes(text.encode("utf-8", "backslashreplace"))
    except OSError as e:
        raise UsageError(f"{path}: the card cannot be written: {e.strerror}") from e


def parse(document: object, *, where: str = "card") -> Card:
    """Validate a decoded JSON document.

    Args:
        document: What `json.loads` gives for a card.
        where: What messages call the document, such as its file.

    Raises:
        InputError: A key is missing, unknown or of the wrong type; the message names it, and `where`.

    >>> pixels = {"layout": "NCHW", "size": [32, 48], "channels": "RGB", "resize": {"stretch": True}}
    >>> pixels |= {"mean": [127.5, 127.5, 127.5], "std": [64, 64, 64]}
    >>> parse({"schema": 1, "input": pixels, "output": {"kind": "logits"}}).pixel_shape
    (3, 32, 48)
    """
    top = Keys(document, where, "")
    schema = top.take("schema", int)
    if schema != 1:
        raise InputError(f"{where}: schema is {schema!r:.60}; this version reads schema 1")
    pixels = Keys(top.take("input", dict), where, "input.")
    layout = pixels.choice("layout", ("NCHW", "NHWC"))
    channels = pixels.choice("channels", tuple(CHANNELS))
    height, width = pixels.numbers("size", 2, kind=int, above=0)
    resize = resizing.parse(Keys(pixels.take("resize", dict), where, "input.resize."), channels=CHANNELS[channels])
    mean = pixels.numbers("mean", CHANNELS[channels])
    std = pixels.numbers("std", CHANNELS[channels], above=0)
    for key, values in (("input.mean", mean), ("input.std", std)):
        refuse_beyond(where, key, values, *_RANGE)
    refuse_unit_range(where, mean, std)
    input_name = pixels.take("name", str, None)
    pixels.finish()

    output = Keys(top.take("output", dict), where, "output.")
    kind = output.choice("kind", KINDS)
    output_name = output.take("name", str, None)
    labels = output.take("labels", list, None)
    if labels is not None and not (labels and all(isinstance(label, str) for label in labels)):
        raise InputError(f"{where}: output.labels must be a list of strings, one a class; leave it out if unknown")
    _refuse_equal(labels or [], where)
    output.finish()

    feature = Keys(top.take("feature", dict, {}), where, "feature.")
    feature_name = feature.take("name", str, None)
    feature.finish()
    source = top.take("source", dict, {})
    if not is_finite(source):
        raise InputError(f"{where}: source must not contain NaN or Infinity")
    top.finish()
    return Card(
        layout=layout,
        size=(int(height), int(width)),
        channels=channels,
        resize=resize,
        mean=mean,
        std=std,
        kind=kind,
        input_name=input_name,
        output_name=output_name,
        labels=None if labels is None else tuple(labels),
        feature_name=feature_name,
        source=source,
    )


def digest(card: Card) -> str:
    """SHA-256 of what a card says, whatever its file looks like: 64 hexadecimal digits.

    Args:
        card: Any card.

    >>> digest(Card("NCHW", (32, 48), "L", Resize("none"), (0.0,), (255.0,), "logits"))[:16]
    '2730a6b4b4f5bef7'
    """
    return hashlib.sha256(json.dumps(to_document(card), sort_keys=True).encode()).hexdigest()


def to_document(card: Card) -> CardDocument:
    """The JSON document of a card, from which `parse` gives the same card. Parts that the card leaves out stay out.

    Args:
        card: Any card.

    >>> card = Card("NCHW", (32, 48), "L", Resize("none"), (0.0,), (255.0,), "logits", labels=("cat", "dog"))
    >>> to_document(card)["output"]
    {'kind': 'logits', 'labels': ['cat', 'dog']}
    """
    pixels: InputDocument = {
        "layout": card.layout,
        "size": list(card.size),
        "channels": card.channels,
        "resize": resizing.to_document(card.resize),
        "mean": list(card.mean),
        "std": list(card.std),
    }
    output: OutputDocument = {"kind": card.kind}
    if card.labels is not None:
        output["labels"] = list(card.labels)
    document: CardDocument = {
        "schema": 1,
        "input": pixels if card.input_name is None else {"name": card.input_name, **pixels},
        "output": output if card.output_name is None else {"name": card.output_name, **output},
    }
    if card.feature_name is not None:
        document["feature"] = {"name": card.feature_name}
    if card.source:
        document["source"] = dict(card.source)
    return document


def _refuse_equal(labels: Sequence[str], where: str) -> None:
    """Refuse a label that names two classes: a folder or a table could not say which of them it means."""
    label, count = max(Counter(labels).items(), key=lambda item: item[1], default=("", 0))
    if count > 1:
        classes = ", ".join([str(index) for index, other in enumerate(labels) if other == label][:4])
        raise InputError(f"{where}: output.labels has {label!r:.80} for classes {classes}; make the names differ")
