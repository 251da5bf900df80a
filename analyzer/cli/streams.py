"""stdout and stderr that cannot fail: neither a reader that has gone nor a full disk changes an exit code."""

import contextlib
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class Unfailing(io.RawIOBase):
    """The bytes below a text stream. The first failure stays in `error`, and whatever follows it is dropped."""

    def __init__(self, below: Any) -> None:
        self.error: OSError | None = None
        self._below = below

    def writable(self) -> bool:
        """It can be written."""
        return True

    def isatty(self) -> bool:
        """Whether a person is looking."""
        return bool(self._below.isatty())

    def fileno(self) -> int:
        """The descriptor of the stream below."""
        return int(self._below.fileno())

    def write(self, data: Any) -> int:
        """Take all of `data`, whether or not it can be written."""
        view = memoryview(data).cast("B")
        done = 0
        while self.error is None and done < len(view):
            try:
                count = self._below.write(view[done:])
                if count is None:  # a pipe that does not wait
                    select.select([], [self._below], [])
                done += count or 0
            except OSError as e:
                self.error = e
        return len(view)

    def flush(self) -> None:
        """Hand on what the stream below holds back."""
        if self.error is None and not self.closed:
            try:
                self._below.flush()
            except OSError as e:
                self.error = e


@contextlib.contextmanager
def unfailing() -> Iterator[Unfailing | None]:
    """Put streams that cannot fail in the place of stdout and stderr; the block gets stdout's, None where it has none.

    A closed stream becomes a silent one, and a character that the locale cannot write is escaped.
    """
    before = sys.stdout, sys.stderr
    made: list[Unfailing | None] = []
    for name in ("stdout", "stderr"):
        stream: TextIO | None = getattr(sys, name)
        below = getattr(stream, "buffer", None)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif below is not None:
            with contextlib.suppress(OSError):
                stream.flush()
            # Past the buffer below: what cannot be written would stay there, and fail again when the process ends.
            raw = Unfailing(getattr(below, "raw", below))
            text = io.TextIOWrapper(
                io.BufferedWriter(raw),
                encoding=stream.encoding,
                errors="backslashreplace",
                line_buffering=name == "stderr" or raw.isatty(),
            )
            setattr(sys, name, text)
            made.append(raw)
            continue
        made.append(None)
    try:
        yield made[0]
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        for stream, old in zip((sys.stdout, sys.stderr), before, strict=True):
            if old is not None and stream is not old and isinstance(stream, io.TextIOWrapper):
                with contextlib.suppress(OSError, ValueError):
                    stream.detach()  # its end would close the stream below
        sys.stdout, sys.stderr = before
