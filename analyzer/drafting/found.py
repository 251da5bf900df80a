"""What the sources of a card have in common: what one of them says, numbers in grey levels, names of interpolations."""

import dataclasses
import re
from typing import Any

from analyzer.errors import InputError

_PILLOW = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_KNOWN = frozenset(_PILLOW.values())
_DIGITS = 10


@dataclasses.dataclass
class Found:
    """What one source says. origin: its name. input, output: fields of the card. notes: what it leaves open."""

    origin: str
    input: dict[str, Any] = dataclasses.field(default_factory=dict)
    output: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)


def normalise(found: Found, mean: Any, std: Any, factor: float) -> None:
    """Mean and std of pixels / factor."""
    given = [
        [mean] if isinstance(mean, int | float) else list(mean),
        [std] if isinstance(std, int | float) else list(std),
    ]
    try:
        found.input |= {
            key: [rounded(float(v) * factor) for v in values]
            for key, values in zip(("mean", "std"), given, strict=True)
        }
    except (TypeError, ValueError) as e:
        raise InputError(f"{found.origin}: mean and std must be lists of numbers: {e}") from e


def rounded(value: float) -> float:
    """Without what binary fractions leave at the end: 123.675, not 123.67499999999998."""
    return float(f"{value:.{_DIGITS}g}")


def resampling(found: Found, given: object) -> dict[str, str]:
    """The card\'s `interpolation`, from a name or Pillow\'s code; notes one that is unknown."""
    name = _PILLOW.get(given, "") if isinstance(given, int) else str(given).lower()
    if name in _KNOWN:
        return {"interpolation": name}
    found.notes.append(f"interpolation {str(given)[:40]!r} is not known here: set input.resize.interpolation")
    return {"interpolation": "bilinear"}


def numbers(text: str) -> list[float]:
    """Numbers apart by blanks or commas; none where the text holds anything else."""
    try:
        return [float(part) for part in re.split(r"[\s,]+", text.strip(" []()")) if part]
    except ValueError:
        return []
