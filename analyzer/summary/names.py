"""The names of a summary's numbers: `<quantity>_<statistic>[@radius][/layer]`."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from analyzer.estimate import estimate_of, is_entry
from analyzer.measures import NUMBERS, Number
from analyzer.measures.quantities import HIGHER, LOWER
from analyzer.statistics import QUANTILES, Estimate
from analyzer.store.documents import ImageCounts
from analyzer.summary.meanings import MEANINGS

Value = TypeVar("Value")


class Name(NamedTuple):
    """A name in its parts. stem: as measures declare it; suffix: "/" and the layer, empty where there is none."""

    stem: str
    radius: float | None
    suffix: str


def radius_text(radius: float) -> str:
    """1 for 1.0, 0.5, and every digit where fewer would name another radius."""
    return f"{radius:g}" if float(f"{radius:g}") == radius else repr(radius)


def radius_labels(radii: Iterable[float]) -> dict[float, str]:
    """Radii as a table shows them, in ascending order: in six digits, or in all where two would look alike."""
    ordered = sorted(radii)
    short = {radius: f"{radius:g}" for radius in ordered}
    return short if len(set(short.values())) == len(short) else {radius: radius_text(radius) for radius in ordered}


def name_of(stem: str, *, radius: float | None = None, suffix: str = "") -> str:
    """The name of a number."""
    return f"{stem}{'' if radius is None else f'@{radius_text(radius)}'}{suffix}"


def parts(name: str) -> Name:
    """The parts of a name; of one that cannot be a summary's, whatever comes before the first "/" is its stem."""
    head, slash, layer = name.partition("/")
    stem, at, radius = head.partition("@")
    try:
        return Name(stem, float(radius) if at else None, slash + layer)
    except ValueError:
        return Name(head, None, slash + layer)


def end_of(number: Number, suffix: str) -> str:
    """The end of a number's names in a table of a layer: of one that no layer has, there is one name."""
    return suffix if number.quantity.layered else ""


def layer_suffix(layer: str, layers: int) -> str:
    """The end of the names of a layer's numbers: empty where the run has one layer only."""
    return f"/{layer}" if layers > 1 else ""


def by_radius(rows: Mapping[str, Value], stem: str, suffix: str = "") -> dict[float, Value]:
    """The numbers `stem@radius` + suffix, by radius."""
    start = f"{stem}@"
    return {
        float(key[len(start) : len(key) - len(suffix)]): rows[key]
        for key in rows
        if key.startswith(start) and key.endswith(suffix) and "/" not in key[len(start) : len(key) - len(suffix)]
    }


_DIRECTION = {LOWER: "lower is more robust", HIGHER: "higher is more robust"}


def meaning_of(stem: str) -> str:
    """What a number of a summary is, in one line: quantity, unit, statistic, direction. "" for an unknown name.

    >>> meaning_of("linearity_below_floor_share")
    'whether N of the features is no more than rounding makes of an affine map; share over images'
    """
    number = NUMBERS.get(stem)
    if number is None:
        return ""
    quantity, statistic = number.quantity, number.statistic
    over = ""
    if isinstance(statistic, str):
        quantile = statistic in QUANTILES and statistic != "median"
        over = f"; {f'{100 * QUANTILES[statistic]:g} % quantile' if quantile else statistic} over images"
    what = MEANINGS.get(stem) or quantity.title or MEANINGS.get(quantity.name) or quantity.name.replace("_", " ")
    unit = "" if quantity.unit == "1" else f", {quantity.unit}"
    direction = _DIRECTION.get(quantity.more_robust or "", "")
    text = f"{what}{unit}{over}"
    return f"{text}; {direction}" if direction else text


def estimates(document: Mapping[str, Any]) -> dict[str, Estimate]:
    """The numbers of a summary document, None read as NaN; infinite where a radius lies outside the measured ones."""
    return {name: estimate_of(value) for name, value in document.items() if is_entry(value)}


def kind_of(document: Mapping[str, Any]) -> str:
    """What the scores of a summary document are, as the card says; "" where an earlier version did not record it."""
    return str(document.get("run", {}).get("context", {}).get("kind", ""))


def is_labelled(images: ImageCounts) -> bool:
    """Whether some image that was read has a label."""
    return images["unlabelled"] < images["read"] - images["duplicate"]


def layer_suffixes(document: Mapping[str, Any]) -> list[str]:
    """The layer parts of the names in a summary document: [""] with one layer."""
    return sorted({name[name.index("/") :] for name in estimates(document) if "/" in name}) or [""]


def last_suffix(document: Mapping[str, Any]) -> str:
    """The suffix of the last of several layers in the run's order, the deepest: empty where there is one only."""
    layers = document["run"]["protocol"]["layers"]
    return f"/{layers[-1]}" if layer_suffixes(document) != [""] else ""
