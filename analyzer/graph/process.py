"""Child processes with limits, for work that may crash, hang or take all memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import analyzer
from analyzer.errors import InputError


def run_child(module: str, arguments: list[str], *, seconds: float, model: str, doing: str) -> dict[str, object]:
    """Run `python -m module arguments...` and return the JSON object it prints.

    Raises InputError naming `model` where it crashes or exceeds the time. The child prints nothing of its own on the
    terminal and never imports from the current folder.
    """
    root = str(Path(analyzer.__file__).parent.parent)
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", module, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, env=environment, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise InputError(
            f"{model}: {doing} it took more than {seconds:g} s; damaged or hostile, export it again"
        ) from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = None
    if done.returncode != 0 or not isinstance(answer, dict):
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        raise InputError(f"{model}: {doing} it crashed ({how}); damaged or hostile, export it again")
    return answer


def limit_memory(size: int) -> None:
    """Allow this process `size` bytes of address space, where the system can enforce that."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard != resource.RLIM_INFINITY:
        size = min(size, hard)
    resource.setrlimit(resource.RLIMIT_AS, (size, hard))
