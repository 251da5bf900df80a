"""`analyzer sensitivity`: gradients around a run's images, without a framework."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyzer.cli.app import Json, Provider, Run, Threads, app

if TYPE_CHECKING:
    from rich.table import Table

    from analyzer.analyses.gradients.documents import Median, SensitivityDocument


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
    provider: Provider = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Gradients around a run's images: isotropy by (3), the sharp Lipschitz constant, the distance to the boundary."""
    from analyzer.analyses.gradients.sensitivity import FILE
    from analyzer.analyses.gradients.sensitivity import sensitivity as measure
    from analyzer.cli import terminal
    from analyzer.study import Progress

    with terminal.progress_shown() as shown:
        document = measure(
            run,
            model=model,
            card=card,
            images=images,
            images_limit=images_limit,
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


SLOPES = (
    ("gradient\nL2", "gradient_l2"),
    ("equal\nshare", "gradient_equal_share"),
    ("sigma\nmax", "sigma_max"),
    ("norm_F(J)\n/ sqrt(D)", "jacobian_rms"),
    ("sampled\nmax", "ratio_sampled"),
)
"""Heading and quantity of the columns of the first table, one line an image."""
ATTACKS = (("FGSM\neps", "fgsm_eps"), ("nearest\nL2", "l2_distance"), ("noise\nradius", "noise_radius"))
"""The same of the second one."""
_NAME = 16  # characters of an image's name that fit beside the columns at a terminal's usual 80


def _print(document: "SensitivityDocument") -> None:
    from analyzer.cli import terminal

    run, method = document["run"], document["method"]
    terminal.say(f"{run['model']} on {run['device']}, layer {run['layer']}", style="bold")
    if method["gradients"]:
        error = method["self_check"]
        errors = ", ".join(f"{name} {value:.1g}" for name, value in error.items())
        terminal.say(f"Gradients by {method['gradients']}; relative errors in its self-check: {errors}")
    terminal.console().print(_table("Gradient and Jacobian", SLOPES, document))
    terminal.say(
        "gradient L2: length of the gradient of the true class's log-odds, nat per grey level. equal share: part of "
        "its square in which all elements are the same, 0 to 1. sigma max: the largest singular value of the layer's "
        "Jacobian J, the most that a small perturbation moves the features, feature units per grey level. norm_F(J) "
        "/ sqrt(D): how far random noise moves them, root mean square, same unit. sampled max: the farthest that the "
        f"run's noise of radius {run['radii'][0]:g} moved them, same unit."
    )
    terminal.console().print(_table("Distance to another class, grey levels", ATTACKS, document))
    terminal.say(
        "FGSM eps: smallest step found along the gradient's sign that changes the class, L-infinity. nearest L2: "
        "nearest point of another class that the minimum-distance attack found, L2. noise radius: smallest radius at "
        f"which the run's noise changed the class, {NORMS[run['norm']]}; > {run['radii'][-1]:g}: at none of its radii. "
        "none: not found. undefined: see the warnings below."
    )
    for sentence in document["sentences"]:
        terminal.say(f"• {sentence}")
    for warning in document["warnings"]:
        terminal.say(f"! {warning}", style="yellow")


NORMS = {"linf": "L-infinity", "l2": "L2"}


def _table(title: str, columns: tuple[tuple[str, str], ...], document: "SensitivityDocument") -> "Table":
    from analyzer.cli import tables

    table = tables.titled(title)
    table.add_column("image", min_width=_NAME, max_width=2 * _NAME, overflow="fold")
    for heading, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in document["images"]:
        figures: Mapping[str, Any] = row
        beyond = {"noise_radius": not row.get("noise_found")}
        cells = (
            _number(figures.get(name), beyond=beyond.get(name, False), absent=_absent(figures, name))
            for _, name in columns
        )
        table.add_row(*map(tables.cell, (row["id"], *cells)))
    table.add_section()
    medians: Mapping[str, Any] = document
    cells = (_median(medians.get(f"{name}_median"), searched=name in _SEARCHED) for _, name in columns)
    table.add_row(*map(tables.cell, ("median", *cells)))
    return table


_SEARCHED = frozenset(name for _, name in ATTACKS)


def _absent(figures: Mapping[str, Any], name: str) -> str:
    """What stands for a figure that is not there: an attack that was made may have found nothing."""
    return "none" if name in _SEARCHED and name in figures else "undefined"


def _median(median: "Median | None", *, searched: bool) -> str:
    if median is None:
        return "undefined"
    absent = "none" if searched else "undefined"
    return _number(median["value"], beyond=median.get("lower_bound", False), absent=absent)


def _number(value: float | None, *, beyond: bool = False, absent: str = "undefined") -> str:
    if value is None:
        return absent
    mantissa, exponent, power = f"{value:.2g}".partition("e")
    text = f"{value:.0f}" if 100 <= abs(value) < 1e6 else f"{mantissa}e{int(power)}" if exponent else mantissa
    return f"> {text}" if beyond else text
