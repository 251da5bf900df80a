"""`analyzer run`, and `merge` of what it measured in parts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyzer.cli.app import (
    Json,
    Layers,
    Model,
    Optimizations,
    Provider,
    ProviderOption,
    ProviderShare,
    Tables,
    Threads,
    app,
)
from analyzer.errors import UsageError

if TYPE_CHECKING:
    from analyzer.study.foreseeing import Foreseen

_RADII = "0.5,1:20"


@app.command()
def run(
    model: Model,
    images: Annotated[Path, typer.Option("--images", help="Folder of images, or of one sub-folder per class.")],
    out: Annotated[Path, typer.Option("--out", help="Run directory; the same command again continues it.")],
    card: Annotated[Path | None, typer.Option("--card", help="Model card, if not MODEL.json.")] = None,
    labels: Annotated[Path | None, typer.Option("--labels", help="CSV with the columns file,label.")] = None,
    limit: Annotated[int, typer.Option("--limit", help="Images measured at most; may grow on a later call.")] = 300,
    min_confidence: Annotated[float, typer.Option("--min-confidence", help="Confidence an image needs.")] = 0.99,
    radii: Annotated[str, typer.Option("--radii", help="Grey levels: numbers and ranges.")] = _RADII,
    trials: Annotated[int, typer.Option("--trials", help="Perturbations per radius and family.")] = 100,
    norm: Annotated[str, typer.Option("--norm", help="linf or l2: the norm whose length is the radius.")] = "linf",
    clip: Annotated[bool, typer.Option("--clip", help="Keep perturbed pixels inside 0..255.")] = False,
    whole: Annotated[bool, typer.Option("--round", help="Keep perturbed pixels on whole grey levels.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Another seed: other perturbations, other images.")] = 0,
    measures: Annotated[
        str | None, typer.Option("--measures", help="Comma-separated; all but certified if not given.")
    ] = None,
    layers: Layers = None,
    permutations: Annotated[int, typer.Option("--permutations", help="Of the Mantel test; 0: no p.")] = 999,
    linearity_trials: Annotated[
        int, typer.Option("--linearity-trials", help="Perturbations a that are answered at x - a/2 too.")
    ] = 20,
    family: Annotated[
        str | None, typer.Option("--family", help="gaussian: certify L2 radii under Gaussian noise instead.")
    ] = None,
    sigma: Annotated[
        str | None, typer.Option("--sigma", help="With --family gaussian: standard deviations, grey levels.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="NAME=±10%", help="Stop once this number is known so well.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/N", help="Measure part I of N only; `merge` joins them.")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            metavar="ADDRESS",
            help="Measure on Dask workers (extra [cluster]): tcp://HOST:PORT, a scheduler file, local:N, local:gpus.",
        ),
    ] = None,
    cluster_timeout: Annotated[
        float, typer.Option("--cluster-timeout", help="Seconds to wait where there is no worker.")
    ] = 300.0,
    shared: Annotated[
        bool, typer.Option("--shared", help="With --cluster: workers read model and images under the same paths.")
    ] = False,
    mixed: Annotated[
        bool, typer.Option("--mixed", help="With --cluster: workers may differ in versions, provider or precision.")
    ] = False,
    batch_size: Annotated[str, typer.Option("--batch-size", help="auto measures a few.")] = "auto",
    provider: Provider = "auto",
    threads: Threads = None,
    provider_option: ProviderOption = None,
    optimizations: Optimizations = "all",
    provider_share: ProviderShare = 0.5,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and how long it takes; write nothing.")
    ] = False,
    tables: Tables = False,
    json: Json = False,
) -> None:
    """Measure isotropy, symmetry, topology preservation and the local Lipschitz ratio around each image."""
    from analyzer import session, study
    from analyzer.cli import summarised, terminal

    chosen: dict[str, Any] = {} if measures is None else {"measures": study.parse_names(measures)}
    if family is not None or sigma is not None:
        chosen = _certifying(family, sigma, other=measures is not None or radii != _RADII)
    protocol = study.Protocol(
        trials=trials,
        limit=limit,
        min_confidence=min_confidence,
        norm=norm,
        clip=clip,
        round=whole,
        seed=seed,
        **{"radii": study.parse_radii(radii), **chosen},
        layers=tuple(layers or ()),
        permutations=permutations,
        linearity_trials=linearity_trials,
    )
    if dry_run:
        if cluster is not None:
            raise UsageError("--dry-run times one process here; leave out --cluster")
        foreseen = study.foresee(
            model,
            images,
            protocol=protocol,
            card=card,
            labels=labels,
            backend=session.Backend(
                provider, threads, session.parse_options(provider_option or ()), optimizations, provider_share
            ),
            batch_size=_batch_size(batch_size),
        )
        terminal.print_json(foreseen) if json else _say_foreseen(foreseen)
        return
    with terminal.progress_shown() as progress:
        document = study.run(
            model,
            images,
            out,
            protocol=protocol,
            card=card,
            labels=labels,
            provider=provider,
            threads=threads,
            provider_options=session.parse_options(provider_option or ()),
            optimizations=optimizations,
            provider_share=provider_share,
            batch_size=_batch_size(batch_size),
            until=until,
            shard=shard,
            cluster=cluster,
            cluster_timeout=cluster_timeout,
            shared=shared,
            mixed=mixed,
            progress=progress,
        )
    if json:
        terminal.print_json(document)
    elif shard is None:
        summarised.print_summary(document, run=str(out), tables=tables)
    else:
        terminal.say(f"Shard {shard} of {out}")


@app.command()
def merge(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The --out that the shards were given.")],
    shards: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[SHARD]...", help="Their run directories, where these are elsewhere."),
    ] = None,
    tables: Tables = False,
    json: Json = False,
) -> None:
    """Join the shards of a run, measured with `run --shard I/N`, into one."""
    from analyzer import study
    from analyzer.cli import summarised, terminal

    document = study.merge(run, shards or ())
    if json:
        terminal.print_json(document)
    else:
        summarised.print_summary(document, run=str(run), tables=tables)


def _certifying(family: str | None, sigma: str | None, *, other: bool) -> dict[str, Any]:
    """What --family gaussian --sigma S measures; other: whether radii or measures are given too."""
    from analyzer import study

    if family != "gaussian":
        given = "without --family" if family is None else f"--family {family}"
        raise UsageError(f"{given}: expected --family gaussian --sigma S; other families belong to their --measures")
    if sigma is None or other:
        why = "--radii and --measures do not go with it" if other else "--sigma is missing"
        raise UsageError(f"--family gaussian: {why}; give --sigma in grey levels, such as --sigma 15,30")
    return {"radii": study.parse_sigma(sigma), "measures": ("certified",)}


def _say_foreseen(foreseen: "Foreseen") -> None:
    from analyzer.cli import terminal

    minutes = foreseen["seconds"] / 60
    time = (
        f"{minutes:.0f} min"
        if 2 <= minutes < 120
        else f"{foreseen['seconds']:.0f} s"
        if minutes < 2
        else f"{minutes / 60:.1f} h"
    )
    terminal.say(f"{foreseen['model']} on {foreseen['device']}, batches of {foreseen['batch_size']}", style="bold")
    terminal.say(f"Layers: {', '.join(foreseen['layers'])}")
    terminal.say(
        f"{foreseen['images']} images found; at most {foreseen['measured']} of those that count are measured, with "
        f"{foreseen['passes_an_image']:,} forward passes each."
    )
    terminal.say(
        f"At most {foreseen['selecting'] + foreseen['measuring']:,} forward passes: about {time} at the pace of a few, "
        f"with {foreseen['opening']:.0f} s to open and check the network, and 5 to 15 % more for the rest."
    )
    for note in foreseen["notes"]:
        terminal.say(f"! {note}", style="yellow")


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--batch-size {text}: expected auto or a whole number above 0")
    return int(text)
