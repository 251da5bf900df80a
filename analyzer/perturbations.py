"""Keyed perturbations of one image: the noise family (Eq. 4) and the permutation family (Eq. 6) of Aghdam et al. 2017,
and Gaussian noise, as randomised smoothing needs it (Cohen et al. 2019).

A perturbation depends only on (seed, SHA-256 of the image file, pixel shape, family, radius, trial). Its integer
words are bits of numpy's Philox4x64-10, a counter-based generator (Salmon et al., "Parallel random numbers: as easy
as 1, 2, 3", SC 2011). They are read by `random_raw`, whose stream numpy promises to keep. They do not depend on the
network, its layout, the norm, the batch, or on which other radii and trials are asked for.

Element order is C, H, W with RGB channels. The words are odd integers in -32767..32767, so nu = word / 32768 is uniform
on 32,768 levels that are exactly symmetric about zero. What is added to the pixels is

    delta = radius * nu / ||nu||        in grey levels, ||.|| the L-infinity or the L2 norm

Gaussian noise has the standard deviation `radius` for each pixel value instead, and no length of its own.

`words` gives integers, `scales` the factor of each row; `words * scale` is delta.
"""

import functools
import hashlib
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.errors import UsageError

FAMILIES = ("noise", "permutation", "gaussian")
NORMS = ("linf", "l2")
_WORDS_PER_COUNTER = 16  # one Philox counter step yields 4 x 64 bits
_NORMALS_PER_COUNTER = 8
_ODD = np.uint64(0x0001_0001_0001_0001)
_DEVIATION = 5120  # words in the standard deviation of Gaussian noise: the farthest of 2^32, 6.34, is an int16


def key(*, seed: int, sha256: str, shape: Sequence[int], family: str, radius: float) -> int:
    """The 128-bit Philox key of one image, family and radius (the radius enters as IEEE float64)."""
    if family not in FAMILIES:
        raise UsageError(f"family {family!r} is not one of {', '.join(FAMILIES)}")
    return derived_key("perturbation", seed, sha256, *shape, family, float(radius))


def derived_key(purpose: str, *parts: int | float | str) -> int:
    """A 128-bit Philox key. It is the same only where purpose, types and values of all parts are.

    Args:
        purpose: What the random bits are for; keeps the streams of different uses apart.
        parts: What they depend on.

    >>> derived_key("noise", 1, 2.0) == derived_key("noise", 1, 2)
    False
    """
    digest = hashlib.sha256(f"convnet-analyzer/1/{purpose}".encode())
    for part in parts:
        data = struct.pack("<d", part) if isinstance(part, float) else str(part).encode()
        digest.update(struct.pack("<cQ", type(part).__name__[:1].encode(), len(data)) + data)
    return int.from_bytes(digest.digest()[:16], "little")


def random_words(philox_key: int, count: int, *, counter: int = 0) -> NDArray[np.uint64]:
    """Words of a Philox stream, the same on every machine. Shape (count,), uint64.

    Args:
        philox_key: 128 bits, such as `derived_key` gives.
        count: How many words.
        counter: Where in the stream they begin, in steps of four words.

    >>> hex(random_words(0, 1)[0])
    '0x2f4ba6408e4d89b'
    >>> bool(random_words(0, 8)[4] == random_words(0, 1, counter=1)[0])
    True
    """
    raw: Any = np.random.Philox(key=philox_key, counter=counter).random_raw(count)
    return np.asarray(raw, dtype=np.uint64)


class Perturbations:
    """The perturbations of one image, family and radius: rows of D = C * H * W integer words, and their scales.

    Noise family: row i is its own stretch of the Philox stream, so rows can be had in any number and order.

    Permutation family: one noise row nu, and row i is nu reordered by a conjugated cyclic shift,

        row_i[k] = nu[(tau[k] + tau[i]) mod D]

    where tau is a permutation of 0..D-1, drawn once from (seed, shape). Each row has the elements of nu, and the
    reorderings of the first D trials all differ. They are not drawn uniformly from all D! permutations. But nu is
    i.i.d. and tau has no spatial structure, so no translation-equivariant layer can tell them from such a draw. There
    are D such shifts: from trial D on, row i is nu in an order drawn uniformly from all D!, by sorting random words of
    its own stretch of a Philox stream.

    Gaussian family: the normal quantile of 32 random bits, rounded to 1/5120 of the standard deviation; it reaches to
    6.3 of them.

    Args:
        seed: Of the whole run.
        sha256: Of the image's file, in hex.
        shape: (C, H, W) of the image's pixels.
        family: "noise", "permutation" or "gaussian".
        radius: Length of each perturbation, in grey levels; of the Gaussian family the standard deviation.
        trials: How many perturbations.
        norm: Which length: "linf" or "l2".

    Raises:
        UsageError: The family or the norm is unknown.

    >>> drawn = Perturbations(seed=0, sha256="ab", shape=(3, 2, 2), family="noise", radius=5, trials=4)
    >>> words = drawn.words(range(2))
    >>> words.shape, drawn.scales(words).shape
    ((2, 12), (2,))
    >>> float(abs(words[0] * drawn.scales(words)[0]).max())
    5.0
    """

    def __init__(
        self,
        *,
        seed: int,
        sha256: str,
        shape: Sequence[int],
        family: str,
        radius: float,
        trials: int,
        norm: str = "linf",
    ) -> None:
        if norm not in NORMS:
            raise UsageError(f"norm {norm!r} is not one of {', '.join(NORMS)}")
        self.radius, self.trials, self.family, self.norm = float(radius), trials, family, norm
        self.size = int(np.prod(shape))
        self._key = key(seed=seed, sha256=sha256, shape=shape, family=family, radius=radius)
        if family == "permutation":
            self._tau = index(seed, tuple(shape))
            row = _noise_rows(self._key, self.size, range(1))
            self._length = _lengths(row, norm)
            self._twice = np.concatenate([row[0], row[0]])

    def words(self, trials: range) -> NDArray[np.int16]:
        """Rows of the given trials, shape (len(trials), size): integers, odd ones but of the Gaussian family."""
        if self.family == "noise":
            return _noise_rows(self._key, self.size, trials)
        if self.family == "gaussian":
            return _gaussian_rows(self._key, self.size, trials)
        rows = np.empty((len(trials), self.size), np.int16)
        for trial, row in zip(trials, rows, strict=True):
            if trial >= self.size:
                row[:] = self._twice[self._drawn_order(trial)]
                continue
            shift = self._tau[trial]
            # With a mode other than "raise", numpy writes into `out` without a buffer; tau is in range.
            self._twice[shift : shift + self.size].take(self._tau, out=row, mode="clip")
        return rows

    def _drawn_order(self, trial: int) -> NDArray[np.intp]:
        """A permutation of range(D) of a trial's own, for trials from D on."""
        steps = -(-self.size // 4)  # a counter step yields four words
        words = random_words(derived_key("reordering", self._key), self.size, counter=trial * steps)
        return np.argsort(words, kind="stable")

    def scales(self, words: NDArray[np.int16]) -> NDArray[np.float64]:
        """radius / ||row|| of each row that `words` returned, shape (len(words),): delta = word * scale."""
        if self.family == "gaussian":
            return np.broadcast_to(self.radius / _DEVIATION, len(words))
        if self.family == "permutation":
            return np.broadcast_to(self.radius / self._length, len(words))
        return np.asarray(self.radius / _lengths(words, self.norm))


@functools.lru_cache(maxsize=2)
def index(seed: int, shape: tuple[int, ...]) -> NDArray[np.intp]:
    """tau: a permutation of range(D), D = prod(shape), drawn from (seed, shape) by sorting random words. Shape (D,).

    It is read-only, and kept for the next image.
    """
    words = random_words(derived_key("tau", seed, *shape), int(np.prod(shape)))
    order = np.argsort(words, kind="stable")
    order.flags.writeable = False
    return order


def deltas(
    *,
    seed: int,
    sha256: str,
    shape: Sequence[int],
    family: str,
    radius: float,
    trials: int,
    norm: str = "linf",
) -> NDArray[np.float32]:
    """What is added to the pixels of an image, in grey levels. Shape (trials, C, H, W), float32.

    Args:
        seed: Of the whole run.
        sha256: Of the image's file, in hex.
        shape: (C, H, W) of the image's pixels.
        family: "noise", "permutation" or "gaussian".
        radius: Length of each perturbation, in grey levels; of the Gaussian family the standard deviation.
        trials: How many perturbations.
        norm: Which length: "linf" or "l2".

    Raises:
        UsageError: The family or the norm is unknown.

    >>> noise = deltas(seed=0, sha256="ab", shape=(3, 4, 5), family="noise", radius=2, trials=7)
    >>> noise.shape, bool(np.allclose(abs(noise).max(axis=(1, 2, 3)), 2))
    ((7, 3, 4, 5), True)
    """
    drawn = Perturbations(seed=seed, sha256=sha256, shape=shape, family=family, radius=radius, trials=trials, norm=norm)
    words = drawn.words(range(trials))
    return (words * drawn.scales(words).astype(np.float32)[:, None]).reshape(trials, *shape)


def _noise_rows(philox_key: int, size: int, trials: range) -> NDArray[np.int16]:
    """Rows of a key's noise, shape (len(trials), size): each row takes a whole number of counter steps."""
    steps = -(-size // _WORDS_PER_COUNTER)
    raw = random_words(philox_key, len(trials) * steps * 4, counter=trials.start * steps)
    np.bitwise_or(raw, _ODD, out=raw)
    words = raw.astype("<u8", copy=False).view("<i2")
    return words.reshape(len(trials), steps * _WORDS_PER_COUNTER)[:, :size].astype(np.int16, copy=False)


def _gaussian_rows(philox_key: int, size: int, trials: range) -> NDArray[np.int16]:
    """Rows of a key's Gaussian noise, shape (len(trials), size), in words of which `_DEVIATION` are one deviation.

    No 32 bits lie so near a rounding boundary that the last digits of the quantile function decide (tests).
    """
    from scipy.special import ndtri

    steps = -(-size // _NORMALS_PER_COUNTER)
    raw = random_words(philox_key, len(trials) * steps * 4, counter=trials.start * steps)
    bits = raw.astype("<u8", copy=False).view("<u4").reshape(len(trials), steps * _NORMALS_PER_COUNTER)[:, :size]
    return np.asarray(np.rint(_DEVIATION * ndtri((bits + 0.5) / 2.0**32)), np.int16)


def _lengths(words: NDArray[np.int16], norm: str) -> NDArray[np.float64]:
    """The norm of each row, exact: (n, size) -> (n,)."""
    if norm == "linf":
        # Odd words reach neither 0 nor -32768, so the negative of an int16 is one.
        return np.asarray(np.maximum(words.max(axis=1), -words.min(axis=1)), dtype=np.float64)
    # Squares of 15-bit integers add up exactly in float64, so the norm is the same on every machine.
    return np.array([np.sqrt(np.dot(row, row)) for row in (r.astype(np.float64) for r in words)])
