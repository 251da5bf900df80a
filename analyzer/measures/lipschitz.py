"""Local Lipschitz ratio (section 2.4, Eq. 9; Fig. 6).

    L_x = norm(g(Phi(x + nu)) - g(Phi(x))) / norm(h(x + nu) - h(x))

g and h are min-max normalisers, one scalar minimum and maximum over all calibration images and all units, so only
their ranges matter. The sampled ratio is a lower bound of the local Lipschitz constant: random directions see the
root mean square of the Jacobian's singular values (`geometry.jacobian_rms`), not the largest one.
"""

import numpy as np
from numpy.typing import NDArray


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
