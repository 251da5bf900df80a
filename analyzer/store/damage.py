"""Results that are read as they are used, so that damage to them shows late."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyzer.errors import AnalyzerError, IncompleteError
from analyzer.store.manifest import RESULTS, SUMMARY, read_calibration, read_manifest, selection
from analyzer.store.results import BLOCK, brief, open_results, open_run

if TYPE_CHECKING:
    import xarray


@contextmanager
def reading(path: Path, *, derive: bool = True) -> "Iterator[xarray.Dataset]":
    """`open_run`, closed when the block ends, for a block that reads it: damage found late is said like any other.

    A complete run is read as it is used, and HDF5 raises anything. What the block raises becomes IncompleteError where
    results.nc cannot be read through, and passes where it can: it is then about something else, or another run. Without
    `derive`, no `lipschitz` in a complete run, and what was read is not kept. Raises InputError when `path` is no run.
    """
    path = Path(path)
    manifest = read_manifest(path)
    whole = (path / RESULTS).exists() and (path / SUMMARY).exists()
    with open_results(path / RESULTS, derive=derive) if whole else open_run(path) as dataset:
        if whole:
            _check_described(path, dataset, read_calibration(path, manifest["coordinates"]))
        try:
            yield dataset
        except AnalyzerError:
            raise
        except Exception:
            if whole and (fault := _unreadable(path / RESULTS)):
                raise _damaged(path, fault) from None
            raise


def _damaged(path: Path, fault: str) -> IncompleteError:
    return IncompleteError(f"{path / RESULTS}: damaged: {fault}\nsee `analyzer verify {path}`")


def _check_described(path: Path, dataset: "xarray.Dataset", calibration: Mapping[str, Any] | None) -> None:
    """Names and attributes, which have no checksum: raise IncompleteError unless they are those of the run."""
    try:
        described = [json.loads(dataset.attrs[name]) for name in ("manifest", "calibration")]
        right = isinstance(described[0], dict) and described[1] == calibration
        right = right and [image.id for image in selection(calibration)] == list(map(str, dataset["image"].values))
    except (KeyError, ValueError):
        right = False
    if not right:
        raise _damaged(path, "its manifest, calibration or image names are not those of the run")


def _unreadable(file: Path) -> str:
    """Why a results file cannot be read through, "" where it can."""
    try:
        with open_results(file, derive=False) as dataset:
            for start in range(0, dataset.sizes["image"], BLOCK):
                dataset.isel(image=slice(start, start + BLOCK)).load()
    except Exception as e:  # a damaged HDF5 file raises anything
        return brief(e)
    return ""
