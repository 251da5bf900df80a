"""Run directories: the one place that writes results.

RUN/manifest.json      identity (what decides a number), context (what it ran on), coordinates, history
RUN/calibration.json   ranges of input and features, and the selected images
RUN/units/<key>.npz    one image, all its arrays
RUN/results.nc         all images, netCDF4, written once at the end
RUN/summary.json       the numbers that the terminal shows, and the checksum of results.nc
RUN/.lock              held by the one writer

A file is whole or absent, whatever stops the writer; half-written ones end in .tmp and are removed by the next. A
checksum for each file says whether it still is what was written. results.nc holds manifest and calibration as well, and
follows itself from the units; so what one damaged file held can be had from another.
"""

from analyzer.measures.scores import LogOddsStatus
from analyzer.store.derived import scales_of
from analyzer.store.manifest import Image, is_file_of_a_run
from analyzer.store.mending import mend
from analyzer.store.opening import check_writable, open_store
from analyzer.store.results import open_run, write_results
from analyzer.store.run import Run, State
from analyzer.store.schema import COMMON, DERIVED, SCHEMA, VARIABLES, undefined_unit, unit_key
from analyzer.store.status import ImageStatus, Outcome
from analyzer.store.verify import Problem, verify
from analyzer.store.writer import Store

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
    "mend",
    "open_run",
    "open_store",
    "scales_of",
    "undefined_unit",
    "unit_key",
    "verify",
    "write_results",
]
