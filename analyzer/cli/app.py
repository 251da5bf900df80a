"""The typer application, and the arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

# Prints come late: rich, numpy and the rest are loaded by the command that needs them, so that --help is quick.
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Measure how a trained ConvNet behaves in the immediate neighbourhood of an image, for any ONNX model.",
    epilog="Exit codes: 0 done, 1 bug, 2 usage, 3 gate failed, 4 bad input, 5 incomplete but resumable.",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON only.")]
Tables = Annotated[bool, typer.Option("--tables", help="Every number by radius and layer.")]
Model = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The model; its card is MODEL.json beside it.")]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layers",
        metavar="NAME,...",
        help="Tensors instead of the card's feature layer; may be repeated. A value that is a tensor's own name is "
        "that one, commas and all; any other is a comma-separated list.",
        show_default=False,
    ),
]
Provider = Annotated[str, typer.Option("--provider", help="auto, cpu, cuda, ...; never a silent fallback.")]
Threads = Annotated[int | None, typer.Option("--threads", help="Of the CPU provider.")]
ProviderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--provider-option",
        metavar="KEY=VALUE",
        help="An option of the named provider, as ONNX Runtime calls it; may be repeated.",
        show_default=False,
    ),
]
Optimizations = Annotated[
    str, typer.Option("--optimizations", help="Of the graph, by the runtime: all, extended, basic or off.")
]
ProviderShare = Annotated[
    float, typer.Option("--provider-share", help="Least part of the multiply-adds that the named provider runs.")
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory: the --out of `analyzer run`.")]


def _version(wanted: bool) -> None:
    if wanted:
        from analyzer import __version__

        typer.echo(f"analyzer {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")] = False,
) -> None:
    """Options of every command."""
