"""Local linearity: whether the network answers a perturbation a as an affine map does.

    N = sqrt( sum over trials norm(D(a) + 2 D(-a/2))^2 / sum over trials norm(D(a))^2 ),    D(a) = f(x + a) - f(x)

An affine f has N = 0. A homogeneous term of degree d has |1 + 2 (-1/2)^d|: 1.5 of a quadratic, 0.75 of a cubic; the
absolute value has 2. So even and odd terms count, and kinks, which a comparison of a with a/2 would miss; only terms
that cancel along all of many random a could hide. Mantel's r (section 2.3) is low for linear maps too and cannot tell
this.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.measures.base import Measure, Observation
from analyzer.measures.quantities import FLAG, LOG_ODDS, Array, Number, Profile, Quantity
from analyzer.measures.variables import Variable

_SHIFTED = 1.5


def departure(defect: NDArray[np.floating], response: NDArray[np.floating]) -> NDArray[np.float64]:
    """N of some trials.

    Args:
        defect: (..., trial), norm(D(a) + 2 D(-a/2)), in the unit of the response.
        response: (..., trial), norm(D(a)).

    Returns:
        Shape (...), a pure number. NaN where nothing responds, or a trial is unknown.

    >>> departure(np.array([1.5, 3.0]), np.array([1.0, 2.0])).tolist()
    1.5
    """
    sums = [np.square(np.asarray(values, np.float64)).sum(axis=-1) for values in (defect, response)]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.sqrt(np.where(sums[1] > 0, sums[0] / sums[1], np.nan)))


def floor(noise: NDArray[np.floating], response: NDArray[np.floating]) -> NDArray[np.float64]:
    """N that rounding alone makes: sqrt(5) times what it does to one answer, of the root mean square response.

    D(a) + 2 D(-a/2) has the errors of f(x + a), once, and of f(x - a/2), twice: sqrt(1 + 4) of one. For that of f(x),
    which all trials have in common, `noise` leaves room where it is the largest of several.

    Args:
        noise: (...), by how much rounding moves an answer, in the unit of the response.
        response: (..., trial), norm(D(a)).

    Returns:
        Shape (...), a pure number; NaN where nothing responds.

    >>> floor(np.array(1.0), np.array([5.0, 5.0])).round(3).tolist()
    0.447
    """
    size = np.sqrt(np.square(np.asarray(response, np.float64)).mean(axis=-1))
    return np.asarray(np.sqrt(5) * noise / np.where(size > 0, size, np.nan))


def even_share(feature_gram: Array, feature_distance: Array, input_gram: Array) -> Array:
    """Even terms in the response: T times the share of its mean square that its mean over the trials has.

    The mean of D(a) over noise that is as often a as -a holds the even terms only. A linear map has about 1, since its
    T independent answers average out to a T-th of their mean square; a map of even terms only has up to T.

    Args:
        feature_gram: (radius, layer, T, T), products of trial-centred features, feature units squared.
        feature_distance: (radius, T, layer), norm(D(a)), feature units.
        input_gram: (radius, T, T), products of what was added, grey levels squared.

    Returns:
        (radius, layer), a pure number. NaN where nothing responds, and where what was added has a mean of its own, as
        clipping gives it: T times that mean's share above 1.5.
    """
    trials = input_gram.shape[-1]
    square = np.square(feature_distance).mean(axis=1)
    around = np.diagonal(feature_gram, axis1=-2, axis2=-1).mean(axis=-1)
    size = np.diagonal(input_gram, axis1=-2, axis2=-1).mean(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        shifted = trials * input_gram.mean(axis=(-2, -1)) / size > _SHIFTED
        share = trials * (1 - around / np.where(square > 0, square, np.nan))
    return np.where(shifted[:, None], np.nan, share)


def _within(value: Array, least: Array) -> Array:
    """1 where N is not above its floor, 0 where it is, NaN where undefined."""
    return np.where(np.isfinite(value) & np.isfinite(least), value <= least, np.nan)


_VARIABLES = (
    Variable("linearity", ("image", "radius", "layer"), "1", "departure N of the features from an affine response"),
    Variable("linearity_floor", ("image", "radius", "layer"), "1", "N of the features that rounding alone makes"),
    Variable("even_share", ("image", "radius", "layer"), "1", "trials times the mean response's share, linear: 1"),
    Variable("log_odds_linearity", ("image", "radius"), "1", "departure N of the true class's log-odds"),
    Variable("log_odds_linearity_floor", ("image", "radius"), "1", "N of the log-odds that rounding alone makes"),
)
DEPARTURE = Quantity(
    "linearity", ("linearity",), np.asarray, layered=True, title="Linearity: departure N from an affine response"
)
_LOG_ODDS = Quantity("log_odds_linearity", ("log_odds_linearity",), np.asarray, needs=LOG_ODDS)
_BELOW = Quantity("linearity_below_floor", ("linearity", "linearity_floor"), _within, kind=FLAG, layered=True)
_EVEN = Quantity("even_share", ("even_share",), np.asarray, layered=True)
_LOG_ODDS_BELOW = Quantity(
    "log_odds_linearity_below_floor",
    ("log_odds_linearity", "log_odds_linearity_floor"),
    _within,
    kind=FLAG,
    needs=LOG_ODDS,
)
_NUMBERS = (
    Number(
        "linearity_median",
        DEPARTURE,
        "median",
        "N, features",
        ".2g",
        interval=True,
        glance="departure from a linear response",
        deciding="linearity, N",
    ),
    Number("log_odds_linearity_median", _LOG_ODDS, "median", "N, log-odds", ".2g", interval=True),
    Number("linearity_below_floor_share", _BELOW, "share", "within rounding", ".0%"),
    Number("log_odds_linearity_below_floor_share", _LOG_ODDS_BELOW, "share"),
    Number("even_share_median", _EVEN, "median", "even terms, linear: 1", ".2g", interval=True),
)


def observe(around: Observation) -> dict[str, NDArray[Any]]:
    """`linearity` and its floor, (radius, layer), and those of the log-odds, (radius,), of one image."""
    assert around.half is not None and around.half_defect is not None
    assert around.feature_distance is not None and around.feature_floor is not None
    assert around.feature_gram is not None and around.input_gram is not None
    trials = around.half_defect.shape[1]
    response = np.moveaxis(around.feature_distance[:, :trials], 1, -1)
    own = around.scores["noise"].log_odds[:, :trials] - around.clean_log_odds
    half = around.half.log_odds - around.clean_log_odds
    return {
        "linearity": departure(np.moveaxis(around.half_defect, 1, -1), response),
        "linearity_floor": np.maximum(floor(around.feature_floor, response), around.half_resolution),
        "even_share": even_share(around.feature_gram, around.feature_distance, around.input_gram),
        "log_odds_linearity": departure(np.abs(own + 2 * half), np.abs(own)),
        "log_odds_linearity_floor": floor(np.asarray(around.log_odds_floor), np.abs(own)),
    }


MEASURE = Measure(
    title="Linearity: departure N from an affine response, which has 0",
    family="noise",
    halves=True,
    variables=_VARIABLES,
    observe=observe,
    numbers=_NUMBERS,
    layered=True,
    compared=(DEPARTURE,),
    profiles=(
        Profile(
            "linearity",
            "departure N",
            "N, how far the response to noise departs from that of an affine map, which has 0",
        ),
    ),
)
