"""What the runtime says of a prepared graph on real images, held against what was read from the graph."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from analyzer import graph
from analyzer.card import EMBEDDING, Card
from analyzer.errors import InputError
from analyzer.graph.scores import not_scores, seems
from analyzer.session import Backend, Session, device_of
from analyzer.session.batching import fit
from analyzer.session.function import all_outputs
from analyzer.study.preprocessing import Preprocessing

EXAMPLES = 4
"""Images that are looked at."""
_ROUNDING = 1e-5  # of a float32 softmax over many classes
_UNKNOWN_STEP = 1 / 64  # of a probability whose quantisation the graph does not tell


def open_proved(
    model: Path,
    *,
    card: Card,
    layers: Sequence[str] = (),
    backend: Backend | None = None,
    batch_size: int | None = None,
    examples: Sequence[NDArray[np.floating]] = (),
) -> tuple[graph.Prepared, Session]:
    """Prepare and open a model whose outputs are proved, in a run, to be what the graph says they are.

    examples: real images, (C, H, W) grey levels. Where the logits that stand before the model's output do not give that
    output, the output itself is used, and a note says so. Raises InputError where an output holds no class scores or a
    layer no floats.
    """

    def opened(prepared: graph.Prepared) -> tuple[graph.Prepared, Session]:
        prepare = Preprocessing(card, prepared.input_type)
        rows = np.array([prepare.apply(pixels) for pixels in examples], np.float32).reshape(-1, *card.pixel_shape)
        return prepared, Session(
            prepared,
            pixel_shape=card.pixel_shape,
            backend=backend,
            batch_size=batch_size,
            examples=rows,
        )

    backend = backend or Backend()
    device = device_of(backend.provider)
    prepared, session = opened(graph.prepare(model, card=card, layers=layers, device=device))
    if not prepared.unproved:
        return prepared, session
    bare = graph.prepare(model, card=card, layers=prepared.layers, device=device, bare=True)
    run = all_outputs(bare, session.backend)
    rows = session.rows_to_try(EXAMPLES)
    size = 1 if session.independent else session.batch_size
    parts = [run(fit(rows[k : k + size], size)) for k in range(0, len(rows), size)]
    _refuse_other_types(bare, parts[0], maps=card.kind == EMBEDDING)
    own, scores = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
    why = disagreement(own, scores, final=prepared.final, step=prepared.step) if prepared.final else ""
    if not why:
        return prepared, session
    session.close()
    note = (
        f"What was found before the final {prepared.final} is not used: {why}; the scores are the model's own output "
        f"{bare.outputs[0]}."
    )
    prepared = graph.prepare(model, card=card, layers=layers, device=device, own=True)
    return opened(dataclasses.replace(prepared, notes=(*prepared.notes, note)))


def disagreement(own: NDArray[Any], scores: NDArray[Any], *, final: str, step: float) -> str:
    """How the operator `final` of `scores` differs from `own`, the model's output, both (n, ...); "" where it does not.

    step: how far two neighbouring values of the output are apart. Rows that are not finite say nothing.
    """
    tolerance = _ROUNDING + (step if np.isfinite(step) else _UNKNOWN_STEP)
    tolerance += 2 * max((float(np.finfo(a.dtype).eps) for a in (own, scores) if a.dtype.kind == "f"), default=0.0)
    if own.size != scores.size:
        return f"it has {scores.size // max(len(scores), 1)} values for an image, where the model gives {own[0].size}"
    given, raw = (a.astype(np.float64).reshape(len(a), -1) for a in (own, scores))
    if len(given) != len(raw):
        return "its rows are not the images"
    finite = np.isfinite(given).all(axis=1) & np.isfinite(raw).all(axis=1)
    if final == "LogSoftmax":
        given = np.exp(given)
    expected = expit(raw) if final == "Sigmoid" else softmax(raw, axis=1)
    largest = np.abs(expected - given)[finite].max(initial=0.0)
    if largest > tolerance:
        name = "sigmoid" if final == "Sigmoid" else "softmax"
        return (
            f"on real images its {name} differs from the model's own output by up to {largest:.2g}, where "
            f"{tolerance:.1g} is allowed"
        )
    best = np.take_along_axis(given, raw.argmax(axis=1)[:, None], axis=1)[:, 0]
    if (best < given.max(axis=1) - tolerance)[finite].any():
        return "on real images another class is the largest"
    return ""


def _refuse_other_types(bare: graph.Prepared, outputs: Sequence[NDArray[Any]], *, maps: bool) -> None:
    """Hold the types and shapes of the model's output, of scores and of layers against what they must be.

    maps: whether the output may have any shape.
    """
    for name, output in zip(bare.outputs[:1], outputs[:1], strict=True):
        if output.dtype.kind != "f":
            raise not_scores(bare.source, name, f"holds {output.dtype}", "whole numbers, such as the index of a class")
        if (what := seems(output.shape)) and not maps:
            raise not_scores(bare.source, name, f"has shape {list(output.shape)}", what)
    for layer, output in zip(bare.layers, outputs[2:], strict=True):
        if output.dtype.kind != "f":
            raise InputError(
                f"{bare.source}: layer {layer!r:.120} holds {output.dtype}, not floats, and nothing tells the scale of "
                "these codes; name another with `layers` or in the card's feature.name"
            )
