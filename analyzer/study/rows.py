"""Rows of a batch: the clean image and its perturbations, as network input, packed into batches of one shape."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from typing import Protocol as Interface

import numpy as np
from numpy.typing import NDArray

from analyzer.card import Card
from analyzer.measures import geometry
from analyzer.perturbations import Perturbations, derived_key, random_words
from analyzer.study.parallel import in_threads
from analyzer.study.protocol import Protocol, normalisation

Array = NDArray[np.float64]
_CACHED = 2**18  # elements of a block: 1 MiB of float32


class Preprocessing:
    """Pixels to normalised network input, canonical channel order: (pixel - mean) / std, float32.

    input_type is the model's own: for "float16" the values are those that survive its cast.
    """

    def __init__(self, card: Card, input_type: str = "float32") -> None:
        self.input_type = input_type
        mean, std = normalisation(card.mean, card.std, card.channels)
        self.shape = card.pixel_shape
        self.mean = np.array(mean)[:, None]
        self.std = np.array(std)[:, None]

    def apply(self, pixels: NDArray[np.floating]) -> NDArray[np.float32]:
        """(C, H, W) or (C, H * W) grey levels -> (C, H * W) network input."""
        flat = np.asarray(pixels, dtype=np.float64).reshape(self.shape[0], -1)
        values = (flat - self.mean) / self.std
        if self.input_type == "float16":
            values = values.astype(np.float16)
        return np.asarray(values, dtype=np.float32)

    def neighbours(self, values: NDArray[np.float32], count: int) -> NDArray[np.float32]:
        """`count` copies of network input, every element moved by up to 8 units in the last place, at random.

        What a network makes of them is rounding, not response: they show its noise floor. Whole numbers (uint8) have
        no such neighbours and are copied.
        """
        copies = np.repeat(values[None], count, axis=0)
        if self.input_type == "uint8":
            return copies
        kind = np.float16 if self.input_type == "float16" else np.float32
        words = random_words(derived_key("floor"), copies.size).reshape(copies.shape)
        steps = (words % np.uint64(17)).astype(np.float32) - 8
        moved: NDArray[np.float32] = (copies + steps * np.spacing(np.abs(copies).astype(kind))).astype(np.float32)
        return moved


class Source(Interface):
    """Something that fills rows of a batch."""

    @property
    def count(self) -> int:
        """Number of rows."""

    def write(self, trials: range, out: NDArray[np.float32]) -> None:
        """Write the network input of some of its rows into out, (len(trials), C, H, W)."""


@dataclasses.dataclass
class Clean:
    """Rows that stand for the clean image: itself, or neighbours that differ in the last bit. (count, C, H, W)."""

    values: NDArray[np.float32]

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.values)

    def write(self, trials: range, out: NDArray[np.float32]) -> None:
        """Copy them."""
        out[...] = self.values[trials.start : trials.stop]


class Perturbed:
    """One image under one family at one radius: its rows, and what is really added to the pixels."""

    def __init__(
        self,
        perturbations: Perturbations,
        radius: int,
        *,
        pixels: NDArray[np.float32],
        clean: NDArray[np.float32],
        prepare: Preprocessing,
        protocol: Protocol,
    ) -> None:
        self.family, self.radius, self.count = perturbations.family, radius, perturbations.trials
        self.perturbations, self.prepare = perturbations, prepare
        self.pixels = pixels.reshape(prepare.shape[0], -1)
        self.clean = clean.reshape(self.pixels.shape)
        self.clip, self.round = protocol.clip, protocol.round
        self.plain = not (protocol.clip or protocol.round) and prepare.input_type == "float32"
        self.keep = perturbations.family == "noise"
        self.blocks: list[tuple[range, NDArray[Any], Array]] = []

    def write(self, trials: range, out: NDArray[np.float32]) -> None:
        """Clean image plus perturbation, normalised: mean and std are affine, so the noise is scaled, not the batch."""
        rows = max(1, _CACHED // self.pixels.size)
        parts = [trials[k : k + rows] for k in range(0, len(trials), rows)]
        flat = out.reshape(len(trials), *self.clean.shape)
        for block in in_threads(lambda part: self._write(part, flat[part.start - trials.start :][: len(part)]), parts):
            if self.keep:
                self.blocks.append(block)

    def _write(self, trials: range, out: NDArray[np.float32]) -> tuple[range, NDArray[Any], Array]:
        """A block of rows that stays in the cache: trials, what was added in units of its scale, the scales."""
        words = self.perturbations.words(trials)
        scales = self.perturbations.scales(words)
        shaped = words.reshape(out.shape)
        if self.plain:
            np.multiply(shaped, (scales[:, None, None] / self.prepare.std).astype(np.float32), out=out)
            out += self.clean
            return trials, words, scales
        perturbed = self.pixels + shaped * scales.astype(np.float32)[:, None, None]
        if self.clip:
            np.clip(perturbed, 0, 255, out=perturbed)
        if self.round:
            np.rint(perturbed, out=perturbed)
        for row, target in zip(perturbed, out, strict=True):
            target[...] = self.prepare.apply(row)
        added = perturbed - self.pixels
        if self.prepare.input_type == "float16":
            added = ((out - self.clean) * self.prepare.std).astype(np.float32)
        return trials, added.reshape(words.shape), np.ones(len(trials))

    def distances(self) -> tuple[Array, Array, Array]:
        """Gram matrix (T, T), L2 norms (T,) and L-infinity norms (T,) of what was added, in grey levels.

        Once every row was written.
        """
        blocks = sorted(self.blocks, key=lambda block: block[0].start)
        scales = np.concatenate([scale for _, _, scale in blocks])
        gram = geometry.row_gram([added for _, added, _ in blocks], mapper=in_threads) * scales[:, None] * scales
        largest = np.concatenate([np.maximum(added.max(axis=1), -added.min(axis=1)) for _, added, _ in blocks])
        return gram, np.sqrt(np.diagonal(gram)), largest * scales


class Piece(NamedTuple):
    """Rows of a batch that belong together: `trials` of one source."""

    source: Source
    trials: range


def run_rows(session: Any, sources: Iterator[Source], *, clean: NDArray[np.float32], take: Callable[..., None]) -> None:
    """Pack the rows of all sources into batches of the session's one shape; hand pieces and answers to `take`.

    The last batch is padded with clean rows: at other places of the batch, they widen the noise floor's sample.
    """
    size = session.batch_size
    batch = np.empty((size, *clean.shape), np.float32)
    pieces: list[Piece] = []
    filled = 0
    for source in sources:
        done = 0
        while done < source.count:
            trials = range(done, min(source.count, done + size - filled))
            source.write(trials, batch[filled : filled + len(trials)])
            pieces.append(Piece(source, trials))
            filled, done = filled + len(trials), trials.stop
            if filled == size:
                take(pieces, *session.run(batch))
                pieces, filled = [], 0
    if filled:
        padding = Clean(np.repeat(clean[None], size - filled, axis=0))
        padding.write(range(padding.count), batch[filled:])
        take([*pieces, Piece(padding, range(padding.count))], *session.run(batch))
