"""The command that holds builds of one network together: drift."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyzer.cli.app import Json, Layers, ProviderOption, Tables, Threads, app
from analyzer.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from analyzer.verdicts.drift import Document


_NAME = 26  # letters of a candidate's name that a table of 80 columns has room for
_RADII = (
    ("drift_equivalent_noise_median", "drift_equivalent_feature_noise_median"),
    ("drift_resolved_radius_median", "drift_resolved_feature_radius_median"),
)
"""Of the log-odds, and of the last layer, which is all that there is of an embedding."""


@app.command()
def drift(
    reference: Annotated[
        Path, typer.Argument(metavar="REFERENCE", help="Run of the build in use; its model with --run.")
    ],
    candidates: Annotated[
        list[Path], typer.Argument(metavar="CANDIDATE...", help="Runs of other builds; models or folders with --run.")
    ],
    match: Annotated[
        list[str] | None,
        typer.Option("--match", metavar="A=B", help="A layer of the reference and the candidate's name for it."),
    ] = None,
    run: Annotated[bool, typer.Option("--run", help="Make the runs first, by a reduced protocol.")] = False,
    images: Annotated[Path | None, typer.Option("--images", help="With --run: folder of images.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="With --run: folder for the runs.")] = None,
    card: Annotated[Path | None, typer.Option("--card", help="With --run: the card of all, if not MODEL.json.")] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="With --run: CSV with the columns file,label.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="With --run: images measured at most.")] = None,
    layers: Layers = None,
    provider: Annotated[str | None, typer.Option("--provider", help="With --run: as `run` takes it.")] = None,
    threads: Threads = None,
    provider_option: ProviderOption = None,
    optimizations: Annotated[str | None, typer.Option("--optimizations", help="With --run: likewise.")] = None,
    provider_share: Annotated[float | None, typer.Option("--provider-share", help="With --run: likewise.")] = None,
    tables: Tables = False,
    json: Json = False,
) -> None:
    """Is a build or backend still the same function around the images? Row by row, against a reference."""
    from analyzer import session
    from analyzer.cli import terminal
    from analyzer.cli.flags import flags
    from analyzer.verdicts import drift as drifting

    given: dict[str, object] = {
        "images": images,
        "out": out,
        "card": card,
        "labels": labels,
        "limit": limit,
        "layers": layers,
    }
    given |= {"provider": provider, "threads": threads, "provider-option": provider_option}
    given |= {"optimizations": optimizations, "provider-share": provider_share}
    if not run:
        if odd := [name for name, value in given.items() if value is not None]:
            raise UsageError(f"--{odd[0]} goes with --run, which makes the runs")
        if models := [path for path in (reference, *candidates) if path.suffix == ".onnx"]:
            raise UsageError(f"{models[0]}: a model, not a run; --run makes the runs of models first")
        document = drifting.drift(reference, candidates, match=match or [])
    elif images is None or out is None:
        raise UsageError("--run needs --images DIR and --out DIR")
    else:
        document = _made(
            reference,
            candidates,
            images,
            out,
            changed={"limit": limit, "layers": tuple(layers) if layers else None},
            match=match or [],
            how={
                "card": card,
                "labels": labels,
                "provider": provider or "auto",
                "threads": threads,
                "provider_options": session.parse_options(provider_option or ()),
                "optimizations": optimizations or "all",
                "provider_share": 0.5 if provider_share is None else provider_share,
            },
            quiet=json,
        )
    if json:
        terminal.print_json(document)
        return
    terminal.say(f"Drift from {document['reference']['name']}", style="bold")
    for candidate in document["candidates"]:
        terminal.say(f"{candidate['name']}: {candidate['verdict']}.")
    terminal.console().print(_overview(document))
    for candidate in document["candidates"]:
        for table in (_by_radius(candidate), _layers(candidate)) if tables else (_brief(document, candidate),):
            if table.row_count:
                terminal.console().print(table)
        for sentence in candidate["sentences"]:
            terminal.say(f"• {candidate['name']}: {sentence}" if len(document["candidates"]) > 1 else f"• {sentence}")
    for note in document["notes"]:
        terminal.say(f"! {flags(note)}", style="yellow")
    if not tables:
        terminal.say("Next: the same with --tables: every radius and layer")


def _made(
    reference: Path,
    candidates: list[Path],
    images: Path,
    out: Path,
    *,
    changed: dict[str, Any],
    match: list[str],
    how: dict[str, Any],
    quiet: bool,
) -> "Document":
    """The drift of runs that are made first. changed: what of the reduced protocol is not None."""
    import dataclasses

    from analyzer.cli import terminal
    from analyzer.verdicts.drift import running

    protocol = dataclasses.replace(running.PROTOCOL, **{k: v for k, v in changed.items() if v is not None})
    models = running.models_of(reference, candidates)
    if not quiet:
        radii = ", ".join(f"{radius:g}" for radius in protocol.radii)
        terminal.say(
            f"Reduced protocol: radii {radii}, {protocol.trials} perturbations each, at most {protocol.limit} images "
            "of any confidence. `analyzer run` on each build does it at length."
        )
    with terminal.progress_shown() as progress:
        return running.run_and_drift(
            models, images, out, protocol=protocol, match=match, progress=lambda model, step: progress(step), **how
        )


def _overview(document: "Document") -> "Table":
    """One line a candidate: decisions, and how much noise does as much."""
    from analyzer.cli import tables
    from analyzer.summary import parts

    table = tables.titled("All candidates")
    headings = ("candidate", "clean images flipped", "for the worse", "as much as noise of", "resolved from radius")
    names = _names(document)
    for heading in headings:
        first = heading == "candidate"
        width = min(_NAME, max(map(len, names.values()))) if first else None
        table.add_column(
            tables.cell(heading),
            overflow="fold",
            justify="left" if first else "right",
            min_width=width,
            max_width=max(width or 0, 10),
        )
    for candidate in document["candidates"]:
        radii = sorted({at for name in candidate if (at := parts(name).radius) is not None})
        clean = "drift_clean_flip_share", "drift_clean_negative_flip_share"
        cells = [_share(candidate.get(name)) for name in clean]
        cells += [_radius(_either(candidate, *pair), radii) for pair in _RADII]
        table.add_row(*map(tables.cell, (names[candidate["name"]], *cells)))
    return table


def _names(document: "Document") -> dict[str, str]:
    """What to call the candidates where room is scarce."""
    from analyzer.cli import tables

    candidates = [candidate["name"] for candidate in document["candidates"]]
    return tables.without_common_start(document["reference"]["name"], candidates)


def _either(candidate: dict[str, Any], name: str, of_layer: str) -> dict[str, Any] | None:
    """The number of the log-odds, or where these are unknown that of the last layer."""
    entry: dict[str, Any] | None = candidate.get(name)
    if entry is not None and entry["n"]:
        return entry
    suffixes = [suffix for _, suffix in _suffixes(candidate)]
    return candidate.get(f"{of_layer}{suffixes[-1]}", entry) if suffixes else entry


def _brief(document: "Document", candidate: dict[str, Any]) -> "Table":
    """What differs at the smallest, a middle and the largest radius, beside the reference's own answer to the noise."""
    from analyzer.cli import tables
    from analyzer.summary import by_radius, ends_and_middle, radius_text

    numbers = {name: entry for name, entry in candidate.items() if isinstance(entry, dict)}
    (layer, suffix), *_ = [*reversed(list(_suffixes(candidate))), ("", "")]
    rows: list[tuple[str, dict[float, Any], Callable[[Any], str]]] = [
        ("rows flipped", by_radius(numbers, "drift_flip_share"), lambda entry: _share(entry, "{} ({} – {})")),
        ("log-odds apart, nat", by_radius(numbers, "drift_log_odds_median"), _value),
        ("moved by the noise, nat", by_radius(numbers, "drift_reference_response_median"), _value),
        (f"features off, {layer}", by_radius(numbers, "drift_feature_relative_median", suffix), _percent),
    ]
    rows = [row for row in rows if any(math.isfinite(entry["value"]) for entry in row[1].values())]
    radii = sorted({radius for _, at, _ in rows for radius in at})
    table = tables.plain()
    names = _names(document)
    several = f"{names[candidate['name']]}, " if len(names) > 1 else ""
    table.add_column(tables.cell(f"{several}at radius"), overflow="fold")
    shown = ends_and_middle(radii)
    for radius in shown:
        table.add_column(radius_text(radius), justify="right")
    for name, at, form in rows:
        table.add_row(*map(tables.cell, (name, *(form(at.get(radius)) for radius in shown))))
    return table


def _by_radius(candidate: dict[str, Any]) -> "Table":
    from analyzer.cli import tables
    from analyzer.summary import by_radius, radius_labels

    table = tables.titled(f"{candidate['name']}, by radius of the noise")
    columns: list[tuple[str, str, Callable[[Any], str]]] = [
        ("rows flipped", "drift_flip_share", _share),
        ("reordered", "drift_permutation_flip_share", _share),
        ("log-odds apart, nat", "drift_log_odds_median", _value),
        ("95 % of rows", "drift_log_odds_q95", _value),
    ]
    numbers = {name: entry for name, entry in candidate.items() if isinstance(entry, dict)}
    found = [(heading, by_radius(numbers, stem), form) for heading, stem, form in columns]
    found = [each for each in found if each[1]]
    for heading in ("radius", *(heading for heading, _, _ in found)):
        table.add_column(tables.cell(heading), justify="right", overflow="fold")
    for radius, label in radius_labels({r for _, at, _ in found for r in at}).items():
        table.add_row(*map(tables.cell, (label, *(form(at.get(radius)) for _, at, form in found))))
    return table


def _layers(candidate: dict[str, Any]) -> "Table":
    """Along the depth: how far a layer's features are off, and from which radius on they answer as the reference's."""
    from analyzer.cli import tables
    from analyzer.summary import parts

    table = tables.titled(f"{candidate['name']}, layers from first to last")
    for heading in ("layer", "relative error", "resolved from radius"):
        table.add_column(tables.cell(heading), justify="left" if heading == "layer" else "right", overflow="fold")
    radii = sorted({at for name in candidate if (at := parts(name).radius) is not None})
    for name, suffix in _suffixes(candidate):
        error = candidate[f"drift_clean_feature_relative_median{suffix}"]
        resolved = candidate.get(f"drift_resolved_feature_radius_median{suffix}")
        table.add_row(*map(tables.cell, (name, _value(error), _radius(resolved, radii))))
    return table


def _suffixes(candidate: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for layer in candidate["layers"]:
        for suffix in (f"/{layer['reference']}", ""):
            if f"drift_clean_feature_relative_median{suffix}" in candidate:
                yield layer["reference"], suffix
                break


def _share(entry: dict[str, Any] | None, form: str = "{}\n{} – {}") -> str:
    """A share in percent, with its interval in the places of `form`."""
    if entry is None:
        return "-"
    if not math.isfinite(entry["value"]):
        return "undefined"
    ends = (f"{100 * entry[end]:.2g}" for end in ("low", "high"))
    return form.format(_percent(entry), *ends) if math.isfinite(entry["low"]) else _percent(entry)


def _percent(entry: dict[str, Any] | None) -> str:
    return f"{100 * entry['value']:.2g} %" if entry is not None and math.isfinite(entry["value"]) else "undefined"


def _value(entry: dict[str, Any] | None) -> str:
    from analyzer.cli import tables

    return "-" if entry is None else tables.number(entry["value"], ".2g")


def _radius(entry: dict[str, Any] | None, radii: Sequence[float]) -> str:
    """A radius with its interval; ≤ or > the measured radii where it lies outside them."""
    if entry is None:
        return "-"
    if "censored" in entry:
        return {"below": f"≤ {radii[0]:g}", "above": f"> {radii[-1]:g}"}[entry["censored"]] if radii else "-"
    if not math.isfinite(entry["value"]):
        return "undefined"
    ends = (f"{entry[end]:.2g}" if math.isfinite(entry[end]) else "…" for end in ("low", "high"))
    unknown = math.isnan(entry["low"]) and math.isnan(entry["high"])
    return f"{entry['value']:.3g}" + ("" if unknown else f"\n{' – '.join(ends)}")
