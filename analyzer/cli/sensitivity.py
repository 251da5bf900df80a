"""`analyzer sensitivity`: gradients around a run's images, without a framework."""

from pathlib import Path
from typing import Annotated, Any

import typer

from analyzer.cli.app import Json, Run, app


@app.command()
def sensitivity(
    run: Run,
    images_limit: Annotated[int, typer.Option("--images-limit", help="Images, the first ones of the run.")] = 10,
    model: Annotated[
        Path | None, typer.Option("--model", help="The run's model, if it is not beside its card.")
    ] = None,
    card: Annotated[Path | None, typer.Option("--card", help="The run's card, if it has moved.")] = None,
    images: Annotated[Path | None, typer.Option("--images", help="The run's image folder, if it has moved.")] = None,
    clip: Annotated[bool, typer.Option("--clip", help="Keep attacked pixels inside 0..255.")] = False,
    provider: Annotated[
        str, typer.Option("--provider", help="auto, cpu, cuda, ...; never a silent fallback.")
    ] = "auto",
    threads: Annotated[int | None, typer.Option("--threads", help="Of the CPU provider.")] = None,
    json: Json = False,
) -> None:
    """Gradients around a run's images: isotropy by (3), the sharp Lipschitz constant, the distance to the boundary."""
    from analyzer.cli import terminal
    from analyzer.gradients.sensitivity import FILE
    from analyzer.gradients.sensitivity import sensitivity as measure
    from analyzer.study import Progress

    with terminal.progress_shown() as shown:
        document = measure(
            run,
            model=model,
            card=card,
            folder=images,
            limit=images_limit,
            clip=clip,
            provider=provider,
            threads=threads,
            progress=lambda done, total, passes: shown(Progress("differentiating", done, total, passes)),
        )
    if json:
        terminal.print_json(document)
        return
    _print(document)
    terminal.say(f"Wrote {run / FILE}")


COLUMNS = (
    ("gradient\nL2", "gradient_l2"),
    ("equal\nshare", "gradient_equal_share"),
    ("sigma\nmax", "sigma_max"),
    ("norm_F /\nsqrt(D)", "jacobian_rms"),
    ("sampled\nmax", "ratio_sampled"),
    ("FGSM\neps", "fgsm_eps"),
    ("nearest\nL2", "l2_distance"),
    ("noise\nradius", "noise_radius"),
)
"""Heading and quantity of the columns, one line an image."""


def _print(document: dict[str, Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from analyzer.cli import terminal

    run, method = document["run"], document["method"]
    terminal.say(f"{run['model']} on {run['device']}, layer {run['layer']}", style="bold")
    if method["gradients"]:
        tried = method["self_check"]
        errors = ", ".join(f"{name} {tried[name]:.1g}" for name in ("jacobian", "gradient", "adjoint"))
        terminal.say(f"Gradients by {method['gradients']}; relative errors in its self-check: {errors}")
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("image", max_width=24, overflow="fold")
    for heading, _ in COLUMNS:
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for row in document["images"]:
        table.add_row(Text(terminal.safe(row["id"])), *(Text(_cell(row, name)) for _, name in COLUMNS))
    table.add_section()
    medians = {name: (document.get(f"{name}_median") or {"value": None})["value"] for _, name in COLUMNS}
    table.add_row("median", *(Text(_number(medians[name])) for _, name in COLUMNS))
    terminal.console().print(table)
    for sentence in document["sentences"]:
        terminal.say(f"• {sentence}")
    for warning in document["warnings"]:
        terminal.say(f"! {warning}", style="yellow")


def _cell(row: dict[str, Any], name: str) -> str:
    text = _number(row.get(name))
    return f"> {text}" if name == "noise_radius" and text and not row["noise_found"] else text


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    mantissa, exponent, power = f"{value:.2g}".partition("e")
    return f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{mantissa}e{int(power)}" if exponent else mantissa
