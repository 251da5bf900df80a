"""The commands that decide and hand on: gate, export."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analyzer.cli.app import Json, Run, app
from analyzer.errors import GateError, UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from analyzer.verdicts.gate import Judgement

_CONDITION = 31  # letters of a condition's name that a table of 80 columns has room for


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
    table.add_column(tables.cell("condition"), overflow="fold", min_width=min(widest, _CONDITION - 13 * changes))
    for heading in ("value", *(["for the worse"] if changes else []), "95 % interval", "verdict"):
        table.add_column(tables.cell(heading), overflow="fold", max_width=17 if heading == "95 % interval" else 9)
    for verdict in document["verdicts"]:
        value, judged, interval = cells(verdict)
        change = [judged if verdict["kind"] == "max-regression" else ""] if changes else []
        row = [sign(verdict), verdict["condition"], value, *change, interval, verdict["status"]]
        table.add_row(*map(tables.cell, row))
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
