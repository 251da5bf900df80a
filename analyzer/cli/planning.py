"""The command `plan`: what it takes to know a number well enough."""

from typing import Annotated

import typer

from analyzer.cli.app import Json, Run, app


@app.command()
def plan(
    run: Run,
    to: Annotated[str, typer.Option("--to", metavar="NAME=±10%", help="A number of the run, and half its interval.")],
    json: Json = False,
) -> None:
    """How many images, trials and radii an interval takes, from a pilot run, and how long that is."""
    from analyzer.cli import tables, terminal
    from analyzer.summary import radius_text
    from analyzer.summary.target import parse
    from analyzer.verdicts import plan as planning

    document = planning.plan(run, to)
    if json:
        terminal.print_json(document)
        return
    target = parse(to, parameter="to")
    shown = f"{document['value']:.3g}, within {target.shown(document['width'])}"
    table = tables.titled(f"{target.name}: {shown}, of {document['pilot_images']} images")
    table.add_column("")
    for heading in ("images", "trials", "radii", "passes", "time", "interval"):
        table.add_column(heading, justify="right", overflow="fold")
    for each in document["allocations"]:
        radii = each["radii"]
        named = radius_text(radii[0]) if len(radii) == 1 else f"{len(radii)}"
        passes = "-" if each["passes"] is None else f"{each['passes']:,}"
        images = str(each["images"] or "-")
        row = (each["name"], images, str(each["trials"]), named, passes, _time(each["seconds"]))
        table.add_row(*map(tables.cell, (*row, target.shown(each["width"]))))
    terminal.console().print(table)
    for sentence in document["sentences"]:
        terminal.say(f"• {sentence}")
    terminal.say(document["command"])


def _time(seconds: float | None) -> str:
    """Seconds as a person says them; "-" where the pace is not known."""
    if seconds is None:
        return "-"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
