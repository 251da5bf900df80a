"""`analyzer compare`: which of several networks is more robust."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyzer.cli.app import Json, Tables, app
from analyzer.text import short

if TYPE_CHECKING:
    from rich.table import Table

    from analyzer.verdicts.compare import Comparison, Property
    from analyzer.verdicts.compare.paired import Pair

_NAME = 12  # letters of a run's name in one line of a table of 80 columns
Runs = Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Run directories of one protocol.")]


@app.command()
def compare(runs: Runs, tables: Tables = False, json: Json = False) -> None:
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
    if tables:
        for name, of_name in document["properties"].items():
            for table in _property_tables(name, of_name):
                terminal.console().print(table)
        for of_name in document["properties"].values():
            terminal.say(f"• {of_name['sentence']}")
    else:
        _print_brief(document)
    for note in document["notes"]:
        terminal.say(f"! {note}", style="yellow")
    if not tables:
        terminal.say("Next: the same with --tables: every radius and layer, and how many images say so")


def _print_brief(document: "Comparison") -> None:
    """One line a property, over all radii, of the deepest layer; and what follows, verdict by verdict."""
    from analyzer.cli import tables, terminal

    shown, layers = _shown(document)
    known, titles = {name: each for name, each in shown.items() if each["overall"]["n"]}, _titles(shown)
    names = [run["name"] for run in document["runs"]]
    terminal.say("Over all radii; medians over the images, of shares means:")
    table = tables.plain()
    table.add_column("property", overflow="fold")
    pair, called = len(names) == 2, tables.without_common_start(names[0], names)
    for name in names:
        table.add_column(tables.cell(called[name]), justify="right", overflow="fold", max_width=_NAME)
    for heading in ("second minus first", "p") if pair else ():
        table.add_column(tables.cell(heading), justify="right", no_wrap=True)
    for key, each in known.items():
        overall = each["overall"]
        row = [titles[key], *(_short(overall["values"][name]) for name in names)]
        if pair:
            row += [_difference(overall["pairs"][0], "{} ({} – {})"), _short(overall["pairs"][0]["p"], ".2g")]
        table.add_row(*map(tables.cell, row))
    if known:
        terminal.console().print(table)
    if pair:
        for sentence, of in _verdicts(shown, titles).items():
            terminal.say(f"• {sentence}: {'; '.join(of)}.")
    else:
        for each in shown.values():
            terminal.say(f"• {each['sentence']}")
    if len(layers) > 1:
        terminal.say(f"Of {len(layers)} layers, this is {layers[-1]}; --tables shows all.")


def _shown(document: "Comparison") -> tuple[dict[str, "Property"], list[str]]:
    """The properties that have no layer, or the last one in the first run's order; and the layers that there are."""
    properties = document["properties"]
    found = {name.partition("/")[2] for name in properties if "/" in name}
    layers = [layer for layer in document["runs"][0]["layers"] if layer in found] or sorted(found)
    of_last = f"/{layers[-1]}" if layers else ""
    return {name: each for name, each in properties.items() if "/" not in name or name.endswith(of_last)}, layers


def _verdicts(properties: Mapping[str, "Property"], titles: Mapping[str, str]) -> dict[str, list[str]]:
    """Of two runs: what is said of each property, with the names of all of which it is said."""
    from analyzer.statistics import FEW_IMAGES
    from analyzer.verdicts.compare.sentences import winner

    said: dict[str, list[str]] = {}
    for name, each in properties.items():
        (pair,) = each["overall"]["pairs"]
        if not each["overall"]["n"]:
            verdict = "Undefined in some run for every common image"
        elif pair["reason"]:
            verdict = f"No verdict, {pair['reason']}"
        elif pair["distinguishable"] is None:
            verdict = f"Too few images to tell, {FEW_IMAGES} are needed"
        elif not pair["distinguishable"]:
            verdict = "Not distinguishable"
        elif each["more_robust"]:
            verdict = f"{winner(pair, each['more_robust'])} is more robust on more images"
        else:
            verdict = "They differ on more images one way than the other, which is no ranking"
        said.setdefault(verdict, []).append(titles[name])
    return dict(sorted(said.items(), key=lambda item: "more robust" not in item[0]))


def _titles(properties: Mapping[str, "Property"]) -> dict[str, str]:
    """Each title as far as its first comma, of one word where no other begins with it; with its unit."""
    first = {name: each["title"].partition(":")[0] for name, each in properties.items()}
    count = Counter(first.values())
    titles = {}
    for name, each in properties.items():
        title = each["title"].partition(",")[0] if count[first[name]] > 1 else first[name].partition(",")[0]
        titles[name] = title if each["unit"] == "1" else f"{title}, {each['unit']}"
    return titles


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


def _difference(pair: "Pair", form: str = "{}\n{} – {}") -> str:
    """A difference with its interval, in the places of `form`."""
    difference = _short(pair["difference"], "+.2g")
    ends = (short(pair[end], "+.2g") for end in ("low", "high"))
    return form.format(difference, *ends) if math.isfinite(pair["low"]) else difference


def _short(value: float, form: str = ".3g") -> str:
    return short(value, form) if math.isfinite(value) else "undefined"
