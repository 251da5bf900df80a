"""A file that HDF5 can close even when the disk is full."""

import io
from collections.abc import Callable
from typing import IO, Any


class DeferredErrorFile(io.RawIOBase):
    """A file for HDF5 that keeps the first failure in `error` and drops all writes from then on.

    HDF5 cannot close a file whose writes fail: it complains for ever and then crashes the process.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.error: OSError | None = None
        self._file, self._position, self._end = file, 0, 0

    def seekable(self) -> bool:
        """It has positions."""
        return True

    def readable(self) -> bool:
        """It can be read."""
        return True

    def writable(self) -> bool:
        """It can be written."""
        return True

    def tell(self) -> int:
        """Position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position and return it."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._end}[whence]
        return self._position

    def truncate(self, size: int | None = None) -> int:
        """Make the file end at `size`, the present position by default."""
        self._end = self._position if size is None else size
        self._try(lambda: self._file.truncate(self._end))
        return self._end

    def write(self, data: Any) -> int:
        """Take all of `data`, whether or not it can be written."""
        self._try(lambda: (self._file.seek(self._position), self._file.write(data)))
        count = memoryview(data).nbytes
        self._position += count
        self._end = max(self._end, self._position)
        return count

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`, with zeros where nothing was written."""
        view = memoryview(buffer).cast("B")
        view[:] = bytes(len(view))
        self._try(lambda: (self._file.seek(self._position), self._file.readinto(view)))  # type: ignore[attr-defined]
        self._position += len(view)
        return len(view)

    def _try(self, action: Callable[[], object]) -> None:
        if self.error is None:
            try:
                action()
            except OSError as e:
                self.error = e
