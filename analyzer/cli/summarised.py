"""The summary of a run on the screen: one line a property, sentences, warnings, what to do next; tables if asked."""

import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from analyzer import summary as summaries
from analyzer.card import EMBEDDING
from analyzer.cli.tables import plain
from analyzer.cli.terminal import console, say
from analyzer.estimate import estimate_of
from analyzer.measures import Number, tables_of
from analyzer.measures import Table as Declared
from analyzer.measures.scores import in_words_of
from analyzer.statistics import Estimate
from analyzer.summary import (
    by_radius,
    end_of,
    estimates,
    is_labelled,
    kind_of,
    last_suffix,
    layer_suffixes,
    meaning_of,
    parts,
    radius_labels,
)
from analyzer.text import safe
from analyzer.text import short as _short

if TYPE_CHECKING:
    from analyzer.store.documents import ImageCounts

SHOWN = 5  # unreadable images named on the screen


def print_summary(document: dict[str, Any], *, run: str, tables: bool = False) -> None:
    """What ran, what was found, what to know of it and what to do next; run: its directory, as the user calls it.

    tables: every number by radius and layer in place of one line a property.
    """
    about, suffixes = document["run"], layer_suffixes(document)
    say(f"{about['model']} on {about['context']['device']}", style="bold")
    kind = kind_of(document)
    say(image_line(about["images"], kind=kind))
    last = last_suffix(document)
    rows, left_out = estimates(document), [] if tables else [suffix for suffix in suffixes if suffix != last]
    if tables:
        _print_tables(about["protocol"]["measures"], rows, suffixes, kind)
    elif rows:
        console().print(overview(about["protocol"]["measures"], rows, last, kind=kind))
    for sentence in document["sentences"]:
        if not any(sentence.startswith(f"{suffix[1:]}: ") for suffix in left_out):
            _say_item("•", sentence)
    for warning in document["warnings"]:
        _say_item("!", warning, style="yellow")
    if left_out:
        say(f"Of {len(suffixes)} layers, this is {last[1:]}; --tables shows all.")
    say(f"Run: {run}")
    if about["images"]["measured"]:
        needs = "" if importlib.util.find_spec("matplotlib") else " (takes the extra [report])"
        say(f"Next: `analyzer report {run}`{needs}" + ("" if tables else "; --tables: every number"))


def _print_tables(measures: Sequence[str], rows: dict[str, Estimate], suffixes: Sequence[str], kind: str) -> None:
    for declared in tables_of(measures):
        for suffix in suffixes if declared.layered else [""]:
            table = radius_table(declared, rows, suffix, kind=kind)
            if table.row_count:
                console().print(table)


def _say_item(mark: str, text: str, *, style: str = "") -> None:
    """A paragraph with a mark before it: indented on a terminal, one line for whatever else reads it."""
    target = console()
    if not target.is_terminal:
        say(f"{mark} {text}")
        return
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_row(Text(mark, style=style), Text(safe(text), style=style))
    target.print(grid)


def overview(measures: Sequence[str], rows: dict[str, Estimate], suffix: str, *, kind: str = "") -> Table:
    """One line a property: its deciding number at the smallest, a middle and the largest radius, with intervals."""
    radii, lines = summaries.overview(measures, rows, suffix, kind=kind)
    table = plain()
    table.add_column("at radius")
    for radius in radii:
        table.add_column(radius, justify="right")
    for name, cells in lines:
        table.add_row(Text(name), *map(_brief, cells))
    return table


def _brief(cell: summaries.Cell) -> Text:
    """A value with its interval behind it."""
    text = Text(cell.value, style="" if cell.defined else "dim")
    if cell.interval:
        text.append(f" ({cell.interval})", style="dim")
    return text


def image_line(images: "ImageCounts", *, kind: str = "") -> str:
    """How many images were read, bad, wrong, below the threshold, measured; which ones are bad. kind: of the scores."""
    parts = [f"{images['read']} of {images['found']} images read", f"{images['bad']} unreadable"]
    if kind == EMBEDDING:
        nearer = f"{images['wrong']} nearer to the mean of another class"
        parts.append(nearer if is_labelled(images) else "no labels, so no classes")
    else:
        right = "no labels, so the clean prediction counts as right"
        parts.append(right if images["unlabelled"] else f"{images['wrong']} classified wrongly")
        parts.append(f"{images['below_confidence']} below the confidence")
    if images["non_finite"]:
        zeros = "all zeros, or " if kind == EMBEDDING else ""
        parts.append(f"{images['non_finite']} with outputs that are {zeros}not finite")
    bad = "".join(f"\nUnreadable: {b['id']}: {b['reason']}" for b in images["bad_images"][:SHOWN])
    more = len(images["bad_images"]) - SHOWN
    bad += f"\n... and {more} more, in summary.json" if more > 0 else ""
    return ", ".join(parts) + f"; {images['measured']} measured (asked: {images['asked']})" + bad


def radius_table(declared: Declared, rows: dict[str, Estimate], suffix: str = "", *, kind: str = "") -> Table:
    """One line a radius, one column a number that is to be shown. kind: of the scores."""
    ends = {number: end_of(number, suffix) for number in declared.columns}
    columns = [(number, by_radius(rows, number.name, ends[number])) for number in declared.columns]
    columns = [(number, at) for number, at in columns if at]
    title = in_words_of([kind], declared.title) + (f" — {safe(suffix[1:])}" if suffix else "")
    table = Table(
        title=Text(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False
    )
    table.add_column("radius", justify="right")
    for number, _ in columns:
        longest = max(map(len, number.heading.split()))  # a word stays whole where there is room
        table.add_column(
            Text(in_words_of([kind], number.heading)), justify="right", max_width=16, min_width=longest, overflow="fold"
        )
    for radius, label in radius_labels({r for _, at in columns for r in at}).items():
        table.add_row(label, *(_cell(number, at.get(radius)) for number, at in columns))
    overall = [(number, rows.get(number.name + ends[number])) for number, _ in columns]
    if any(estimate for _, estimate in overall):
        table.add_section()
        table.add_row("all", *(_cell(number, estimate) for number, estimate in overall))
    return table


def _cell(number: Number, estimate: Estimate | None) -> Text:
    if estimate is None:
        return Text("")
    if not math.isfinite(estimate.value):
        return Text("outside the radii" if math.isinf(estimate.value) else "undefined", style="dim")
    text = Text(_short(estimate.value, number.form))
    if number.interval and math.isfinite(estimate.low) and math.isfinite(estimate.high):
        low, high = (_short(v, number.form) for v in (estimate.low, estimate.high))
        text.append(f"\n{low} – {high}", style="dim")
    return text


def print_names(entries: Mapping[str, Mapping[str, Any]], kind: str = "") -> None:
    """Every number under its name, those that differ in radius and layer only below one line that says what it is.

    kind: of the scores.
    """
    together: dict[str, list[str]] = {}
    for name in entries:
        together.setdefault(parts(name).stem, []).append(name)
    for stem, names in together.items():
        say(f"{stem}: {in_words_of([kind], meaning_of(stem))}", style="bold")
        for name in names:
            estimate = estimate_of(entries[name])
            low, high = (f"{value:.4g}" if math.isfinite(value) else "" for value in (estimate.low, estimate.high))
            interval = f" ({low} – {high})" if low or high else ""
            value = f"{estimate.value:.4g}" if math.isfinite(estimate.value) else "undefined"
            outside = {math.inf: "above the radii", -math.inf: "below the radii"}.get(estimate.value, value)
            say(f"  {name}  {outside}{interval}, n {estimate.n}")
