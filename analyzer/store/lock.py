"""One writer for each run: an operating-system lock that is gone when its process is.

What is locked is the run directory itself, which a person does not delete in passing as they do `.lock`. That file is
locked as well, for writers of earlier versions and file systems whose directories have no locks; it names the holder.
"""

import contextlib
import errno
import fcntl
import os
import socket
from pathlib import Path

from analyzer.errors import UsageError

FILE = ".lock"
_NO_ROOM = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT}
"""Why a file may not be made. What is to be written afterwards says so; a complete run needs nothing."""

_held: set[int] = set()


def _let_go_in_child() -> None:
    # A forked child shares the lock, and would keep it after its parent has died.
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)


def acquire(run: Path) -> tuple[int, ...]:
    """Lock the run directory `run`, and write this process's id into its `.lock`. Returns handles for `release`.

    Raises UsageError when another process holds it (naming that process's id), or when it cannot be locked.
    """
    handles: list[int] = []
    try:
        try:
            handles.append(os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            _lock(handles[0], run)
            locked = True
        except OSError as e:  # a file system whose directories have no locks
            locked = False
            if e.errno in (errno.EACCES, errno.ENOENT, errno.ENOTDIR):
                raise UsageError(f"{run}: cannot be opened: {e.strerror}\ngive another `out`") from e
        try:
            handles.append(os.open(run / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644))
        except OSError as e:
            if not locked or e.errno not in _NO_ROOM:
                raise UsageError(f"{run}: cannot be written: {e.strerror}\ngive another `out`") from e
        else:
            try:
                _lock(handles[-1], run)
            except OSError as e:
                if not locked:
                    raise UsageError(
                        f"{run}: cannot be locked: {e.strerror}\ngive an `out` on a disk that has locks"
                    ) from e
            with contextlib.suppress(OSError):  # a full disk: only the name of the holder is lacking
                os.ftruncate(handles[-1], 0)
                os.pwrite(handles[-1], f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
    except BaseException:
        for handle in handles:
            os.close(handle)
        raise
    _held.update(handles)
    return tuple(handles)


def _lock(handle: int, run: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"{run}: {_holder(_content(run / FILE))}") from None


def _content(file: Path) -> bytes:
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.read(handle, 300)
    except OSError:
        return b""
    finally:
        os.close(handle)


def release(handles: tuple[int, ...]) -> None:
    """Give the lock back, once; without effect in a forked child, which has none."""
    for handle in handles:
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
            "end what still holds it (`fuser` on the directory names it), then run the same command again"
        )
    return f"process {pid} on {host!a} is writing this run\nwait for it to end, or give another `out`"
