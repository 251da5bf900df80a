"""Pooling windows along one axis at a time: a pooling layer's window is the product of its axes' windows."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Axis(NamedTuple):
    """Pooling along one axis: the input's size (None where unknown), kernel, stride, dilation and padding."""

    size: int | None
    kernel: int
    stride: int
    dilation: int = 1
    before: int = 0
    after: int = 0
    ceil: bool = False


def axes(
    size: Sequence[int | None],
    kernel: Sequence[int],
    *,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    ceil: bool = False,
) -> list[Axis]:
    """One `Axis` each; pads in ONNX's order: all beginnings, then all ends."""
    count = len(kernel)
    return [Axis(size[i], kernel[i], strides[i], dilations[i], pads[i], pads[count + i], ceil) for i in range(count)]


def covered(axis: Axis) -> NDArray[np.int64]:
    """Input positions that each window covers: (windows, kernel). Position 0 is the first one of the padding."""
    assert axis.size is not None
    extent = axis.size + axis.before + axis.after - ((axis.kernel - 1) * axis.dilation + 1)
    count = max((-(-extent // axis.stride) if axis.ceil else extent // axis.stride) + 1, 1)
    if axis.ceil and (count - 1) * axis.stride >= axis.size + axis.before:
        count -= 1  # a window that would begin in the padding at the end
    starts = np.arange(count) * axis.stride
    return np.asarray(starts[:, None] + np.arange(axis.kernel) * axis.dilation)


def overlap(axis: Axis) -> int:
    """The most windows that one input position lies in, along one axis."""
    if axis.size is None:
        return math.ceil(axis.kernel / (axis.stride // math.gcd(axis.stride, axis.dilation)))
    positions = covered(axis) - axis.before
    inside = positions[(positions >= 0) & (positions < axis.size)]
    return int(np.bincount(inside).max()) if inside.size else 0


def maximum_norm(of: Sequence[Axis]) -> float:
    """Lipschitz constant of max pooling: the root of the most windows that share one input. A spike attains it.

    |max_W x - max_W y| <= max_W |x - y| <= norm_W(x - y) for each window W; the squares add up to at most that many
    times norm(x - y)^2.
    """
    return math.sqrt(math.prod(map(overlap, of)))


def average_norm(of: Sequence[Axis], *, count_padding: bool) -> float:
    """Norm of average pooling, exactly: the product over the axes of the norms of their small averaging matrices.

    The matrix of the layer is the Kronecker product of these, since the number of inputs in a window is a product too.
    count_padding: whether zeros from the padding count, as far as there is padding.
    """
    return math.prod(float(np.linalg.norm(_averaging(axis, count_padding), 2)) for axis in of)


def _averaging(axis: Axis, count_padding: bool) -> NDArray[np.float64]:
    assert axis.size is not None
    positions = covered(axis)
    inside = (positions >= axis.before) & (positions < axis.before + axis.size)
    counted = positions < axis.before + axis.size + axis.after if count_padding else inside
    matrix = np.zeros((len(positions), axis.size))
    rows, columns = np.nonzero(inside)
    matrix[rows, positions[rows, columns] - axis.before] = (1 / np.maximum(counted.sum(axis=1), 1))[rows]
    return matrix
