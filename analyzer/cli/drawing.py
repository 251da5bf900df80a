"""The commands that draw one thing: landscape, frequency."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyzer.cli.app import Json, Model, Provider, app
from analyzer.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from analyzer.analyses.frequency.documents import LayerDocument
    from analyzer.analyses.landscape.documents import LandscapeDocument

Card = Annotated[Path | None, typer.Option("--card", help="Model card, if not MODEL.json.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE.png",
        help="Picture, and FILE.svg beside it; otherwise named after the IMAGE or MODEL, in the current folder.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Another seed: other perturbations.")]


@app.command()
def landscape(
    model: Model,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image file.")],
    card: Card = None,
    radius: Annotated[float, typer.Option("--radius", help="Of the noise, grey levels.")] = 10.0,
    seed: Seed = 0,
    size: Annotated[int, typer.Option("--size", help="Points along each side of the window.")] = 61,
    norm: Annotated[str, typer.Option("--norm", help="linf or l2: the norm whose length is the radius.")] = "linf",
    label: Annotated[int | None, typer.Option("--label", help="Class index; otherwise the clean prediction.")] = None,
    clip: Annotated[bool, typer.Option("--clip", help="Keep perturbed pixels inside 0..255.")] = False,
    whole: Annotated[bool, typer.Option("--round", help="Keep perturbed pixels on whole grey levels.")] = False,
    provider: Provider = "auto",
    out: Out = None,
    json: Json = False,
) -> None:
    """The score of an image's class on the plane spanned by a noise vector and a reordering of it (Fig. 2)."""
    from analyzer import card as cards
    from analyzer.analyses import landscape as landscapes
    from analyzer.cli import terminal

    out = _target(out, image, "landscape", json=json)
    with terminal.progress_shown() as shown:
        plane = landscapes.landscape(
            model,
            image,
            card=card,
            radius=radius,
            seed=seed,
            size=size,
            norm=norm,
            label=label,
            clip=clip,
            round=whole,
            provider=provider,
            progress=terminal.counting(shown, "evaluating"),
        )
    labels = cards.read(card or cards.beside(model)).labels
    document = landscapes.document(plane, labels=labels)
    if out is not None:
        from analyzer.plots import landscape as drawing

        name = document["label_name"] or str(plane.label)
        _save(drawing.draw(plane, name=image.name, label=name, says=document["sentence"]), out)
    if json:
        terminal.print_json(document)
        return
    _print_landscape(document, image.name, labels)
    _say_where(out)


def _print_landscape(document: "LandscapeDocument", name: str, labels: tuple[str, ...] | None) -> None:
    from analyzer.analyses.landscape.sentences import probability_text
    from analyzer.cli import tables, terminal

    def named(index: int) -> str:
        return f"{index} {labels[index]}" if labels else str(index)

    terminal.say(f"{name}: class {named(document['label'])}", style="bold")
    rows = [
        (
            what,
            f"({point['a']:g}, {point['b']:g})",
            probability_text(point["score"]),
            tables.number(point["log_odds"], ".2f"),
            named(point["predicted"]),
        )
        for what, point in zip(("image", "image + u", "image + v"), document["marked"].values(), strict=True)
    ]
    title = f"u: noise of {document['radius']:g} grey levels ({document['norm']}); v: u reordered"
    terminal.console().print(_table(title, ("", "(a, b)", "score", "log-odds, nat", "predicted"), rows))
    low, high = (tables.number(value, ".2f") for value in document["log_odds_range"])
    extent = document["extent"][1]
    terminal.say(f"In the window, -{extent:g} to {extent:g} lengths of u and v: log-odds {low} to {high} nat")
    terminal.say(f"• {document['sentence']}")
    if document["undefined_points"]:
        terminal.say(f"! {document['undefined_points']} points have no finite output.", style="yellow")


@app.command()
def frequency(
    model: Model,
    card: Card = None,
    trials: Annotated[int, typer.Option("--trials", help="Reorderings, and fresh noise vectors.")] = 100,
    seed: Seed = 0,
    out: Out = None,
    json: Json = False,
) -> None:
    """How much the first convolution's response changes when noise is reordered, and what its spectrum predicts."""
    from analyzer import card as cards
    from analyzer import graph
    from analyzer.analyses import frequency as frequencies
    from analyzer.cli import terminal
    from analyzer.graph.kernel import first_convolution

    out = _target(out, model, "frequency", json=json)
    graph.check(model)
    layer = first_convolution(model, card=cards.read(card or cards.beside(model)))
    responses = frequencies.analyse(layer, trials=trials, seed=seed)
    document = frequencies.layer_document(layer, responses, trials=trials, seed=seed)
    filters, _, height, width = layer.weights.shape
    described = f"{layer.name}: {filters} filters of {height} x {width}, {responses.positions} positions"
    if out is not None:
        from analyzer.plots import frequency as drawing

        _save(drawing.draw(responses, name=described, says=document["sentence"]), out)
    if json:
        terminal.print_json(document)
        return
    terminal.say(described, style="bold")
    if layer.folded:
        terminal.say(f"Folded into its weights: {', '.join(layer.folded)}")
    headings = ("over the filters", "median", "smallest", "largest", "predicted median")
    terminal.console().print(
        _table("Two draws of noise compared; y is the response map of one filter", headings, _frequency_rows(document))
    )
    terminal.say(f"• {document['sentence']}")
    _say_where(out)


def _frequency_rows(document: "LayerDocument") -> Iterator[tuple[str, ...]]:
    from analyzer.cli import tables

    over = document["over_filters"]
    for heading, name in (
        ("reordered: norm(y - y') / norm(y)", "permutation_map_difference"),
        ("fresh: norm(y - y') / norm(y)", "noise_map_difference"),
        ("reordered: |norm(y) - norm(y')| / norm(y)", "permutation_norm_difference"),
        ("fresh: |norm(y) - norm(y')| / norm(y)", "noise_norm_difference"),
        ("participation ratio of |W(f)|^2", "participation"),
    ):
        entry, predicted = over[name], over.get(f"{name}_predicted")
        values = [tables.number(value, ".3g") for value in (entry["median"], entry["low"], entry["high"])]
        yield (heading, *values, tables.number(predicted["median"], ".3g") if predicted else "")


def _table(title: str, headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> "Table":
    from analyzer.cli import tables

    table = tables.titled(title)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(tables.cell, row))
    return table


def _target(out: Path | None, of: Path, what: str, *, json: bool) -> Path | None:
    """`out`, or the picture's own name in the current folder, none with --json.

    Refuses before anything is computed what could not be written afterwards.
    """
    import importlib.util

    if out is None:
        if json:
            return None
        stem = re.sub(r"[^\w.-]+", "_", of.stem)[:60].lstrip("-.")
        out = Path(f"{stem or what}_{what}.png")
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out {out}: give a name that ends in .png; the same picture as .svg is written beside it")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.parent}; make it, or give another file")
    if not os.access(out.parent, os.W_OK):
        raise UsageError(f"{out}: the folder cannot be written to; give --out FILE.png, or --json for no picture")
    for target in (out, out.with_suffix(".svg")):
        if target.is_symlink() or (target.exists() and not target.is_file()):
            raise UsageError(f"--out {target}: no regular file; give another one")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError(
            "matplotlib is not installed, and pictures need it: pip install 'convnet-analyzer[report]', or give --json"
        )
    return out


def _save(picture: Any, out: Path) -> None:
    from analyzer import plots
    from analyzer.store import files

    files.write(out, plots.to_png(picture.figure))
    files.write(out.with_suffix(".svg"), plots.to_svg(picture.figure))


def _say_where(out: Path | None) -> None:
    from analyzer.cli import terminal

    if out is not None:
        terminal.say(f"Wrote {out} and {out.with_suffix('.svg').name}")
