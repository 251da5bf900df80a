"""The commands: each reads its arguments, calls one function of the library, prints what comes back."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyzer.cli.app import Json, Model, Run, Tables, app
from analyzer.errors import IncompleteError, UsageError

if TYPE_CHECKING:
    from analyzer.drafting import Draft


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Where the two runs go, one folder a network.")] = Path(
        "demo-runs"
    ),
    tables: Tables = False,
    json: Json = False,
) -> None:
    """Run the two bundled traffic-sign networks on bundled images by a reduced protocol."""
    from analyzer import bundled
    from analyzer import demo as demonstration
    from analyzer.cli import summarised, terminal

    protocol = demonstration.PROTOCOL
    if not json:
        terminal.say(
            f"Reduced protocol: radii {', '.join(f'{r:g}' for r in protocol.radii)} grey levels, {protocol.trials} "
            f"perturbations per radius and family, at most {protocol.limit} rendered signs, {protocol.permutations} "
            "Mantel permutations. The paper's is 21 radii, 100 perturbations, 300 images: `analyzer run` does that."
        )
    documents = {}
    for name in bundled.NETWORKS:
        with terminal.progress_shown() as progress:
            documents[name] = demonstration.demo(name, out / name, progress=progress)
        if not json:
            summarised.print_summary(documents[name], run=str(out / name), tables=tables)
            terminal.say("")
    if json:
        terminal.print_json(documents)


@app.command()
def inspect(
    model: Model,
    write_card: Annotated[
        bool, typer.Option("--write-card", help="Write MODEL.json from what lies in and beside the model.")
    ] = False,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="FILE", help="A configuration to take the card from, or keras:caffe, :tf, :torch."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show a model's inputs, outputs and candidate feature layers."""
    import dataclasses

    from analyzer import card as cards
    from analyzer import document, drafting, graph
    from analyzer.cli import terminal

    graph.check(model)
    description = dataclasses.asdict(graph.describe(model))
    if source is not None and not write_card:
        raise UsageError("--from is for --write-card")
    drafted = drafting.draft(model, source=source) if write_card else None
    if drafted is not None:
        document.write_new(cards.beside(model), drafted.document)
    if json:
        terminal.print_json(description)
        return
    terminal.print_description(model.name, description)
    if drafted is not None:
        _say_drafted(cards.beside(model), drafted)


def _say_drafted(path: Path, drafted: "Draft") -> None:
    from analyzer.cli import terminal

    terminal.say(f"Wrote {path}")
    for field, origin in drafted.origins.items():
        terminal.say(f"✓ {field}: {origin}")
    todo = drafted.document.get("source", {}).get("fill_in", [])
    for item in todo:
        terminal.say(f"? {item}", style="yellow")
    if todo:
        terminal.say(
            "Settle what is marked ?, then empty source.fill_in; `analyzer check-card` tries the alternatives."
        )


@app.command()
def summary(run: Run, tables: Tables = False, json: Json = False) -> None:
    """Print the summary of a run, also of one that is not complete."""
    from analyzer import store
    from analyzer import summary as summaries
    from analyzer.cli import summarised, terminal

    reader = store.Run(run)
    document = summaries.of_run(reader)
    if json:
        terminal.print_json(document)
        return
    terminal.say_partial(reader.state)
    summarised.print_summary(document, run=str(run), tables=tables)


@app.command()
def names(run: Run, json: Json = False) -> None:
    """List every name of a run's summary with its meaning, value and interval: what `gate` and `plan` take."""
    from analyzer import store
    from analyzer import summary as summaries
    from analyzer.cli import summarised, terminal
    from analyzer.estimate import is_entry

    document = summaries.of_run(store.Run(run))
    entries = {name: entry for name, entry in document.items() if is_entry(entry)}
    if json:
        meanings = {name: summaries.meaning_of(summaries.parts(name).stem) for name in entries}
        terminal.print_json({name: {"meaning": meanings[name], **entry} for name, entry in entries.items()})
        return
    summarised.print_names(entries, summaries.kind_of(document))


@app.command()
def verify(
    run: Run,
    mend: Annotated[bool, typer.Option("--mend", help="Rebuild what another file of the run still holds.")] = False,
    json: Json = False,
) -> None:
    """Check every file of a run: checksums, shapes, missing images, results against units."""
    import dataclasses

    from analyzer import store
    from analyzer import summary as summaries
    from analyzer.cli import terminal
    from analyzer.cli.flags import flags

    problems = summaries.verify(run, mend=mend)
    left = sum(not problem.mended for problem in problems)
    finished, selected = store.Run(run).state[:2] if not left else (0, 0)
    if json:
        listed = [{**dataclasses.asdict(problem), "mend": flags(problem.mend)} for problem in problems]
        terminal.print_json({"problems": listed, "finished": finished, "selected": selected})
    for problem in [] if json else problems:
        terminal.say(f"{problem.file}: {problem.what}; {'mended' if problem.mended else flags(problem.mend)}")
    if left:
        count = "1 problem" if left == 1 else f"{left} problems"
        raise IncompleteError(f"{run}: {count}, named on stdout with what mends each")
    if not json:
        wrong = "nothing wrong any more" if problems else "nothing wrong"
        terminal.say(f"{run}: {finished} of {selected} images, {wrong}")


@app.command()
def doctor(json: Json = False) -> None:
    """Show what this installation can do: versions, providers that really work, and checks of its own arithmetic."""
    from analyzer import doctor as checks
    from analyzer.cli import terminal

    report = checks.examine()
    if json:
        terminal.print_json(report)
    else:
        terminal.print_doctor(report)
    if not all(check["passed"] for check in report["checks"]):
        raise UsageError("this installation does not pass its own checks; install convnet-analyzer again")


def call(arguments: list[str]) -> int:
    """Run one command; returns its exit code. Usage errors that typer finds come out as UsageError with its words."""
    try:
        code: Any = app(arguments, prog_name="analyzer", standalone_mode=False)
    except SystemExit as e:
        code = e.code
    except Exception as e:
        # typer's base of usage errors is click's, or its own copy of click's: known by what it offers.
        if not hasattr(e, "format_message"):
            raise
        command = next((a for a in arguments if not a.startswith("-")), "")
        raise UsageError(f"{e.format_message()} See `{' '.join(['analyzer', command]).strip()} --help`.") from e
    return code if isinstance(code, int) else 0


_OTHERS = (
    "running",
    "bounding",
    "carding",
    "claiming",
    "comparing",
    "deciding",
    "drawing",
    "drifting",
    "planning",
    "reporting",
    "sensitivity",
)
for _name in _OTHERS:  # each registers its own commands, after those above
    importlib.import_module(f"analyzer.cli.{_name}")
