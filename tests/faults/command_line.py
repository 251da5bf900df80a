"""The command line as a fault meets it: in this process where that is enough, in one of its own where it is not."""

import contextlib
import copy
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import graphs
import pytest
import runs

from analyzer.cli import main

ROOT = Path(__file__).resolve().parents[2]
SMALL = [*runs.SMALL, "--threads", "1"]


class Done(NamedTuple):
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


def call(*arguments: object) -> Done:
    """One command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return Done(int(stopped.value.code or 0), out.getvalue(), err.getvalue())


def words(*arguments: object) -> list[str]:
    """The command line of a process of its own; file names may be bytes."""
    return [sys.executable, "-m", "analyzer", *(os.fsdecode(a) if isinstance(a, bytes) else str(a) for a in arguments)]


def environment(*folders: Path, **more: str) -> dict[str, str]:
    """This process's environment; Python looks for modules in `folders` first, and then in this checkout."""
    paths = os.pathsep.join(map(str, [*folders, ROOT]))
    return {**os.environ, "PYTHONPATH": paths, **more}


def apart(*arguments: object, env: dict[str, str] | None = None, **more: Any) -> Done:
    """One command in a process of its own, for at most two minutes."""
    done = subprocess.run(
        words(*arguments), env=env or environment(), capture_output=True, check=False, timeout=120, **more
    )
    return Done(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))


def refused(done: Done, code: int, *said: object) -> None:
    """The exit code; at most two lines on stderr, which say all of `said`; no traceback; nothing on stdout."""
    assert done.code == code, done
    assert 1 <= len(done.err.strip().splitlines()) <= 2, done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    for text in said:
        assert str(text) in done.err, done.err


def worked(done: Done) -> Done:
    """`done`, which ended with 0 and complained of nothing."""
    assert done.code == 0, done
    assert "Traceback" not in done.err
    return done


class Case:
    """A small network and three images in a folder of their own, and the command that measures them."""

    def __init__(self, folder: Path, *, count: int = 3, size: int = 16, model: Path | None = None) -> None:
        self.folder, self.images, self.out = folder, folder / "images", folder / "out"
        self.model = model or graphs.convnet(folder / "model")[0]
        self.pictures = runs.write_images(self.images, count, size)

    def command(self, *more: object) -> list[object]:
        return ["run", self.model, "--images", self.images, "--out", self.out, *SMALL, *more]

    def run(self, *more: object) -> Done:
        return call(*self.command(*more))

    def measured(self) -> "Case":
        worked(self.run())
        return self

    def copied(self, folder: Path) -> "Case":
        """The same model and images, and a copy of the run in `folder`."""
        other = copy.copy(self)
        other.folder, other.out = folder, folder / "out"
        shutil.copytree(self.out, other.out)
        return other

    def contents(self) -> dict[str, bytes]:
        """Every file of the run but its lock and its pace, by its name."""
        return contents(self.out)


def contents(run: Path) -> dict[str, bytes]:
    files = (path for path in run.rglob("*") if path.is_file() and path.name not in (".lock", "pace.json"))
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files}


def flip(file: Path, place: int, bit: int = 1) -> None:
    """Flip one bit of a file."""
    data = bytearray(file.read_bytes())
    data[place] ^= bit
    file.write_bytes(data)
