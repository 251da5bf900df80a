"""One line a property: its deciding number at the smallest, a middle and the largest radius; and the same as HTML."""

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from analyzer.measures import Number, tables_of
from analyzer.measures.scores import in_words_of
from analyzer.statistics import Estimate
from analyzer.summary.names import by_radius, end_of, estimates, kind_of, last_suffix, radius_text
from analyzer.text import short

_RADII = 3
_BRIEF = {"+.3f": "+.2f", ".3g": ".2g"}  # forms of numbers where three stand side by side with their intervals
_WHOLE = 100  # from here on without decimals there


class Cell(NamedTuple):
    """A value and its interval as text, "" without one; defined: whether the value is a number."""

    value: str
    interval: str
    defined: bool


class Overview(NamedTuple):
    """radii: as text. lines: what each property is called, and its cells."""

    radii: list[str]
    lines: list[tuple[str, list[Cell]]]


def overview(measures: Sequence[str], rows: Mapping[str, Estimate], suffix: str, *, kind: str = "") -> Overview:
    """The deciding numbers of a run. suffix: of the layer that is meant, "" with one only. kind: of the scores."""
    lines = list(_deciding(measures, rows, suffix))
    shown = ends_and_middle(sorted({radius for _, at in lines for radius in at}))
    return Overview(
        [radius_text(radius) for radius in shown],
        [
            (
                in_words_of([kind], number.deciding or number.heading),
                [_cell(number, at.get(radius)) for radius in shown],
            )
            for number, at in lines
        ],
    )


def ends_and_middle(radii: Sequence[float]) -> list[float]:
    """The smallest, a middle and the largest of ascending radii; all of them where there are no more."""
    return list(radii) if len(radii) <= _RADII else [radii[0], radii[len(radii) // 2], radii[-1]]


def _deciding(
    measures: Sequence[str], rows: Mapping[str, Estimate], suffix: str
) -> Iterator[tuple[Number, dict[float, Estimate]]]:
    """Of each table the number that decides, by radius: of several the last that is defined, else its first column."""
    for declared in tables_of(measures):
        measure = getattr(declared, "family", None) is not None
        numbers = [number for number in reversed(declared.numbers) if number.deciding]
        for number in [*numbers, *(declared.columns[:1] if measure else ())]:
            at = by_radius(rows, number.name, end_of(number, suffix))
            if any(math.isfinite(estimate.value) for estimate in at.values()):
                yield number, at
                break


def _cell(number: Number, estimate: Estimate | None) -> Cell:
    if estimate is None:
        return Cell("", "", False)
    if not math.isfinite(estimate.value):
        return Cell("outside the radii" if math.isinf(estimate.value) else "undefined", "", False)

    def shown(value: float) -> str:
        return f"{value:,.0f}" if abs(value) >= _WHOLE else short(value, _BRIEF.get(number.form, number.form))

    known = number.interval and math.isfinite(estimate.low) and math.isfinite(estimate.high)
    return Cell(shown(estimate.value), f"{shown(estimate.low)}–{shown(estimate.high)}" if known else "", True)


class Summary(dict[str, Any]):
    """The document of a summary; a notebook shows it as one line a property, sentences and warnings."""

    def _repr_html_(self) -> str:
        about, suffix = self["run"], last_suffix(self)
        radii, lines = overview(about["protocol"]["measures"], estimates(self), suffix, kind=kind_of(self))
        text = [f"<strong>{html.escape(str(about['model']))}</strong> on {html.escape(about['context']['device'])}, "]
        text.append(f"{about['images']['measured']} images{html.escape(f', layer {suffix[1:]}' if suffix else '')}")
        head = "".join(f"<th>{html.escape(radius)}</th>" for radius in ("at radius, grey levels", *radii))
        body = "".join(f"<tr><th>{html.escape(name)}</th>{''.join(map(_html, cells))}</tr>" for name, cells in lines)
        items = [*self["sentences"], *(f"⚠ {warning}" for warning in self["warnings"])]
        listed = "".join(f"<li>{html.escape(item)}</li>" for item in items)
        return f"<div>{''.join(text)}<table><tr>{head}</tr>{body}</table><ul>{listed}</ul></div>"


def _html(cell: Cell) -> str:
    interval = f" <small>({html.escape(cell.interval)})</small>" if cell.interval else ""
    return f"<td>{html.escape(cell.value)}{interval}</td>"
