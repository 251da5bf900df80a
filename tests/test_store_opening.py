"""The store: a run directory is opened, continued, refused and locked."""

import errno
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from stores import (
    CONTEXT,
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
)

from analyzer import store
from analyzer.errors import InputError, UsageError
from analyzer.store import checksums, manifest


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
            identity={**IDENTITY, "seed": 1, "norm": "l2", "new": None, "limit": 9},
            context={**CONTEXT, "provider": "cuda", "threads": 8},
            coordinates={**COORDINATES, "trial": 5},
        )
    text = str(refused.value)
    assert len(text.splitlines()) == 2
    for part in ["seed 0 -> 1", 'norm "linf" -> "l2"', 'new "absent" -> null', 'provider "cpu" -> "cuda"']:
        assert part in text
    assert "coordinates.trial 3 -> 5" in text
    for left_out in ("limit 4", "threads", "permutations"):
        assert left_out not in text
    assert {name: (path / name).read_bytes() for name in before} == before
    with pytest.raises(UsageError, match="precision"):
        opened(path, context={**CONTEXT, "precision": "tf32"})
    with pytest.raises(UsageError, match=r"context\.precision is missing"):
        opened(path, context={key: value for key, value in CONTEXT.items() if key != "precision"})


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
        ('{"schema": 1, "identity": {}, "context": {}, "history": [], "coordinates": {}}', "identity.card is missing"),
        (
            json.dumps({"schema": 1, "identity": IDENTITY, "context": CONTEXT, "history": [], "coordinates": {}}),
            "coordinates must",
        ),
        (
            json.dumps(
                {
                    "schema": 1,
                    "identity": {**IDENTITY, "radii": [99.0]},
                    "context": CONTEXT,
                    "history": [],
                    "coordinates": COORDINATES,
                }
            ),
            "coordinates.radius is not identity.radii",
        ),
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
