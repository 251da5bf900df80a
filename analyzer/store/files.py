"""Files that are either whole or absent, and JSON that any reader takes."""

import contextlib
import errno
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from analyzer.errors import IncompleteError, UsageError

TEMPORARY = ".tmp"
"""Suffix of a file that is being written. A run has one writer, so the name needs nothing more."""

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Errors of a disk that has no room."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file, open for writing, that durably takes the place of `path` when the block ends.

    When anything fails, `path` stays as it was and nothing is left beside it; an OSError (disk full, quota, I/O)
    becomes IncompleteError.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        temporary.unlink(missing_ok=True)
        with temporary.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException as e:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if not isinstance(e, OSError):
            raise
        mend = "free some space" if e.errno in FULL else "mend that"
        raise IncompleteError(
            f"{path}: cannot be written: {e.strerror or e}\n{mend}, then run the same command again: it continues"
        ) from e


def write(path: Path, data: bytes) -> None:
    """Make `path` hold exactly `data`, or leave it alone. Raises IncompleteError."""
    with replacing(path) as file:
        file.write(data)


_ELSEWHERE = "give another place"


def write_asked_for(target: Path, data: bytes, *, parameter: str = "", mend: str = _ELSEWHERE) -> None:
    """Make the file `target`, which a person named, in a folder made if need be, hold `data` or stay as it was.

    Raises UsageError naming `parameter`, and `mend`, where it is no regular file or cannot be written, IncompleteError
    where the disk is full.
    """
    with _asked_for(target, parameter, mend):
        write(target, data)


def check_asked_for(target: Path, *, parameter: str = "", mend: str = _ELSEWHERE) -> None:
    """Raise what `write_asked_for` would, before there is anything to write; makes the folder."""
    with _asked_for(target, parameter, mend):
        probe = target.with_name(target.name + TEMPORARY)
        probe.unlink(missing_ok=True)
        with probe.open("xb"):
            pass
        probe.unlink()


@contextlib.contextmanager
def _asked_for(target: Path, parameter: str, mend: str) -> Iterator[None]:
    named = f"`{parameter}` {target}" if parameter else str(target)
    try:
        if target.is_symlink() or (target.exists() and not target.is_file()):
            raise UsageError(f"{named}: no regular file; give another one")
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, IncompleteError) as e:
        cause = e if isinstance(e, OSError) else e.__cause__
        if not isinstance(cause, OSError):
            raise
        if cause.errno in FULL:
            raise IncompleteError(f"{named}: cannot be written: {cause.strerror}; free some space") from e
        raise UsageError(f"{named}: cannot be written: {cause.strerror}; {mend}") from e


def _sync_folder(folder: Path) -> None:
    """Make the renaming in `folder` survive a loss of power, where its file system can."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as e:
        if e.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def to_json(document: Any, *, indent: int | None = None) -> str:
    """Pure-ASCII JSON; NaN and infinities become null, numpy scalars and arrays numbers and lists."""
    return json.dumps(plain(document), indent=indent, allow_nan=False, ensure_ascii=True)


def plain(value: Any) -> Any:
    """`value` as the JSON types: dict with string keys, list, str, int, finite float, bool, None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def refuse_irregular(path: Path) -> None:
    """Raise OSError where something is there that is no regular file: a FIFO or device would be waited on for ever."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        folder = stat.S_ISDIR(status.st_mode)
        raise OSError(errno.EISDIR if folder else errno.EINVAL, "Is a directory" if folder else "not a regular file")


def read_bytes(path: Path) -> bytes:
    """The content of a regular file. Raises OSError."""
    refuse_irregular(path)
    return path.read_bytes()


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises FileNotFoundError, or ValueError saying why it is none."""
    try:
        document = json.loads(read_bytes(path))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as e:
        raise ValueError(e.strerror or str(e)) from e
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    return document
