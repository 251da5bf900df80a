"""Adversarial perturbations by gradients: how far the class boundary is, where random noise does not find it.

Everything works on pixels. Every distance that is returned was verified by a forward pass, so that it is an upper bound
of the distance to the boundary in its norm.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Predict = Callable[[Array], NDArray[np.integer]]

_POINTS, _ROUNDS = 16, 3


def first_flip(predict: Predict, path: Callable[[Array], Array], *, label: int, largest: float) -> float:
    """Smallest t found in (0, largest] where the class along `path` is not `label`; infinity where none is found.

    path: t (n,) -> images (n, ...); predict: images -> classes (n,), -1 where there is none, which is no change. A
    geometric grid brackets the first change, and the bracket is cut into 17 parts three times, all points of a round in
    one batch. A change and its reversal between two points of the grid can be missed.
    """

    def changes(at: Array) -> NDArray[np.intp]:
        classes = predict(path(at))
        return np.flatnonzero((classes != label) & (classes >= 0))

    grid = np.geomspace(largest / 2**10, largest, _POINTS)
    flipped = changes(grid)
    if not flipped.size:
        return np.inf
    low, high = (grid[flipped[0] - 1] if flipped[0] else 0.0), grid[flipped[0]]
    for _ in range(_ROUNDS):
        inner = np.linspace(low, high, _POINTS + 2)[1:-1]
        flipped = changes(inner)
        if flipped.size:
            low, high = (inner[flipped[0] - 1] if flipped[0] else low), inner[flipped[0]]
        else:
            low = inner[-1]
    return float(high)


def fgsm(
    predict: Predict, gradient: Array, pixels: Array, *, label: int, largest: float = 255.0, clip: bool = False
) -> float:
    """Smallest eps, grey levels, at which x - eps sign(gradient) changes the class; infinity above `largest`.

    The fast gradient sign method (Goodfellow, Shlens, Szegedy 2015) with a line search over eps. gradient: of the
    log-odds of the true class, which the cross-entropy loss follows with the opposite sign. clip: stay inside 0..255.
    """
    direction = -np.sign(gradient)

    def path(eps: Array) -> Array:
        moved = pixels + eps.reshape(-1, *[1] * pixels.ndim) * direction
        return np.clip(moved, 0, 255) if clip else moved

    return first_flip(predict, path, label=label, largest=largest)


class Boundary(NamedTuple):
    """A nearby point of another class: its L2 distance in grey levels (infinity: none found), class and L-inf size."""

    distance: float
    linf: float
    reached: int
    steps: int


def deepfool(
    predict: Predict,
    margins: Callable[[Array], Array],
    gradients: Callable[[Array, NDArray[np.intp]], Array],
    pixels: Array,
    *,
    label: int,
    candidates: int = 10,
    limit: int = 50,
    overshoot: float = 0.02,
    clip: bool = False,
) -> Boundary:
    """A minimum-distance L2 attack: DeepFool (Moosavi-Dezfooli, Fawzi, Frossard 2016), then a search along its path.

    margins: image -> m (K,), m_k < 0 while class k is behind `label`, m_label = 0. gradients: image, classes (n,) ->
    gradients of their margins (n, *image.shape). The `candidates` likeliest other classes at the image are considered;
    each step goes to the nearest of their linearised boundaries. At the end the straight line to the point found is
    searched for the first change of class.
    """
    start = margins(pixels)
    order = np.argsort(start)[::-1]
    classes = order[order != label][:candidates]
    point = pixels
    for step in range(1, limit + 1):
        values = margins(point)[classes]
        rows = gradients(point, classes)
        sizes = np.sqrt((rows.reshape(len(classes), -1) ** 2).sum(axis=1))
        usable = np.isfinite(values) & np.isfinite(sizes) & (sizes > 0)
        if not usable.any():
            break
        distances = np.where(usable, np.abs(values) / np.where(usable, sizes, 1), np.inf)
        nearest = int(distances.argmin())
        # Never 0, even on the boundary itself.
        length = max(distances[nearest], 1e-6)
        point = point + (1 + overshoot) * length * rows[nearest] / sizes[nearest]
        if clip:
            point = np.clip(point, 0, 255)
        if predict(point[None])[0] not in (label, -1):
            return _along(predict, pixels, point, label=label, steps=step)
    return Boundary(np.inf, np.inf, label, limit)


def _along(predict: Predict, pixels: Array, point: Array, *, label: int, steps: int) -> Boundary:
    added = point - pixels
    t = first_flip(predict, lambda ts: pixels + ts.reshape(-1, *[1] * pixels.ndim) * added, label=label, largest=1.0)
    if not np.isfinite(t):  # alone in a batch, the point was of another class
        t = 1.0
    reached = int(predict((pixels + t * added)[None])[0])
    return Boundary(float(t * np.linalg.norm(added)), float(t * np.abs(added).max()), reached, steps)
