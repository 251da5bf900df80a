"""What the selection pass sees of an image: read once, one forward pass, and only what the selection asks for kept."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from analyzer.images import ImageError, ImageFile, Pixels, read
from analyzer.study.model import Model

_BYTES = 2**25  # of files, looked at together


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """One image as the network answers it.

    reason: why it cannot be read, "" where it can; then nothing else is there. sha256, notes: see `images.Pixels`.
    scores: (K,). low, high: extremes of the pixels (grey levels) and of each layer, NaN where one is not finite. grid:
    step and reach in grey levels where the network quantises its input. rows: forward passes since the image before.
    """

    reason: str = ""
    sha256: str = ""
    notes: tuple[str, ...] = ()
    scores: NDArray[np.floating] = dataclasses.field(default_factory=lambda: np.zeros(0))
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    grid: tuple[float, float] | None = None
    rows: int = 0


def parts(images: Iterable[ImageFile], size: int) -> Iterator[list[ImageFile]]:
    """The images in order, those of one batch of `size` rows together: fewer where their files are large."""
    part: list[ImageFile] = []
    held = 0
    for image in images:
        part.append(image)
        held += image.bytes
        if len(part) == size or held >= _BYTES:
            yield part
            part, held = [], 0
    if part:
        yield part


def look(model: Model, images: Sequence[ImageFile]) -> list[Seen]:
    """Read the images, at most one batch of them, run those that can be read, and say what was seen, in order."""
    read_ones: list[Pixels | str] = []
    for image in images:
        try:
            read_ones.append(read(image, card=model.card))
        except ImageError as e:
            read_ones.append(str(e))
    good = [pixels for pixels in read_ones if not isinstance(pixels, str)]
    if not good:
        return [Seen(reason=str(reason)) for reason in read_ones]
    session, prepare = model.session, model.preprocessing
    # More than a batch where it had to become smaller since the images were shared out.
    batch = np.zeros((max(session.batch_size, len(good)), *prepare.shape), np.float32)
    for row, pixels in zip(batch[: len(good)], good, strict=True):
        row[...] = prepare.apply(pixels.values).reshape(prepare.shape)
    scores, features = session.run(batch)
    answers = iter([_seen(model, pixels, scores[i], [f[i] for f in features]) for i, pixels in enumerate(good)])
    seen = [Seen(reason=pixels) if isinstance(pixels, str) else next(answers) for pixels in read_ones]
    return [*seen[:-1], dataclasses.replace(seen[-1], rows=len(batch))]


def _seen(model: Model, pixels: Pixels, scores: NDArray[np.floating], features: list[NDArray[np.float32]]) -> Seen:
    ends = [_ends(values) for values in (pixels.values, *features)]
    grid = model.prepared.input_grid
    return Seen(
        sha256=pixels.sha256,
        notes=pixels.notes,
        scores=scores.copy(),
        low=tuple(low for low, _ in ends),
        high=tuple(high for _, high in ends),
        grid=None if grid is None else model.preprocessing.grid(pixels.values, grid),
    )


def _ends(values: NDArray[np.floating]) -> tuple[float, float]:
    return (float(values.min()), float(values.max())) if np.isfinite(values).all() else (np.nan, np.nan)
