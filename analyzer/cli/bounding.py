"""`analyzer bound`: the global Lipschitz bound of a network."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from analyzer.cli.app import Json, Model, app
from analyzer.errors import UsageError

MOST_ITERATIONS = 10_000


@app.command()
def bound(
    model: Model,
    card: Annotated[Path | None, typer.Option("--card", help="Model card, if not MODEL.json.")] = None,
    run: Annotated[
        Path | None, typer.Option("--run", help="A run of this model: its local ratios are shown beside the bound.")
    ] = None,
    layers: Annotated[str, typer.Option("--layers", help="Tensors instead of the card's feature layer.")] = "",
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
    names = tuple(dict.fromkeys(name.strip() for name in layers.split(",") if name.strip()))
    last = time.monotonic()

    def tick(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= terminal.LINE_EVERY:
            last = time.monotonic()
            terminal.console(stderr=True).print(f"{done} of {total} operators")

    document = bounds.bound(model, card=card, run=run, layers=names, iterations=iterations, tick=tick)
    if json:
        terminal.print_json(document)
    else:
        _show(document)


def _show(document: dict[str, Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from analyzer.cli import terminal

    table = Table(
        title=Text("Largest factor by which each operator stretches an L2 distance"),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1),
        pad_edge=False,
    )
    table.add_column("operator", no_wrap=True)
    table.add_column("name", overflow="fold")
    for heading in ("norm, at most", "power iteration", "bound up to here"):
        table.add_column(heading, justify="right")
    table.add_column("how", overflow="fold")
    for row in document["operators"]:
        below = row["estimate"]["value"] if row["estimate"] else None
        cells = [row["operator"], row["name"], _number(row["norm"], "none"), _number(below, "")]
        cells += [_number(row["bound"], "unavailable"), row["how"] if row["norm"] is not None else "no rule"]
        table.add_row(*(Text(terminal.safe(cell)) for cell in cells))
    terminal.say(document["model"], style="bold")
    terminal.console().print(table)
    for row in document["operators"]:
        found = row["estimate"]
        if found and found["change"] > 1e-3:
            terminal.say(
                f"! {row['name']}: power iteration still grew by {found['change']:.1%} in its last of "
                f"{found['iterations']} iterations",
                style="yellow",
            )
    for entry in document["bounds"]:
        terminal.say(f"• {_sentence(entry)}")
    terminal.say(_units(document))
    alike: dict[tuple[str, str], list[str]] = {}
    for missing in document["missing"]:
        alike.setdefault((missing["operator"], missing["reason"]), []).append(missing["name"])
    for (operator, reason), names in alike.items():
        terminal.say(
            f"! {operator} ({', '.join(names)}) has no rule: {reason}; the bound is unavailable from there on",
            style="yellow",
        )
    for note in document["notes"]:
        terminal.say(note)


def _sentence(entry: dict[str, Any]) -> str:
    what = f"{'layer' if entry['what'] == 'layer' else 'the scores'} {entry['tensor']}"
    if entry["bound"] is None:
        said = f"Up to {what}: unavailable, because of {entry['reason']}."
    else:
        said = (
            f"Up to {what}: at most {_number(entry['bound'])} per unit of the normalised input, "
            f"{_number(entry['bound_per_grey_level'])} per grey level."
        )
    if entry.get("bound_normalised") is not None:
        said += f" By the run's ranges of g and h: at most {_number(entry['bound_normalised'])}."
    values = {key: number["value"] for key, number in entry.get("local", {}).items()}
    if values.get("lipschitz_median") is not None:
        said += (
            f" Sampled there: median {_number(values['lipschitz_median'])}, 95 % quantile "
            f"{_number(values['lipschitz_q95'])}, {values['lipschitz_below_one_share']:.1%} below 1."
        )
    return said


def _units(document: dict[str, Any]) -> str:
    said = (
        "Units: feature or score units per unit of the normalised input (after mean and std), and the same per grey "
        f"level of the pixels (divided by the smallest std, {_number(document['smallest_std'])})"
    )
    if any(entry.get("bound_normalised") is not None for entry in document["bounds"]):
        said += (
            "; by the run's ranges: the latter times range of h / range of g, without a unit, as the sampled ratios L_x"
        )
    return said + "."


def _number(value: float | None, absent: str = "undefined") -> str:
    return absent if value is None else f"{value:.4g}"
