"""Exports hold what open_run gives, whole or not at all; text in CSV is safe to open."""

import csv
import importlib.util
import json
import shutil
import sys

import graphs
import numpy as np
import pytest
import runs
import xarray
from test_compare import call

from analyzer import export, open_run, store
from analyzer.errors import IncompleteError, InputError, UsageError
from analyzer.store.results import BLOCK

NAMES = [
    "=cmd|' !A0.png",
    "-1+1.png",
    "+x.png",
    "@SUM(1).png",
    'a,"b".png',
    "esc\x1b[31m.png",
    "bidi\u202e.png",
    "ü.png",
]


def needs(package):
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"the optional package {package} is not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of more images than one block holds, some with names that a spreadsheet would calculate."""
    folder = tmp_path_factory.mktemp("run")
    count = BLOCK + 4
    for name, path in zip(NAMES, runs.write_images(folder / "images", count, size=8), strict=False):
        path.rename(path.with_name(name))
    model, _ = graphs.pixel_mean(folder / "model")
    runs.measure(model, folder / "images", folder / "run", trials=4, permutations=19)
    return folder / "run"


@pytest.fixture
def partial(run, tmp_path):
    shutil.copytree(run, tmp_path / "partial")
    next((tmp_path / "partial" / "units").glob("*.npz")).unlink()
    (tmp_path / "partial" / "summary.json").unlink()
    return tmp_path / "partial"


def rows(file):
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def check_table(found, dataset, name, read):
    """Every variable of one table, in its order, equals the data set's."""
    dims = export.tables(dataset)[name]
    assert dims == tuple(name.split("_"))
    for variable in (str(v) for v, array in dataset.data_vars.items() if array.dims == dims):
        values = np.array([read(row[variable]) for row in found], dtype=float)
        assert np.array_equal(values, dataset[variable].values.ravel().astype(float), equal_nan=True), variable


def test_csv_holds_every_number(run, tmp_path):
    done = export.export(run, to="csv", out=tmp_path / "out")
    assert done == (tmp_path / "out", BLOCK + 4, BLOCK + 4)
    with open_run(run) as dataset:
        dataset.load()
    names = {"image", "image_layer", "image_radius", "image_radius_layer"}
    names |= {"image_radius_trial", "image_radius_trial_layer"}
    assert export.tables(dataset).keys() == names
    assert {file.stem for file in done.target.iterdir()} == names | {"variables", "summary"}
    for name in names:
        check_table(rows(done.target / f"{name}.csv"), dataset, name, lambda text: float(text or "nan"))
    trials = rows(done.target / "image_radius_trial.csv")
    assert [(r["radius"], r["trial"]) for r in trials[:5]] == [
        ("0.5", "0"),
        ("0.5", "1"),
        ("0.5", "2"),
        ("0.5", "3"),
        ("4.0", "0"),
    ]
    numbers = {row["name"]: row for row in rows(done.target / "summary.csv")}
    summary = store.Run(run).read_summary()
    assert float(numbers["lipschitz_q95"]["value"]) == summary["lipschitz_q95"]["value"]
    about = {row["name"]: row for row in rows(done.target / "variables.csv")}
    assert about["mantel_status"]["flags"].startswith("0 defined, 1 constant_features")
    assert about["lipschitz"]["axes"] == "image radius trial layer"


def test_csv_text_is_no_formula_and_numbers_keep_their_minus(run, tmp_path):
    done = export.export(run, to="csv", out=tmp_path / "out")
    seen = {row["image"] for row in rows(done.target / "image.csv")}
    expected = {f"'{name}" for name in NAMES[:4]} | {NAMES[4], "esc\\x1b[31m.png", "bidi\\u202e.png", "ü.png"}
    assert expected <= seen
    mantel = [row["mantel_r"] for row in rows(done.target / "image_radius_layer.csv")]
    assert any(value.startswith("-") for value in mantel)
    for file in done.target.iterdir():
        assert all(c.isprintable() or c == "\n" for c in file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("=1", "'=1"),
        ("\t=1", "'\\t=1"),
        ("\r", "'\\r"),
        ("a\nb", "a\\nb"),
        ("", ""),
        ("a=1", "a=1"),
        ("\ud800", "\\ud800"),
    ],
)
def test_cell(text, expected):
    assert export.cell(text) == expected


def test_undefined_values_are_empty_cells(tmp_path):
    runs.write_images(tmp_path / "images", 2, size=8)
    model, _ = graphs.constant(tmp_path / "model")
    runs.measure(model, tmp_path / "images", tmp_path / "run")
    done = export.export(tmp_path / "run", to="csv")
    assert done.target == tmp_path / "run" / "export_csv"
    assert {row["mantel_r"] for row in rows(done.target / "image_radius_layer.csv")} == {""}
    assert {row["mantel_status"] for row in rows(done.target / "image_radius_layer.csv")} == {"1"}
    assert store.verify(tmp_path / "run") == []


def test_netcdf_is_a_copy_of_the_results(run, tmp_path):
    done = export.export(run, to="netcdf", out=tmp_path / "deep" / "out.nc")
    assert done.target.read_bytes() == (run / "results.nc").read_bytes()


def test_netcdf_of_damaged_results_is_refused(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    data = bytearray((tmp_path / "run" / "results.nc").read_bytes())
    with open_run(run) as dataset:
        values = dataset["clean_log_odds"].values.astype("<f8").tobytes()
    place = bytes(data).index(values)  # an uncompressed variable, so that a bit of it can be found and flipped
    data[place] ^= 1
    (tmp_path / "run" / "results.nc").write_bytes(data)
    with pytest.raises(IncompleteError, match="damaged"):
        export.export(tmp_path / "run", to="netcdf", out=tmp_path / "out.nc")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_partial_run_gives_what_there_is_and_says_so(capsys, partial, tmp_path):
    code, out, _ = call(capsys, "export", partial, "--to", "netcdf", "--out", tmp_path / "out.nc")
    assert code == 0
    assert out.startswith(f"partial: {BLOCK + 3} of {BLOCK + 4} images")
    with xarray.open_dataset(tmp_path / "out.nc", engine="h5netcdf") as found, open_run(partial) as expected:
        assert found.attrs["partial"] == f"{BLOCK + 3} of {BLOCK + 4} images"
        xarray.testing.assert_equal(found, expected)
    done = export.export(partial, to="csv", out=tmp_path / "csv")
    assert len(rows(done.target / "image.csv")) == done.finished == BLOCK + 3
    assert rows(done.target / "summary.csv")


@needs("pyarrow")
def test_parquet_holds_every_number(run, tmp_path):
    from pyarrow import parquet

    done = export.export(run, to="parquet", out=tmp_path / "out")
    with open_run(run) as dataset:
        dataset.load()
    for name in export.tables(dataset):
        table = parquet.read_table(done.target / f"{name}.parquet")
        read = table.to_pylist()
        check_table(read, dataset, name, lambda value: np.nan if value is None else value)
        assert json.loads(table.schema.metadata[b"manifest"]) == json.loads(dataset.attrs["manifest"])
    ids = parquet.read_table(done.target / "image.parquet")["image"].to_pylist()
    assert ids == list(dataset["image"].values)
    assert set(NAMES[:4]) <= set(ids)


@needs("zarr")
def test_zarr_holds_the_data_set(run, tmp_path):
    done = export.export(run, to="zarr", out=tmp_path / "out.zarr")
    with open_run(run) as expected, xarray.open_zarr(done.target, chunks=None) as found:
        xarray.testing.assert_equal(found.load(), expected.load())
        assert found.attrs["manifest"] == expected.attrs["manifest"]


@pytest.mark.parametrize(("to", "package"), sorted(export.PACKAGES.items()))
def test_a_missing_package_is_named(monkeypatch, run, tmp_path, to, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"needs the package {package}.*pip install .convnet-analyzer\[export\]"):
        export.export(run, to=to, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_and_nothing_half_written_is_left(monkeypatch, run, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("x")
    with pytest.raises(UsageError, match="exists already"):
        export.export(run, to="csv", out=tmp_path / "there")
    with pytest.raises(UsageError, match="cannot be written"):
        export.export(run, to="csv", out=tmp_path / "there" / "file" / "x")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "_numbers", stop)
    with pytest.raises(KeyboardInterrupt):
        export.export(run, to="csv", out=tmp_path / "out")
    assert [p.name for p in tmp_path.rglob("*")] == ["there", "file"]


def test_a_full_disk_is_said(monkeypatch, run, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "_numbers", full)
    with pytest.raises(IncompleteError, match="No space left"):
        export.export(run, to="csv", out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported(capsys, run, tmp_path):
    with pytest.raises(InputError, match="no run here"):
        export.export(tmp_path, to="csv")
    code, _, err = call(capsys, "export", run, "--to", "xlsx")
    assert code == 2
    assert "must be one of csv, parquet, zarr, netcdf" in err


def test_only_a_few_images_are_held(monkeypatch, run, tmp_path):
    sizes = []
    original = export._rows
    monkeypatch.setattr(
        export, "_rows", lambda block, dims: sizes.append(block.sizes["image"]) or original(block, dims)
    )
    export.export(run, to="csv", out=tmp_path / "out")
    assert set(sizes) == {BLOCK, 4}
