"""The commands that decide and hand on: compare, gate, export."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyzer.cli.app import Json, Run, app
from analyzer.errors import GateError, UsageError
from analyzer.text import short

if TYPE_CHECKING:
    from rich.table import Table

    from analyzer.verdicts.compare import Property
    from analyzer.verdicts.compare.paired import Pair
    from analyzer.verdicts.gate import Judgement

_CONDITION = 31  # letters of a condition's name that a table of 80 columns has room for

Runs = Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Run directories of one protocol.")]


@app.command()
def compare(runs: Runs, json: Json = False) -> None:
    """Compare runs of several networks on the images they share: paired differences, and which is more robust."""
    from analyzer.cli import terminal
    from analyzer.verdicts import compare as comparison

    document = comparison.compare(runs)
    if json:
        terminal.print_json(document)
        return
    terminal.say(
        f"{' and '.join(run['name'] for run in document['runs'])} on {document['images']} images", style="bold"
    )
    terminal.say(
        "Every run saw the same perturbations of each image."
        if document["pairing"] == "perturbation"
        else "Paired by image: the input sizes differ, and so do the perturbations."
    )
    for name, of_name in document["properties"].items():
        for table in _property_tables(name, of_name):
            terminal.console().print(table)
    for of_name in document["properties"].values():
        terminal.say(f"• {of_name['sentence']}")
    for note in document["notes"]:
        terminal.say(f"! {note}", style="yellow")


def _property_tables(name: str, of_name: "Property") -> Iterator["Table"]:
    """Values by radius, with the difference and its p where there is one pair; the pairs by themselves where more."""
    names, pairs = list(of_name["overall"]["values"]), of_name["overall"]["pairs"]
    _, slash, layer = name.partition("/")
    direction = f"; {of_name['more_robust']} is more robust" if of_name["more_robust"] else "; no ranking"
    one = len(pairs) == 1
    headings = ["radius", *names, *(["second minus first", "p"] if one else [])]
    unit = "" if of_name["unit"] == "1" else f", {of_name['unit']}"
    table = _table(f"{of_name['title']}{f' — {layer}' if slash else ''}{unit}{direction}", headings)
    for radius, entry in [*of_name["radii"].items(), ("all", of_name["overall"])]:
        if radius == "all":
            table.add_section()
        (pair, *_) = entry["pairs"]
        shown = [_difference(pair), _short(pair["p"])] if one else []
        table.add_row(radius, *(_short(entry["values"][run]) for run in names), *shown)
    yield table
    if not one:
        table = _table("Pairs, over all radii; p after Holm", ["first", "second", "second minus first", "p", "verdict"])
        for pair in pairs:
            words = {True: "differ", False: "not distinguishable", None: "cannot tell"}[pair["distinguishable"]]
            row = (pair["first"], pair["second"], _difference(pair), _short(pair["p_holm"]), words)
            table.add_row(*map(_cell, row))
        yield table


def _table(title: str, headings: list[str]) -> "Table":
    from analyzer.cli import tables

    table = tables.titled(title)
    for heading in headings:
        right = heading in ("p", "second minus first") or headings[0] == "radius"
        table.add_column(_cell(heading), justify="right" if right else "left", overflow="fold")
    return table


def _cell(text: str) -> Any:
    from analyzer.cli import tables

    return tables.cell(text)


def _difference(pair: "Pair") -> str:
    ends = [short(pair[end], "+.2g") for end in ("low", "high")]
    interval = f"\n{ends[0]} – {ends[1]}" if math.isfinite(pair["low"]) else ""
    return _short(pair["difference"], "+.2g") + interval


def _short(value: float, form: str = ".3g") -> str:
    return short(value, form) if math.isfinite(value) else "undefined"


@app.command()
def gate(
    run: Run,
    maximum: Annotated[list[str] | None, typer.Option("--max", metavar="NAME=VALUE", help="At most this.")] = None,
    minimum: Annotated[list[str] | None, typer.Option("--min", metavar="NAME=VALUE", help="At least this.")] = None,
    baseline: Annotated[Path | None, typer.Option("--baseline", help="A run to be no worse than.")] = None,
    regression: Annotated[
        list[str] | None,
        typer.Option("--max-regression", metavar="NAME=10%", help="How much worse, in percent or as a number."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Undecided does not pass.")] = False,
    junit: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML.")] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="Write a Markdown table.")] = None,
    json: Json = False,
) -> None:
    """Judge a run by the numbers of its summary.json: exit code 3 where it does not pass."""
    from analyzer.cli import terminal
    from analyzer.cli.flags import flags
    from analyzer.verdicts import gate as judging

    if junit is not None and markdown is not None and junit.resolve() == markdown.resolve():
        raise UsageError(f"--junit and --markdown both name {junit}; give two files")
    conditions = judging.conditions_of(maximum or [], minimum or [], regression or [], baseline=baseline is not None)
    document = judging.examine(run, conditions, baseline=baseline, strict=strict)
    for name, target, text in (("junit", junit, judging.junit), ("markdown", markdown, judging.markdown)):
        if target is not None:
            judging.write_text(target, text(document), parameter=name)
    _append_to_step_summary(judging.markdown(document))
    if json:
        terminal.print_json(document)
    else:
        for sentence in judging.partial(document):
            terminal.say(sentence, style="bold yellow")
        if document["verdicts"]:
            terminal.console().print(_verdict_table(document))
        for verdict in document["verdicts"]:
            if verdict["explanation"] != verdict["status"]:
                terminal.say(f"• {verdict['name']}: {flags(verdict['explanation'])}.")
        for note in document["notes"]:
            terminal.say(f"! {note}", style="yellow")
    if not document["passed"]:
        raise GateError(judging.reason(document))
    if not json:
        terminal.say(f"gate: {document['run']['name']} passes")


def _append_to_step_summary(text: str) -> None:
    """Show a table on the page of a GitHub Actions job, where this is one; its own trouble changes no verdict."""
    target = os.environ.get("GITHUB_STEP_SUMMARY")
    if target:
        try:
            with Path(target).open("a", encoding="utf-8") as file:
                file.write(f"{text.rstrip()}\n\n")
        except OSError as e:
            from analyzer.cli import terminal

            terminal.console(stderr=True).print(f"GITHUB_STEP_SUMMARY: cannot be written: {e.strerror}")


def _verdict_table(document: "Judgement") -> "Table":
    from analyzer.cli import tables
    from analyzer.verdicts.gate import cells, sign

    counts = sorted({verdict["n"] for verdict in document["verdicts"]})
    images = f"{counts[0]} images" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} images"
    table = tables.titled(f"Gate: {document['run']['name']}, {images}")
    changes = any(verdict["kind"] == "max-regression" for verdict in document["verdicts"])
    table.add_column("")
    widest = max(len(word) for verdict in document["verdicts"] for word in verdict["condition"].split())
    table.add_column(_cell("condition"), overflow="fold", min_width=min(widest, _CONDITION - 13 * changes))
    for heading in ("value", *(["for the worse"] if changes else []), "95 % interval", "verdict"):
        table.add_column(_cell(heading), overflow="fold", max_width=17 if heading == "95 % interval" else 9)
    for verdict in document["verdicts"]:
        value, judged, interval = cells(verdict)
        change = [judged if verdict["kind"] == "max-regression" else ""] if changes else []
        row = [sign(verdict), verdict["condition"], value, *change, interval, verdict["status"]]
        table.add_row(*map(_cell, row))
    return table


@app.command()
def export(
    run: Run,
    to: Annotated[str, typer.Option("--to", help="csv, parquet, zarr or netcdf.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="File or folder to make; otherwise export_csv, export.nc, ... in RUN.")
    ] = None,
) -> None:
    """Write a run's results in the format of another tool; nothing that exists is overwritten."""
    from analyzer import export as exporting
    from analyzer.cli import terminal

    written = exporting.export(run, to=to, out=out)
    if written.finished < written.selected:
        terminal.say(f"partial: {written.finished} of {written.selected} images", style="bold yellow")
    terminal.say(f"Wrote {written.target}: {written.finished} images")
