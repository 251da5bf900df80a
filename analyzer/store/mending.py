"""Rebuilding what is damaged in a run from what is whole, without the model."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyzer.errors import IncompleteError
from analyzer.store import lock, recovery, units
from analyzer.store.manifest import RESULTS, SUMMARY, covers_limit, read_calibration, read_manifest, selection
from analyzer.store.verify import Problem, verify
from analyzer.store.writer import Store

if TYPE_CHECKING:
    import xarray


def mend(run: Path, problems: Sequence[Problem], summarise: Callable[["xarray.Dataset"], Mapping[str, Any]]) -> None:
    """Rebuild what `problems` names and what is there twice; the rest is left as it is.

    Manifest, calibration and units come from results.nc; results.nc and summary.json from the units, where all of these
    are whole. Files left half-written are removed.

    Raises UsageError when another process writes the run, IncompleteError when a file cannot be written.
    """
    handles = lock.acquire(run)
    try:
        recovery.restore_documents(run)
        for stray in recovery.temporaries(run):
            _remove(stray)
        try:
            manifest = read_manifest(run)
            calibration = read_calibration(run, manifest["coordinates"])
        except IncompleteError:
            return
        if calibration is None:
            return
        recovery.restore_units(run, manifest, calibration)
        coordinates, images = manifest["coordinates"], selection(calibration)
        whole = all(units.read_if_whole(run, image.key, coordinates) is not None for image in images)
        at_fault = {Path(problem.file).name for problem in (*problems, *verify(run))}
        if images and whole and covers_limit(calibration, manifest) and at_fault & {RESULTS, SUMMARY}:
            Store(run, manifest, resumed=True, handles=()).finish(summarise)
    finally:
        lock.release(handles)


def _remove(file: Path) -> None:
    try:
        file.unlink()
    except OSError as e:
        raise IncompleteError(f"{file}: cannot be removed: {e.strerror}\nremove it, then verify again") from e
