"""The labelled results: written to results.nc a few images at a time, opened from there or from the units there are."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.errors import IncompleteError, InputError
from analyzer.store import checksums, files, schema, units
from analyzer.store.deferred import DeferredErrorFile
from analyzer.store.derived import with_derived
from analyzer.store.documents import Calibration, Coordinates, Manifest
from analyzer.store.manifest import RESULTS, SUMMARY, Image, has_results, read_calibration, read_manifest, selection

if TYPE_CHECKING:
    import xarray

BLOCK = 16
"""Images written or compared in one go: each access through h5netcdf costs half a millisecond."""

_UNCACHED = {"rdcc_nbytes": 0}
"""Each chunk is written and read once; HDF5 would keep a megabyte of every variable."""

_COORDINATES = {
    "image": {"long_name": "path of the image in its folder"},
    "radius": {"units": "grey level", "long_name": "radius of the perturbations"},
    "trial": {"units": "1", "long_name": "number of the perturbation"},
    "layer": {"long_name": "tensor of the model"},
}


def attributes(manifest: Manifest, calibration: Calibration | None) -> dict[str, str]:
    """The data set's own attributes: manifest and calibration, each one JSON text with its checksum.

    That of the calibration is "null" before there is one.
    """
    return {
        "Conventions": "CF-1.11",
        "title": "Local properties of a ConvNet",
        "manifest": files.to_json(checksums.sealed(files.plain(manifest))),
        "calibration": files.to_json(calibration and checksums.sealed(files.plain(calibration))),
    }


def write_results(
    target: Path,
    *,
    manifest: Manifest,
    calibration: Calibration,
    read_unit: Callable[[str], dict[str, schema.Array] | None],
) -> None:
    """Write netCDF4 to `target`, holding a few images at a time, in the order of the selection.

    Raises InputError when no image is selected; IncompleteError when `read_unit` has nothing for a selected one, or
    when the file cannot be written. `target` is then as it was.
    """
    images = selection(calibration)
    if not images:
        raise InputError(f"{target}: cannot be written: no image is selected")
    with files.replacing(target) as file:
        output = DeferredErrorFile(file)
        try:
            _write(
                output, attributes(manifest, calibration), manifest["coordinates"], images, _units(images, read_unit)
            )
        except Exception:
            # Once a write has failed, what HDF5 makes of the file afterwards says nothing.
            if output.error is None:
                raise
        if output.error is not None:
            raise output.error


def _units(
    images: Iterable[Image], read_unit: Callable[[str], dict[str, schema.Array] | None]
) -> Iterator[dict[str, schema.Array]]:
    for image in images:
        arrays = read_unit(image.key)
        if arrays is None:
            raise IncompleteError(
                f"{image.key}.npz, the unit of {image.id[:200]!a}, is missing or damaged\n"
                "run the same command again: it is measured anew"
            )
        yield arrays


def _write(
    file: DeferredErrorFile,
    described: Mapping[str, str],
    coordinates: Coordinates,
    images: Sequence[Image],
    measured: Iterable[Mapping[str, schema.Array]],
) -> None:
    import h5netcdf  # like xarray below: half a second that a refused run need not wait for
    import h5py

    length = {"image": len(images), **schema.sizes(coordinates)}
    with h5netcdf.File(file, "w", **_UNCACHED) as target:
        target.attrs.update(described)
        target.dimensions = length
        for name, values in coordinate_values(coordinates, images).items():
            text = values.dtype.kind == "U"
            variable = target.create_variable(name, (name,), dtype=h5py.string_dtype("utf-8") if text else values.dtype)
            variable.attrs.update(_COORDINATES[name])
            variable[...] = values.astype(object) if text else values
        for wanted in schema.variables(coordinates):
            shape = tuple(length[dim] for dim in wanted.dims[1:])
            packed = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if shape else {}
            variable = target.create_variable(
                wanted.name,
                wanted.dims,
                dtype=wanted.dtype,
                chunks=(1, *shape) if shape else (min(len(images), 4096),),
                fletcher32=True,  # a flipped bit becomes an error on reading
                **packed,
            )
            variable.attrs.update(wanted.attributes)
        rest = iter(measured)
        for start in range(0, len(images), BLOCK):
            if file.error is None:
                _write_block(target, start, list(itertools.islice(rest, BLOCK)))


def _write_block(target: Any, start: int, block: Sequence[Mapping[str, schema.Array]]) -> None:
    for name in block[0]:
        target.variables[name][start : start + len(block)] = np.stack([arrays[name] for arrays in block])


def coordinate_values(coordinates: Coordinates, images: Iterable[Image]) -> dict[str, schema.Array]:
    """The run's axes: image and layer (text), radius (grey levels), trial (0, 1, ...)."""
    return {
        "image": np.array([image.id for image in images], dtype=str),
        "radius": np.array(coordinates["radius"], dtype="float64"),
        "trial": np.arange(coordinates["trial"], dtype="int32"),
        "layer": np.array(coordinates["layer"], dtype=str),
    }


def open_run(path: Path) -> "xarray.Dataset":
    """The results of the run in `path` as one labelled data set, also of a run that is not complete.

    A complete run is opened from results.nc and read as it is used (close it, or use `with`); of any other the
    finished images are read from their units, in the order of the selection.

    Args:
        path: the run directory.

    Returns:
        A data set with the run's stored variables, and `lipschitz`, derived from the calibration (NaN where a range or
        the input distance is 0 or unknown). The attributes `manifest` and `calibration` are JSON texts.

    Raises:
        InputError: `path` is no run.
        IncompleteError: its results or its calibration are damaged.

    Example:
        >>> with open_run("runs/resnet50") as results:  # doctest: +SKIP
        ...     results.isotropy_log_odds.sel(radius=0.5).max("trial")
    """
    path = Path(path)
    manifest = read_manifest(path)
    if has_results(path):
        return open_results(path / RESULTS)
    return from_units(path, manifest, read_calibration(path, manifest["coordinates"]))


def open_results(file: Path, *, derive: bool = True) -> "xarray.Dataset":
    """What `write_results` wrote, as `open_run` gives it. Raises IncompleteError when damaged.

    Without `derive`, for reading it through in blocks: no derived variables, and what was read is not kept.
    """
    import xarray

    quiet_when_half_open()
    try:
        files.refuse_irregular(file)
        dataset = xarray.open_dataset(file, engine="h5netcdf", cache=derive, driver_kwds=_UNCACHED)
        if not derive:
            return dataset
        try:
            return with_derived(dataset)
        except BaseException:
            dataset.close()  # HDF5 would answer for whatever is written in its place from what it remembers
            raise
    except Exception as e:  # a damaged HDF5 file raises anything
        raise IncompleteError(
            f"{file}: damaged: {brief(e)}\nrun the same command again: it is written anew from the units"
        ) from e


def opened(file: Path) -> Any:
    """The file itself, as h5netcdf gives it; close it, or use it with `with`. A damaged file raises anything."""
    import h5netcdf

    quiet_when_half_open()
    files.refuse_irregular(file)
    return h5netcdf.File(file, "r", decode_vlen_strings=True)


def quiet_when_half_open() -> None:
    """Keep a file that could not be opened from a traceback on stderr when it is collected.

    h5netcdf's `close`, which is also its `__del__`, asks for what `__init__` sets after the reading that can fail.
    """
    import h5netcdf

    if not hasattr(h5netcdf.File, "_writable"):
        h5netcdf.File._writable = False


def brief(error: Exception) -> str:
    """The first line of an error's text; HDF5's are long."""
    return str(error).partition("\n")[0][:200] or type(error).__name__


def from_units(path: Path, manifest: Manifest, calibration: Calibration | None) -> "xarray.Dataset":
    """The finished images of a run as one data set in memory, with the derived variables."""
    import xarray

    coordinates = manifest["coordinates"]
    images, measured = [], []
    for image in selection(calibration):
        arrays = units.read_if_whole(path, image.key, coordinates)
        if arrays is not None:
            images.append(image)
            measured.append(arrays)
    length = {"image": len(images), **schema.sizes(coordinates)}
    variables = {}
    for wanted in schema.variables(coordinates):
        array = np.empty([length[dim] for dim in wanted.dims], dtype=wanted.dtype)
        for number, arrays in enumerate(measured):
            array[number] = arrays.pop(wanted.name)
        variables[wanted.name] = (wanted.dims, array, wanted.attributes)
    dataset = xarray.Dataset(
        variables,
        {name: (name, values, _COORDINATES[name]) for name, values in coordinate_values(coordinates, images).items()},
        attributes(manifest, calibration),
    )
    return with_derived(dataset)


def describes(dataset: "xarray.Dataset", calibration: Calibration | None) -> bool:
    """Whether names and attributes of a data set, which have no checksum, are those of the run."""
    try:
        manifest, measured_by = (json.loads(dataset.attrs[name]) for name in ("manifest", "calibration"))
        if not isinstance(manifest, dict) or checksums.fault(manifest):
            return False
        same = (checksums.opened(measured_by) if isinstance(measured_by, dict) else measured_by) == calibration
        return same and [image.id for image in selection(calibration)] == list(map(str, dataset["image"].values))
    except (KeyError, ValueError):
        return False


def unreadable(file: Path) -> str:
    """Why a results file cannot be read through, "" where it can."""
    try:
        with open_results(file, derive=False) as dataset:
            for start in range(0, dataset.sizes["image"], BLOCK):
                dataset.isel(image=slice(start, start + BLOCK)).load()
    except Exception as e:  # a damaged HDF5 file raises anything
        return brief(e)
    return ""


def results_fault(run: Path) -> str:
    """Why a run's results.nc is not what was written; empty where it is.

    It is held against the checksum in summary.json; where there is none, as in a run of an earlier version, the file is
    read through.
    """
    try:
        summary = files.read_json(run / SUMMARY)
        recorded = None if checksums.fault(summary) else summary[checksums.RESULTS][checksums.CHECKSUM]
    except (OSError, ValueError, KeyError, TypeError):
        recorded = None
    if recorded is None:
        return unreadable(run / RESULTS)
    try:
        return "" if checksums.of_file(run / RESULTS) == recorded else f"{checksums.MISMATCH} in {SUMMARY}"
    except OSError as e:
        return e.strerror or str(e)
