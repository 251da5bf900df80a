"""Fig. 2: the true-class score on a plane through an image, spanned by a perturbation and a reordering of it.

Points are x + a u + b v in pixels, u and v being trials 0 and 1 of the permutation family of one radius (Eq. 6), which
are reorderings of one noise vector; `analyzer run` measures the same two. They are used as they are, so that they stand
at exactly (a, b) = (1, 0) and (0, 1): they are equally long, and in many dimensions nearly orthogonal (`cosine`).
"""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer import card as cards
from analyzer import graph, images
from analyzer.errors import InputError, UsageError
from analyzer.measures.scores import true_class
from analyzer.perturbations import deltas
from analyzer.study import Network, Protocol, open_network
from analyzer.study.protocol import SMALLEST_RADIUS
from analyzer.study.rows import Preprocessing

Array = NDArray[np.float64]
EXTENT = 1.5
"""How far the plane reaches from the image, in lengths of u and of v."""
SMALLEST, LARGEST = 3, 1001
MARKED = ("clean", "noise", "reordered")
_AT = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


@dataclasses.dataclass(frozen=True, eq=False)
class Landscape:
    """Scores of class `label` on the plane, and at the three marked points: the image, x + u and x + v.

    a, b (size,): multiples of u and of v. NaN where the network's output is not finite; log_odds also where a
    probability rounded to 0 or 1. images: x, x + u and x + v, (3, C, H, W) grey levels, as the network saw them.
    """

    a: Array
    b: Array
    score: Array
    """(b, a), probability."""
    log_odds: Array
    """(b, a), nat."""
    margin: Array
    """(b, a), score of the class minus the best other, as the graph gives them: logits or probabilities."""
    predicted: NDArray[np.int32]
    """(b, a), class index, -1 where undefined."""
    marked_score: Array
    marked_log_odds: Array
    marked_predicted: NDArray[np.int32]
    images: NDArray[np.float32]
    label: int
    radius: float
    norm: str
    cosine: float
    """Of the angle between u and v."""

    @property
    def crossed(self) -> bool:
        """Whether the decision boundary runs through the window: the class is predicted at some points only."""
        return bool((self.margin > 0).any() and (self.margin <= 0).any())

    @property
    def nearest(self) -> float:
        """Distance from the image to the nearest point of the plane's grid that is classified otherwise.

        In lengths of u, L2; infinite where there is none.
        """
        a, b = np.meshgrid(self.a, self.b)
        wrong = (self.predicted != self.label) & (self.predicted >= 0)
        squares = (a**2 + b**2 + 2 * a * b * self.cosine)[wrong]
        return math.sqrt(squares.min()) if squares.size else math.inf


def landscape(
    model: Path,
    image: Path,
    *,
    card: Path | None = None,
    radius: float = 10.0,
    seed: int = 0,
    size: int = 61,
    norm: str = "linf",
    label: int | None = None,
    clip: bool = False,
    whole: bool = False,
    provider: str = "auto",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Landscape:
    """Evaluate the plane on a grid of size x size points, from -1.5 to 1.5 lengths of u and of v.

    label: class index, the clean prediction if None. clip, whole: keep pixels inside 0..255, on whole grey levels.
    progress: called with the points done and all. Raises UsageError for values out of range, InputError for bad files.
    """
    if not SMALLEST <= size <= LARGEST:
        raise UsageError(f"--size {size}: must lie in {SMALLEST}..{LARGEST}")
    if not SMALLEST_RADIUS <= radius < math.inf:
        raise UsageError(f"--radius {radius:g}: must be a finite number of grey levels, at least {SMALLEST_RADIUS:g}")
    protocol = Protocol(radii=(radius,), seed=seed, norm=norm, clip=clip, round=whole)
    graph.check(model)
    the_card = cards.read(card or cards.beside(model))
    try:
        pixels = images.read(images.ImageFile(image.name, image, None), card=the_card)
    except images.ImageError as e:
        raise InputError(f"{image}: {e}") from e
    network = open_network(model, card=the_card, protocol=protocol, provider=provider)
    if label is not None and not 0 <= label < network.session.classes:
        raise UsageError(f"--label {label}: {model.name} has classes 0..{network.session.classes - 1}")
    shape, sha256 = the_card.pixel_shape, pixels.sha256
    u, v = deltas(seed=seed, sha256=sha256, shape=shape, family="permutation", radius=radius, trials=2, norm=norm)
    plane = _Plane(pixels.values, u, v, protocol, Preprocessing(the_card, network.prepared.input_type))
    marked = _scores(network, plane, _AT)
    if not np.isfinite(marked[0]).all():
        raise InputError(f"{model}: its output for {image.name} is not finite; nothing can be drawn")
    if label is None:
        label = int(marked[0].argmax())
    steps = np.linspace(-EXTENT, EXTENT, size)
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    scores = _scores(network, plane, grid, progress).reshape(size, size, -1)
    kind = network.prepared.kind
    seen, points = (true_class(part, label=label, kind=kind) for part in (scores, marked))
    margin = scores[..., label] - np.delete(scores, label, axis=-1).max(axis=-1)
    flat_u, flat_v = u.ravel().astype(np.float64), v.ravel().astype(np.float64)
    return Landscape(
        a=steps,
        b=steps,
        score=seen.score,
        log_odds=seen.log_odds,
        margin=np.where(seen.predicted >= 0, margin, np.nan),
        predicted=seen.predicted,
        marked_score=points.score,
        marked_log_odds=points.log_odds,
        marked_predicted=points.predicted,
        images=plane.pixels_at(_AT),
        label=label,
        radius=radius,
        norm=norm,
        cosine=float(flat_u @ flat_v / np.linalg.norm(flat_u) / np.linalg.norm(flat_v)),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Plane:
    """x + a u + b v, as pixels and as the network's input."""

    clean: NDArray[np.float32]
    u: NDArray[np.float32]
    v: NDArray[np.float32]
    protocol: Protocol
    prepare: Preprocessing

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
        return np.stack([self.prepare.apply(row).reshape(row.shape) for row in self.pixels_at(at)])


def _scores(
    network: Network, plane: _Plane, at: Array, progress: Callable[[int, int], None] = lambda done, total: None
) -> Array:
    """The network's scores at these points, a batch at a time: (n, 2) -> (n, K), float64."""
    parts, done = [], 0
    while done < len(at):
        rows = at[done : done + network.session.batch_size]
        parts.append(np.asarray(network.session.run(plane.input_at(rows))[0], np.float64))
        done += len(rows)
        progress(done, len(at))
    return np.concatenate(parts)


def document(found: Landscape, *, labels: tuple[str, ...] | None = None) -> dict[str, Any]:
    """The numbers as JSON types but for NaN: what was drawn, the marked points, ranges, whether a boundary was crossed.

    labels: the card's names of the classes.
    """
    marked = {
        name: {
            "a": at[0],
            "b": at[1],
            "score": float(found.marked_score[k]),
            "log_odds": float(found.marked_log_odds[k]),
            "predicted": int(found.marked_predicted[k]),
        }
        for k, (name, at) in enumerate(zip(MARKED, _AT.tolist(), strict=True))
    }
    return {
        "label": found.label,
        "label_name": labels[found.label] if labels else None,
        "radius": found.radius,
        "norm": found.norm,
        "cosine": found.cosine,
        "extent": [float(found.a[0]), float(found.a[-1])],
        "size": len(found.a),
        "marked": marked,
        "score_range": _range(found.score),
        "log_odds_range": _range(found.log_odds),
        "boundary_crossed": found.crossed,
        "nearest_other_class": found.nearest,
        "misclassified_share": _share(found),
        "undefined_points": int((found.predicted < 0).sum()),
        "sentence": sentence(found),
    }


def sentence(found: Landscape) -> str:
    """What the plane shows, in words."""
    clean, noisy, reordered = map(probability_text, found.marked_score)
    odds = found.marked_log_odds
    said = f"The score is {clean} at the image, {noisy} with the noise, {reordered} with it reordered"
    if np.isfinite(odds).all():
        said += f" (log-odds {odds[0]:.2f}, {odds[1]:.2f} and {odds[2]:.2f} nat)"
    if found.crossed:
        return (
            f"{said}. Another class is predicted on {_share(found):.0%} of the window; its nearest point is "
            f"{found.nearest:.2g} times as far from the image as the noise."
        )
    inside = "inside" if (found.margin > 0).any() else "outside"
    return f"{said}. No decision boundary runs through the window: all of it lies {inside} the class."


def probability_text(score: float) -> str:
    """A probability that is told from 1 however near it is: 0.98, 1 - 2.3e-6."""
    if not 0.999 < score < 1:
        return f"{score:.3g}" if math.isfinite(score) else "undefined"
    mantissa, _, power = f"{1 - score:.1e}".partition("e")
    return f"1 - {mantissa}e{int(power)}"


def _share(found: Landscape) -> float:
    known = found.predicted >= 0
    return float((found.predicted != found.label)[known].mean()) if known.any() else math.nan


def _range(values: Array) -> list[float]:
    known = values[np.isfinite(values)]
    return [float(known.min()), float(known.max())] if known.size else [math.nan, math.nan]
