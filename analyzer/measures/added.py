"""What was really added to the pixels, in both norms: no measure, but numbers of the summary like those of one."""

import numpy as np

from analyzer.measures.base import Table
from analyzer.measures.quantities import Array, Number, Quantity
from analyzer.measures.variables import Scales


def mean_over_trials(lengths: Array) -> Array:
    """Mean length of the perturbations: (image, radius, trial) -> (image, radius), grey levels."""
    return np.asarray(lengths.mean(axis=-1))


def root_mean_square(lengths: Array, *, scales: Scales) -> Array:
    """L2 length spread over the D pixel values: (image, radius, trial) -> (image, radius), grey levels."""
    return np.asarray(mean_over_trials(lengths) / np.sqrt(scales.dimension))


_UNIT = "grey level"
_LINF = Quantity("input_linf", ("input_distance_linf",), mean_over_trials, _UNIT)
_L2 = Quantity("input_l2", ("input_distance_l2",), mean_over_trials, _UNIT)
_RMS = Quantity("input_rms", ("input_distance_l2",), root_mean_square, _UNIT, uses_scales=True)
TABLE = Table(
    title="Added to the pixels, grey levels",
    numbers=(
        Number("input_linf_median", _LINF, "median", "L-infinity", ".3g"),
        Number("input_l2_median", _L2, "median", "L2", ".4g"),
        Number("input_rms_median", _RMS, "median", "RMS", ".3g"),
    ),
)
