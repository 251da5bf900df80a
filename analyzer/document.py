"""The card as a JSON document: which keys it has, reading them with errors that name the key at fault, writing one."""

import contextlib
import difflib
import errno
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from analyzer.errors import IncompleteError, InputError, UsageError


class ResizeDocument(TypedDict, total=False):
    """`input.resize`: exactly one of `shorter_side` and `crop_pct` (with `crop`), `longer_side` and `letterbox` (with
    `pad`), `stretch` and `none`; each with or without `interpolation` and `antialias`. See `Resize` for the meaning."""

    shorter_side: int | None
    longer_side: int | None
    crop_pct: float | None
    letterbox: bool
    stretch: bool | Sequence[int]
    none: bool
    crop: str
    pad: float | Sequence[float]
    interpolation: str
    antialias: bool


class InputDocument(TypedDict):
    """`input`; see `Card` for what the values mean."""

    name: NotRequired[str]
    layout: str
    size: Sequence[int]
    channels: str
    resize: ResizeDocument
    mean: Sequence[float]
    std: Sequence[float]


class OutputDocument(TypedDict):
    """`output`; without `labels` the classes have no names."""

    name: NotRequired[str]
    kind: str
    labels: NotRequired[Sequence[str]]


class FeatureDocument(TypedDict):
    """`feature`: the tensor to measure."""

    name: str


class CardDocument(TypedDict):
    """A whole card."""

    schema: int
    input: InputDocument
    output: OutputDocument
    feature: NotRequired[FeatureDocument]
    source: NotRequired[Mapping[str, Any]]


_REQUIRED = object()
_TYPE_NAMES = {dict: "an object", list: "a list", str: "a string", int: "an integer", bool: "true or false"}


class Keys:
    """Takes the keys of one JSON object one by one; a key left over at the end is unknown.

    where: the file, for messages. prefix: where in the document the object stands, such as "input.".
    Every method raises InputError naming the key.
    """

    def __init__(self, document: object, where: str, prefix: str) -> None:
        if not isinstance(document, dict):
            raise InputError(f"{where}: {prefix.rstrip('.') or 'the card'} must be an object")
        self.left, self.where, self.prefix = dict(document), where, prefix
        self.asked: set[str] = set()

    def take(self, key: str, kind: type, default: Any = _REQUIRED) -> Any:
        """The value of `key`, of type `kind`; `default` where the key is absent."""
        self.asked.add(key)
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
        """The string of `key`, one of `allowed`."""
        value: str = self.take(key, str, default)
        if value not in allowed:
            raise InputError(f"{self.where}: {self.prefix}{key} must be one of {', '.join(allowed)}, not {value!r:.60}")
        return value

    def numbers(self, key: str, count: int, *, kind: type = float, above: float | None = None) -> tuple[float, ...]:
        """The `count` numbers of `key`, integers where `kind` is int, all greater than `above`."""
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

    def number(self, key: str, *, most: float, above: float | None = None, least: float = 0) -> float:
        """The number of `key`: greater than `above` where that is given, else at least `least`, and at most `most`."""
        self.asked.add(key)
        if key not in self.left:
            self.take(key, float)  # says that it is missing
        value = self.left.pop(key)
        right = isinstance(value, int | float) and not isinstance(value, bool)
        if not (right and value <= most and (value >= least if above is None else value > above)):
            bounds = f"from {least:g}" if above is None else f"above {above:g}"
            raise InputError(
                f"{self.where}: {self.prefix}{key} must be a number {bounds} up to {most:g}, not {value!r:.60}"
            )
        return float(value)

    def finish(self) -> None:
        """Refuse keys that were not taken."""
        if self.left:
            unknown = ", ".join(f"{self.prefix}{key}" for key in sorted(self.left))
            known = f"; known here: {', '.join(sorted(self.asked))}" if self.asked else ""
            raise InputError(f"{self.where}: unknown key {unknown:.200}{known}")


def refuse_unit_range(where: str, mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise InputError where mean or std are those of pixels in 0..1: pixels are 0..255 here.

    Whole numbers such as 0 and 1 (for pixels as they are) stand for themselves, and so does a mean of 0 beside a std
    above 1.
    """
    of_units = all(0 <= m <= 1 for m in mean), all(s <= 1 for s in std)
    fraction = any(0 < m < 1 for m in mean), any(s < 1 for s in std)
    if not (of_units[0] and (fraction[0] or fraction[1])) and not (of_units[1] and fraction[1]):
        return
    given = [list(mean), list(std)]
    wanted = [[round(255 * v, 6) for v in each] if unit else each for each, unit in zip(given, of_units, strict=True)]
    raise InputError(
        f"{where}: input.mean {given[0]} and input.std {given[1]} look like those of pixels in 0..1, but pixels are "
        f"0..255 here\nset input.mean to {wanted[0]} and input.std to {wanted[1]}"
    )


def refuse_beyond(where: str, name: str, values: Sequence[float], low: float, high: float) -> None:
    """Raise InputError where the size of a value that is not 0 lies outside low..high."""
    for value in values:
        if value and not low <= abs(value) <= high:
            raise InputError(f"{where}: {name} {value:g} is out of range; expected a size of {low:g} to {high:g}")


def refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The JSON object of these (key, value) pairs. Raises ValueError for a key given twice; `json` keeps the last."""
    document: dict[str, Any] = {}
    for key, value in pairs:
        if key in document:
            raise ValueError(f"key {key!r:.60} is given twice")
        document[key] = value
    return document


def is_finite(value: Any) -> bool:
    """Whether a decoded JSON value is free of NaN and infinities."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def write_new(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document to `path`, whole or not at all.

    Args:
        path: A file that is not there yet.
        document: What it is to hold.

    Raises:
        UsageError: The file exists, or cannot be written.
        IncompleteError: The disk is full.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_new(Path(folder) / "net.json", {"schema": 1})
    ...     (Path(folder) / "net.json").read_text()
    '{\\n "schema": 1\\n}\\n'
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if os.path.lexists(path):
            raise FileExistsError
        with temporary.open("x", encoding="utf-8") as file:
            file.write(json.dumps(document, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(temporary)  # unlike a renaming, it never replaces what came in between
        except OSError as e:
            if e.errno == errno.EEXIST:
                raise
            temporary.rename(path)  # a file system without links
    except FileExistsError:
        raise UsageError(f"{path}: exists already; it is not overwritten: move it away first") from None
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise IncompleteError(f"{path}: cannot be written: {e.strerror}; free some space, then try again") from e
        raise UsageError(f"{path}: cannot be written: {e.strerror}") from e
    finally:
        with contextlib.suppress(OSError):  # gone, or never there
            temporary.unlink()
