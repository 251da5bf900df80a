"""Local Lipschitz ratio (section 2.4, Eq. 9; Fig. 6).

    L_x = norm(g(Phi(x + nu)) - g(Phi(x))) / norm(h(x + nu) - h(x))

g and h are min-max normalisers, one scalar minimum and maximum over all calibration images and all units, so only
their ranges matter. The sampled ratio is a lower bound of the local Lipschitz constant: random directions see the
root mean square of the Jacobian's singular values (`geometry.jacobian_rms`), not the largest one.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.measures import base, geometry
from analyzer.statistics import Estimate, from_moments, mean_share, pooled_quantiles, quantile_over_images

FAMILY = "noise"
NEEDS_FEATURES = True
VARIABLES = (
    base.Variable(
        "feature_distance",
        ("image", "radius", "trial", "layer"),
        "feature units",
        "L2 distance of the features from those of the clean image",
    ),
    base.Variable(
        "jacobian_rms",
        ("image", "radius", "layer"),
        "feature units per grey level",
        "Frobenius norm of the feature Jacobian over the square root of the input dimension",
    ),
)
_LAYERS_AT_ONCE = 8  # held at a time while summing up; each group reads the distances once
TITLE = "Lipschitz: normalised distance ratio L_x, a sampled lower bound"
COLUMNS = (
    base.Column("5 %", "lipschitz_q05", ".2g"),
    base.Column("median", "lipschitz_median", ".2g", interval=True),
    base.Column("95 %", "lipschitz_q95", ".2g", interval=True),
    base.Column("share below 1", "lipschitz_below_one_share", ".1%", interval=True),
    base.Column("raw median", "lipschitz_raw_median", ".3g"),
    base.Column("norm_F(J) / sqrt(D)", "jacobian_rms_median", ".2g", interval=True),
)


def ratio(
    feature_distance: NDArray[np.float64],
    input_distance: NDArray[np.float64],
    *,
    input_range: float = 1.0,
    feature_range: NDArray[np.float64] | float = 1.0,
) -> NDArray[np.float64]:
    """L_x of Eq. 9, or the raw ratio where both ranges are left at 1: arrays that broadcast -> the same shape.

    Distances are L2. NaN where nothing was added to the pixels or the layer's range is 0: undefined, not 0.
    """
    inputs = np.where(input_distance > 0, input_distance, np.nan)
    ranges = np.where(np.asarray(feature_range) > 0, feature_range, np.nan)
    return np.asarray(feature_distance / inputs * input_range / ranges)


def pooled_moments(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums from which both fits follow: (image, point) twice -> (image, 8).

    Columns: n, sum x .. x^4, sum y, xy, x^2 y; points with a NaN are left out. They add up over images, so that a
    bootstrap over images refits without touching the points again. Sum y^2 is not needed for the coefficients.
    """
    known = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(known, x, 0.0), np.where(known, y, 0.0)
    columns = [known, x, x**2, x**3, x**4, y, x * y, x**2 * y]
    return np.stack([np.asarray(c, dtype=np.float64).sum(axis=-1) for c in columns], axis=-1)


def fit(moments: NDArray[np.float64], *, degree: int) -> NDArray[np.float64]:
    """Least-squares polynomial of output against input distance from summed moments: (..., 8) -> (..., degree + 1).

    degree 1 or 2, coefficients lowest order first, as the black and blue lines of Fig. 6. NaN where the points do not
    determine the polynomial.
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


def observe(around: base.Neighbourhood) -> dict[str, NDArray[Any]]:
    """`feature_distance` (radius, trial, layer) and `jacobian_rms` (radius, layer) of one image."""
    assert around.feature_gram is not None and around.feature_distance is not None
    assert around.input_gram is not None
    rms = geometry.jacobian_rms(around.feature_gram, around.input_gram[:, None])
    return {"feature_distance": around.feature_distance, "jacobian_rms": rms}


def ranges(calibration: Any, layers: Sequence[str]) -> tuple[float, NDArray[np.float64]]:
    """The widths of h and of g for each layer, from a run's calibration; NaN where they are 0 or unknown."""
    known = calibration or {"input_range": None, "feature_range": {}}
    widths = np.array([known["feature_range"].get(layer) or np.nan for layer in layers])
    return float(known["input_range"] or np.nan), widths


def summarise(dataset: Any) -> Iterator[base.Row]:
    """Quantiles and share below 1 per radius and over all radii, and the two fits, per layer."""
    calibration = json.loads(dataset.attrs["calibration"])
    for start in range(0, dataset.sizes["layer"], _LAYERS_AT_ONCE):
        yield from _rows(dataset.isel(layer=slice(start, start + _LAYERS_AT_ONCE)), calibration)


def _rows(dataset: Any, calibration: Any) -> Iterator[base.Row]:
    layers = [str(layer) for layer in dataset["layer"].values]
    input_range, feature_ranges = ranges(calibration, layers)

    def reduced(moved: Any, added: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        x = (added / input_range).reshape(len(added), -1)
        y = (moved / feature_ranges).reshape(*x.shape, -1)
        moments = np.stack([pooled_moments(x, y[..., j]) for j in range(len(layers))], axis=1)
        # float32 keeps seven digits of a ratio, and half the memory.
        return ratio(moved, added[..., None]).astype(np.float32), moments

    ratios, moments = base.by_image(dataset, ("feature_distance", "input_distance_l2"), reduced)
    rms = dataset["jacobian_rms"].values
    for j, (layer, feature_range) in enumerate(zip(layers, feature_ranges, strict=True)):
        scale = float(input_range / feature_range)
        raw = ratios[..., j]
        for k, radius in [(None, None), *enumerate(dataset["radius"].values)]:
            chosen = raw.reshape(len(raw), -1) if k is None else raw[:, k]
            where = None if radius is None else float(radius)
            quantiles = zip(("q05", "median", "q95"), pooled_quantiles(chosen, (0.05, 0.5, 0.95)), strict=True)
            for name, estimate in quantiles:
                yield base.Row(f"lipschitz_{name}", where, layer, _scaled(estimate, scale))
                yield base.Row(f"lipschitz_raw_{name}", where, layer, estimate)
            below = mean_share(share_below(chosen, 1 / scale))
            yield base.Row("lipschitz_below_one_share", where, layer, below)
            if k is not None:
                yield base.Row("jacobian_rms_median", where, layer, quantile_over_images(rms[:, k, j], 0.5))

        first, last = (base.mean_of_known(raw[:, k].astype(np.float64)) for k in (0, -1))
        growth = last / np.where(first > 0, first, np.nan)
        yield base.Row("lipschitz_growth_median", None, layer, quantile_over_images(growth, 0.5))
        for degree, name, terms in (
            (1, "linear", ("intercept", "slope")),
            (2, "quadratic", ("intercept", "slope", "curvature")),
        ):
            if dataset.sizes["radius"] <= degree:
                continue  # points of so few lengths do not determine the polynomial
            estimates = from_moments(moments[:, j], partial(fit, degree=degree))
            for term, estimate in zip(terms, estimates, strict=True):
                yield base.Row(f"lipschitz_{name}_{term}", None, layer, estimate)


def sentence(rows: Mapping[str, Estimate], suffix: str = "") -> str:
    """What the ratios say."""
    below = rows[f"lipschitz_below_one_share{suffix}"]
    median = rows[f"lipschitz_median{suffix}"]
    if not np.isfinite(median.value):
        return "Lipschitz: the ratio is undefined: nothing was added, or the features do not vary over the image set."
    radii = base.at(rows, "lipschitz_median", suffix)
    growth = rows[f"lipschitz_growth_median{suffix}"].value
    changes = (
        f" It changes by a factor of {growth:.2g} from radius {min(radii):g} to {max(radii):g}: not locally linear."
        if len(radii) > 1 and not 0.8 <= growth <= 1.25
        else ""
    )
    return (
        f"Lipschitz: {below.value:.1%} of the perturbations have a normalised ratio below 1 (median "
        f"{median.value:.2g}), measured by the ranges of the image set.{changes} Random noise sees a lower bound of "
        "the local constant."
    )


def share_below(ratios: NDArray[np.floating], bound: float) -> NDArray[np.float64]:
    """Share of each image's known ratios below `bound`: (image, point) -> (image,), NaN where none is known."""
    if np.isnan(bound):
        return np.full(len(ratios), np.nan)
    count = np.isfinite(ratios).sum(axis=1)
    return np.where(count > 0, (ratios < bound).sum(axis=1) / np.maximum(count, 1), np.nan)


def _scaled(estimate: Estimate, factor: float) -> Estimate:
    return estimate._replace(value=estimate.value * factor, low=estimate.low * factor, high=estimate.high * factor)
