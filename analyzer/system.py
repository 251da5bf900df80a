"""What the operating system is asked for: child processes with limits, and how much memory there is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

from analyzer.errors import InputError, UsageError

_ASSUMED_MEMORY = 16 * 2**30  # bytes, where the system does not tell


class Answer(TypedDict, total=False):
    """What a child prints, as JSON: {} where all went well, else one message for the user."""

    error: str


def run_child(module: str, arguments: list[str], *, seconds: float, model: str, doing: str) -> Answer:
    """Run `python -m module arguments...` and return the JSON object it prints.

    Raises InputError naming `model` where the child crashes or takes longer than `seconds`, UsageError where this
    system starts none. What the child prints is captured, and it never imports from the current folder.
    """
    root = str(Path(__file__).parent.parent)
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", module, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, env=environment, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise InputError(
            f"{model}: {doing} it took more than {seconds:g} s; damaged or hostile, export it again"
        ) from None
    except OSError as e:
        raise UsageError(
            f"{model}: {doing} no child process could be started: {e.strerror or e}; free some memory or processes, "
            "then try again"
        ) from e
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = None
    if done.returncode != 0 or not isinstance(answer, dict):
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        raise InputError(f"{model}: {doing} it crashed ({how}); damaged or hostile, export it again")
    return Answer(error=str(answer["error"])) if "error" in answer else Answer()


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


def physical_memory() -> int:
    """Bytes of this machine's memory; 16 GiB where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return _ASSUMED_MEMORY
