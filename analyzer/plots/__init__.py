"""The paper's figures from finished runs. The only place that knows matplotlib, which is loaded on first use.

pictures(runs)      the figures, one at a time, each with words for those who cannot or need not look
drift_pictures(...) the same of a drift
to_png, to_svg      bytes of a figure; the same figure gives the same bytes
image_strip(...)    a few small images side by side
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analyzer.errors import UsageError
from analyzer.measures import REGISTRY
from analyzer.plots.model import DrawnRun, Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DrawnRun", "Picture", "drift_pictures", "image_strip", "pictures", "to_png", "to_svg"]


def pictures(runs: Sequence[DrawnRun]) -> Iterator[Picture]:
    """The figures that these runs have data for, one panel a run, in the order of the paper.

    One at a time, so that memory stays flat. A figure that none of the runs has data for is left out; a run that lacks
    it has an empty panel that says so. Raises UsageError without matplotlib.
    """
    _need_matplotlib()
    from analyzer.plots import certified, clouds, distances, flips, linearity, misclassified, profile, spread, topology

    families = [measure.scores for measure in REGISTRY.values() if measure.scores]
    draws: list[Callable[[Sequence[DrawnRun]], Picture | None]] = [
        *(partial(clouds.draw, family=family) for family in families),
        spread.draw,
        misclassified.draw,
        topology.draw,
        distances.draw,
        linearity.draw,
        flips.draw,
        certified.draw,
        profile.draw,
    ]
    for draw in draws:
        picture = draw(runs)
        if picture is not None:
            yield picture


def drift_pictures(document: dict[str, Any], labels: Sequence[str]) -> Iterator[Picture]:
    """The figures of what `analyzer.drift` returned; labels: of the reference and of each candidate."""
    _need_matplotlib()
    from analyzer.plots import drift

    for draw in (drift.by_radius, drift.by_layer):
        picture = draw(document, labels)
        if picture is not None:
            yield picture


def to_png(figure: "Figure", *, dpi: int = 192) -> bytes:
    """A figure as PNG: 96 dpi makes it 600 pixels wide. The same figure gives the same bytes."""
    _need_matplotlib()
    from analyzer.plots import canvas

    return canvas.saved(figure, "png", dpi=dpi)


def to_svg(figure: "Figure") -> bytes:
    """A figure as SVG with letters as outlines and point clouds as pixels. The same figure gives the same bytes."""
    _need_matplotlib()
    from analyzer.plots import canvas

    return canvas.saved(figure, "svg", dpi=192)


def image_strip(panels: Sequence[tuple[str, NDArray[Any]]], *, width: float = 6.25) -> "Figure":
    """Images side by side, each under its caption: (H, W, 3), (H, W, 1) or (H, W), grey levels 0..255; width in inches.

    What lies outside 0..255 is cut off; a value that is not finite is shown as 0.
    """
    _need_matplotlib()
    from analyzer.plots import canvas

    with canvas.style():
        heights = [width / len(panels) * np.shape(image)[0] / np.shape(image)[1] for _, image in panels]
        figure, axes = canvas.blank(width, max(heights) + 0.5, 1, len(panels))
        for (caption, image), ax in zip(panels, axes.flat, strict=True):
            pixels = np.clip(np.nan_to_num(np.asarray(image, dtype=np.float64)), 0, 255).round().astype(np.uint8)
            pixels = pixels.squeeze(axis=2) if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
            ax.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            ax.set_axis_off()
            ax.set_title(canvas.heading(caption, width=width / len(panels), lines=3), parse_math=False, loc="left")
        return canvas.frozen(figure)


def _need_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as e:
        raise UsageError(
            "matplotlib is not installed, and pictures need it: pip install 'convnet-analyzer[report]'"
        ) from e
