"""Energies of a convolution's response to noise, from sums over M = A^T A, and the kernel's spectrum.

A is one filter of the layer as a matrix, (N outputs, D inputs). The matrix M is never formed. In shapes, M and filter
both stand for the number of filters.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

if TYPE_CHECKING:
    from analyzer.graph.kernel import Convolution

Array = NDArray[np.float64]
GRID = 64
"""Frequencies of a spectrum along each axis."""


class Moments(NamedTuple):
    """Of the energy E = norm(A u)^2 of each filter's response over the draws u, (M,) each."""

    mean: Array
    variance: Array
    shared: Array
    """Mean product of two draws' responses, E[u^T M u']."""


class Sums(NamedTuple):
    """Sums over M = A^T A, with M_c = P M P of the centring P = I - 11^T / D; (filter,) each."""

    trace: Array
    total: Array
    squares: Array
    """sum_ij M_ij^2."""
    diagonal_squares: Array
    row_squares: Array
    """sum_i (M1)_i^2."""
    centred_diagonal_squares: Array
    """Of M_c."""
    diagonal_rows: Array
    """sum_i (M1 - mean)_i (M_c)_ii."""


def responses(layer: "Convolution", perturbation: Array) -> Array:
    """Change of the layer's output when this is added to the pixels: (C, H, W) -> (M, rows, columns), float64."""
    top, left, bottom, right = layer.pads
    padded = np.pad(np.asarray(perturbation, np.float64), ((0, 0), (top, bottom), (left, right)))
    windows = sliding_window_view(padded, layer.span, axis=(1, 2))
    (down, across), (high, wide) = layer.strides, layer.dilations
    windows = windows[:, ::down, ::across, ::high, ::wide]
    maps: Array = np.tensordot(layer.weights, windows, axes=((1, 2, 3), (0, 3, 4)))
    return maps


def spectrum(layer: "Convolution", size: int = GRID) -> Array:
    """|W(f)|^2 of the kernel, summed over channels: (M, size, size), frequency 0 in the middle, before any stride."""
    spread = np.zeros((*layer.weights.shape[:2], *layer.span))
    spread[:, :, :: layer.dilations[0], :: layer.dilations[1]] = layer.weights
    size = max(size, *layer.span)
    power = (np.abs(np.fft.fft2(spread, s=(size, size))) ** 2).sum(axis=1)
    return np.asarray(np.fft.fftshift(power, axes=(1, 2)))


def participation(layer: "Convolution") -> Array:
    """b = (mean_f |W|^2)^2 / mean_f |W|^4 of each filter, folded by the stride: (M,), NaN where the filter is 0.

    By Parseval R(0)^2 / sum_t R(t)^2, R(t) = w * w at the displacements t between output positions.
    """
    squares = sum(weight * products.sum(axis=(1, 2)) ** 2 for weight, _, products in _lags(layer))
    energy = (layer.weights**2).sum(axis=(1, 2, 3))
    ratio: Array = np.divide(energy**2, squares, out=np.full(len(energy), np.nan), where=energy > 0)
    return ratio


def fresh(sums: Sums, *, kurtosis: float) -> Moments:
    """Energy under i.i.d. noise of mean 0, variance 1 and this kurtosis: tr M and 2 tr M^2 + (k - 3) sum_i M_ii^2."""
    return Moments(sums.trace, 2 * sums.squares + (kurtosis - 3) * sums.diagonal_squares, np.zeros(len(sums.trace)))


def reordered(sums: Sums, values: Array) -> Moments:
    """Energy over all orders, equally likely, of the values of a perturbation, (D,) with D >= 4. Exact.

    With the mean m of the values, a = values - m, power sums S_p = sum a^p, and M_c = P M P, t_c = tr M_c,
    G = 1^T M 1, c = sum_i (M1)_i (M_c)_ii:

        mean   = m^2 G + B,  B = S_2 t_c / (D - 1);  shared = m^2 G
        var    = 4 m^2 S_2 / (D - 1) (norm(M1)^2 - G^2 / D) + 4 m c S_3 D / ((D - 1)(D - 2)) + E[B^2] - B^2

    where E[B^2] adds up the fourth moments of draws without replacement over the patterns of equal indices.
    """
    n = float(values.size)
    mean = values.mean()
    second, third, fourth = (((values - mean) ** power).sum() for power in (2, 3, 4))
    two, three, four = n * (n - 1), n * (n - 1) * (n - 2), n * (n - 1) * (n - 2) * (n - 3)
    trace = sums.trace - sums.total / n
    squares = sums.squares - 2 * sums.row_squares / n + sums.total**2 / n**2
    diagonal = sums.centred_diagonal_squares
    product = (
        fourth / n * diagonal
        + (second**2 - fourth) / two * (trace**2 + 2 * squares - 3 * diagonal)
        + fourth / two * 4 * diagonal
        + (2 * fourth - second**2) / three * (12 * diagonal - 2 * trace**2 - 4 * squares)
        + (3 * second**2 - 6 * fourth) / four * (trace**2 + 2 * squares - 6 * diagonal)
    )
    quadratic = second * trace / (n - 1)
    linear = second / (n - 1) * (sums.row_squares - sums.total**2 / n)
    mixed = sums.diagonal_rows * third * n / ((n - 1) * (n - 2))
    variance = 4 * mean**2 * linear + 4 * mean * mixed + product - quadratic**2
    shared = mean**2 * sums.total
    return Moments(shared + quadratic, variance, shared)


def sums_of(layer: "Convolution") -> Sums:
    """The sums over M, filter by filter, from the kernel alone: M is never formed."""
    ones = np.ones(layer.positions)
    row_sums = responses(layer, np.ones((layer.weights.shape[1], *layer.size)))
    columns = []
    for taps, seen in zip(layer.weights, row_sums, strict=True):
        diagonal, rows = _back(layer, taps**2, ones).ravel(), _back(layer, taps, seen).ravel()
        n, total = diagonal.size, rows.sum()
        centred = diagonal - 2 * rows / n + total / n**2
        columns.append(
            (
                diagonal.sum(),
                total,
                (diagonal**2).sum(),
                (rows**2).sum(),
                (centred**2).sum(),
                ((rows - total / n) * centred).sum(),
            )
        )
    trace, totals, diagonals, row_squares, centred_squares, mixed = np.array(columns).T
    return Sums(trace, totals, _gram_squares(layer), diagonals, row_squares, centred_squares, mixed)


def _back(layer: "Convolution", taps: Array, plane: Array) -> Array:
    """The transposed convolution: taps (C, kh, kw), plane (rows, columns) -> (C, H, W)."""
    top, left, bottom, right = layer.pads
    height, width = layer.size
    padded = np.zeros((len(taps), height + top + bottom, width + left + right))
    rows, columns = plane.shape
    (down, across), (high, wide) = layer.strides, layer.dilations
    for y, x in np.ndindex(*taps.shape[1:]):
        target = padded[:, y * high :: down, x * wide :: across][:, :rows, :columns]
        target += taps[:, y, x, None, None] * plane
    return padded[:, top : top + height, left : left + width]


def _gram_squares(layer: "Convolution") -> Array:
    """norm_F(A A^T)^2 = tr M^2, (M,): pairs of output positions by displacement, taps outside the image left out."""
    inside = []
    for axis, (count, extent) in enumerate(zip(layer.positions, layer.size, strict=True)):
        starts = np.arange(count) * layer.strides[axis] - layer.pads[axis]
        places = starts[:, None] + np.arange(layer.weights.shape[2 + axis]) * layer.dilations[axis]
        inside.append(((places >= 0) & (places < extent)).astype(np.float64))
    total = np.zeros(len(layer.weights))
    for weight, (down, across), products in _lags(layer):
        vertical, horizontal = (
            each[max(0, -shift) : max(0, len(each) - max(0, shift))]
            for each, shift in zip(inside, (down, across), strict=True)
        )
        total += weight * ((vertical @ products @ horizontal.T) ** 2).sum(axis=(1, 2))
    return total


def _lags(layer: "Convolution") -> Iterator[tuple[int, tuple[int, int], Array]]:
    """Products of a kernel with itself, at every displacement between output positions at which they overlap.

    Yields (how many displacements it stands for, displacement, products summed over channels): (M, kh, kw), product
    [k] being w[k] w[k - stride * displacement / dilation], 0 where there is no such tap.
    """
    weights = layer.weights
    reach = []
    for stride, dilation, taps in zip(layer.strides, layer.dilations, weights.shape[2:], strict=True):
        step = dilation // math.gcd(stride, dilation)
        most = (taps - 1) * dilation // stride
        reach.append([(t, t * stride // dilation) for t in range(-most, most + 1) if t % step == 0])
    for down, y in reach[0]:
        for across, x in reach[1]:
            if (down, across) < (0, 0):
                continue
            products = np.zeros((len(weights), *weights.shape[2:]))
            height, width = weights.shape[2:]
            here = np.s_[:, :, max(0, y) : height + min(0, y), max(0, x) : width + min(0, x)]
            there = np.s_[:, :, max(0, -y) : height + min(0, -y), max(0, -x) : width + min(0, -x)]
            products[here[:1] + here[2:]] = (weights[here] * weights[there]).sum(axis=1)
            yield (1 if (down, across) == (0, 0) else 2), (down, across), products
