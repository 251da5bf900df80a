"""Names and bytes of files: what the other modules here share."""

import os
import stat
import unicodedata
from pathlib import Path

MAX_BYTES = 256 * 2**20


def identifier(name: str | bytes) -> str:
    """A printable-as-UTF-8 name, the same in every locale and different for different names.

    Bytes that are not UTF-8, and control characters, become ``\\xNN``; a backslash that is really there is doubled, so
    that a file called ``\\xff`` in four characters is not taken for the one whose name is the byte 255.
    """
    text = os.fsencode(name).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return "".join(f"\\x{ord(c):02x}" if unicodedata.category(c) == "Cc" else c for c in text)


def regular_bytes(path: Path) -> bytes:
    """The content of a regular file of at most `MAX_BYTES`. Raises OSError; never waits on a FIFO or a device."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    # A folder's descriptor would stay open if `fdopen` were given it, so the kind is looked at first.
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError("not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        if status.st_size > MAX_BYTES:
            raise OSError(f"{status.st_size} bytes, above the limit of {MAX_BYTES}")
        return file.read()
