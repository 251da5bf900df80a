"""What a run holds: every measured variable with its axes, type and unit, and the name of an image's unit."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from analyzer import measures, sketch
from analyzer.measures.scores import LogOddsStatus
from analyzer.measures.variables import Variable
from analyzer.store.documents import Coordinates
from analyzer.store.status import ImageStatus

SCHEMA = 1
"""Version of the run directory's format, in manifest.json."""

Array = npt.NDArray[Any]

_MOST_TRIALS = 10**6


_IMAGE = ("image",)
_TRIALS = ("image", "radius", "trial")
_GREY, _FEATURE = "grey level", "feature units"
COMMON: tuple[Variable, ...] = (
    Variable("label", _IMAGE, "1", "true class index", integer=True),
    Variable("clean_predicted", _IMAGE, "1", "predicted class index of the clean image", integer=True),
    Variable("clean_score", _IMAGE, "1", "score of the true class, of an embedding 1, clean image"),
    Variable("clean_log_odds", _IMAGE, "nat", "log-odds of the true class, clean image"),
    Variable("clean_runner_up_log_odds", _IMAGE, "nat", "log-odds against the runner-up, clean image"),
    Variable("log_odds_noise_floor", _IMAGE, "nat", "range of the clean log-odds over repeats"),
    Variable("image_status", _IMAGE, "1", "whether the image was measured", ImageStatus),
    Variable("log_odds_status", _IMAGE, "1", "whether the log-odds are defined", LogOddsStatus),
    Variable("measured_on", _IMAGE, "1", "place of what measured it among the manifest's hosts", integer=True),
    Variable("input_distance_l2", _TRIALS, _GREY, "L2 norm of the noise really added", needs="noise"),
    Variable("input_distance_linf", _TRIALS, _GREY, "maximum norm of the noise really added", needs="noise"),
    Variable(
        "feature_noise_floor",
        ("image", "layer"),
        _FEATURE,
        "largest L2 distance of the clean features over repeats",
        needs="features",
    ),
    Variable("clean_feature_norm", ("image", "layer"), _FEATURE, "L2 norm of the clean features", needs="features"),
    Variable(
        "clean_sketch",
        ("image", "layer", "fine_bucket"),
        _FEATURE,
        "sketch of the clean features",
        single=True,
        needs="features",
    ),
    Variable(
        "feature_sketch",
        ("image", "radius", "sketched", "layer", "bucket"),
        _FEATURE,
        "sketch of the features under fresh noise minus the clean ones, first trials",
        single=True,
        needs="features",
    ),
)
"""The variables that belong to no measure."""

SKETCHES = ("clean_feature_norm", "clean_sketch", "feature_sketch")
"""What a drift of layers is computed from."""

LATER = (
    *SKETCHES,
    "measured_on",
    "clean_runner_up_log_odds",
    "isotropy_runner_up_log_odds",
    "symmetry_runner_up_log_odds",
)
"""Variables that a run begun by an earlier version does without, to its end."""

_DECLARED = [variable for measure in measures.REGISTRY.values() for variable in measure.variables]
VARIABLES: tuple[Variable, ...] = (*COMMON, *(variable for variable in _DECLARED if variable.derived is None))
"""All stored variables, in the order in which they are written."""

DERIVED: tuple[Variable, ...] = tuple(variable for variable in _DECLARED if variable.derived is not None)
"""Computed when a run is opened."""


def unit_key(image_id: str, sha256: str) -> str:
    """Name of an image's unit: 64 hex digits that depend on its id (relative path) and its file's SHA-256 only."""
    return hashlib.sha256(image_id.encode() + b"\0" + sha256.encode()).hexdigest()


def coordinate_fault(coordinates: object) -> str | None:
    """What is wrong with {"radius": [...], "trial": T, "layer": [...]}, or None.

    Radii are distinct finite numbers above 0, T an integer above 0, layers distinct non-empty strings that netCDF
    can hold (no NUL, no surrogates). An optional "variables" lists the names the run holds when it is not all of them.
    """
    if not isinstance(coordinates, dict) or not {"radius", "trial", "layer"} <= coordinates.keys():
        return "coordinates must have radius, trial and layer"
    radius, trial, layer = coordinates["radius"], coordinates["trial"], coordinates["layer"]
    if not isinstance(radius, list) or not radius or not all(map(_is_radius, radius)) or len(set(radius)) < len(radius):
        return "radius must be a list of distinct finite numbers above 0"
    if not isinstance(trial, int) or isinstance(trial, bool) or not 1 <= trial <= _MOST_TRIALS:
        return f"trial must be an integer above 0 and up to {_MOST_TRIALS}"
    if not isinstance(layer, list) or not layer or not all(map(is_text, layer)) or len(set(layer)) < len(layer):
        return "layer must be a list of distinct names without NUL characters"
    names = coordinates.get("variables", [])
    if not isinstance(names, list) or not set(map(repr, names)) <= {repr(v.name) for v in VARIABLES}:
        return "variables must be a list of known variables"
    return None


def is_text(value: object) -> bool:
    """Whether `value` is a non-empty string that netCDF can hold."""
    return isinstance(value, str) and value != "" and not any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value)


def _is_radius(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def variables(coordinates: Coordinates) -> tuple[Variable, ...]:
    """The variables that a run with these coordinates holds."""
    names = coordinates.get("variables")
    return VARIABLES if names is None else tuple(v for v in VARIABLES if v.name in names)


def sizes(coordinates: Coordinates) -> dict[str, int]:
    """Length of every axis but "image"; those of sketches only where the run holds some."""
    trial = coordinates["trial"]
    lengths = {"radius": len(coordinates["radius"]), "trial": trial, "layer": len(coordinates["layer"])}
    used = {dim for variable in variables(coordinates) for dim in variable.dims}
    sketched = {"sketched": min(trial, sketch.TRIALS), "bucket": sketch.BUCKETS, "fine_bucket": sketch.FINE}
    return lengths | {dim: length for dim, length in sketched.items() if dim in used}


def checked(arrays: Mapping[str, Any], coordinates: Coordinates) -> dict[str, Array]:
    """One image's arrays in the stored order and types. Raises ValueError naming the variable that does not fit.

    Each variable comes without its image axis. A float variable takes any real numbers, an integer variable integers
    from -1 on, a flag one of its values or -1.
    """
    wanted = variables(coordinates)
    if arrays.keys() != {v.name for v in wanted}:
        odd = sorted(arrays.keys() ^ {v.name for v in wanted})
        raise ValueError(f"missing or unknown variables: {', '.join(odd)}")
    length = sizes(coordinates)
    return {v.name: _checked(v, np.asarray(arrays[v.name]), [length[d] for d in v.dims[1:]]) for v in wanted}


def undefined_unit(coordinates: Coordinates, **values: Any) -> dict[str, Array]:
    """The arrays of an image that could not be measured: NaN, or -1 for integers and flags, but for `values`."""
    length = sizes(coordinates)
    arrays = {
        v.name: np.full([length[d] for d in v.dims[1:]], np.nan if v.real else -1, dtype=v.dtype)
        for v in variables(coordinates)
    }
    return checked({**arrays, **values}, coordinates)


def _checked(variable: Variable, array: Array, shape: Sequence[int]) -> Array:
    if array.shape != tuple(shape):
        raise ValueError(f"{variable.name} must have the shape {tuple(shape)}, not {array.shape}")
    if array.dtype.kind not in ("fiu" if variable.real else "iu"):
        raise ValueError(f"{variable.name} must be {variable.dtype}, not {array.dtype}")
    if not variable.real and array.size:
        high = len(variable.flags) - 1 if variable.flags else np.iinfo("int32").max
        if array.min() < -1 or array.max() > high:
            raise ValueError(f"{variable.name} must lie in -1..{high}")
    return np.ascontiguousarray(array, dtype=variable.dtype).reshape(shape)
