"""Disks that are full or cannot be written, made for one test; where mounting is refused, the test is skipped."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def mounted(path: Path, options: str = "size=1m") -> Iterator[Path]:
    """A small file system in memory at `path`; options: of `mount`, such as size=64k or nr_inodes=5."""
    path.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", options, "tmpfs", str(path))
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True, capture_output=True)


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[None]:
    """The folder `path`, which nobody can write to while the block runs, root included."""
    _mount("--bind", str(path), str(path))
    try:
        _mount("-o", "remount,bind,ro", str(path))
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True, capture_output=True)


def fill(disk: Path) -> Path:
    """Write a file that leaves nothing of a mounted disk; remove it to have room again."""
    filling = disk / "filling"
    with contextlib.suppress(OSError), filling.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    return filling


def _mount(*arguments: str) -> None:
    if shutil.which("mount") is None:
        pytest.skip("this system has no `mount`")
    done = subprocess.run(["mount", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting is refused here: {done.stderr.strip()}")
