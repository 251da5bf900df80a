"""Scores from a graph without taps and layers from graphs of their own, for networks that taps change."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.session.backend import Backend
from analyzer.session.core import Session
from analyzer.session.feeding import Feed


class Split:
    """Runs every batch through several sessions of one network; stands in for a single one, see `Runner`."""

    reduces = False

    def __init__(self, scores: Session, layers: Sequence[Session]) -> None:
        """scores: of a graph without layers. layers: of graphs with one or more; the scores of these are not used."""
        self._scores, self._layers = scores, tuple(layers)
        self.backend: Backend = scores.backend
        self.provider: str = scores.provider
        self.settings: dict[str, Any] = scores.settings
        self.device: str = scores.device
        self.precision: str = scores.precision
        self.pixel_shape: tuple[int, int, int] = scores.pixel_shape
        self.classes: int = scores.classes
        self.composes: bool = scores.composes
        self.independent: bool = scores.independent
        self.feature_sizes = tuple(size for session in self._layers for size in session.feature_sizes)

    @property
    def batch_size(self) -> int:
        """Rows of one forward pass for the scores."""
        return self._scores.batch_size

    @property
    def notes(self) -> list[str]:
        """What the user has to know, each once."""
        return list(dict.fromkeys(note for session in (self._scores, *self._layers) for note in session.notes))

    def run(self, batch: Feed) -> tuple[NDArray[np.floating], list[NDArray[np.float32]]]:
        """Scores (n, K), and one array (n, F) for each layer; see `Session.run`."""
        scores, _ = self._scores.run(batch)
        return scores, [layer for session in self._layers for layer in session.run(batch)[1]]

    def close(self) -> None:
        """Free the runtime's memory."""
        for session in (self._scores, *self._layers):
            session.close()
