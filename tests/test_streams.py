"""Streams that break and signals that come early: the exit code is that of what was done."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import graphs
import pytest
import runs

from analyzer import cli
from analyzer.cli import streams

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    model, _ = graphs.convnet(folder / "model")
    runs.write_images(folder / "images", 3)
    runs.measure(model, folder / "images", folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def damaged(run):
    copy = run.parent / "damaged"
    subprocess.run(["cp", "-r", str(run), str(copy)], check=True)
    next(copy.glob("units/*.npz")).write_bytes(b"")
    return copy


def arguments(run: Path, damaged: Path) -> dict[str, tuple[int, list[str]]]:
    """Commands of every outcome: exit code and arguments."""
    return {
        "gate": (3, ["gate", str(run), "--max", "lipschitz_q95=0"]),
        "verify": (5, ["verify", str(damaged)]),
        "usage": (2, ["gate", str(run)]),
        "input": (4, ["summary", str(run / "units")]),
    }


NAMES = ("gate", "verify", "usage", "input")


@pytest.mark.parametrize("stderr", [subprocess.PIPE, "closed"])
@pytest.mark.parametrize("name", NAMES)
def test_a_reader_that_has_gone_does_not_change_the_exit_code(run, damaged, name, stderr):
    wanted, given = arguments(run, damaged)[name]
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, "-m", "analyzer", *given],
        stdout=writer,
        stderr=writer if stderr == "closed" else stderr,
        check=False,
    )
    os.close(writer)
    assert process.returncode == wanted
    if stderr != "closed":
        assert process.stderr.startswith(b"error: ") and b"stdout" not in process.stderr.split(b"named on")[0]


@needs_full
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("which", ["stdout", "stderr", "both"])
def test_a_full_disk_behind_a_stream_does_not_change_the_exit_code(run, damaged, name, which):
    wanted, given = arguments(run, damaged)[name]
    with FULL.open("wb") as full:
        outputs = {stream: full if which in (stream, "both") else subprocess.DEVNULL for stream in ("stdout", "stderr")}
        process = subprocess.run([sys.executable, "-m", "analyzer", *given], check=False, **outputs)
    assert process.returncode == wanted


@needs_full
def test_a_command_that_succeeded_says_that_stdout_is_full(run):
    with FULL.open("wb") as full:
        process = subprocess.run(
            [sys.executable, "-m", "analyzer", "verify", str(run)], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert process.returncode == 2
    assert process.stderr == b"error: stdout cannot be written: No space left on device\n"


class Below:
    """A stream of bytes that takes a few of them, and then fails."""

    def __init__(self, room: int) -> None:
        self.room, self.taken = room, b""

    def write(self, data) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "full")
        part = bytes(data[: min(2, self.room)])
        self.room -= len(part)
        self.taken += part
        return len(part)

    def flush(self) -> None:
        raise AssertionError("flushed after it had failed")


def test_an_unfailing_stream_writes_what_it_can_and_keeps_the_first_error():
    below = Below(5)
    stream = streams.Unfailing(below)
    assert stream.write(b"abc") == 3
    assert stream.error is None
    assert stream.write(b"defg") == 4
    assert (below.taken, stream.error.errno) == (b"abcde", errno.ENOSPC)
    stream.flush()
    stream.close()


STOPPED_IN_IMPORT = """
import os, signal, sys, types
from analyzer import cli

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "onnxruntime":
            try:
                os.kill(os.getpid(), getattr(signal, sys.argv[1]))
            except BaseException as e:  # what an extension's loader makes of it
                raise ImportError("initialization failed") from e

sys.meta_path.insert(0, Finder)
cli.main(["doctor"])
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_during_an_import_stops_as_it_should(name, code):
    process = subprocess.run(
        [sys.executable, "-c", STOPPED_IN_IMPORT, name], capture_output=True, text=True, check=False, timeout=120
    )
    assert (process.returncode, process.stderr) == (code, "stopped\n")


def test_a_signal_after_the_exit_code_was_decided_changes_nothing():
    """Also while the interpreter ends, which takes a while once numpy and others are loaded."""
    for delay in (0.0, 0.01, 0.03):
        process = subprocess.Popen(
            [sys.executable, "-m", "analyzer", "summary", "no/such/run"], stderr=subprocess.PIPE, text=True
        )
        with process:
            assert "no run here" in process.stderr.readline()
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            process.stderr.read()
        assert process.returncode == 4, delay


def test_what_native_code_makes_of_a_signal_is_still_a_stop(capsys, monkeypatch):
    def broken(*_, **__):
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except cli.Stopped:
            raise RuntimeError("can't write data") from None

    monkeypatch.setattr("analyzer.doctor.examine", broken)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["doctor"])
    assert (stopped.value.code, capsys.readouterr().err) == (130, "stopped\n")
