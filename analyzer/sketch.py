"""Sketches of features: 31 numbers for a row that keep the squared length of every difference between rows.

Two runs made on two machines can be held against each other layer by layer without their features. The sketch is a
count sketch (Charikar, Chen and Farach-Colton, "Finding frequent items in data streams", ICALP 2002; as a projection:
Weinberger et al., "Feature hashing for large scale multitask learning", ICML 2009):

    s_b = sum over i with i mod 31 = b of sign_i * f_i

The signs are random bits that depend on the seed and the number of features F only: not on the layer's name, which
differs from build to build. The sketch is linear, and over the signs E ||s(d)||^2 = ||d||^2 for every vector d. The
variance is 2 sum_b ((sum_i d_i^2)^2 - sum_i d_i^4), both over the i of bucket b: where the squares are spread evenly
over many features, a squared length has a relative standard error of sqrt(2 / 31) = 25 %, a length of 13 %; up to 31
features the sketch is exact. 31 is a prime, so that channels and columns of a feature map do not gather in one bucket.
All rows share their signs: of one and the same difference in every row, more rows tell no more. The clean image, which
is one row, has a finer sketch of 1,023 = 33 x 31 buckets, whose lengths err by 2 %; `coarser` makes 31 of them.
"""

import functools

import numpy as np
from numpy.typing import NDArray

from analyzer.perturbations import derived_key, random_words

BUCKETS = 31
FINE = 33 * BUCKETS
"""Buckets of the clean image's sketch."""
STANDARD_ERROR = (2 / BUCKETS) ** 0.5
"""Relative, of a squared length whose squares are spread evenly over many features."""
TRIALS = 20
"""Of each radius, the rows of so many trials are sketched: their median needs no more."""


@functools.lru_cache(maxsize=64)
def signs(seed: int, size: int) -> NDArray[np.float32]:
    """+1 or -1 for each of `size` features, float32, read-only. The same for one seed and size on every machine.

    >>> set(signs(0, 100).tolist())
    {1.0, -1.0}
    """
    words = random_words(derived_key("sketch", seed, size), -(-size // 64))
    bits = np.unpackbits(words.astype("<u8", copy=False).view(np.uint8), count=size, bitorder="little")
    drawn = bits.astype(np.float32) * 2 - 1
    drawn.flags.writeable = False
    return drawn


def sketch(rows: NDArray[np.floating], *, seed: int, buckets: int = BUCKETS) -> NDArray[np.float32]:
    """The sketch of each row, in its unit.

    Args:
        rows: (n, F), any real type.
        seed: Of the whole run; sketches of one seed and one F can be subtracted from each other.
        buckets: B, BUCKETS or FINE.

    Returns:
        (n, B), float32. NaN where features are not finite.

    >>> rows = np.eye(3, 31)
    >>> np.abs(sketch(rows, seed=0)).tolist() == rows.tolist()
    True
    """
    count, size = rows.shape
    padded = np.zeros((count, -(-size // buckets) * buckets), np.float32)
    with np.errstate(invalid="ignore"):
        np.multiply(rows, signs(seed, size), out=padded[:, :size], casting="unsafe")
        return np.asarray(padded.reshape(count, -1, buckets).sum(axis=1))


def coarser(fine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sketches of FINE buckets as sketches of BUCKETS: (..., 1023) -> (..., 31)."""
    return np.asarray(fine.reshape(*fine.shape[:-1], -1, BUCKETS).sum(axis=-2))
