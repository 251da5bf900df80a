"""`analyzer report`: one HTML file and the figures it shows."""

from pathlib import Path
from typing import Annotated

import typer

from analyzer.cli.app import app
from analyzer.errors import UsageError


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories, finished or not.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where it goes: into RUN for one run; needed for several.")
    ] = None,
    drift: Annotated[
        bool, typer.Option("--drift", help="The first run is the reference, the others are builds of its network.")
    ] = False,
) -> None:
    """Write report.html, one self-contained page, and its figures as PNG and SVG."""
    from analyzer import report as reports
    from analyzer.cli import terminal

    if out is None and len(runs) > 1:
        raise UsageError(f"{len(runs)} runs: say where their report goes with --out DIR")
    terminal.say(f"Report: {reports.write(runs, out or runs[0], drift=drift)}")
