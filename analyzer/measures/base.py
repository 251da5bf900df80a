"""What a measure is: what it is handed for one image, what it stores, and which numbers follow from that."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyzer.measures.quantities import Number, Profile, Quantity
from analyzer.measures.ranges import FamilyScores
from analyzer.measures.scores import TrueClass
from analyzer.measures.variables import Variable

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Observation:
    """What the network answered around one image; axes R radii, T trials, L layers. None where no measure needs it."""

    scores: Mapping[str, TrueClass]
    """For each family, score, log-odds and prediction of shape (R, T)."""
    input_gram: Array | None
    """(R, T, T), products of the noise actually added, grey levels squared."""
    feature_gram: Array | None
    """(R, L, T, T), products of trial-centred features."""
    feature_distance: Array | None
    """(R, T, L), L2 distance from the clean image's features."""
    feature_floor: Array | None
    """(L,), largest such distance that rounding alone makes."""
    clean_log_odds: float
    """Of the true class, nat."""
    log_odds_floor: float
    """Range of the clean log-odds that rounding makes, nat."""
    half: TrueClass | None
    """Answers at x - a/2 of the first trials' a of the noise family, (R, H)."""
    half_defect: Array | None
    """(R, H, L), L2 norm of D(a) + 2 D(-a/2) of the features, D(a) = f(x + a) - f(x)."""
    half_resolution: float
    """What that norm resolves, as a part of the norm of D(a)."""
    dimension: int
    """D, pixel values of the image."""
    radii: tuple[float, ...]
    """Grey levels, (R,)."""
    norm: str
    permutations: int
    key: int
    """Philox key of the Mantel permutations."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Numbers of the summary that are shown together.

    title: heading of the printed table. numbers: in the order of summary.json. layered: whether there is a table for
    each layer. compared: the quantities in which runs are compared.
    """

    title: str
    numbers: tuple[Number, ...]
    layered: bool = False
    compared: tuple[Quantity, ...] = ()

    @property
    def columns(self) -> list[Number]:
        """The numbers that a printed table shows, in their order."""
        shown = [number for number in self.numbers if number.heading]
        return sorted(shown, key=lambda number: number.last)


@dataclass(frozen=True, kw_only=True)
class Measure(Table):
    """What a module of this package declares, once.

    family: the perturbation family it is measured on. halves: whether it needs the answers at x - a/2 too. default:
    whether a run has it that is not told which measures to take. variables: what it adds to the results. observe: the
    arrays of these variables, of one image, without the image axis. profiles: what is shown along the depth. scores:
    where it is about the true-class score, its variables and words. A layered measure reads feature layers.
    """

    family: str
    variables: tuple[Variable, ...]
    observe: Callable[[Observation], dict[str, NDArray[Any]]]
    halves: bool = False
    default: bool = True
    profiles: tuple[Profile, ...] = ()
    scores: FamilyScores | None = None
