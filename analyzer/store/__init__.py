"""Run directories: the one place that writes results.

RUN/manifest.json      identity (what decides a number), context (what it ran on), coordinates, history
RUN/calibration.json   ranges of input and features, and the selected images
RUN/units/<key>.npz    one image, all its arrays
RUN/results.nc         all images, netCDF4, written once at the end
RUN/summary.json       the numbers that the terminal shows
RUN/.lock              held by the one writer

A file is whole or absent, whatever stops the writer; half-written ones end in .tmp and are removed by the next.
"""

from analyzer.store.manifest import Image, is_file_of_a_run
from analyzer.store.results import open_run, scales_of, write_results
from analyzer.store.run import Run, State
from analyzer.store.schema import COMMON, DERIVED, SCHEMA, VARIABLES, undefined_unit, unit_key
from analyzer.store.status import ImageStatus, LogOddsStatus, Outcome
from analyzer.store.verify import Problem, verify
from analyzer.store.writer import Store, check_writable, open_store

__all__ = [
    "COMMON",
    "DERIVED",
    "SCHEMA",
    "VARIABLES",
    "Image",
    "ImageStatus",
    "LogOddsStatus",
    "Outcome",
    "Problem",
    "Run",
    "State",
    "Store",
    "check_writable",
    "is_file_of_a_run",
    "open_run",
    "open_store",
    "scales_of",
    "undefined_unit",
    "unit_key",
    "verify",
    "write_results",
]
