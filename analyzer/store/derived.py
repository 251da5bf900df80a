"""What follows from stored variables and the calibration: computed when a run is opened."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from analyzer.measures import Scales
from analyzer.store import schema
from analyzer.store.documents import Calibration, Manifest

if TYPE_CHECKING:
    import xarray


def scales(manifest: Manifest, calibration: Calibration | None, layers: Sequence[str]) -> Scales:
    """The widths of h and of g for some layers, from a run's calibration; NaN where they are 0 or unknown; D, radii."""
    h = calibration["input_range"] if calibration is not None else None
    g = calibration["feature_range"] if calibration is not None else {}
    dimension = int(np.prod(manifest["context"].get("pixel_shape", [0])))
    widths = np.array([g.get(layer) or np.nan for layer in layers])
    return Scales(float(h or np.nan), widths, dimension, tuple(manifest["identity"].get("radii", ())))


def scales_of(dataset: "xarray.Dataset") -> Scales:
    """`scales` of a run's data set, as its attributes tell them."""
    manifest, calibration = (json.loads(dataset.attrs[name]) for name in ("manifest", "calibration"))
    return scales(manifest, calibration, [str(layer) for layer in dataset["layer"].values])


def with_derived(dataset: "xarray.Dataset") -> "xarray.Dataset":
    """The data set with its derived variables; their attributes hold the ranges, NaN where they are 0 or unknown."""
    for variable in schema.DERIVED:
        derived = variable.derived
        if derived is not None and set(derived.reads) <= dataset.keys():
            measured_by = scales_of(dataset)
            values = derived.compute(*(dataset[name].values for name in derived.reads), measured_by)
            used = {"input_range": measured_by.h, "feature_range": measured_by.g}
            # In place: a copy would no longer close the file.
            dataset[variable.name] = (variable.dims, values, {**variable.attributes, **used})
    return dataset
