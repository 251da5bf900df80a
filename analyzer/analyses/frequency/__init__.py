"""The frequency argument of section 2.2, made quantitative: what reordering noise does to the first convolution.

The paper argues that K * nu and K * P nu differ, since nu and P nu have different Fourier transforms. They do. The
questions are by how much, in what way, and whether reordering is the cause. Let y = A u be the response of one filter,
M = A^T A, and E = norm(y)^2 = u^T M u the energy of its response map over N positions:

- *The maps differ by sqrt(2) of their own norm*: reordered zero-mean noise is uncorrelated with the original, as fresh
  noise is. Only the sum of all elements survives a reordering.
- *The mean energy* of i.i.d. noise of variance s^2 is s^2 tr M = s^2 N mean_f |W(f)|^2 for any kernel and any order.
- *The spread of the energy* depends on the spectrum. For i.i.d. noise of kurtosis k (1.8 where it is uniform)

      var E = s^4 (2 tr M^2 + (k - 3) sum_i M_ii^2),    tr M^2 = N mean_f |W(f)|^4 but for the borders,

  Let b = (mean_f |W|^2)^2 / mean_f |W|^4 be the participation ratio of the spectrum: 1 where it is flat, small where it
  is peaked. Then var E / (mean E)^2 is about 2 / (N b). Reordering one vector keeps its norm and its sum: where the
  kernel's energy is spread evenly over the D inputs, this leaves 2 / (N b) - 2 / D, for any k.
- *The norms of two maps* therefore differ by sqrt(var E / pi) / mean E of themselves on average, half the relative
  difference of two normal energies: by sqrt((2 / pi) (1 / (N b) - 1 / D)). This is 0 for a delta kernel on one channel,
  and falls with the size of the map.

So a convolution is not permutation-symmetric, but reordering the noise changes its response about as much as drawing
fresh noise does. `energy` computes all variances exactly, with borders, strides and the values of the noise at hand; W
is folded by the stride.

energy       moments of the energy, spectra
documents    the result as a document
sentences    the result in words
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analyzer.analyses.frequency import energy
from analyzer.analyses.frequency.documents import FAMILIES
from analyzer.analyses.frequency.documents import document as document
from analyzer.analyses.frequency.documents import layer_document as layer_document
from analyzer.errors import UsageError
from analyzer.perturbations import Perturbations

if TYPE_CHECKING:
    from analyzer.graph.kernel import Convolution

Array = NDArray[np.float64]
_UNIFORM = 1.8  # kurtosis


@dataclasses.dataclass(frozen=True, eq=False)
class Frequency:
    """How the responses of a layer's M filters to two draws of noise differ.

    Family 0 reorders one noise vector, family 1 draws it anew. All values are NaN for a filter that is 0 everywhere.
    """

    participation: Array
    """(filter,), participation ratio b of |W(f)|^2, in 0..1."""
    map_difference: Array
    """(family, filter): mean over pairs of draws of norm(y - y') / norm(y)."""
    map_difference_predicted: Array
    """(family, filter)."""
    norm_difference: Array
    """(family, filter): mean over pairs of |norm(y) - norm(y')|, over the mean norm."""
    norm_difference_predicted: Array
    """(family, filter)."""
    spectrum: Array
    """(filter, vertical frequency, horizontal frequency), |W(f)|^2 of the kernel, -1/2..1/2 cycles a pixel."""
    positions: int
    """N, elements of a response map."""
    dimension: int
    """D, elements of a perturbation."""


def analyse(layer: "Convolution", *, trials: int = 100, seed: int = 0) -> Frequency:
    """Measure and predict how a layer's response changes when noise is reordered, and when it is drawn anew.

    Norms are compared over all pairs of draws, maps over pairs of consecutive draws, in float64. The draws are those
    of `perturbations`, for no image in particular.

    Args:
        layer: weights (M, C, kernel height, kernel width), from `analyzer.graph.kernel.first_convolution`.
        trials: reorderings of one noise vector, and fresh noise vectors.
        seed: of the noise.

    Returns:
        Relative differences without a unit, (family, filter), family 0 being reordered noise and 1 fresh noise.

    Raises:
        UsageError: fewer than 3 trials.

    A convolution of a single tap passes the noise on, so that reordering does not change the norm of its response:

    >>> import numpy as np
    >>> from analyzer.graph.kernel import Convolution
    >>> frequency = analyse(Convolution(weights=np.ones((1, 1, 1, 1)), size=(16, 16)), trials=10)
    >>> bool(frequency.norm_difference[0, 0] < 1e-12)
    True
    >>> print(f"{frequency.norm_difference[1, 0]:.2f}")
    0.03
    """
    if trials < 3:
        raise UsageError(f"`trials` {trials}: at least 3 are needed")
    measured = [_measured(layer, family, trials, seed) for family in FAMILIES]
    sums = energy.sums_of(layer)
    values = next(_draws(layer, FAMILIES[0], 1, seed)).ravel()
    expected = [energy.reordered(sums, values), energy.fresh(sums, kurtosis=_UNIFORM)]
    mean, variance, shared = (
        np.where(sums.trace > 0, np.stack(entries), np.nan) for entries in zip(*expected, strict=True)
    )
    return Frequency(
        participation=energy.participation(layer),
        map_difference=np.stack([maps for maps, _ in measured]),
        map_difference_predicted=np.sqrt(2 * np.clip(1 - shared / mean, 0, None)),
        norm_difference=np.stack([norms for _, norms in measured]),
        norm_difference_predicted=np.sqrt(np.clip(variance, 0, None) / np.pi) / mean,
        spectrum=energy.spectrum(layer),
        positions=math.prod(layer.positions),
        dimension=values.size,
    )


def predicted_norm_difference(participation: Array, *, positions: int, dimension: int) -> Array:
    """sqrt((2 / pi) (1 / (N b) - 1 / D)): the relative difference of the norms of two reorderings' responses.

    For kernels whose energy is spread evenly over the inputs, ignoring borders. Same shape as `participation`.
    """
    return np.asarray(np.sqrt(2 / np.pi * np.clip(1 / (positions * participation) - 1 / dimension, 0, None)))


def _draws(layer: "Convolution", family: str, trials: int, seed: int) -> Iterator[Array]:
    """Perturbations (C, H, W) from a distribution of unit variance."""
    shape = (layer.weights.shape[1], *layer.size)
    drawn = Perturbations(seed=seed, sha256="", shape=shape, family=family, radius=3**0.5, trials=trials)
    for trial in range(trials):
        words = drawn.words(range(trial, trial + 1))
        yield (words[0] * drawn.scales(words)[0]).reshape(shape)


def _measured(layer: "Convolution", family: str, trials: int, seed: int) -> tuple[Array, Array]:
    """Mean relative difference of the maps and of the norms, (filter,) each."""
    norms, apart = [], []
    before = None
    for draw in _draws(layer, family, trials, seed):
        maps = energy.responses(layer, draw).reshape(len(layer.weights), -1)
        norms.append(np.linalg.norm(maps, axis=1))
        if before is not None:
            apart.append(np.linalg.norm(maps - before, axis=1))
        before = maps
    lengths = np.sort(norms, axis=0)
    # Gini's mean difference: each sorted value counts once for every smaller and minus once for every larger one.
    places = 2 * np.arange(trials)[:, None] - trials + 1
    pairs = np.maximum((places * lengths).sum(axis=0), 0) * 2 / (trials * (trials - 1))
    with np.errstate(invalid="ignore"):
        return np.mean(apart / np.stack(norms[1:]), axis=0), pairs / lengths.mean(axis=0)
