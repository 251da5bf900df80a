"""The plane x + a u + b v through an image: its pixels, and a network's scores on it."""

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from analyzer.study import Model, Protocol

Array = NDArray[np.float64]
MARKED = {"clean": (0.0, 0.0), "noise": (1.0, 0.0), "reordered": (0.0, 1.0)}
"""(a, b) of the image, x + u and x + v."""


@dataclasses.dataclass(frozen=True, eq=False)
class Plane:
    """x + a u + b v, as pixels and as the network's input. clean, u, v: (C, H, W) grey levels."""

    clean: NDArray[np.float32]
    u: NDArray[np.float32]
    v: NDArray[np.float32]
    protocol: Protocol
    model: Model

    def pixels_at(self, at: Array) -> NDArray[np.float32]:
        """(n, 2) -> (n, C, H, W) grey levels."""
        a, b = (at[:, k, None, None, None].astype(np.float32) for k in (0, 1))
        pixels = self.clean + a * self.u + b * self.v
        if self.protocol.clip:
            np.clip(pixels, 0, 255, out=pixels)
        if self.protocol.round:
            np.rint(pixels, out=pixels)
        return np.asarray(pixels, np.float32)

    def input_at(self, at: Array) -> NDArray[np.float32]:
        """(n, 2) -> (n, C, H, W) network input."""
        return np.stack([self.model.preprocessing.apply(row).reshape(row.shape) for row in self.pixels_at(at)])


def scores_at(plane: Plane, at: Array, progress: Callable[[int, int], None] = lambda done, total: None) -> Array:
    """The network's scores at points (a, b), a batch at a time: (n, 2) -> (n, K), float64."""
    session = plane.model.session
    parts, done = [], 0
    while done < len(at):
        rows = at[done : done + session.batch_size]
        parts.append(np.asarray(session.run(plane.input_at(rows))[0], np.float64))
        done += len(rows)
        progress(done, len(at))
    return np.concatenate(parts)
