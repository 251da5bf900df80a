"""Batch sizes: which one is fastest, and whether a graph gives each row the same whatever shares its batch."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

DEFAULT = 16
"""Rows of a pass where nothing was measured."""
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_SMALLEST, _SLOW = 8, 0.5
TOLERANCE = 1e-3
_PATIENCE = 2  # sizes in a row that bring nothing before the search ends
_REPEATS = 3
_BUDGET = 5.0  # seconds for the whole search, about

Array = NDArray[np.floating]
Scalar = TypeVar("Scalar", bound=np.generic)


def best_size(rates: Mapping[int, float], rows: int | None = None, share: float = 0.05) -> int:
    """The largest size that is at most `share` slower than the fastest, counting useful rows a second.

    rates: rows/s by size. rows: how many are packed into batches at a time, None if unknown; padding of the last batch
    is not useful. The largest is taken since it leaves the host more work between two passes to share among the cores.
    """

    def useful(size: int) -> float:
        return rates[size] * (1.0 if rows is None else rows / (-(-rows // size) * size))

    best = max(map(useful, rates))
    return max(size for size in rates if useful(size) >= (1.0 - share) * best)


def measure(seconds: Callable[[int], float], limit: int) -> dict[int, float]:
    """Rates (rows/s) of growing sizes up to `limit`; stops when larger ones bring nothing, or memory runs out.

    `seconds` runs one batch of a size and returns how long it took; MemoryError from it ends the search. Sizes below 8
    leave the host too little to do between two passes. They are tried only where eight rows do not fit into memory, or
    where one row takes more than half a second.
    """
    began, idle = time.perf_counter(), 0
    try:
        seconds(1)
        slow = seconds(1) > _SLOW
    except MemoryError:
        return {1: 0.0}
    sizes = [size for size in SIZES if size <= max(limit, 1)]
    rates: dict[int, float] = {}
    for size in sizes if slow else [size for size in sizes if size >= _SMALLEST] or sizes:
        best = max(rates.values(), default=math.inf)
        left = _BUDGET - (time.perf_counter() - began)
        repeats = min(_REPEATS, int(left * best / size) - 1) if rates else _REPEATS
        if repeats < 1:
            break
        try:
            first = seconds(size)  # allocates and tunes
            if first > _BUDGET / _REPEATS:
                repeats = 1
            taken = statistics.median(seconds(size) for _ in range(repeats))
        except MemoryError:
            return rates or measure(seconds, size // 2)
        rates[size] = size / max(taken, 1e-9)
        idle = idle + 1 if rates[size] < 1.02 * best and len(rates) > 1 else 0
        if idle == _PATIENCE:
            break
    return rates


def rows_agree(together: Sequence[Array], alone: Sequence[Sequence[Array]]) -> bool:
    """Whether a batch's outputs, each (n, ...), match those of its rows run one by one.

    They may differ by 1e-3 of the row's largest value; NaN and infinities must be in the same places. False where the
    shapes do not correspond.
    """
    for number, batch in enumerate(together):
        if len(batch) != len(alone):
            return False
        for row, outputs in zip(batch, alone, strict=True):
            if outputs[number].shape != (1, *row.shape) or not _close(row, outputs[number][0]):
                return False
    return True


class Fault(NamedTuple):
    """A row that a batch of `size` gives otherwise than its image alone: at which place, which image, how far off.

    difference: of the largest value of the worst output; infinite where other values are finite.
    """

    size: int
    position: int
    row: int
    difference: float


def faults(
    forward: Callable[[NDArray[np.float32]], Sequence[Array]],
    rows: NDArray[np.float32],
    sizes: Sequence[int],
    alone: Sequence[Sequence[Array]],
    *,
    tolerance: float = TOLERANCE,
) -> Iterator[Fault]:
    """Put each of `rows`, (m, C, H, W), at every place of batches of `sizes`; what differs from `alone`.

    forward: one pass of exactly the rows it is given. alone: for each row its outputs, (1, ...) each. tolerance: of the
    largest value. Outputs that are no rows of the batch are faults at all their places.
    """
    for size in sizes:
        for turn in range(len(rows)):
            order = [(turn + position) % len(rows) for position in range(size)]
            together = forward(np.ascontiguousarray(rows[order]))
            for position, row in enumerate(order):
                pairs = zip(together, alone[row], strict=True)
                off = max(
                    _off(batch[position], out[0]) if batch.shape[:1] == (size,) else math.inf for batch, out in pairs
                )
                if off > tolerance:
                    yield Fault(size, position, row, off)


def _close(row: Array, single: Array) -> bool:
    return _off(row, single) <= TOLERANCE


def _off(row: Array, single: Array) -> float:
    """How far `row` is from `single`, as a part of its largest value; 1e-6 are nothing. Infinite for other shapes."""
    if row.shape != single.shape:
        return math.inf
    finite = np.isfinite(row) & np.isfinite(single)
    if not np.array_equal(row[~finite], single[~finite], equal_nan=True):
        return math.inf
    a, b = row[finite].astype(np.float64), single[finite].astype(np.float64)
    difference, largest = np.abs(a - b).max(initial=0.0) - 1e-6, np.abs(b).max(initial=0.0)
    return float(difference / largest) if difference > 0 and largest else math.inf if difference > 0 else 0.0


def fit(rows: NDArray[Scalar], size: int) -> NDArray[Scalar]:
    """`rows` brought to `size` rows by repeating the last one, C-contiguous."""
    if len(rows) < size:
        rows = np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])
    return np.ascontiguousarray(rows)
