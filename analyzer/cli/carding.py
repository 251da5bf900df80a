"""`analyzer check-card`: is the card right?"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analyzer.cli.app import Json, Model, Provider, Threads, app
from analyzer.text import short

if TYPE_CHECKING:
    from rich.table import Table

    from analyzer.estimate import Entry
    from analyzer.verdicts.check_card import CardCheck


@app.command("check-card")
def check_card(
    model: Model,
    images: Annotated[Path, typer.Option("--images", help="Folder of images, or of one sub-folder per class.")],
    card: Annotated[Path | None, typer.Option("--card", help="Model card, if not MODEL.json.")] = None,
    labels: Annotated[Path | None, typer.Option("--labels", help="CSV with the columns file,label.")] = None,
    limit: Annotated[int, typer.Option("--limit", help="Images at most; 20 to 200 do.")] = 50,
    seed: Annotated[int, typer.Option("--seed", help="Another seed: other images.")] = 0,
    fix: Annotated[
        bool, typer.Option("--fix", help="Write the best card, where labels show that it is better.")
    ] = False,
    provider: Provider = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Hold a card against its usual mistakes: channels, mean and std, layout, resize, interpolation."""
    from analyzer.cli import terminal
    from analyzer.cli.flags import flags
    from analyzer.verdicts.check_card import check_card as check

    with terminal.progress_shown() as shown:
        document = check(
            model,
            images,
            card=card,
            labels=labels,
            limit=limit,
            seed=seed,
            provider=provider,
            threads=threads,
            fix=fix,
            progress=terminal.counting(shown, "asking"),
        )
    if json:
        terminal.print_json(document)
        return
    left_out = f", {document['unreadable']} unreadable" if document["unreadable"] else ""
    terminal.say(f"{document['model']} with {document['card']}, {document['images']} images{left_out}", style="bold")
    terminal.console().print(_cards(document))
    if document["differences"]:
        terminal.console().print(_differences(document))
    terminal.say(f"• {flags(document['sentence'])}", style="bold yellow" if document["field"] else None)
    if document["unusable"]:
        terminal.say(f"• Tried too, and refused by the network: {', '.join(document['unusable'])}.")
    if document["fixed"]:
        terminal.say(f"Wrote {document['card']}.")


def _cards(document: "CardCheck") -> "Table":
    """One line a card, the best first: with labels what speaks for it, without them what can be seen."""
    from analyzer.cli import tables

    labelled = document["labelled"]
    table = tables.plain()
    table.add_column("card, the best first" if labelled else "card, the most telling first", overflow="fold")
    standing = any(row["standing"] is not None and math.isfinite(row["standing"]) for row in document["rows"])
    scores = ("nat more", "standard score") if standing else ("nat more than the card",)
    judged = ("right", *scores, "p") if labelled else ("information, nat", "confidence", "one class")
    for heading in (*judged, "as the card"):
        table.add_column(heading, justify="right", max_width=8 if heading in scores else 14)
    for row in document["rows"]:
        if labelled:
            cells = [_share(row["accuracy"])]
            cells += [tables.number(row["gain"], "+.2f") if row["field"] else ""]
            cells += [tables.number(row["standing"], ".2f")] if standing else []
            cells += [short(row["p"], ".1g") if row["field"] else ""]
        else:
            cells = [tables.number(row["information"], ".2f")]
            cells += [tables.number(value, ".0%") for value in (row["confidence"]["value"], row["most_frequent"])]
        cells.append(tables.number(row["agreement"], ".0%"))
        name = row["name"] or "the card itself"
        table.add_row(*map(tables.cell, (name, *cells)), style="" if row["field"] else "bold")
    return table


def _share(entry: "Entry") -> str:
    value, low, high = entry["value"], entry["low"], entry["high"]
    if value is None or not math.isfinite(value):
        return "undefined"
    return f"{value:.0%}" + (f" ({100 * low:.0f}–{100 * high:.0f})" if low is not None and high is not None else "")


def _differences(document: "CardCheck") -> "Table":
    from analyzer.cli import tables

    table = tables.plain()
    table.add_column("preprocessed otherwise", overflow="fold")
    for heading in ("decisions that change", "as noise of, grey levels"):
        table.add_column(heading, justify="right", max_width=24)
    for each in document["differences"]:
        changed = f"{each['changed']} of {each['images']}"
        table.add_row(*map(tables.cell, (each["name"], changed, _radius(each["equivalent"]))))
    return table


def _radius(equivalent: "Entry") -> str:
    from analyzer.verdicts.check_card.differences import RADII

    outside = {"below": f"below {RADII[0]:g}", "above": f"above {RADII[-1]:g}"}
    if censored := equivalent.get("censored"):
        return outside[str(censored)]
    value, low, high = equivalent["value"], equivalent["low"], equivalent["high"]
    if value is None or not math.isfinite(value):
        return "undefined"
    ends = [short(end, ".2g") if end is not None and math.isfinite(end) else "…" for end in (low, high)]
    return short(value, ".2g") + (f" ({' – '.join(ends)})" if ends != ["…", "…"] else "")
