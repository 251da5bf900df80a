"""The store: every promise a run directory makes, on arrays of a few numbers."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import h5netcdf
import numpy as np
import pytest
import xarray as xr

from analyzer import store
from analyzer.errors import IncompleteError, InputError, UsageError
from analyzer.measures import REGISTRY
from analyzer.store import checksums, files, manifest, results, schema, units
from analyzer.store.deferred import DeferredErrorFile

COORDINATES = {"radius": [0.5, 1.0], "trial": 3, "layer": ["fc2", "/pool/ü"]}
IDENTITY = {"model": "ab" * 32, "seed": 0, "norm": "linf", "limit": 4, "images": {"rule": "all"}}
CONTEXT = {"model": "net.onnx", "provider": "cpu", "precision": "float32", "threads": 2}
IDS = ["a.png", "../../x.png", "ü/\u202etxt.png", "é" * 150, "CON", "=1+1", "[/b]<script>", "d\\udcff.png"]


def summarise(dataset: xr.Dataset) -> dict:
    """A summary with what JSON has no word for."""
    value = {"value": float("nan"), "low": np.float64(0.5), "high": float("inf"), "n": dataset.sizes["image"]}
    manifest = json.loads(dataset.attrs["manifest"])
    protocol = {key: value for key, value in manifest["identity"].items() if key not in ("model", "card")}
    run = {"model": manifest["context"]["model"], "images": {}, "protocol": protocol, "context": manifest["context"]}
    return {"schema": 1, "run": run, "sentences": [], "warnings": [], "isotropy_range_median@1": value}


def opened(path: Path, *, coordinates: dict = COORDINATES, context: dict = CONTEXT, **identity: object) -> store.Store:
    return store.open_store(path, identity={**IDENTITY, **identity}, context=context, coordinates=coordinates)


def entries(count: int) -> list[dict]:
    ids = [*IDS, *(f"more/{i}.png" for i in range(count))][:count]
    return [
        {"id": i, "sha256": f"{n:064x}", "label": n, "key": store.unit_key(i, f"{n:064x}")} for n, i in enumerate(ids)
    ]


def calibration(count: int = 4, **more: object) -> dict:
    ranges = {"input_range": 255.0, "feature_range": {"fc2": 10.0, "/pool/ü": 4.0}}
    return {**ranges, "limit": count, "selected": entries(count), **more}


def arrays(number: int, coordinates: dict = COORDINATES) -> dict[str, np.ndarray]:
    """Every variable of one image; values tell the image, the variable and the place apart."""
    length = schema.sizes(coordinates)
    made = {}
    for place, variable in enumerate(schema.variables(coordinates)):
        shape = [length[dim] for dim in variable.dims[1:]]
        count = int(np.prod(shape))
        if variable.flags:
            made[variable.name] = np.full(shape, number % len(variable.flags), dtype="int8")
        elif variable.dtype == "int32":
            made[variable.name] = np.arange(number - 1, number - 1 + count, dtype="int32").reshape(shape)
        else:
            values = number + place / 32 + np.arange(count) / 1024
            values[-1] = np.nan if number % 2 else 0.0
            made[variable.name] = values.reshape(shape)
    return made


def measured(path: Path, count: int = 4, *, finish: bool = True) -> Path:
    with opened(path, limit=count) as writer:
        writer.write_calibration(calibration(count))
        for number, entry in enumerate(entries(count)):
            writer.write_unit(entry["key"], arrays(number))
        if finish:
            writer.finish(summarise)
    return path


def unit(path: Path, number: int) -> Path:
    return path / "units" / f"{entries(number + 1)[number]['key']}.npz"


def listing(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


# --- the table -------------------------------------------------------------------------------------------------------


def test_the_table_is_consistent() -> None:
    assert len({v.name for v in store.VARIABLES}) == len(store.VARIABLES)
    order = ["image", "radius", "trial", "layer"]
    for v in store.VARIABLES:
        assert v.dims[0] == "image"
        assert sorted(v.dims, key=order.index) == list(v.dims)
        assert v.dtype == ("int8" if v.name.endswith("_status") else "int32" if "index" in v.long_name else "float64")
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
        (lambda a: a.update(image_status=np.array(3)), r"image_status must lie in -1\.\.2"),
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


# --- opening, refusing, locking --------------------------------------------------------------------------------------


def test_a_new_run_writes_its_manifest(tmp_path: Path) -> None:
    with opened(tmp_path / "deep" / "run") as writer:
        assert not writer.resumed
        assert writer.calibration() is None
        manifest = checksums.opened(json.loads((writer.path / "manifest.json").read_text()))
    assert manifest == writer.manifest == store.Run(tmp_path / "deep" / "run").manifest
    assert manifest["schema"] == 1
    assert (manifest["identity"], manifest["context"], manifest["history"]) == (IDENTITY, CONTEXT, [])
    assert manifest["coordinates"] == COORDINATES
    assert store.Run(writer.path).state[:2] == (0, 0)
    assert not store.Run(writer.path).is_complete


@pytest.mark.parametrize(
    "coordinates",
    [
        {"radius": [1.0], "trial": 3},
        {**COORDINATES, "radius": []},
        {**COORDINATES, "radius": [1, 1.0]},
        {**COORDINATES, "radius": [float("nan")]},
        {**COORDINATES, "radius": [0]},
        {**COORDINATES, "trial": 0},
        {**COORDINATES, "trial": True},
        {**COORDINATES, "layer": ["a", "a"]},
        {**COORDINATES, "layer": ["a\0b"]},
        {**COORDINATES, "layer": ["\udcff"]},
        {**COORDINATES, "variables": ["nothing"]},
        {**COORDINATES, "variables": [[]]},
    ],
)
def test_coordinates_that_cannot_be_are_refused(tmp_path: Path, coordinates: dict) -> None:
    with pytest.raises(UsageError):
        opened(tmp_path / "run", coordinates=coordinates)
    assert not (tmp_path / "run").exists()


def test_the_same_settings_continue_a_run(tmp_path: Path) -> None:
    path = measured(tmp_path / "run", 3, finish=False)
    before = (path / "manifest.json").read_bytes()
    with opened(path, limit=3, coordinates={**COORDINATES, "radius": (0.5, np.float64(1))}) as writer:
        assert writer.resumed
        assert writer.calibration() == calibration(3)
        assert [writer.has(entry["key"]) for entry in entries(4)] == [True, True, True, False]
    assert (path / "manifest.json").read_bytes() == before


def test_other_settings_are_refused_with_their_keys(tmp_path: Path) -> None:
    path = measured(tmp_path / "run")
    before = {name: (path / name).read_bytes() for name in listing(path) - {"units", ".lock"}}
    with pytest.raises(UsageError) as refused:
        store.open_store(
            path,
            identity={**IDENTITY, "seed": 1, "images": {"rule": "some"}, "new": None, "limit": 9},
            context={**CONTEXT, "provider": "cuda", "threads": 8},
            coordinates={**COORDINATES, "trial": 5},
        )
    text = str(refused.value)
    assert len(text.splitlines()) == 2
    for part in ["seed 0 -> 1", 'images.rule "all" -> "some"', 'new "absent" -> null', 'provider "cpu" -> "cuda"']:
        assert part in text
    assert "coordinates.trial 3 -> 5" in text
    for left_out in ("limit 4", "threads", "norm"):
        assert left_out not in text
    assert {name: (path / name).read_bytes() for name in before} == before
    with pytest.raises(UsageError, match="precision"):
        opened(path, context={**CONTEXT, "precision": "tf32"})
    with pytest.raises(UsageError, match='precision "float32" -> "absent"'):
        opened(path, context={"provider": "cpu"})


def test_one_changed_setting_is_named_once() -> None:
    def wanted(last: float, layer: str) -> dict:
        identity = {**IDENTITY, "radii": [0.5, last], "layers": [layer]}
        return {
            "identity": identity,
            "context": CONTEXT,
            "coordinates": {**COORDINATES, "radius": [0.5, last], "layer": [layer]},
        }

    with pytest.raises(UsageError) as refused:
        manifest.continued({**wanted(1.0, "fc2"), "history": []}, wanted(2.0, "fc1"), Path("run"), "now")
    assert "radii [0.5, 1.0] -> [0.5, 2.0]" in str(refused.value)
    assert 'layers ["fc2"] -> ["fc1"]' in str(refused.value)
    assert "coordinates" not in str(refused.value)


def test_other_contexts_are_recorded(tmp_path: Path) -> None:
    path = measured(tmp_path / "run", finish=False)
    opened(path, context={**CONTEXT, "threads": 8}).close()
    manifest = store.Run(path).manifest
    assert manifest["context"]["threads"] == 8
    assert [entry["changes"] for entry in manifest["history"]] == [{"context.threads": [2, 8]}]
    assert manifest["history"][0]["time"] >= manifest["created"]
    opened(path, context={**CONTEXT, "threads": 8}).close()
    assert store.Run(path).manifest == manifest


def test_opening_a_complete_run_changes_nothing_until_something_is_measured(tmp_path: Path) -> None:
    path = measured(tmp_path / "run")
    before = {name: (path / name).read_bytes() for name in ("manifest.json", "results.nc", "summary.json")}
    with opened(path, context={**CONTEXT, "threads": 8}) as writer:
        assert {name: (path / name).read_bytes() for name in before} == before
        assert store.Run(path).is_complete
        writer.write_unit(entries(1)[0]["key"], arrays(5))
        assert not store.Run(path).is_complete
        assert not {"results.nc", "summary.json"} & listing(path)
    assert store.Run(path).manifest["history"][0]["changes"] == {"context.threads": [2, 8]}


def test_the_limit_may_grow_but_not_shrink(tmp_path: Path) -> None:
    path = measured(tmp_path / "run", 4)
    with pytest.raises(UsageError, match="limit 4 -> 3"):
        opened(path, limit=3)
    assert store.Run(path).is_complete
    with opened(path, limit=6) as writer:
        assert not {"results.nc", "summary.json"} & listing(path)
        assert writer.manifest["identity"]["limit"] == 6
        assert writer.manifest["history"][0]["changes"] == {"limit": [4, 6]}
        assert writer.calibration()["limit"] == 4
        assert "the limit has grown" in " ".join(problem.what for problem in store.verify(path))
        writer.write_calibration(calibration(6))
        assert store.Run(path).state[:2] == (4, 6)
        for number in (4, 5):
            writer.write_unit(entries(6)[number]["key"], arrays(number))
        writer.finish(summarise)
    assert store.Run(path).is_complete
    opened(path, limit=None).close()
    assert not store.Run(path).is_complete
    with pytest.raises(UsageError, match="limit null -> 6"):
        opened(path, limit=6)


def test_what_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"x")
    with pytest.raises(UsageError, match="not empty, and no run"):
        opened(tmp_path / "photos")
    assert listing(tmp_path / "photos") == {"a.png"}
    for nowhere in (tmp_path / "photos" / "a.png", tmp_path / "photos" / "a.png" / "run", Path("/dev/null/run")):
        for refuse in (opened, store.check_writable):
            with pytest.raises(UsageError, match="cannot be made a run directory"):
                refuse(nowhere)


def test_whether_a_run_could_be_written_is_told_without_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.check_writable(tmp_path / "new" / "run")
    store.check_writable(tmp_path)
    assert listing(tmp_path) == set()
    store.check_writable(measured(tmp_path / "run", 1, finish=False))
    with pytest.raises(UsageError, match="not empty, and no run"):
        store.check_writable(tmp_path)
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with pytest.raises(UsageError, match="is no directory"):
        store.check_writable(tmp_path / "nowhere" / "run")
    monkeypatch.setattr(os, "access", lambda *_: False)
    for path in (tmp_path / "run", tmp_path / "new" / "run"):
        with pytest.raises(UsageError, match="is not writable"):
            store.check_writable(path)


def test_a_directory_that_refuses_files_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = measured(tmp_path / "run", finish=False)
    real = Path.touch

    def touch(self: Path, *args: object, **more: object) -> None:
        if self.parent.name == "units":
            raise PermissionError(errno.EACCES, "Permission denied")
        real(self, *args, **more)

    monkeypatch.setattr(Path, "touch", touch)
    with pytest.raises(UsageError, match="cannot be written: Permission denied"):
        opened(path)
    monkeypatch.undo()
    opened(path).close()  # the refused one has let its lock go

    (path / ".lock").unlink()
    (path / ".lock").mkdir()
    with pytest.raises(UsageError, match="cannot be written"):
        opened(path)


def test_a_start_cut_short_before_the_manifest_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").write_text("1 elsewhere\n")
    (tmp_path / "run" / "manifest.json.tmp").write_text("{")
    with opened(tmp_path / "run") as writer:
        assert not writer.resumed
        assert listing(writer.path) == {".lock", "manifest.json", "units"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "damaged"),
        ("[]", "damaged"),
        ("[" * 100_000, "damaged"),
        ("\xff", "damaged"),
        ('{"schema": 2}', "newer version"),
        ('{"schema": 0}', "older version"),
        ('{"identity": {}}', "older version"),
        ('{"schema": 1}', "identity is missing"),
        ('{"schema": 1, "identity": {}, "context": {}, "history": [], "coordinates": {}}', "coordinates must"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = measured(tmp_path / "run", 1, finish=False)
    (path / "manifest.json").write_bytes(text.encode("latin-1"))
    for reader in (store.Run, store.open_run, opened):
        with pytest.raises(InputError, match=said):
            reader(path)
    (problem,) = store.verify(path)
    assert said in problem.what
    assert problem.mend


def test_no_run_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "none", tmp_path / "file"):
        for reader in (store.Run, store.open_run, store.verify):
            with pytest.raises(InputError, match="no run here"):
                reader(path)


def child(code: str, *args: object, **more: object) -> subprocess.Popen:
    """A process with this module at hand as `t`, that runs `code`."""
    start = f"import sys, pathlib, time\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nimport test_store as t\n"
    command = [sys.executable, "-c", start + code, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def test_a_second_writer_is_refused_with_the_first_ones_pid(tmp_path: Path) -> None:
    path = tmp_path / "run"
    holder = child("w = t.opened(pathlib.Path(sys.argv[1])); print('ready', flush=True); time.sleep(60)", path)
    try:
        assert holder.stdout.readline() == "ready\n", holder.stderr.read()
        with pytest.raises(UsageError, match=f"process {holder.pid} "):
            opened(path)
        assert store.Run(path).state[:2] == (0, 0)  # reading needs no lock
    finally:
        holder.kill()
        holder.communicate()
    opened(path).close()  # gone with its process, though its pid still stands in the file


def test_one_process_cannot_write_twice_and_the_end_of_the_block_unlocks(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as writer:
        with pytest.raises(UsageError, match=f"process {os.getpid()} "):
            opened(tmp_path / "run")
        writer.close()
        again = opened(tmp_path / "run")
    with pytest.raises(UsageError):  # the first one's end did not take the second one's lock
        opened(tmp_path / "run")
    again.close()


def test_children_do_not_keep_the_lock(tmp_path: Path) -> None:
    code = """
import os, subprocess
w = t.opened(pathlib.Path(sys.argv[1]))
forked = os.fork()
if forked == 0:
    time.sleep(60)
    os._exit(0)
started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
print(forked, started.pid, flush=True)
time.sleep(60)
"""
    holder = child(code, tmp_path / "run")
    orphans = [int(pid) for pid in holder.stdout.readline().split()]
    try:
        assert len(orphans) == 2, holder.stderr.read()
        with pytest.raises(UsageError, match="is writing this run"):
            opened(tmp_path / "run")
        holder.kill()
        holder.wait()
        opened(tmp_path / "run").close()
    finally:
        holder.kill()
        for pid in orphans:
            os.kill(pid, signal.SIGKILL)
        holder.communicate()


# --- stops, damage, full disks ---------------------------------------------------------------------------------------


def test_sigkill_costs_at_most_the_unit_being_written(tmp_path: Path) -> None:
    path = tmp_path / "run"
    code = """
with t.opened(pathlib.Path(sys.argv[1]), limit=1_000) as w:
    w.write_calibration(t.calibration(1_000))
    for number, entry in enumerate(t.entries(1_000)):
        w.write_unit(entry["key"], t.arrays(number))
        print(number, flush=True)
"""
    for aim in (0, 7):
        writing = child(code, path)
        while (said := writing.stdout.readline()) and int(said) < aim:
            pass
        writing.send_signal(signal.SIGKILL)
        rest, errors = writing.communicate()
        assert said, errors
        done = int((said + rest).split()[-1]) + 1
        with opened(path, limit=1_000) as writer:
            assert not [name for name in listing(path) | listing(path / "units") if name.endswith(".tmp")]
            whole = [writer.has(entry["key"]) for entry in entries(1_000)[: done + 3]]
        assert all(whole[:done])
        assert sum(whole) in (done, done + 1)
        assert {problem.file for problem in store.verify(path)} == {str(path / "units")}  # only the missing ones


def test_temporary_files_left_over_are_found_and_removed(tmp_path: Path) -> None:
    path = measured(tmp_path / "run")
    for name in ("results.nc.tmp", "manifest.json.tmp", f"units/{entries(1)[0]['key']}.npz.tmp"):
        (path / name).write_bytes(b"half")
    assert len(store.verify(path)) == 3
    assert store.Run(path).is_complete
    opened(path).close()
    assert store.verify(path) == []
    assert store.Run(path).is_complete


def test_any_flipped_bit_in_a_unit_is_found_and_measured_anew(tmp_path: Path) -> None:
    path = measured(tmp_path / "run")
    file = unit(path, 2)
    good = file.read_bytes()
    for place in np.random.default_rng(0).permutation(8 * len(good))[:200]:
        bad = bytearray(good)
        bad[place // 8] ^= 1 << (place % 8)
        with pytest.raises(ValueError, match="checksum"):
            units.unpack(file.stem, bytes(bad), COORDINATES)
    file.write_bytes(bad)
    (problem,) = store.verify(path)
    assert (problem.file, "damaged" in problem.what) == (str(file), True)
    assert not store.Run(path).is_complete
    assert store.Run(path).state[:2] == (3, 4)
    with opened(path) as writer:
        assert not writer.has(file.stem)
        with pytest.raises(IncompleteError, match="missing or damaged"):
            writer.finish(summarise)
        writer.write_unit(file.stem, arrays(2))
        writer.finish(summarise)
    assert file.read_bytes() == good
    assert store.verify(path) == []
    assert store.Run(path).is_complete


@pytest.mark.parametrize("damage", ["empty", "short", "other", "pickle", "folder"])
def test_a_damaged_unit_counts_as_absent(tmp_path: Path, damage: str) -> None:
    path = measured(tmp_path / "run", finish=False)
    file = unit(path, 1)
    good = file.read_bytes()
    if damage == "folder":
        file.unlink()
        file.mkdir()
    elif damage == "pickle":
        buffer = io.BytesIO()
        np.savez(buffer, label=np.array([print], dtype=object))
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.comment = b"0" * 64
        body = buffer.getvalue()[:-64]
        file.write_bytes(body + units._digest(file.stem, body))
    else:
        file.write_bytes({"empty": b"", "short": good[:-1], "other": unit(path, 0).read_bytes()}[damage])
    assert store.Run(path).state[:2] == (3, 4)
    assert [problem.file for problem in store.verify(path)] == [str(file)]
    with opened(path) as writer:
        assert not writer.has(file.stem)
    with store.open_run(path) as data:
        assert list(data.label.values) == [-1, 1, 2]  # arrays() starts its integers one below the image's number


def test_a_summary_that_fails_leaves_a_run_that_can_be_finished(tmp_path: Path) -> None:
    path = measured(tmp_path / "run", finish=False)
    with opened(path) as writer:
        with pytest.raises(ZeroDivisionError):
            writer.finish(lambda _: {"value": 1 / 0})
        assert not store.Run(path).is_complete
        writer.finish(summarise)
    assert store.verify(path) == []


def test_damaged_results_are_found(tmp_path: Path) -> None:
    path = measured(tmp_path / "run")
    file = path / "results.nc"
    good = file.read_bytes()

    with h5netcdf.File(file, "r+") as stored:
        stored.variables["mantel_r"][1, 0, 0] = 7.0
    (problem,) = store.verify(path)
    assert (problem.file, problem.what) == (str(file), "mantel_r of '../../x.png' is not that of its unit")

    for name in ("mantel_r", "clean_score", "feature_distance"):
        with h5netcdf.File(io.BytesIO(good), "r") as stored:
            chunk = stored.variables[name]._h5ds.id.get_chunk_info(0)
        bad = bytearray(good)
        bad[chunk.byte_offset + chunk.size // 2] ^= 4
        file.write_bytes(bad)
        (problem,) = store.verify(path)
        assert problem.file == str(file)
        assert "damaged" in problem.what
        with pytest.raises((OSError, IncompleteError)), store.open_run(path) as data:
            data[name].load()

    for bad in (b"", good[: len(good) // 2], b"x" * len(good)):
        file.write_bytes(bad)
        with pytest.raises(IncompleteError, match=r"results\.nc: damaged"):
            store.open_run(path)
        (problem,) = store.verify(path)
        assert "written anew from the units" in problem.mend

    file.write_bytes(good)
    for name, part in (("calibration", "input_range"), ("manifest", "identity")):
        kept = (path / f"{name}.json").read_text()
        document = json.loads(kept)
        document[part] = {**IDENTITY, "seed": 9} if part == "identity" else 254.0
        (path / f"{name}.json").write_text(json.dumps(checksums.sealed(document)))
        (problem,) = store.verify(path)
        assert (problem.file, f"that of {name}.json" in problem.what) == (str(file), True)
        (path / f"{name}.json").write_text(kept)

    file.unlink()  # the way to mend it that it gives
    with opened(path) as writer:
        writer.finish(summarise)
    assert store.verify(path) == []


def test_a_damaged_calibration_is_measured_anew(tmp_path: Path) -> None:
    path = measured(tmp_path / "run")
    whole = json.loads((path / "calibration.json").read_text())
    lone = whole["selected"][0]
    for bad in (
        {**whole, "input_range": "255"},
        {**whole, "feature_range": {"fc2": 1}},
        {**whole, "selected": {}},
        {**whole, "selected": [lone, lone]},
        {**whole, "selected": [{**lone, "key": "../../x"}]},
        {**whole, "selected": [{**lone, "label": None}]},
    ):
        (path / "calibration.json").write_text(json.dumps(bad))
        for reader in (lambda p: store.Run(p).state, lambda p: store.Run(p).calibration):
            with pytest.raises(IncompleteError, match=r"calibration\.json: damaged"):
                reader(path)
        assert [problem.file for problem in store.verify(path)] == [str(path / "calibration.json")]
        assert not store.Run(path).is_complete
        (path / "results.nc").unlink(missing_ok=True)  # it has the calibration too
        with opened(path) as writer:
            assert writer.calibration() is None
            with pytest.raises(ValueError, match=r"must|key|twice"):
                writer.write_calibration(bad)
    with opened(path) as writer:
        writer.write_calibration(calibration())
        writer.finish(summarise)
    assert store.Run(path).is_complete


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    path = measured(tmp_path / "run", 3)
    before = listing(path / "units")

    def full(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with opened(path, limit=9) as writer:
        monkeypatch.setattr(os, "fsync", full)
        for write in (
            lambda: writer.write_unit("ab", arrays(0)),
            lambda: writer.write_calibration(calibration(5)),
            lambda: writer.finish(summarise),
        ):
            with pytest.raises(IncompleteError, match="free some space, then run the same command again"):
                write()
        monkeypatch.undo()
        assert listing(path / "units") == before
        assert listing(path) == {".lock", "manifest.json", "calibration.json", "units"}
        writer.write_calibration(calibration(3, limit=9))
        writer.finish(summarise)
    assert store.verify(path) == []


def test_results_that_outgrow_the_disk_end_in_a_message_not_in_a_crash(tmp_path: Path) -> None:
    # A failing write inside HDF5 can end the process, so this one runs in a process of its own.
    code = """
import resource
from analyzer.errors import IncompleteError
path = pathlib.Path(sys.argv[1])
t.measured(path, 20, finish=False)
with t.opened(path, limit=20) as w:
    for size in (0, 20_000, 60_000, 90_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, -1))
        try:
            w.finish(t.summarise)
        except IncompleteError as e:
            print("refused", "results.nc: cannot be written: File too large" in str(e))
        assert not {"results.nc", "results.nc.tmp", "summary.json"} & t.listing(path), t.listing(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
    w.finish(t.summarise)
    print((path / "results.nc").stat().st_size > 90_000)
print("end", t.store.verify(path))
"""
    process = child(code, tmp_path / "run")
    said, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert said.splitlines() == ["refused True"] * 4 + ["True", "end []"]


def test_what_hdf5_says_after_a_failed_write_does_not_hide_the_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = measured(tmp_path / "run", finish=False)

    def fails(file: DeferredErrorFile, *_: object) -> None:
        file.error = OSError(errno.ENOSPC, "No space left on device")
        raise RuntimeError("bad heap")

    monkeypatch.setattr(results, "_write", fails)
    with opened(path) as writer, pytest.raises(IncompleteError, match="No space left"):
        writer.finish(summarise)


def test_a_file_is_replaced_not_overwritten(tmp_path: Path) -> None:
    target, link = tmp_path / "x.json", tmp_path / "same"
    files.write(target, b"old")
    link.hardlink_to(target)
    files.write(target, b"new")
    assert (target.read_bytes(), link.read_bytes()) == (b"new", b"old")


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "x.json"
    files.write(target, b"old")
    with pytest.raises(KeyboardInterrupt), files.replacing(target) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert (target.read_bytes(), listing(tmp_path)) == (b"old", {"x.json"})


# --- results ---------------------------------------------------------------------------------------------------------


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
                assert dict(data.sizes) == {"image": 0, "radius": 2, "trial": 3, "layer": 2}
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
        (lambda d: d["run"].update(protocol=[]), "run.protocol is missing"),
        (lambda d: d.pop("warnings"), "sentences or warnings are missing"),
        (lambda d: d["isotropy_range_median@1"].update(value="1"), "'isotropy_range_median@1' is no estimate"),
        (lambda d: d["isotropy_range_median@1"].update(low=True), "'isotropy_range_median@1' is no estimate"),
        (lambda d: d["isotropy_range_median@1"].pop("n"), "'isotropy_range_median@1' is no estimate"),
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
