"""Rows of a batch: the clean image and its perturbations, as network input."""

import dataclasses
import threading
from typing import Any, NamedTuple
from typing import Protocol as Interface

import numpy as np
from numpy.typing import NDArray

from analyzer.measures import geometry
from analyzer.perturbations import Perturbations
from analyzer.session import Feed, Words
from analyzer.study.parallel import in_threads
from analyzer.study.preprocessing import Preprocessing
from analyzer.study.protocol import Protocol

Array = NDArray[np.float64]
_CACHED = 2**18  # elements of a block: 1 MiB of float32


class Batch:
    """Rows of one forward pass around one clean image, (size, C, H, W) network input, filled part by part and reused.

    On the host they are computed as they are put. Where the session composes them, integer words and scales are kept
    for it, and finished rows become a base of their own.
    """

    def __init__(self, size: int, clean: NDArray[np.float32], *, composed: bool) -> None:
        self.clean, self.composed = clean, composed
        self.values = None if composed else np.empty((size, *clean.shape), np.float32)
        self.words = np.zeros((size, *clean.shape) if composed else 0, np.int16)
        self.scales = np.zeros((size, len(clean), 1, 1) if composed else 0, np.float32)
        self._lock = threading.Lock()

    def put(self, rows: slice, values: NDArray[np.float32]) -> None:
        """Finished network input, (n, C, H, W)."""
        with self._lock:
            if self.values is None:
                self.values = np.repeat(self.clean[None], len(self.words), axis=0)
        self.values[rows] = values
        self.scales[rows] = 0

    def put_clean(self, rows: slice) -> None:
        """The clean image itself."""
        if self.composed:
            self.words[rows], self.scales[rows] = 0, 0
        else:
            self.put(rows, self.clean[None])

    def put_words(self, rows: slice, words: NDArray[np.int16], scales: NDArray[np.float32]) -> None:
        """clean + words * scales: (n, C, H, W) and (n, C, 1, 1)."""
        if self.composed:
            self.words[rows], self.scales[rows] = words, scales
        else:
            assert self.values is not None
            out = np.multiply(words, scales, out=self.values[rows])
            out += self.clean

    def feed(self) -> Feed:
        """What the session is given."""
        if not self.composed:
            assert self.values is not None
            return self.values
        base, self.values = self.clean[None] if self.values is None else self.values, None
        return Words(self.words, self.scales, base)


class Source(Interface):
    """Something that fills rows of a batch."""

    @property
    def count(self) -> int:
        """Number of rows."""

    def write(self, trials: range, batch: Batch, start: int) -> None:
        """Put some of its rows into the batch, from row `start` on."""


class Piece(NamedTuple):
    """Rows of a batch that belong together: `trials` of one source."""

    source: Source
    trials: range


@dataclasses.dataclass
class Clean:
    """`count` rows that are the clean image."""

    count: int

    def write(self, trials: range, batch: Batch, start: int) -> None:
        """Copy it."""
        batch.put_clean(slice(start, start + len(trials)))


@dataclasses.dataclass
class LastBits:
    """Rows that differ from the clean image in the last bits only: (count, C, H, W) network input."""

    values: NDArray[np.float32]

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.values)

    def write(self, trials: range, batch: Batch, start: int) -> None:
        """Copy them."""
        batch.put(slice(start, start + len(trials)), self.values[trials.start : trials.stop])


class Perturbed:
    """One image under one family at one radius: its rows, and what is really added to the pixels.

    factor: by which what is added is multiplied in the rows.
    """

    factor = 1.0

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
        self.pixels, self.clean = pixels, clean
        self.clip, self.round = protocol.clip, protocol.round
        self.plain = not (protocol.clip or protocol.round) and prepare.input_type == "float32"
        self.keep = perturbations.family == "noise"
        self.blocks: list[tuple[range, NDArray[Any], Array]] = []

    def write(self, trials: range, batch: Batch, start: int) -> None:
        """Clean image plus perturbation, normalised: mean and std are affine, so the noise is scaled, not the batch."""
        rows = max(1, _CACHED // self.pixels.size)
        parts = [trials[k : k + rows] for k in range(0, len(trials), rows)]
        for block in in_threads(lambda part: self._write(part, batch, start + part.start - trials.start), parts):
            if self.keep:
                self.blocks.append(block)

    def _write(self, trials: range, batch: Batch, start: int) -> tuple[range, NDArray[Any], Array]:
        """A block of rows that stays in the cache: trials, what was added in units of its scale, the scales."""
        rows = slice(start, start + len(trials))
        words = self.perturbations.words(trials)
        scales = self.perturbations.scales(words)
        shaped = words.reshape(-1, *self.clean.shape)
        if self.plain:
            given = self.factor * scales[:, None, None, None] / self.prepare.std[:, None]
            batch.put_words(rows, shaped, given.astype(np.float32))
            return trials, words, scales
        perturbed = self._perturbed(shaped, scales)
        values = self._prepared(perturbed)
        added = self._added(perturbed, values)
        batch.put(rows, values if self.factor == 1 else self._prepared(self.pixels + np.float32(self.factor) * added))
        return trials, added.reshape(words.shape), np.ones(len(trials))

    def _perturbed(self, shaped: NDArray[Any], scales: Array) -> NDArray[np.float32]:
        """Pixels of perturbed images, clipped and rounded as asked."""
        perturbed = np.asarray(self.pixels + shaped * scales.astype(np.float32)[:, None, None, None], np.float32)
        if self.clip:
            np.clip(perturbed, 0, 255, out=perturbed)
        if self.round:
            np.rint(perturbed, out=perturbed)
        return perturbed

    def _prepared(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.stack([self.prepare.apply(row).reshape(row.shape) for row in pixels])

    def _added(self, perturbed: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float32]:
        """What is really added to the pixels, grey levels; values: the network input made of them."""
        if self.prepare.input_type != "float16":
            return perturbed - self.pixels
        return np.asarray((values - self.clean) * self.prepare.std[:, None], np.float32)

    def distances(self) -> tuple[Array, Array, Array]:
        """Gram matrix (T, T), L2 norms (T,) and L-infinity norms (T,) of what was added, in grey levels.

        Once every row was written.
        """
        blocks = sorted(self.blocks, key=lambda block: block[0].start)
        scales = np.concatenate([scale for _, _, scale in blocks])
        gram = geometry.row_gram([added for _, added, _ in blocks], mapper=in_threads) * scales[:, None] * scales
        largest = np.concatenate([np.maximum(added.max(axis=1), -added.min(axis=1)) for _, added, _ in blocks])
        return gram, np.sqrt(np.diagonal(gram)), largest * scales


class Halved(Perturbed):
    """x - a/2 for the first `count` perturbations a of a noise family at one radius.

    With clipping or rounding a is what was really added; x - a/2 itself is neither clipped nor rounded, since it asks
    after the function and is no image.
    """

    factor = -0.5

    def __init__(self, noise: Perturbed, count: int) -> None:
        self.__dict__.update(noise.__dict__)
        self.family, self.count, self.keep, self.blocks = "half", count, False, []
