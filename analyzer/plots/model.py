"""What goes into a picture and what comes out of it, and the numbers that several pictures start from."""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer.card import EMBEDDING
from analyzer.measures.quantities import by_image
from analyzer.measures.ranges import FamilyScores, mean_score, misclassified, score_range, within_rounding
from analyzer.statistics import Estimate, rounding_range_factor
from analyzer.store import ImageStatus, scales_of
from analyzer.summary import estimates, kind_of, layer_suffix, measured_images, reach

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
_DOUBLE = 4 * np.finfo(np.float64).eps
_SINGLE = float(np.finfo(np.float32).eps)


class DrawnRun(NamedTuple):
    """One run to be drawn."""

    label: str
    dataset: Any
    """xarray.Dataset as `analyzer.open_run` gives it."""
    summary: Mapping[str, Any]
    """Document as `analyzer.summary.summarise` gives it, or as it is read from summary.json."""

    @property
    def kind(self) -> str:
        """Of the scores."""
        return kind_of(self.summary)


class Picture(NamedTuple):
    """One figure, and its words: all of them plain text in which labels stand as they came."""

    name: str
    """Stem of a file name."""
    title: str
    how: str
    """How to read it."""
    says: tuple[str, ...]
    """One sentence a run, in the order of the runs."""
    alt: str
    """Text alternative."""
    figure: "Figure"


class Cloud(NamedTuple):
    """One family's scores, a row an image and a column a radius; NaN where undefined."""

    radius: Array
    spread: Array
    """Range of the true-class probability, or of the cosine, over the trials."""
    log_odds: Array
    """The same of the log-odds, nat."""
    mean: Array
    """Mean probability, or cosine."""
    wrong: Array
    """Share of the trials that are misclassified."""
    resolved: NDArray[np.bool_]
    """Whether `spread` is above what the arithmetic resolves."""
    floor: Array
    """Largest range of the log-odds that rounding may make over as many trials, (image,), nat."""


def measured(run: DrawnRun) -> Any:
    """The images of a run that were measured."""
    return measured_images(run.dataset)


def has(run: DrawnRun, *names: str) -> bool:
    """Whether the run has these variables, and images to show."""
    dataset = run.dataset
    return set(names) <= set(dataset) and bool((dataset["image_status"].values == ImageStatus.MEASURED).any())


def cloud(run: DrawnRun, family: FamilyScores) -> Cloud | None:
    """The scores of one family; None where the run has none.

    A range is resolved where it is above a few units in the last place of its own number format (of float32, where the
    graph gave probabilities) and, where there are log-odds, where their range is above what rounding may do; of an
    embedding, where it is above what rounding's turn of the embedding may do.
    """
    if not has(run, *family.names):
        return None
    dataset = measured(run)
    floor = np.asarray(dataset["log_odds_noise_floor"].values, dtype=np.float64)

    def reduced(score: Any, log_odds: Any, predicted: Any, label: Any) -> tuple[NDArray[Any], ...]:
        ulps = np.where((score == score.astype(np.float32)).all(axis=-1), _SINGLE, _DOUBLE) * score.max(axis=-1)
        wrong = misclassified(predicted, label[:, None])
        return score_range(score), score_range(log_odds), mean_score(score), wrong, ulps

    spread, log_odds, mean, wrong, ulps = by_image(dataset, [*family.names, "label"], reduced)
    resolved = (spread > ulps) & ~within_rounding(log_odds, floor[:, None], trials=trials(run))
    if run.kind == EMBEDDING:  # a turn by a small angle changes a cosine by its sine, and by half the angle's square
        turned = reach.rounding_of_embeddings(dataset)[:, None]
        least = np.sqrt(np.maximum(1 - np.square(mean), 0)) * turned + np.square(turned) / 2
        resolved &= ~within_rounding(spread, least, trials=trials(run))
    return Cloud(radii(run), spread, log_odds, mean, wrong, resolved, rounding_range_factor(trials(run)) * floor)


def absent(run: DrawnRun) -> str:
    """Why a run has nothing that a figure of log-odds could show, in lines for an empty panel."""
    return "an embedding\nhas no log-odds" if run.kind == EMBEDDING else "not measured"


def radii(run: DrawnRun) -> Array:
    """The radii of a run, grey levels."""
    return np.asarray(run.dataset["radius"].values, dtype=np.float64)


def layers(run: DrawnRun) -> list[str]:
    """The layers of a run, along the depth."""
    return [str(layer) for layer in run.dataset["layer"].values]


def suffix(run: DrawnRun, layer: str) -> str:
    """The end of a summary's names for this layer: empty where the run has one layer only."""
    return layer_suffix(layer, len(layers(run)))


def rows(run: DrawnRun) -> dict[str, Estimate]:
    """The numbers of a run's summary, None read as NaN."""
    return estimates(dict(run.summary))


def dimension(run: DrawnRun) -> int:
    """D, the number of pixel values of one image."""
    return scales_of(run.dataset).dimension


def norm(run: DrawnRun) -> str:
    """The norm that has length radius."""
    return str(json.loads(run.dataset.attrs["manifest"])["identity"]["norm"])


def trials(run: DrawnRun) -> int:
    """Perturbations a radius and family."""
    return int(run.dataset.sizes["trial"])


def over_images(values: Array, quantile: float) -> Array:
    """A quantile of the known values of each column, NaN where none is: (image, radius) -> (radius,)."""
    defined = (column[np.isfinite(column)] for column in values.T)
    return np.array([np.quantile(column, quantile) if column.size else np.nan for column in defined])


def number(value: float, digits: int = 2) -> str:
    """A number for a sentence: 0.014, 5.6e-5, 1200."""
    if not np.isfinite(value):
        return "undefined"
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, _, power = f"{value:.{max(digits - 1, 0)}e}".partition("e")
        return f"{float(mantissa):g}e{int(power)}"
    return f"{float(f'{value:.{digits}g}'):g}"


def alternative(title: str, says: Iterable[str]) -> str:
    """A text alternative: what is drawn, and what each run shows."""
    return " ".join([f"{title}.", *says])
