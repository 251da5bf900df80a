"""Local Lipschitz ratio (section 2.4, Eq. 9; Fig. 6).

    L_x = norm(g(Phi(x + nu)) - g(Phi(x))) / norm(h(x + nu) - h(x))

g and h are min-max normalisers, one scalar minimum and maximum over all calibration images and all units, so only
their ranges matter. The sampled ratio is a lower bound of the local Lipschitz constant: random directions see the
root mean square of the Jacobian's singular values (`geometry.jacobian_rms`), not the largest one.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.measures import geometry
from analyzer.measures.base import Measure, Observation
from analyzer.measures.quantities import FRACTION, HIGHER, LOWER, Array, Number, Profile, Quantity, mean_of_known
from analyzer.measures.variables import Derived, Scales, Variable
from analyzer.statistics import Estimate, from_moments


def ratio(
    feature_distance: NDArray[np.float64],
    input_distance: NDArray[np.float64],
    *,
    input_range: float = 1.0,
    feature_range: NDArray[np.float64] | float = 1.0,
) -> NDArray[np.float64]:
    """L_x of Eq. 9, or the raw ratio where both ranges are left at 1.

    Args:
        feature_distance: L2 distances from the clean image's features, feature units.
        input_distance: L2 lengths of what was added to the pixels, grey levels.
        input_range: Maximum minus minimum of the calibration images' pixels, grey levels: the range of h.
        feature_range: The same of their features, feature units: the range of g.

    Returns:
        The shape to which the arrays broadcast. A pure number; feature units per grey level of the raw ratio. NaN
        where nothing was added to the pixels or a layer's range is 0: undefined, not 0.

    >>> ratio(np.array([3.0, 0.0, 1.0]), np.array([2.0, 2.0, 0.0])).tolist()
    [1.5, 0.0, nan]
    >>> ratio(np.array([3.0]), np.array([2.0]), input_range=255, feature_range=510).tolist()
    [0.75]
    """
    inputs = np.where(input_distance > 0, input_distance, np.nan)
    ranges = np.where(np.asarray(feature_range) > 0, feature_range, np.nan)
    return np.asarray(feature_distance / inputs * input_range / ranges)


def pooled_moments(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums from which both fits follow: (image, point) twice -> (image, 8).

    Columns: n, sum x .. x^4, sum y, xy, x^2 y; points with a NaN are left out. They add up over images. Sum y^2 is
    not needed for the coefficients.
    """
    both_finite = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(both_finite, x, 0.0), np.where(both_finite, y, 0.0)
    columns = [both_finite, x, x**2, x**3, x**4, y, x * y, x**2 * y]
    return np.stack([np.asarray(c, dtype=np.float64).sum(axis=-1) for c in columns], axis=-1)


def fit(moments: NDArray[np.float64], *, degree: int) -> NDArray[np.float64]:
    """Least-squares polynomial of output against input distance: the black and blue lines of Fig. 6.

    Args:
        moments: (..., 8), those of `pooled_moments`, summed over images.
        degree: 1 or 2.

    Returns:
        (..., degree + 1), coefficients, lowest order first. NaN where the points do not determine the polynomial.

    >>> x = np.arange(5.0)[None]
    >>> fit(pooled_moments(x, 1 + 2 * x).sum(axis=0), degree=1).round(6).tolist()
    [1.0, 2.0]
    """
    normal = np.stack(
        [np.stack([moments[..., i + j] for j in range(degree + 1)], axis=-1) for i in range(degree + 1)], axis=-2
    )
    right = moments[..., 5 : 6 + degree]
    scale = np.sqrt(np.diagonal(normal, axis1=-2, axis2=-1))
    scale = np.where(scale > 0, scale, 1.0)
    scaled = normal / scale[..., :, None] / scale[..., None, :]
    solvable = np.isfinite(scaled).all(axis=(-2, -1)) & (np.linalg.cond(np.nan_to_num(scaled)) < 1e12)
    safe = np.where(solvable[..., None, None], scaled, np.eye(degree + 1))
    solution = np.linalg.solve(safe, (right / scale)[..., None])[..., 0] / scale
    return np.where(solvable[..., None], solution, np.nan)


def share_below(ratios: NDArray[np.floating], bound: float) -> NDArray[np.float64]:
    """Share of each image's known ratios below `bound`: (image, point) -> (image,), NaN where none is known."""
    if np.isnan(bound):
        return np.full(len(ratios), np.nan)
    count = np.isfinite(ratios).sum(axis=1)
    return np.where(count > 0, (ratios < bound).sum(axis=1) / np.maximum(count, 1), np.nan)


def image_quantile(points: NDArray[np.floating], quantile: float) -> NDArray[np.float64]:
    """A quantile of each image's points, the inverse of their empirical distribution.

    Args:
        points: (image, point), such as ratios; NaN is left out.
        quantile: Which one, 0..1.

    Returns:
        Shape (image,), in the unit of `points`; NaN where none is known.

    >>> image_quantile(np.array([[1.0, 2.0, 3.0, 4.0], [5.0, np.nan, np.nan, np.nan]]), 0.75).tolist()
    [3.0, 5.0]
    """
    ordered = np.sort(points, axis=1)  # NaN last
    count = np.isfinite(points).sum(axis=1)
    place = np.maximum(np.ceil(quantile * count - 1e-9).astype(np.intp) - 1, 0)
    return np.where(count > 0, np.take_along_axis(ordered, place[:, None], axis=1)[:, 0], np.nan).astype(np.float64)


_DISTANCES = ("feature_distance", "input_distance_l2")


def _ratios(moved: Array, added: Array) -> NDArray[np.float32]:
    """Raw ratios, (image, radius, trial, layer); float32 keeps seven digits of a ratio, and half the memory."""
    return ratio(moved, added[..., None]).astype(np.float32)


def _normalised(moved: Array, added: Array, scales: Scales) -> Array:
    return ratio(moved, added[..., None], input_range=scales.h, feature_range=scales.g)


def _growth(moved: Array, added: Array) -> Array:
    """Mean ratio at the last radius over that at the first: (image, layer); NaN where most trials do not move it."""
    still = np.median(moved[:, 0], axis=1) == 0  # what moved at the first radius is then a step now and then
    ratios = np.moveaxis(_ratios(moved[:, [0, -1]], added[:, [0, -1]]), 2, -1)
    first, last = np.moveaxis(mean_of_known(np.ascontiguousarray(ratios, dtype=np.float64)), 1, 0)
    return np.asarray(last / np.where((first > 0) & ~still, first, np.nan))


def _moments(moved: Array, added: Array, *, scales: Scales) -> Array:
    """`pooled_moments` of normalised distances: (image, 8, layer)."""
    x = (added / scales.h).reshape(len(added), -1)
    y = (moved / scales.g).reshape(*x.shape, -1)
    return np.stack([pooled_moments(x, y[..., j]) for j in range(y.shape[-1])], axis=-1)


def _term(degree: int, place: int) -> Callable[[Array], Estimate]:
    """The coefficient of x^place of the polynomial fitted to all points, from summed moments."""
    return lambda moments: from_moments(np.ascontiguousarray(moments), partial(fit, degree=degree))[place]


_VARIABLES = (
    Variable(
        "feature_distance",
        ("image", "radius", "trial", "layer"),
        "feature units",
        "L2 distance of the features from those of the clean image",
    ),
    Variable(
        "jacobian_rms",
        ("image", "radius", "layer"),
        "feature units per grey level",
        "Frobenius norm of the feature Jacobian over the square root of the input dimension",
    ),
    Variable(
        "lipschitz",
        ("image", "radius", "trial", "layer"),
        "1",
        "normalised feature distance over normalised input distance",
        derived=Derived(_DISTANCES, _normalised),
    ),
)
RAW = Quantity("lipschitz_raw", _DISTANCES, _ratios, "feature units per grey level", LOWER, layered=True, points=True)
RAW_TAIL = replace(RAW, name="lipschitz_raw_image_q95", within=lambda points, scale: image_quantile(points, 0.95))
RATIO = replace(RAW, name="lipschitz", unit="1", normalised=True, scaled=True)
TAIL = replace(RATIO, name="lipschitz_image_q95", within=RAW_TAIL.within)
BELOW_ONE = replace(
    RAW,
    name="lipschitz_below_one",
    unit="1",
    more_robust=HIGHER,
    kind=FRACTION,
    normalised=True,
    within=lambda points, scale: share_below(points, 1 / scale),
)
MEAN = replace(
    RATIO,
    name="lipschitz_mean",
    reduce=lambda moved, added: ratio(moved, added[..., None]),
    within=lambda points, scale: mean_of_known(points),
    title="Lipschitz: normalised ratio L_x, mean over the perturbations",
)
RMS = Quantity("jacobian_rms", ("jacobian_rms",), np.asarray, "feature units per grey level", LOWER, layered=True)
NORMALISED_RMS = replace(
    RMS,
    name="jacobian_normalised",
    unit="1",
    normalised=True,
    scaled=True,
    title="Lipschitz: norm_F(J) / sqrt(D), normalised as L_x",
)
GROWTH = Quantity("lipschitz_growth", _DISTANCES, _growth, radial=False, layered=True)
_FIT = Quantity("lipschitz_fit", _DISTANCES, _moments, radial=False, layered=True, normalised=True, uses_scales=True)


BESIDE_A_BOUND = (
    "lipschitz_median",
    "lipschitz_q95",
    "lipschitz_below_one_share",
    "lipschitz_raw_median",
    "lipschitz_raw_q95",
)
"""Numbers that a global bound is shown beside."""
LINEAR_FIT = ("lipschitz_linear_intercept", "lipschitz_linear_slope")
QUADRATIC_FIT = ("lipschitz_quadratic_intercept", "lipschitz_quadratic_slope", "lipschitz_quadratic_curvature")
"""Coefficients of the fits of Fig. 6, lowest order first."""


def _fitted(name: str, degree: int, place: int) -> Number:
    # Points of so few lengths do not determine a polynomial of higher degree.
    statistic = _term(degree, place)
    return Number(name, _FIT, statistic, by_radius=False, overall=True, least_radii=degree + 1, block=1)


_NUMBERS = (
    Number("lipschitz_q05", RATIO, "q05", "5 %", ".2g", overall=True),
    Number("lipschitz_raw_q05", RAW, "q05", overall=True),
    Number(
        "lipschitz_median",
        RATIO,
        "median",
        "median",
        ".2g",
        interval=True,
        overall=True,
        glance="Lipschitz ratio, median",
        deciding="Lipschitz ratio",
    ),
    Number("lipschitz_raw_median", RAW, "median", "raw median", overall=True, last=True),
    Number("lipschitz_q95", RATIO, "q95", "95 %", ".2g", overall=True),
    Number("lipschitz_raw_q95", RAW, "q95", overall=True),
    Number(
        "lipschitz_image_q95_median",
        TAIL,
        "median",
        "95 % of an image",
        ".2g",
        interval=True,
        overall=True,
        glance="Lipschitz ratio, 95 % of an image",
    ),
    Number("lipschitz_raw_image_q95_median", RAW_TAIL, "median", overall=True),
    Number(
        "lipschitz_below_one_share",
        BELOW_ONE,
        "share",
        "share below 1",
        ".1%",
        interval=True,
        overall=True,
        glance="ratios below 1",
    ),
    Number("jacobian_rms_median", RMS, "median", "norm_F(J) / sqrt(D)", ".2g", interval=True, last=True),
    Number("lipschitz_growth_median", GROWTH, "median", by_radius=False, overall=True, block=1),
    *(_fitted(name, 1, place) for place, name in enumerate(LINEAR_FIT)),
    *(_fitted(name, 2, place) for place, name in enumerate(QUADRATIC_FIT)),
)


def observe(around: Observation) -> dict[str, NDArray[Any]]:
    """`feature_distance` (radius, trial, layer) and `jacobian_rms` (radius, layer) of one image."""
    assert around.feature_gram is not None and around.feature_distance is not None
    assert around.input_gram is not None
    rms = geometry.jacobian_rms(around.feature_gram, around.input_gram[:, None])
    return {"feature_distance": around.feature_distance, "jacobian_rms": rms}


MEASURE = Measure(
    title="Lipschitz: normalised distance ratio L_x, a sampled lower bound",
    family="noise",
    variables=_VARIABLES,
    observe=observe,
    numbers=_NUMBERS,
    layered=True,
    compared=(MEAN, NORMALISED_RMS),
    profiles=(
        Profile(
            "jacobian_rms",
            "norm_F(J) / sqrt(D)",
            "norm_F(J) / sqrt(D), how far the features move per grey level of random noise",
            log=True,
        ),
        Profile(
            "lipschitz",
            "Lipschitz ratio",
            "the distance ratio L normalised by the ranges on the clean images",
            log=True,
        ),
    ),
)
