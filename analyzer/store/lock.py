"""One writer for each run: an operating-system lock that is gone when its process is."""

import contextlib
import fcntl
import os
import socket
from pathlib import Path

from analyzer.errors import UsageError

_held: set[int] = set()


def _let_go_in_child() -> None:
    # A forked child shares the lock, and would keep it after its parent has died.
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)


def acquire(path: Path) -> int:
    """Lock the file `path`, making it if need be, and write this process's id into it. Returns a handle for `release`.

    Raises UsageError when another process holds it (naming that process's id), or when it cannot be written.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as e:
        raise UsageError(f"{path.parent}: cannot be written: {e.strerror}\ngive another `out`") from e
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
    except BlockingIOError:
        message = f"{path.parent}: {_holder(os.pread(handle, 300, 0))}"
        os.close(handle)
        raise UsageError(message) from None
    except OSError as e:
        os.close(handle)
        raise UsageError(f"{path}: cannot be locked: {e.strerror}\ngive an `out` on a disk that has locks") from e
    _held.add(handle)
    return handle


def release(handle: int) -> None:
    """Give the lock back, once; without effect in a forked child, which has none."""
    if handle in _held:
        _held.remove(handle)
        os.close(handle)


def _holder(content: bytes) -> str:
    pid, _, host = content.decode("ascii", "replace").strip().partition(" ")
    if not pid.isdecimal():
        return "another process is writing this run\nwait for it to end, or give another `out`"
    gone = False
    if host == socket.gethostname():
        with contextlib.suppress(PermissionError, OverflowError):
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                gone = True
    if gone:
        return (
            f"process {pid}, which wrote this run, is gone, yet its lock is still held\n"
            "end what still holds it (`fuser` on the .lock file names it), then run the same command again"
        )
    return f"process {pid} on {host!a} is writing this run\nwait for it to end, or give another `out`"
