"""What each image contributes to a number of the summary: one array a quantity, for pairing runs image by image."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer.compare.runs import Measured
from analyzer.measures import base, isotropy, lipschitz, symmetry

Array = NDArray[np.float64]


class Quantity(NamedTuple):
    """How a quantity follows from the variables `reads`, given the scale of L_x: width of h over width of g, (layer,).

    `reduce` gives (image, radius), with `layered` (image, radius, layer), with `points` (image, radius, trial, layer).
    """

    reads: tuple[str, ...]
    reduce: Callable[..., Array]
    layered: bool = False
    points: bool = False


def _of_scores(function: Callable[[Array], Array]) -> Callable[..., Array]:
    return lambda scale, values: function(values)


def _flags(scale: Array, predicted: Any, label: Any) -> Array:
    wrong = isotropy.misclassified(predicted, label[:, None])
    return np.where(np.isnan(wrong), np.nan, wrong > 0)


def _ratios(scale: Array, moved: Array, added: Array) -> Array:
    return lipschitz.ratio(moved, added[..., None]) * scale


def _below_one(scale: Array, moved: Array, added: Array) -> Array:
    ratios = _ratios(scale, moved, added)
    return base.mean_of_known(np.moveaxis(np.where(np.isfinite(ratios), ratios < 1, np.nan), 2, -1))


def _stored(name: str) -> Quantity:
    return Quantity((name,), lambda scale, values: np.asarray(values, dtype=np.float64), layered=True)


_DISTANCES = ("feature_distance", "input_distance_l2")
QUANTITIES: dict[str, Quantity] = {
    **{
        f"{family}_{name}": Quantity(tuple(f"{family}_{v}" if v != "label" else v for v in reads), reduce)
        for family in ("isotropy", "symmetry")
        for name, reads, reduce in (
            ("range", ("score",), _of_scores(isotropy.score_range)),
            ("log_odds_range", ("log_odds",), _of_scores(isotropy.score_range)),
            ("score", ("score",), _of_scores(isotropy.mean_score)),
            ("misclassified", ("predicted", "label"), _flags),
            (
                "misclassified_trials",
                ("predicted", "label"),
                lambda scale, predicted, label: isotropy.misclassified(predicted, label[:, None]),
            ),
        )
    },
    "misclassified": Quantity(("isotropy_predicted", "label"), _flags),
    "symmetry_excess": Quantity(
        ("symmetry_log_odds", "isotropy_log_odds"), lambda scale, permuted, fresh: symmetry.excess(permuted, fresh)
    ),
    "mantel_r": _stored("mantel_r"),
    "mantel_r_linear": _stored("mantel_r_linear"),
    "mantel_r_minus_linear": Quantity(
        ("mantel_r", "mantel_r_linear"), lambda scale, r, expected: r - expected, layered=True
    ),
    "mantel_p_below_05": Quantity(
        ("mantel_p",), lambda scale, p: np.where(np.isnan(p), np.nan, p <= 0.05), layered=True
    ),
    "participation_ratio": _stored("participation_ratio"),
    "alpha_departure": _stored("alpha_departure"),
    "alpha_departure_linear": _stored("alpha_departure_linear"),
    "jacobian_rms": _stored("jacobian_rms"),
    "jacobian_normalised": Quantity(("jacobian_rms",), lambda scale, rms: rms * scale, layered=True),
    "lipschitz": Quantity(_DISTANCES, _ratios, layered=True, points=True),
    "lipschitz_raw": Quantity(
        _DISTANCES, lambda scale, moved, added: lipschitz.ratio(moved, added[..., None]), layered=True, points=True
    ),
    "lipschitz_mean": Quantity(
        _DISTANCES, lambda *given: base.mean_of_known(np.moveaxis(_ratios(*given), 2, -1)), layered=True
    ),
    "lipschitz_below_one": Quantity(_DISTANCES, _below_one, layered=True),
}
"""By the name they have in summary.json less statistic, radius and layer; `jacobian_normalised` and
`lipschitz_mean` have no row there."""


def per_image(run: Measured, name: str, layer: int = 0) -> Array | None:
    """A quantity of every finished image: (image, radius), `points` (image, radius, trial); None if not measured.

    layer: its place among the run's layers; of no effect where the quantity needs no features. Unknown names raise
    KeyError. NaN where undefined.
    """
    quantity = QUANTITIES[name]
    if not set(quantity.reads) <= run.dataset.keys():
        return None
    width, widths = lipschitz.ranges(run.calibration, run.layers)
    scale = width / widths

    def reduced(*arrays: Any) -> tuple[Array]:
        values = quantity.reduce(scale, *arrays)
        return (values[..., layer] if quantity.layered else values,)

    (values,) = base.by_image(run.dataset, quantity.reads, reduced)
    return values
