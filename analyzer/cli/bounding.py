"""`analyzer bound`: the global Lipschitz bound of a network."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analyzer.cli.app import Json, Layers, Model, app
from analyzer.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from analyzer.analyses.bound.documents import BoundDocument

MOST_ITERATIONS = 10_000


@app.command()
def bound(
    model: Model,
    card: Annotated[Path | None, typer.Option("--card", help="Model card, if not MODEL.json.")] = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="A run of this model: its local ratios are shown beside the bound.")
    ] = None,
    layers: Layers = None,
    iterations: Annotated[
        int, typer.Option("--iterations", help="Power iterations on each convolution, a check from below; 0: none.")
    ] = 50,
    json: Json = False,
) -> None:
    """Bound the L2 Lipschitz constant of the whole network from above, operator by operator."""
    from analyzer.analyses import bound as bounds
    from analyzer.cli import terminal

    if not 0 <= iterations <= MOST_ITERATIONS:
        raise UsageError(f"--iterations {iterations}: must lie in 0..{MOST_ITERATIONS}")
    last = time.monotonic()

    def tick(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= terminal.LINE_EVERY:
            last = time.monotonic()
            terminal.console(stderr=True).print(f"{done} of {total} operators")

    document = bounds.bound(model, card=card, run=run, layers=layers or (), iterations=iterations, tick=tick)
    if json:
        terminal.print_json(document)
    else:
        _show(document)


def _show(document: "BoundDocument") -> None:
    from analyzer.analyses.bound import sentences
    from analyzer.cli import terminal

    terminal.say(document["model"], style="bold")
    terminal.console().print(_table(document))
    for warning in sentences.still_growing(document):
        terminal.say(f"! {warning}", style="yellow")
    for row in document["bounds"]:
        terminal.say(f"• {sentences.up_to(row)}")
    terminal.say(sentences.units(document))
    for warning in sentences.without_rule(document):
        terminal.say(f"! {warning}", style="yellow")
    for note in document["notes"]:
        terminal.say(note)


def _table(document: "BoundDocument") -> "Table":
    from analyzer.cli import tables

    table = tables.titled("Largest factor by which each operator stretches an L2 distance")
    table.add_column("operator", no_wrap=True)
    table.add_column("name", overflow="fold")
    for heading in ("norm, at most", "power iteration", "bound up to here"):
        table.add_column(heading, justify="right")
    table.add_column("how", overflow="fold")
    for row in document["operators"]:
        below = row["estimate"]["value"] if row["estimate"] else None
        cells = (
            row["operator"],
            row["name"],
            tables.number(row["norm"], ".4g", absent="none"),
            tables.number(below, ".4g", absent=""),
            tables.number(row["bound"], ".4g", absent="unavailable"),
            row["how"] if row["norm"] is not None else "no rule",
        )
        table.add_row(*map(tables.cell, cells))
    return table
