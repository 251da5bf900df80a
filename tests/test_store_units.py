"""The store: the table of variables, and the unit of one image, on arrays of a few numbers."""

from pathlib import Path

import numpy as np
import pytest
from stores import COORDINATES, IDS, arrays, calibration, entries, listing, opened, summarise

from analyzer import store
from analyzer.errors import InputError
from analyzer.measures import REGISTRY


def test_the_table_is_consistent() -> None:
    assert len({v.name for v in store.VARIABLES}) == len(store.VARIABLES)
    order = ["image", "radius", "trial", "sketched", "layer", "bucket", "fine_bucket"]
    for v in store.VARIABLES:
        assert v.dims[0] == "image"
        assert sorted(v.dims, key=order.index) == list(v.dims)
        real = "float32" if v.name.endswith("_sketch") else "float64"
        assert v.dtype == ("int8" if v.name.endswith("_status") else "int32" if v.integer else real)
        assert bool(v.flags) == v.name.endswith("_status")
        assert not any(" " in flag for flag in v.flags)
    named = {v.name: v for v in store.VARIABLES}
    assert {v.needs for v in store.COMMON} == {None, "noise", "features"}
    assert set(named) - {v.name for v in store.COMMON} == {
        v.name for m in REGISTRY.values() for v in m.variables if v.derived is None
    }
    contract = [
        "label",
        "clean_predicted",
        "clean_score",
        "clean_log_odds",
        "log_odds_noise_floor",
        "image_status",
        "isotropy_score",
        "isotropy_log_odds",
        "isotropy_predicted",
        "symmetry_score",
        "symmetry_log_odds",
        "symmetry_predicted",
        "input_distance_l2",
        "input_distance_linf",
        "feature_distance",
        "feature_noise_floor",
        "mantel_r",
        "mantel_p",
        "mantel_r_linear",
        "participation_ratio",
        "mantel_status",
        "alpha_departure",
        "alpha_departure_linear",
        "jacobian_rms",
        "log_odds_status",
    ]
    assert set(contract) <= set(named)
    assert named["feature_distance"].dims == ("image", "radius", "trial", "layer")
    assert named["mantel_status"].flags[2] == "constant_or_coinciding_inputs"
    assert named["log_odds_status"].dims == ("image",)


def test_a_key_tells_images_apart_and_is_only_a_hash() -> None:
    keys = {store.unit_key(i, sha) for i in IDS for sha in ("00", "01")}
    assert len(keys) == 2 * len(IDS)
    assert all(len(key) == 64 and set(key) <= set("0123456789abcdef") for key in keys)
    assert store.unit_key("a", "b") != store.unit_key("ab", "")


@pytest.mark.parametrize("key", ["../x", "", "AB", "a/b", "0" * 65, "ab\n"])
def test_a_key_that_is_no_hash_never_becomes_a_path(tmp_path: Path, key: str) -> None:
    with opened(tmp_path / "run") as writer, pytest.raises(InputError, match="no unit's key"):
        writer.write_unit(key, arrays(0))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda a: a.pop("mantel_r"), "mantel_r"),
        (lambda a: a.update(extra=np.zeros(())), "extra"),
        (lambda a: a.update(mantel_r=np.zeros((2, 3))), r"mantel_r must have the shape \(2, 2\)"),
        (lambda a: a.update(label=np.zeros(1, "int32")), "label must have the shape"),
        (lambda a: a.update(label=np.array(1.0)), "label must be int32"),
        (lambda a: a.update(label=np.array(-2)), "label must lie in -1"),
        (lambda a: a.update(label=np.array(2**31)), "label must lie in"),
        (lambda a: a.update(image_status=np.array(4)), r"image_status must lie in -1\.\.3"),
        (lambda a: a.update(image_status=np.array(-2)), "image_status"),
        (lambda a: a.update(clean_score=np.array("x")), "clean_score must be float64"),
        (lambda a: a.update(clean_score=np.array(1 + 1j)), "clean_score must be float64"),
    ],
)
def test_a_unit_that_does_not_fit_the_table_is_refused(tmp_path: Path, change, named: str) -> None:
    given = arrays(0)
    change(given)
    with opened(tmp_path / "run") as writer:
        with pytest.raises(ValueError, match=named):
            writer.write_unit("ab", given)
        assert not writer.has("ab")
        assert listing(tmp_path / "run" / "units") == set()


def test_a_unit_comes_back_as_it_was_given(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as writer:
        assert writer.read_unit("ab") is None
        given = arrays(1)
        given["clean_score"] = np.float32(0.25)
        given["label"] = np.array(7, dtype="int64")
        writer.write_unit("ab", given)
        back = writer.read_unit("ab")
    assert back is not None
    assert list(back) == [v.name for v in store.VARIABLES]
    for v in store.VARIABLES:
        assert back[v.name].dtype == v.dtype
        np.testing.assert_array_equal(back[v.name], given[v.name])
    with np.load(tmp_path / "run" / "units" / "ab.npz") as plain:
        np.testing.assert_array_equal(plain["mantel_r"], given["mantel_r"])


def test_an_image_that_could_not_be_measured_is_undefined_throughout(tmp_path: Path) -> None:
    undefined = store.undefined_unit(COORDINATES, label=3, image_status=2)
    with opened(tmp_path / "run") as writer:
        writer.write_unit("ab", undefined)
        back = writer.read_unit("ab")
    assert (back.pop("label"), back.pop("image_status")) == (3, 2)
    for name, array in back.items():
        assert (np.isnan(array) if array.dtype.kind == "f" else array == -1).all(), name
    with pytest.raises(ValueError, match="nonsense"):
        store.undefined_unit(COORDINATES, nonsense=1)


def test_a_run_may_hold_some_of_the_variables(tmp_path: Path) -> None:
    some = {**COORDINATES, "variables": ["label", "isotropy_score"]}
    with opened(tmp_path / "run", coordinates=some) as writer:
        writer.write_calibration(calibration(1, limit=4))
        with pytest.raises(ValueError, match="mantel_r"):
            writer.write_unit(entries(1)[0]["key"], arrays(0))
        writer.write_unit(entries(1)[0]["key"], arrays(0, some))
        writer.finish(summarise)
    with store.open_run(tmp_path / "run") as data:
        assert set(data) == {"label", "isotropy_score"}
    assert store.verify(tmp_path / "run") == []
