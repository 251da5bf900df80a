"""The store: results.nc, the summary, and what `verify` says of them."""

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5netcdf
import numpy as np
import pytest
import xarray as xr
from stores import COORDINATES, IDS, arrays, calibration, entries, listing, measured, opened, summarise, unit

from analyzer import store
from analyzer.errors import IncompleteError, InputError
from analyzer.store import checksums, files, schema


def test_results_hold_every_image_in_the_order_of_the_selection(tmp_path: Path) -> None:
    path = measured(tmp_path / "run", len(IDS))
    with xr.open_dataset(path / "results.nc", engine="h5netcdf") as data:
        assert list(data.image.values) == IDS
        assert list(data.layer.values) == COORDINATES["layer"]
        assert list(data.radius.values) == COORDINATES["radius"]
        assert list(data.trial.values) == [0, 1, 2]
        assert set(data) == {v.name for v in store.VARIABLES}
        for v in store.VARIABLES:
            assert (data[v.name].dims, data[v.name].dtype) == (v.dims, v.dtype)
            assert data[v.name].attrs["units"] == v.unit
            for number in range(len(IDS)):
                np.testing.assert_array_equal(data[v.name].values[number], arrays(number)[v.name])
        assert list(data.mantel_status.attrs["flag_values"]) == [0, 1, 2, 3, 4]
        assert data.mantel_status.attrs["flag_meanings"].split()[1] == "constant_features"
        assert checksums.opened(json.loads(data.attrs["manifest"])) == store.Run(path).manifest
        assert json.loads(data.attrs["calibration"])["selected"] == entries(len(IDS))
    assert all(set(name) <= set("0123456789abcdef.npz") for name in listing(path / "units"))
    assert listing(tmp_path) == {"run"}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs a list of the open files")
def test_closing_a_complete_run_closes_its_file(tmp_path: Path) -> None:
    path = measured(tmp_path / "run")

    def open_files() -> int:
        handles = Path("/proc/self/fd").iterdir()
        return sum(handle.is_symlink() and str(handle.readlink()) == str(path / "results.nc") for handle in handles)

    data = store.open_run(path)
    assert open_files() == 1
    data.close()
    assert open_files() == 0


def test_a_partial_run_opens_as_the_same_data(tmp_path: Path) -> None:
    path = measured(tmp_path / "run", 6, finish=False)
    with store.open_run(path) as data:
        every = data.load()
    with opened(path, limit=6) as writer:
        writer.finish(summarise)
    with store.open_run(path) as data:
        complete = data.load()
    xr.testing.assert_identical(every, complete)
    (path / "summary.json").unlink()
    unit(path, 0).unlink()
    unit(path, 3).unlink()
    with store.open_run(path) as data:
        xr.testing.assert_identical(data.load(), complete.isel(image=[1, 2, 4, 5]))
    assert store.Run(path).state[:2] == (4, 6)


def test_a_run_without_any_unit_opens_empty(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as writer:
        for _ in range(2):
            with store.open_run(writer.path) as data:
                assert dict(data.sizes) == {
                    "image": 0,
                    "radius": 2,
                    "trial": 3,
                    "layer": 2,
                    "sketched": 3,
                    "bucket": 31,
                    "fine_bucket": 1023,
                }
                assert data.lipschitz.dims == ("image", "radius", "trial", "layer")
            writer.write_calibration(calibration(2))
        with pytest.raises(IncompleteError):
            writer.finish(summarise)
        writer.write_calibration(calibration(0))
        with pytest.raises(InputError, match="no image is selected"):
            writer.finish(summarise)


@pytest.mark.parametrize("finish", [True, False])
def test_lipschitz_is_derived_and_undefined_where_it_must_be(tmp_path: Path, finish: bool) -> None:
    path = tmp_path / "run"
    given = arrays(0)
    given["feature_distance"] = np.full((2, 3, 2), 6.0)
    given["feature_distance"][1, 1] = 0.0
    given["input_distance_l2"] = np.full((2, 3), 3.0)
    given["input_distance_l2"][0, 0] = 0.0
    ranges = {"fc2": 8.0, "/pool/ü": 0.0}
    with opened(path) as writer:
        writer.write_calibration(calibration(1, input_range=200.0, feature_range=ranges))
        writer.write_unit(entries(1)[0]["key"], given)
        if finish:
            writer.finish(summarise)
    with store.open_run(path) as data:
        assert data.lipschitz.attrs["input_range"] == 200.0
        np.testing.assert_array_equal(data.lipschitz.attrs["feature_range"], [8.0, np.nan])
        ratio = data.lipschitz.sel(layer="fc2").values[0]
        assert np.isnan(data.lipschitz.sel(layer="/pool/ü").values).all()
        assert data.lipschitz.dims == ("image", "radius", "trial", "layer")
    expected = np.full((2, 3), 6.0 / 3.0 * 200.0 / 8.0)
    expected[0, 0] = np.nan  # nothing was added to the input
    expected[1, 1] = 0.0  # the features stayed where they were, which is a measurement
    np.testing.assert_array_equal(ratio, expected)


@pytest.mark.parametrize("unknown", [0.0, float("nan")])
def test_lipschitz_needs_the_input_range(tmp_path: Path, unknown: float) -> None:
    with opened(tmp_path / "run") as writer:
        writer.write_calibration(calibration(2, input_range=unknown))
        for number, entry in enumerate(entries(2)):
            writer.write_unit(entry["key"], arrays(number))
    with store.open_run(tmp_path / "run") as data:
        assert np.isnan(data.lipschitz.values).all()


def test_the_summary_has_null_for_nan(tmp_path: Path) -> None:
    path = measured(tmp_path / "run", finish=False)
    with pytest.raises(IncompleteError, match="partial, 4 of 4 images"):
        store.Run(path).read_summary()
    with opened(path) as writer:
        returned = writer.finish(summarise)
    assert store.Run(path).read_summary() == returned
    assert returned["isotropy_range_median@1"] == {"value": None, "low": 0.5, "high": None, "n": 4}
    json.loads((path / "summary.json").read_text(), parse_constant=pytest.fail)
    (path / "summary.json").write_text("{")
    with pytest.raises(IncompleteError, match="damaged"):
        store.Run(path).read_summary()
    assert [problem.file for problem in store.verify(path)] == [str(path / "summary.json")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        *((lambda d, key=key: d["run"].pop(key), f"run.{key} is missing") for key in ("model", "images", "context")),
        (lambda d: d["run"].update(protocol=[]), "run.protocol must be a JSON object, not"),
        (lambda d: d.pop("warnings"), "warnings is missing"),
        (
            lambda d: d["isotropy_range_median@1"].update(value="1"),
            "median@1.value must be a finite number or null, not '1'",
        ),
        (
            lambda d: d["isotropy_range_median@1"].update(low=True),
            "median@1.low must be a finite number or null",
        ),
        (lambda d: d["isotropy_range_median@1"].pop("n"), "isotropy_range_median@1.n is missing"),
        (lambda d: d["run"]["images"].pop("read"), "run.images.read is missing"),
        (lambda d: d["run"].update(model="other.onnx"), "of another model or protocol"),
        (lambda d: d["run"]["protocol"].update(seed=1), "of another model or protocol"),
    ],
)
def test_a_summary_that_is_not_this_runs_is_damaged(tmp_path: Path, change, said: str) -> None:
    path = measured(tmp_path / "run")
    document = json.loads((path / "summary.json").read_text())
    change(document)
    (path / "summary.json").write_text(json.dumps(document))
    with pytest.raises(IncompleteError, match=f"damaged: .*{said}"):
        store.Run(path).read_summary()


def test_reading_says_whose_results_are_damaged_however_late_that_shows(tmp_path: Path) -> None:
    whole, path = measured(tmp_path / "whole"), measured(tmp_path / "run")
    file = path / "results.nc"
    with h5netcdf.File(file, "r") as stored:
        chunk = stored.variables["mantel_r"]._h5ds.id.get_chunk_info(1)
    data = bytearray(file.read_bytes())
    data[chunk.byte_offset + chunk.size // 2] ^= 4
    good = file.read_bytes()
    file.write_bytes(data)
    # The other run is opened within: it is asked first, and is whole.
    with (
        pytest.raises(IncompleteError, match=r"run.results\.nc: damaged: .*\n.*analyzer verify"),
        store.Run(path).open(derive=False) as damaged,
        store.Run(whole).open() as inner,
    ):
        inner["mantel_r"].load()
        damaged["mantel_r"].load()
    with pytest.raises(ZeroDivisionError), store.Run(whole).open():
        raise ZeroDivisionError
    assert good.count(b"../../x.png") > 0  # names have no checksum
    file.write_bytes(good.replace(b"../../x.png", b"../../y.png"))
    with pytest.raises(IncompleteError, match="image names are not those of the run"), store.Run(path).open():
        pass


def test_verify_names_what_is_missing(tmp_path: Path) -> None:
    path = measured(tmp_path / "run")
    assert store.verify(path) == []
    (path / "summary.json").unlink()
    assert [Path(problem.file).name for problem in store.verify(path)] == ["summary.json"]
    unit(path, 1).unlink()
    (problem,) = store.verify(path)
    assert problem.what == "1 of 4 selected images have no unit, the first '../../x.png'"
    (path / "results.nc").unlink()  # it has the calibration too
    (path / "calibration.json").unlink()
    (problem,) = store.verify(path)
    assert Path(problem.file).name == "calibration.json"


def test_writing_results_holds_a_few_images_at_a_time(tmp_path: Path) -> None:
    wide = {**COORDINATES, "trial": 1500, "variables": ["label", "feature_distance"]}

    def peak(count: int) -> int:
        document = json.loads(files.to_json(calibration(count)))
        manifest = {"identity": {}, "context": {}, "history": [], "coordinates": wide}
        target = tmp_path / f"{count}.nc"
        tracemalloc.start()
        try:
            store.write_results(target, manifest=manifest, calibration=document, read_unit=unit_of)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def unit_of(key: str) -> dict[str, np.ndarray]:
        return schema.checked(arrays(int(key[:2], 16), wide), wide)

    one = sum(array.nbytes for array in unit_of("00").values())
    peak(1)  # imports
    few, many = peak(20), peak(200)
    assert one > 40_000
    assert many - few < 10 * one, (one, few, many)
    assert (tmp_path / "200.nc").stat().st_size > 2 * (tmp_path / "20.nc").stat().st_size


def test_the_store_imports_without_the_heavy_ones() -> None:
    code = "import sys, analyzer.store; print({'xarray', 'h5netcdf', 'pandas', 'onnx'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "set()\n"
