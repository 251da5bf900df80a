"""Checking a model file in a child process, so that a crash, an endless parse or a memory bomb harms nothing."""

from pathlib import Path

from analyzer.errors import InputError
from analyzer.system import run_child


def check(model: Path, *, seconds: float = 60) -> None:
    """Parse `model`, check its structure, operators, sizes and external data, all in a child process.

    The child may take `seconds`, and 2 GiB of memory plus twelve times the file's size. Raises InputError with what the
    child reports, or saying that it crashed, ran out of memory or out of time.
    """
    answer = run_child("analyzer.graph.child", [str(model)], seconds=seconds, model=str(model), doing="checking")
    if "error" in answer:
        raise InputError(answer["error"])
