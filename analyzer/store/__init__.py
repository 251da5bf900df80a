"""Run directories: the one place that writes results.

RUN/manifest.json      identity (what decides a number), context (what it ran on), coordinates, history
RUN/calibration.json   ranges of input and features, and the selected images
RUN/units/<key>.npz    one image, all its arrays
RUN/results.nc         all images, netCDF4, written once at the end
RUN/summary.json       the numbers that the terminal shows
RUN/.lock              held by the one writer

A file is whole or absent, whatever stops the writer; half-written ones end in .tmp and are removed by the next.
"""

from analyzer.store.damage import reading
from analyzer.store.manifest import Image, read_calibration, read_manifest, selection
from analyzer.store.results import open_run, write_results
from analyzer.store.run import Store, check_writable, has_results, is_complete, open_store, progress
from analyzer.store.schema import COMMON, LIPSCHITZ, SCHEMA, VARIABLES, Variable, undefined_unit, unit_key
from analyzer.store.summaries import read_summary
from analyzer.store.verify import Problem, verify

__all__ = [
    "COMMON",
    "LIPSCHITZ",
    "SCHEMA",
    "VARIABLES",
    "Image",
    "Problem",
    "Store",
    "Variable",
    "check_writable",
    "has_results",
    "is_complete",
    "open_run",
    "open_store",
    "progress",
    "read_calibration",
    "read_manifest",
    "read_summary",
    "reading",
    "selection",
    "undefined_unit",
    "unit_key",
    "verify",
    "write_results",
]
