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
    from analyzer import claims as judge
    from analyzer import store
    from analyzer.cli import terminal

    finished, selected = store.progress(run)
    with store.reading(run) as dataset:
        bound, no_bound = None, "was not computed (give --model)"
        if model is not None:
            from analyzer.analyses import bound as bounds

            layer = judge.feature_layer(dataset)
            (entry,) = (
                each
                for each in bounds.bound(model, card=card, run=run, layers=(layer,), iterations=0)["bounds"]
                if each["what"] == "layer"
            )
            bound, no_bound = entry["bound_normalised"], f"is unavailable: {entry['reason'] or 'no range'}"
        judged = judge.claims(dataset, bound=bound, no_bound=no_bound)
    if json:
        terminal.print_json(
            {"run": str(run), "finished": finished, "selected": selected, "claims": judge.to_document(judged)}
        )
        return
    if finished < selected:
        terminal.say(f"partial: {finished} of {selected} images", style="bold yellow")
    for claim in judged:
        terminal.say(f"({claim.number}) {claim.claim}: {claim.verdict}", style="bold")
        terminal.say(f"    {claim.reason}")
