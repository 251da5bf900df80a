"""Fig. 2: the true-class score on a plane through an image, spanned by a perturbation and a reordering of it.

Points are x + a u + b v in pixels. u and v are trials 0 and 1 of the permutation family of one radius (Eq. 6), two
reorderings of one noise vector; `analyzer run` measures the same two. They are not made orthogonal, so that they stand
at exactly (a, b) = (1, 0) and (0, 1). They are equally long, and in many dimensions nearly orthogonal (`cosine`).

plane        the points as pixels, and the scores there
documents    the result as a document
sentences    the result in words
"""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analyzer import card as cards
from analyzer import graph, images
from analyzer.analyses.landscape.documents import document as document
from analyzer.analyses.landscape.plane import MARKED, Plane, scores_at
from analyzer.analyses.landscape.sentences import probability_text as probability_text
from analyzer.analyses.landscape.sentences import sentence as sentence
from analyzer.errors import InputError, UsageError
from analyzer.perturbations import deltas
from analyzer.session import Backend
from analyzer.study import Protocol, open_model
from analyzer.study.protocol import SMALLEST_RADIUS

Array = NDArray[np.float64]
EXTENT = 1.5
"""How far the plane reaches from the image, in lengths of u and of v."""
SMALLEST, LARGEST = 3, 1001


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
        """Whether the decision boundary runs through the window: only some points are of the class."""
        return bool((self.margin > 0).any() and (self.margin <= 0).any())

    @property
    def misclassified_share(self) -> float:
        """Share of the points with a class that are of another one than `label`; NaN where no point has a class."""
        defined = self.predicted >= 0
        return float((self.predicted != self.label)[defined].mean()) if defined.any() else math.nan

    @property
    def nearest(self) -> float:
        """L2 distance from the image to the nearest grid point of another class, in lengths of u; infinite: none."""
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
    round: bool = False,
    provider: str = "auto",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Landscape:
    """Score a plane through an image: a grid of size x size points, from -1.5 to 1.5 lengths of u and of v.

    Args:
        model: the ONNX file.
        image: an image file.
        card: the model's card; beside the model if None.
        radius: length of u and v in `norm`, grey levels.
        seed: of the noise.
        size: points along each side of the grid, 3 to 1001.
        norm: "linf" or "l2".
        label: index of the class whose score is shown; the clean prediction if None.
        clip: keep perturbed pixels inside 0..255.
        round: keep perturbed pixels on whole grey levels.
        provider: "auto", "cpu", "cuda", ...
        progress: called with the points done and all.

    Returns:
        Scores (b, a) on the grid, and those of the image, x + u and x + v.

    Raises:
        UsageError: a value is out of range, or the provider is not to be had.
        InputError: the model, its card or the image cannot be used, or the output for the image is not finite.

    >>> from analyzer import bundled
    >>> folder = bundled.folder()
    >>> signs = landscape(folder / "gtsrb_ciresan2012.onnx", folder / "demo" / "14_stop.png", size=3, provider="cpu")
    >>> signs.label, signs.score.shape, signs.crossed
    (14, (3, 3), False)
    """
    if not SMALLEST <= size <= LARGEST:
        raise UsageError(f"`size` {size}: must lie in {SMALLEST}..{LARGEST}")
    if not SMALLEST_RADIUS <= radius < math.inf:
        raise UsageError(f"`radius` {radius:g}: must be a finite number of grey levels, at least {SMALLEST_RADIUS:g}")
    protocol = Protocol(radii=(radius,), seed=seed, norm=norm, clip=clip, round=round)
    graph.check(model)
    model_card = cards.read(card or cards.beside(model))
    try:
        pixels = images.read(images.ImageFile(image.name, image, None), card=model_card)
    except images.ImageError as e:
        raise InputError(f"{image}: {e}") from e
    examples = [pixels.values]
    network = open_model(model, card=model_card, protocol=protocol, backend=Backend(provider), examples=examples)
    if not network.has_classes:
        raise InputError(f"{model}: its output is an embedding, and a landscape is that of the scores of classes")
    if label is not None and not 0 <= label < network.session.classes:
        raise UsageError(f"`label` {label}: {model.name} has classes 0..{network.session.classes - 1}")
    shape, sha256 = model_card.pixel_shape, pixels.sha256
    u, v = deltas(seed=seed, sha256=sha256, shape=shape, family="permutation", radius=radius, trials=2, norm=norm)
    marked_at = np.array(list(MARKED.values()))
    plane = Plane(pixels.values, u, v, protocol, network)
    marked = scores_at(plane, marked_at)
    if not np.isfinite(marked[0]).all():
        raise InputError(f"{model}: its output for {image.name} is not finite; nothing can be drawn")
    if label is None:
        label = int(marked[0].argmax())
    steps = np.linspace(-EXTENT, EXTENT, size)
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    scores = scores_at(plane, grid, progress).reshape(size, size, -1)
    on_grid, on_marked = (network.true_class(part, label=label) for part in (scores, marked))
    margin = scores[..., label] - np.delete(scores, label, axis=-1).max(axis=-1)
    flat_u, flat_v = u.ravel().astype(np.float64), v.ravel().astype(np.float64)
    return Landscape(
        a=steps,
        b=steps,
        score=on_grid.score,
        log_odds=on_grid.log_odds,
        margin=np.where(on_grid.predicted >= 0, margin, np.nan),
        predicted=on_grid.predicted,
        marked_score=on_marked.score,
        marked_log_odds=on_marked.log_odds,
        marked_predicted=on_marked.predicted,
        images=plane.pixels_at(marked_at),
        label=label,
        radius=radius,
        norm=norm,
        cosine=float(flat_u @ flat_v / np.linalg.norm(flat_u) / np.linalg.norm(flat_v)),
    )
