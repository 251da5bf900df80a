"""The command `claims`: the paper's claims on one run."""

from pathlib import Path
from typing import Annotated

import typer

from analyzer.cli.app import Json, Run, app


@app.command()
def claims(
    run: Run,
    model: Annotated[
        Path | None, typer.Option("--model", help="The run's model, to compute the global Lipschitz bound of claim 4.")
    ] = None,
    card: Annotated[Path | None, typer.Option("--card", help="Model card, if not MODEL.json.")] = None,
    json: Json = False,
) -> None:
    """Put the paper's four claims to the test on a run: figure, interval and verdict for each."""
    from analyzer.cli import terminal
    from analyzer.cli.flags import flags
    from analyzer.verdicts import claims as judging

    document = judging.claims(run, model=model, card=card)
    if json:
        terminal.print_json(document)
        return
    if document["finished"] < document["selected"]:
        terminal.say(f"partial: {document['finished']} of {document['selected']} images", style="bold yellow")
    for claim in document["claims"]:
        terminal.say(f"({claim['number']}) {claim['claim']}: {claim['verdict']}", style="bold")
        terminal.say(f"    {flags(claim['reason'])}")
