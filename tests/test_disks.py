"""Disks that are full at the very first write, or cannot be written at all."""

import errno
import os
import subprocess
from pathlib import Path

import disks
import graphs
import pytest
import runs
import stores
from runs import SMALL, call

import analyzer
from analyzer.errors import IncompleteError, UsageError
from analyzer.store import lock, opening


@pytest.fixture
def command(tmp_path):
    """`analyzer run` on a small model, but for --out."""
    model, _ = graphs.convnet(tmp_path / "model")
    runs.write_images(tmp_path / "images", 3)
    return ["run", model, "--images", tmp_path / "images", *SMALL, "--out"]


def test_a_full_disk_at_the_first_write_and_then_room(command, capsys, tmp_path):
    with disks.mounted(tmp_path / "disk", "size=512k") as disk:
        filling = disks.fill(disk)
        for out in (disk / "run", disk / "deep" / "run"):
            code, _, err = call(capsys, *command, out)
            assert code == 5, err
            assert "No space left on device\nfree some space, then run the same command again" in err
        filling.unlink()
        assert call(capsys, *command, disk / "run")[0] == 0
        assert analyzer.verify(disk / "run") == []


@pytest.mark.parametrize("inodes", range(2, 9))
def test_no_inodes_left_at_one_of_the_first_files_and_then_some(command, capsys, tmp_path, inodes):
    with disks.mounted(tmp_path / "disk", f"size=2m,nr_inodes={inodes}") as disk:
        out = disk / "deep" / "run"
        code, _, err = call(capsys, *command, out)
        assert code == 5, err
        assert "No space left on device" in err
        assert call(capsys, *command, out)[0] == 5
        subprocess.run(["mount", "-o", "remount,nr_inodes=1000", str(disk)], check=True)
        assert call(capsys, *command, out)[0] == 0
        assert analyzer.verify(out) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("what", ["mkdir", "touch"])
def test_a_full_disk_is_resumable_wherever_it_shows(tmp_path, monkeypatch, code, what):
    real = getattr(Path, what)

    def full(self, *given, **more):
        if self.name in ("units", "probe.tmp"):
            raise OSError(code, os.strerror(code))
        real(self, *given, **more)

    monkeypatch.setattr(Path, what, full)
    with pytest.raises(IncompleteError, match="free some space, then run the same command again"):
        stores.opened(tmp_path / "run")
    monkeypatch.undo()
    stores.opened(tmp_path / "run").close()


def test_what_only_looks_like_a_begun_run_is_left_alone(tmp_path):
    (tmp_path / "units").mkdir()
    opening.check_writable(tmp_path)
    (tmp_path / "units" / "x.npz").write_bytes(b"x")
    with pytest.raises(UsageError, match="not empty, and no run"):
        opening.check_writable(tmp_path)


def test_a_complete_run_that_cannot_be_written(command, capsys, tmp_path):
    out = tmp_path / "run"
    whole = call(capsys, *command, out)
    assert whole[0] == 0
    for folder in (out, tmp_path):
        with disks.read_only(folder):
            assert call(capsys, *command, out) == whole
            assert call(capsys, "summary", out)[0] == 0
            assert call(capsys, "verify", out)[0] == 0
            code, _, err = call(capsys, "sensitivity", out)
            assert (code, "sensitivity.json: cannot be written: Read-only file system" in err) == (2, True), err
            code, _, err = call(capsys, *command, out, "--limit", "301")
            assert (code, "cannot be written: Read-only file system" in err) == (2, True), err


def test_a_partial_run_that_cannot_be_written_is_refused(command, capsys, tmp_path):
    out = tmp_path / "run"
    assert call(capsys, *command, out)[0] == 0
    next(out.glob("units/*.npz")).unlink()
    with disks.read_only(out):
        code, _, err = call(capsys, *command, out)
        assert (code, "Read-only file system" in err or "is not writable" in err) == (2, True), err


def test_a_lock_file_that_cannot_be_made_is_no_matter_where_the_folder_is_locked(tmp_path, monkeypatch):
    real = os.open

    def refuse(path, *given, **more):
        if Path(path).name == lock.FILE:
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, *given, **more)

    monkeypatch.setattr(os, "open", refuse)
    handles = lock.acquire(tmp_path)
    with pytest.raises(UsageError, match="another process is writing this run"):
        lock.acquire(tmp_path)
    lock.release(handles)


def test_a_folder_without_locks_falls_back_on_the_lock_file(tmp_path, monkeypatch):
    real = lock.fcntl.flock

    def refuse(handle, operation):
        if Path(f"/proc/self/fd/{handle}").resolve() == tmp_path:
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(handle, operation)

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    handles = lock.acquire(tmp_path)
    with pytest.raises(UsageError, match=f"process {os.getpid()} "):
        lock.acquire(tmp_path)
    lock.release(handles)
    lock.release(lock.acquire(tmp_path))
