"""Radii at which noise changes nothing, since it does not reach a network that works in steps."""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.measures import REGISTRY
from analyzer.measures.ranges import within_rounding
from analyzer.statistics import Estimate
from analyzer.store.documents import Calibration
from analyzer.summary.names import radius_text

_RATIO_OF_RATIOS = "lipschitz_growth"
_IMAGES_AT_ONCE = 16
_FLAT = 0.6  # exponent of the response's growth with the radius: of a function 1, of steps crossed now and then 1/2
_RISING = 0.25
_SPAN = 4.0  # ratio of radii over which an exponent is told
_MOST = 0.75  # of the images
_FEWEST_TRIALS = 10


def unreached(measured: Any) -> list[float]:
    """The radii at which something was added to the pixels, and no score and no feature of any image moved."""
    moved = np.zeros(measured.sizes["radius"], bool)
    responses = {measure.scores.log_odds if measure.scores else "feature_distance" for measure in REGISTRY.values()}
    responses = {name for name in responses if name in measured}
    if not responses or not measured.sizes["image"]:
        return []
    for start in range(0, measured.sizes["image"], _IMAGES_AT_ONCE):
        block = measured.isel(image=slice(start, start + _IMAGES_AT_ONCE))
        for name in responses:
            values = block[name].values
            if name != "feature_distance":
                values = values - block["clean_log_odds"].values[:, None, None]
            # NaN counts as moved: nothing is known of it.
            moved |= (values != 0).reshape(*values.shape[:2], -1).any(axis=(0, 2))
        if moved.all():
            return []
    if "input_distance_l2" in measured:
        moved |= (measured["input_distance_l2"].values == 0).all(axis=(0, 2))  # nothing was added: said elsewhere
    return [float(radius) for radius in measured["radius"].values[~moved]]


def pixel_radii(measured: Any) -> list[float]:
    """How far noise of each radius moves a pixel at most: the radius itself, but for the L2 norm, rounding, clipping.

    Median over images and trials of the largest change, grey levels; the radius where it was not measured.
    """
    if "input_distance_linf" not in measured or not measured.sizes["image"]:
        return [float(radius) for radius in measured["radius"].values]
    largest = measured["input_distance_linf"].values
    return [
        float(np.nanmedian(largest[:, k])) if np.isfinite(largest[:, k]).any() else 0.0 for k in range(largest.shape[1])
    ]


def steps(measured: Any) -> float:
    """Below about which radius a network answers noise with its rounding steps, as one of INT8 does; 0 for none.

    Noise moves a function in proportion to its radius, at small radii at least. Steps that it crosses now and then add
    a response a that hardly depends on the radius: R(r)^2 = a^2 + (b r)^2, and up to r = a / b the steps are most of
    it. They are seen where, in at least 3 of 4 images, the response of the log-odds or of a layer grows by less than
    the power 0.6 of the radius up to four times the smallest one, and in the median by more later: one that grows less
    and less is saturated, not in steps.

    Returns:
        The largest a / b, grey levels; a is the response at the smallest radius, b follows from the largest one.
    """
    radii = measured["radius"].values
    wide = np.flatnonzero(radii >= _SPAN * radii[0])
    if not wide.size or wide[0] == len(radii) - 1 or measured.sizes["trial"] < _FEWEST_TRIALS:
        return 0.0
    found = 0.0
    for size in _responses(measured):
        size = size[np.isfinite(size).all(axis=1) & (size > 0).all(axis=1)]
        if not len(size):
            continue
        first, middle, last = (np.log(size[:, k]) for k in (0, wide[0], -1))
        early = (middle - first) / np.log(radii[wide[0]] / radii[0])
        late = (last - middle) / np.log(radii[-1] / radii[wide[0]])
        if np.mean(early < _FLAT) >= _MOST and np.median(late) > np.median(early) + _RISING:
            a, whole = np.median(size[:, 0]), np.median(size[:, -1])
            found = max(found, float(a * radii[-1] / np.sqrt(whole**2 - a**2)) if whole > a else float(radii[-1]))
    return found


def _responses(measured: Any) -> Iterator[NDArray[np.float64]]:
    """Mean size over the trials of what noise does to the log-odds and to each layer: (image, radius).

    Images whose smallest response rounding alone explains are left out.
    """
    names = [m.scores.log_odds for m in REGISTRY.values() if m.family == "noise" and m.scores]
    for name in (name for name in names if name in measured):
        yield _in_blocks(measured, functools.partial(_of_log_odds, name=name))
    if "feature_distance" in measured:
        for layer in range(measured.sizes["layer"]):
            yield _in_blocks(measured.isel(layer=layer), _of_features)


def _in_blocks(measured: Any, sizes: Callable[[Any], NDArray[np.float64]]) -> NDArray[np.float64]:
    starts = range(0, measured.sizes["image"], _IMAGES_AT_ONCE)
    blocks = [sizes(measured.isel(image=slice(start, start + _IMAGES_AT_ONCE))) for start in starts]
    return np.concatenate([np.zeros((0, measured.sizes["radius"])), *blocks])


def _of_log_odds(block: Any, *, name: str) -> NDArray[np.float64]:
    moved = block[name].values - block["clean_log_odds"].values[:, None, None]
    spread, floor = np.ptp(moved, axis=-1), block["log_odds_noise_floor"].values[:, None]
    heard = ~within_rounding(spread, floor, trials=moved.shape[-1]).any(axis=1)
    return np.asarray(np.abs(moved).mean(axis=-1)[heard])


def _of_features(block: Any) -> NDArray[np.float64]:
    size = block["feature_distance"].values.mean(axis=-1)
    return np.asarray(size[size[:, 0] > 2 * block["feature_noise_floor"].values])


def warnings(measured: Any, calibration: Calibration) -> Iterator[str]:
    """What to know of the radii that are too small for a network's steps."""
    still, grid = unreached(measured), calibration.get("input_grid")
    radii = [float(radius) for radius in measured["radius"].values]
    moves = dict(zip(radii, pixel_radii(measured), strict=True))
    below = [] if grid is None else [r for r in radii if moves[r] < grid["step"] and r not in still]
    if still:
        noise = f"Noise of radius {', '.join(map(radius_text, still))}"
        reaching = [radius for radius in radii if radius > max(still)]
        if grid is not None and grid["reach"] is not None and grid["reach"] >= max(moves[radius] for radius in still):
            yield (
                f"{noise} does not reach the network: its input is quantised in steps of {_grey_levels(grid['step'])},"
                f" and the smallest change of a pixel that changes its step in these images is {grid['reach']:.3g}."
            )
        elif reaching:
            smallest = radius_text(reaching[0])
            yield f"{noise} moves no score and no feature; the smallest radius here that does is {smallest}."
        else:
            yield f"{noise} moves no score and no feature: the network works in larger steps, or does not vary at all."
    if stepping := steps(measured):
        yield (
            f"Below about radius {stepping:.2g} the answers hardly shrink with the noise: what is measured there are "
            "the rounding steps of the network, as of one of INT8, not its slope."
        )
    if below and grid is not None:
        yield (
            f"Radius {', '.join(map(radius_text, below))}: smaller than the steps of {_grey_levels(grid['step'])} in "
            "which the network quantises its input; what is measured there are these steps, not a slope."
        )


def starts_below_steps(measured: Any, calibration: Calibration) -> bool:
    """Whether the smallest radius lies below the network's steps: no ratio of ratios means anything."""
    if steps(measured):
        return True
    grid = calibration.get("input_grid")
    return grid is not None and pixel_radii(measured)[int(np.argmin(measured["radius"].values))] < grid["step"]


def without_ratios_of_ratios(rows: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """`rows` with those undefined."""
    undefined = Estimate(np.nan, np.nan, np.nan, 0)
    return {name: undefined if name.startswith(_RATIO_OF_RATIOS) else estimate for name, estimate in rows.items()}


def _grey_levels(value: float) -> str:
    text = f"{value:.3g}"
    return f"{text} grey level" if text == "1" else f"{text} grey levels"


def rounding_of_embeddings(measured: Any) -> NDArray[np.float64]:
    """What rounding alone changes of each embedding, as a share of its length: (image,); NaN where it is not known.

    That is how far apart the clean embedding and its repeats are; measured where the features are the embedding.
    """
    wanted = str(json.loads(measured.attrs["manifest"])["context"].get("feature"))
    layers = [str(name) for name in measured["layer"].values]
    if wanted not in layers or not {"feature_noise_floor", "clean_feature_norm"} <= {*measured}:
        return np.full(measured.sizes["image"], np.nan)
    floor, length = (
        np.asarray(measured[name].values[:, layers.index(wanted)], np.float64)
        for name in ("feature_noise_floor", "clean_feature_norm")
    )
    return floor / np.where(length > 0, length, np.nan)
