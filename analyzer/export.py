"""A run's results in the formats of other tools; prints nothing.

netcdf    a checked copy of results.nc, or the finished images of a partial run in one netCDF4 file
zarr      the same data set as a Zarr store (format 2)
csv       a folder of long tables, UTF-8, one row a measurement: one table for each set of axes, such as
          image_radius_trial.csv, and summary.csv (name, value, low, high, n) and variables.csv (units, meanings)
parquet   the same tables, with manifest and calibration in their metadata

Tables begin with a column an axis and go on with the variables on exactly those axes; `lipschitz` is among them, and
sketches, which mean something only beside those of another run, are not. An
undefined value is an empty cell (in Parquet null), or -1 for integers. In CSV, control characters in text are
backslash-escaped, and text that a spreadsheet would take for a formula, beginning with = + - or @ after any
blanks, follows an apostrophe; numbers keep their minus.
"""

import contextlib
import csv
import errno
import importlib
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from analyzer import summary
from analyzer.errors import IncompleteError, UsageError
from analyzer.store import DERIVED, Run
from analyzer.store.derived import with_derived
from analyzer.store.results import BLOCK, brief, open_results

TARGETS = {"csv": "export_csv", "parquet": "export_parquet", "zarr": "export.zarr", "netcdf": "export.nc"}
"""Format -> name of the file or folder in the run, where no other is asked for."""
PACKAGES = {"parquet": "pyarrow", "zarr": "zarr"}
"""Format -> the optional package that writes it."""


class Exported(NamedTuple):
    """What was written: a file or a folder, from `finished` of the run's `selected` images."""

    target: Path
    finished: int
    selected: int


def export(run: Path, *, to: str, out: Path | None = None) -> Exported:
    """Write the results of `run` as `to`, one of TARGETS, to `out`, or under its usual name into the run.

    A few images are held at a time. Of a partial run, the finished images are written. `out` is whole or absent.

    Raises UsageError for an unknown format, a package that is missing, or a target that exists already or cannot be
    written; InputError where there is no run; IncompleteError where it is damaged or has no image yet, or where the
    disk is full.
    """
    if to not in TARGETS:
        raise UsageError(f"`to` {to}: must be one of {', '.join(TARGETS)}")
    if to in PACKAGES:
        _package(PACKAGES[to])
    reader = Run(run)
    state = reader.state
    if state.written:
        reader.check_results()
    with reader.open(derive=False) as dataset:
        finished = dataset.sizes["image"]
        if not finished:
            raise IncompleteError(f"{reader.path}: partial, {state.missing}\nrun the same command again: it continues")
        if finished < state.selected:
            dataset = dataset.assign_attrs(partial=f"{finished} of {state.selected} images")
        target = reader.path / TARGETS[to] if out is None else Path(out)
        with _appearing(target) as fresh:
            WRITERS[to](reader, dataset, fresh)
        return Exported(target, finished, state.selected)


@contextlib.contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A free path beside `target`; what the block writes there, a file or a folder, becomes `target` at its end."""
    if os.path.lexists(target):
        raise UsageError(f"{target}: exists already; remove it, or give another `out`")
    fresh = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield fresh
        fresh.rename(target)
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise IncompleteError(
                f"{target}: cannot be written: {e.strerror}\nfree some space, then export again"
            ) from e
        raise UsageError(f"{target}: cannot be written: {e.strerror or e}; give another `out`") from e
    finally:
        if fresh.is_dir():
            shutil.rmtree(fresh)
        with contextlib.suppress(OSError):  # gone, or never there
            fresh.unlink()


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as e:
        raise UsageError(
            f"this format needs the package {name}, which cannot be loaded: pip install 'convnet-analyzer[export]'"
        ) from e


def blocks(run: Run, dataset: Any) -> Iterator[Any]:
    """The run's data set a few images at a time, each loaded, and with the derived variables."""
    for start in range(0, dataset.sizes["image"], BLOCK):
        try:
            block = dataset.isel(image=slice(start, start + BLOCK)).load()
        except Exception as e:  # a damaged HDF5 file raises anything
            raise IncompleteError(f"{run.path}: damaged: {brief(e)}; see `analyzer verify`") from e
        with_derived(block)
        for variable in DERIVED:  # its ranges are in the calibration, and NaN is no JSON
            if variable.name in block:
                block[variable.name].attrs = variable.attributes
        yield block


def _netcdf(run: Run, dataset: Any, target: Path) -> None:
    if not run.has_results:
        dataset.to_netcdf(target, engine="h5netcdf")
        return
    shutil.copyfile(run.path / "results.nc", target)
    # The copy is read through, so that a flipped bit is found now: every block has its checksum.
    with open_results(target, derive=False) as copy:
        for _ in blocks(run, copy):
            pass


def _zarr(run: Run, dataset: Any, target: Path) -> None:
    package = _package("zarr")
    # One width for all blocks: text is appended in the type of the first.
    coordinates = {name: dataset[name].astype(str) for name in ("image", "layer")}
    for number, block in enumerate(blocks(run, dataset)):
        here = slice(number * BLOCK, (number + 1) * BLOCK)
        labelled = block.assign_coords(image=coordinates["image"][here], layer=coordinates["layer"])
        for variable in labelled.variables.values():
            variable.encoding = {}  # that of netCDF means nothing here
        if number:
            labelled.to_zarr(target, append_dim="image", zarr_format=2, consolidated=False)
            continue
        chunks = {
            name: {"chunks": [min(BLOCK, size) if dim == "image" else size for dim, size in variable.sizes.items()]}
            for name, variable in labelled.data_vars.items()
        }
        labelled.to_zarr(target, mode="w-", zarr_format=2, consolidated=False, encoding=chunks)
    package.consolidate_metadata(str(target), zarr_format=2)


def tables(dataset: Any) -> dict[str, tuple[str, ...]]:
    """{name of a table: its axes} of a data set: one for each set of axes that a variable has, but for sketches."""
    axes = {tuple(map(str, variable.dims)) for variable in dataset.data_vars.values()}
    axes = {dims for dims in axes if dims[-1] not in ("bucket", "fine_bucket")}
    return {"_".join(dims): dims for dims in sorted(axes)}


def _rows(block: Any, dims: tuple[str, ...]) -> dict[str, Any]:
    """One table's columns from a block of images."""
    shape = [block.sizes[dim] for dim in dims]
    index = np.indices(shape).reshape(len(dims), -1)
    columns = {dim: block[dim].values[where] for dim, where in zip(dims, index, strict=True)}
    named = {str(name): variable for name, variable in block.data_vars.items() if variable.dims == dims}
    return columns | {name: variable.values.ravel() for name, variable in named.items()}


def _described(dataset: Any) -> dict[str, list[str]]:
    """The table of variables: one row for each, with its axes, unit, meaning and, for flags, what the values mean."""
    rows = []
    for name, variable in dataset.data_vars.items():
        meanings = str(variable.attrs.get("flag_meanings", "")).split()
        flags = ", ".join(f"{number} {meaning}" for number, meaning in enumerate(meanings))
        about = (variable.attrs.get("units", ""), variable.attrs.get("long_name", ""))
        rows.append((str(name), " ".join(map(str, variable.dims)), *map(str, about), flags))
    return {heading: [row[k] for row in rows] for k, heading in enumerate(("name", "axes", "unit", "meaning", "flags"))}


def _numbers(run: Run, dataset: Any) -> dict[str, list[Any]]:
    document = run.read_summary() if run.has_results else summary.summarise(dataset)
    numbers = summary.estimates(document)
    fields = {field: [getattr(number, field) for number in numbers.values()] for field in ("value", "low", "high", "n")}
    return {"name": list(numbers), **fields}


def _tables(run: Run, dataset: Any, folder: Path, append: Callable[[Path, str, Mapping[str, Any]], None]) -> None:
    folder.mkdir()
    for block in blocks(run, dataset):
        for name, dims in tables(block).items():
            append(folder, name, _rows(block, dims))
    append(folder, "variables", _described(block))
    append(folder, "summary", _numbers(run, dataset))


def _csv(run: Run, dataset: Any, target: Path) -> None:
    def append(folder: Path, name: str, columns: Mapping[str, Any]) -> None:
        file = folder / f"{name}.csv"
        new = not file.exists()
        with file.open("a", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            if new:
                writer.writerow(columns)
            writer.writerows(zip(*map(_cells, columns.values()), strict=True))

    _tables(run, dataset, target, append)


def _parquet(run: Run, dataset: Any, target: Path) -> None:
    pyarrow, parquet = _package("pyarrow"), _package("pyarrow.parquet")
    attributes = dataset.attrs
    about = {name: str(attributes[name]) for name in ("manifest", "calibration", "partial") if name in attributes}
    with contextlib.ExitStack() as stack:
        writers: dict[str, Any] = {}

        def append(folder: Path, name: str, columns: Mapping[str, Any]) -> None:
            arrays = {key: pyarrow.array(values, from_pandas=True) for key, values in columns.items()}
            table = pyarrow.table(arrays).replace_schema_metadata(about)
            if name not in writers:
                writers[name] = stack.enter_context(parquet.ParquetWriter(folder / f"{name}.parquet", table.schema))
            writers[name].write_table(table)

        _tables(run, dataset, target, append)


WRITERS = {"csv": _csv, "parquet": _parquet, "zarr": _zarr, "netcdf": _netcdf}


def _cells(values: Any) -> list[Any]:
    """A column as CSV cells: safe text, numbers with all their digits, nothing for NaN."""
    column = list(values) if isinstance(values, list) else values.tolist()
    return [cell(v) if isinstance(v, str) else "" if v != v else v for v in column]


def cell(text: str) -> str:
    """A text cell of a CSV file: control characters escaped, and no formula to a spreadsheet."""
    clean = "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c
        for c in text
    )
    # Some programs drop blanks, and take full-width signs for the plain ones, before they look for a formula.
    begins = unicodedata.normalize("NFKC", text).lstrip()[:1]
    return f"'{clean}" if begins in ("=", "+", "-", "@") or text[:1] in ("\t", "\r") else clean
