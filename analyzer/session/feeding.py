"""What a forward pass is fed: finished network input, or integer words from which the device computes it."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyzer.graph import Prepared
from analyzer.session import batching


class Words(NamedTuple):
    """Network input as `words * scales + base`, float32: what `graph.composed` computes on the device.

    words (n, C, H, W) int16, scales (n, C, 1, 1) float32, base (1, C, H, W) for all rows or (n, C, H, W), float32.
    """

    words: NDArray[np.int16]
    scales: NDArray[np.float32]
    base: NDArray[np.float32]


Feed = NDArray[np.float32] | Words


def rows_of(feed: Feed) -> int:
    """Number of images in a feed."""
    return len(feed.words) if isinstance(feed, Words) else len(feed)


def cut(feed: Feed, start: int, size: int) -> Feed:
    """`size` rows from `start` on, filled up by repeating the last one where there are fewer."""
    if not isinstance(feed, Words):
        return batching.fit(feed[start : start + size], size)
    rows = slice(start, start + size)
    base = feed.base if len(feed.base) == 1 else batching.fit(feed.base[rows], size)
    return Words(batching.fit(feed.words[rows], size), batching.fit(feed.scales[rows], size), base)


def copies(row: NDArray[np.float32], size: int) -> Words:
    """`size` rows that are all `row` (1, C, H, W), as words: every perturbation 0."""
    _, channels, *plane = row.shape
    return Words(np.zeros((size, channels, *plane), np.int16), np.zeros((size, channels, 1, 1), np.float32), row)


def tensors(feed: Feed, prepared: Prepared) -> dict[str, NDArray[Any]]:
    """The runtime's inputs by name. Words need a composed graph; finished input goes into either kind."""
    if not prepared.parts:
        assert not isinstance(feed, Words)
        return {prepared.input: feed}
    if not isinstance(feed, Words):
        feed = copies(feed[:1], 1)._replace(base=feed)
    return dict(zip(prepared.parts, feed, strict=True))
