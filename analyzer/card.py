"""The model card: how 0..255 pixels become the model's input, and what its outputs mean.

A card is a JSON file beside the model (``NAME.onnx`` and ``NAME.json``). Unknown keys and wrong types are
errors that name the key, so that a misspelt ``mean`` never silently becomes a default.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analyzer.errors import InputError, UsageError

CHANNELS = {"RGB": 3, "BGR": 3, "L": 1}
INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos")


@dataclasses.dataclass(frozen=True)
class Resize:
    """How an image of any size is brought to the card's size.

    kind is "shorter_side" (scale the shorter side to `side`, then cut the centre), "stretch" or "none".
    """

    kind: str
    side: int | None = None
    interpolation: str = "bilinear"


@dataclasses.dataclass(frozen=True)
class Card:
    """A validated card. `size` is (height, width); `mean` and `std` act on 0..255 pixels in `channels` order."""

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
    return model.with_suffix(".json")


def locate(model: Path, card: Path | None) -> Path:
    """`card` where one is given, else the one beside `model`. Raises InputError where the model has none there."""
    path = card or beside(model)
    if card is None and model.is_file() and not path.exists():
        raise InputError(
            f"{model}: no card {path.name} beside it\n"
            f"`analyzer inspect {shlex.quote(str(model))}` with `write_card` writes one to fill in, or give `card`"
        )
    return path


def read(path: Path) -> Card:
    """Read and validate a card file. Raises InputError naming the file and the key."""
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_object)
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such card; `analyzer inspect MODEL` with `write_card` writes one to fill in"
        ) from None
    except (OSError, ValueError, RecursionError) as e:  # ValueError: not UTF-8, not JSON, too long a number
        raise InputError(f"{path}: cannot be read as a JSON card: {e}") from e
    return parse(document, where=str(path))


def write(card: Card, path: Path) -> None:
    """Write `card` as indented JSON that `read` gives back unchanged. Raises UsageError where it cannot be written."""
    text = json.dumps(to_document(card), indent=1, ensure_ascii=False) + "\n"
    try:
        # Only a lone surrogate cannot be encoded, and its backslash escape is the one that JSON has for it.
        path.write_bytes(text.encode("utf-8", "backslashreplace"))
    except OSError as e:
        raise UsageError(f"{path}: the card cannot be written: {e.strerror}") from e


def parse(document: object, *, where: str = "card") -> Card:
    """Validate a decoded JSON document. Raises InputError naming `where` and the key at fault."""
    top = _Keys(document, where, "")
    schema = top.take("schema", int)
    if schema != 1:
        raise InputError(f"{where}: schema is {schema!r:.60}; this version reads schema 1")
    pixels = _Keys(top.take("input", dict), where, "input.")
    layout = pixels.choice("layout", ("NCHW", "NHWC"))
    channels = pixels.choice("channels", tuple(CHANNELS))
    height, width = pixels.numbers("size", 2, kind=int, above=0)
    resize = _resize(_Keys(pixels.take("resize", dict), where, "input.resize."))
    mean = pixels.numbers("mean", CHANNELS[channels])
    std = pixels.numbers("std", CHANNELS[channels], above=0)
    input_name = pixels.take("name", str, None)
    pixels.finish()

    output = _Keys(top.take("output", dict), where, "output.")
    kind = output.choice("kind", ("logits", "probabilities"))
    output_name = output.take("name", str, None)
    labels = output.take("labels", list, None)
    if labels is not None and not (labels and all(isinstance(label, str) for label in labels)):
        raise InputError(f"{where}: output.labels must be a list of strings, one a class; leave it out if unknown")
    output.finish()

    feature = _Keys(top.take("feature", dict, {}), where, "feature.")
    feature_name = feature.take("name", str, None)
    feature.finish()
    source = top.take("source", dict, {})
    if not _is_finite(source):
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
    """SHA-256 of what a card says, whatever its file looks like."""
    return hashlib.sha256(json.dumps(to_document(card), sort_keys=True).encode()).hexdigest()


def to_document(card: Card) -> dict[str, Any]:
    """The JSON document of a card; optional parts that are absent stay absent."""
    resize: dict[str, Any]
    if card.resize.kind == "shorter_side":
        resize = {"shorter_side": card.resize.side, "crop": "centre"}
    else:
        resize = {card.resize.kind: True}
    if card.resize.kind != "none" or card.resize.interpolation != "bilinear":
        resize["interpolation"] = card.resize.interpolation
    document: dict[str, Any] = {
        "schema": 1,
        "input": {
            **({"name": card.input_name} if card.input_name is not None else {}),
            "layout": card.layout,
            "size": list(card.size),
            "channels": card.channels,
            "resize": resize,
            "mean": list(card.mean),
            "std": list(card.std),
        },
        "output": {
            **({"name": card.output_name} if card.output_name is not None else {}),
            "kind": card.kind,
            **({"labels": list(card.labels)} if card.labels is not None else {}),
        },
    }
    if card.feature_name is not None:
        document["feature"] = {"name": card.feature_name}
    if card.source:
        document["source"] = dict(card.source)
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys differ; `json` alone keeps the last of two."""
    document: dict[str, Any] = {}
    for key, value in pairs:
        if key in document:
            raise ValueError(f"key {key!r:.60} is given twice")
        document[key] = value
    return document


def _is_finite(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def _resize(keys: "_Keys") -> Resize:
    interpolation = keys.choice("interpolation", INTERPOLATIONS, "bilinear")
    side = keys.take("shorter_side", int, None)
    if side is not None:
        if side <= 0:
            raise InputError(f"{keys.where}: input.resize.shorter_side must be above 0, not {side!r:.60}")
        keys.choice("crop", ("centre",))
        resize = Resize("shorter_side", side, interpolation)
    elif keys.take("stretch", bool, False):
        resize = Resize("stretch", interpolation=interpolation)
    elif keys.take("none", bool, False):
        resize = Resize("none", interpolation=interpolation)
    else:
        raise InputError(
            f'{keys.where}: input.resize must be {{"shorter_side": n, "crop": "centre"}}, '
            '{"stretch": true} or {"none": true}'
        )
    keys.finish()
    return resize


_REQUIRED = object()
_TYPE_NAMES = {dict: "an object", list: "a list", str: "a string", int: "an integer", bool: "true or false"}


class _Keys:
    """Takes the keys of one JSON object one by one; what is left over at the end is unknown."""

    def __init__(self, document: object, where: str, prefix: str) -> None:
        if not isinstance(document, dict):
            raise InputError(f"{where}: {prefix.rstrip('.') or 'the card'} must be an object")
        self.left, self.where, self.prefix = dict(document), where, prefix

    def take(self, key: str, kind: type, default: Any = _REQUIRED) -> Any:
        if key not in self.left:
            if default is _REQUIRED:
                near = difflib.get_close_matches(key, self.left, n=1, cutoff=0.85)
                hint = f"; is {self.prefix}{near[0]} meant to be it?" if near else ""
                raise InputError(f"{self.where}: {self.prefix}{key} is missing{hint}")
            return default
        value = self.left.pop(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise InputError(f"{self.where}: {self.prefix}{key} must be {_TYPE_NAMES[kind]}, not {value!r:.60}")
        return value

    def choice(self, key: str, allowed: tuple[str, ...], default: Any = _REQUIRED) -> str:
        value: str = self.take(key, str, default)
        if value not in allowed:
            raise InputError(f"{self.where}: {self.prefix}{key} must be one of {', '.join(allowed)}, not {value!r:.60}")
        return value

    def numbers(self, key: str, count: int, *, kind: type = float, above: float | None = None) -> tuple[float, ...]:
        given: list[Any] = self.take(key, list)
        allowed = (int,) if kind is int else (int, float)
        try:
            values = tuple(float(v) for v in given if isinstance(v, allowed) and not isinstance(v, bool))
        except OverflowError:  # an integer of more than 308 digits
            values = ()
        right = all(math.isfinite(v) and (above is None or v > above) for v in values)
        if not (right and len(values) == len(given) == count):
            name = "integers" if kind is int else "finite numbers"
            bound = f" above {above:g}" if above is not None else ""
            raise InputError(f"{self.where}: {self.prefix}{key} must be {count} {name}{bound}, not {given!r:.60}")
        return values

    def finish(self) -> None:
        if self.left:
            unknown = ", ".join(f"{self.prefix}{key}" for key in sorted(self.left))
            raise InputError(f"{self.where}: unknown key {unknown:.200}")
