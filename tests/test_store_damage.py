"""The store: what a stop, damage or a full disk leaves behind."""

import errno
import io
import json
import os
import signal
import zipfile
from pathlib import Path

import h5netcdf
import numpy as np
import pytest
from stores import (
    COORDINATES,
    IDENTITY,
    arrays,
    calibration,
    child,
    entries,
    listing,
    measured,
    opened,
    summarise,
    unit,
)

from analyzer import store
from analyzer.errors import IncompleteError
from analyzer.store import checksums, files, results, units
from analyzer.store.deferred import DeferredErrorFile


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
        (path / "results.nc").unlink(missing_ok=True)  # it has the calibration too
        for reader in (lambda p: store.Run(p).state, lambda p: store.Run(p).calibration):
            with pytest.raises(IncompleteError, match=r"calibration\.json: damaged"):
                reader(path)
        assert [problem.file for problem in store.verify(path)] == [str(path / "calibration.json")]
        assert not store.Run(path).is_complete
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
