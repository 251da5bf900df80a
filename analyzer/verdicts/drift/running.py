"""The short way on one machine: a run of each build, and how far they are from the first."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from analyzer import card as cards
from analyzer import study
from analyzer.errors import InputError, UsageError
from analyzer.verdicts.drift import Document, drift

PROTOCOL = study.Protocol(
    radii=(0.5, 1.0, 2.0, 5.0, 10.0, 20.0),
    trials=20,
    limit=100,
    min_confidence=0.0,
    measures=("isotropy", "lipschitz"),
    permutations=0,
)
"""What decides whether builds differ: every image that is classified correctly, however sure."""


def models_of(reference: Path, candidates: Sequence[Path]) -> list[Path]:
    """The reference first, then the candidates; a folder stands for its .onnx files.

    Raises UsageError where nothing is left to be compared, or two models have one file name.
    """
    if os.path.isdir(reference):  # noqa: PTH112 - a name that is too long is no folder; pathlib raises
        raise InputError(f"{reference}: a folder; the reference comes first, as one .onnx file, folders come after it")
    found = [reference]
    for path in candidates:
        if not os.path.exists(path):  # noqa: PTH110 - likewise
            raise InputError(f"{path}: no such model or folder of builds")
        if os.path.isdir(path):  # noqa: PTH112 - a name that is too long is no folder; pathlib raises
            inside = sorted(path.glob("*.onnx"))
            if not inside:
                raise InputError(f"{path}: no .onnx file in this folder")
            found += [model for model in inside if model.resolve() != reference.resolve()]
        else:
            found.append(path)
    names = [model.stem for model in found]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise UsageError(f"two models are called {twice}.onnx; their runs would have one name")
    if len(found) < 2:
        raise UsageError("nothing to compare with the reference; give other models, or a folder of builds")
    return found


def run_and_drift(
    models: Sequence[Path],
    images: Path,
    out: Path,
    *,
    protocol: study.Protocol = PROTOCOL,
    match: Sequence[str] = (),
    progress: Callable[[Path, study.Progress], None] = lambda model, step: None,
    **how: Any,
) -> Document:
    """Measure each model on the same images, or continue, and return `drift` from the first. Prints nothing.

    Args:
        models: The reference, then the candidates; see `models_of`.
        images: Folder of images.
        out: Folder of the run directories, each named as its model.
        protocol: Reduced by default.
        match: As `drift` takes it.
        progress: Called with the model and where its run is.
        how: Further keywords of `analyzer.run`, such as `labels`, `provider` or `optimizations`, for every model.

    Returns:
        As `drift`. A candidate that cannot be run is left out, and a note says why.

    Raises:
        InputError: The reference or every candidate cannot be used; whatever else `analyzer.run` and `drift` raise.
    """
    runs, failed = [], []
    _refuse_without_cards(models, how.get("card"))  # before minutes are spent on the reference
    for model in models:

        def tick(step: study.Progress, model: Path = model) -> None:
            progress(model, step)

        try:
            study.run(
                model,
                images,
                out / model.stem,
                protocol=protocol,
                progress=tick,
                **how,
            )
            runs.append(out / model.stem)
        except (InputError, UsageError) as e:
            if model == models[0] or (model == models[-1] and len(runs) < 2):
                raise
            failed.append(f"{model.name} is left out: {' '.join(str(e).split())}")
    document = drift(runs[0], runs[1:], match=match)
    document["notes"] += failed
    return document


def _refuse_without_cards(models: Sequence[Path], card: Path | None) -> None:
    """Raise InputError where the reference, or every candidate, has no card."""
    cards.locate(models[0], card)
    refused: list[InputError] = []
    for model in models[1:]:
        try:
            cards.locate(model, card)
        except InputError as e:
            refused.append(e)
    if refused and len(refused) == len(models) - 1:
        raise refused[0]
