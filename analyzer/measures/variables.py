"""A variable of the results: what a run stores, or derives from what it stores."""

from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Scales(NamedTuple):
    """What a run's numbers are measured by and at; a width is NaN where it is 0 or unknown."""

    h: float
    """Width of h (section 2.4): range of the pixels over the calibration images, grey levels."""
    g: Array
    """(layer,), widths of g: range of each layer over the calibration images, feature units."""
    dimension: int
    """D, pixel values of one image."""
    radii: tuple[float, ...] = ()
    """Grey levels, ascending."""

    @property
    def ratio(self) -> Array:
        """(layer,), h / g: from a raw distance ratio to the normalised one (Eq. 9)."""
        return np.asarray(self.h / self.g)

    def of_layers(self, layers: slice) -> "Scales":
        """The same for some of the layers."""
        return self._replace(g=self.g[layers])


class Derived(NamedTuple):
    """How a variable follows from stored ones: compute(*arrays of `reads`, scales), with a leading image axis."""

    reads: tuple[str, ...]
    compute: Callable[..., Array]


class Variable(NamedTuple):
    """One variable of the results.

    dims: its axes in the order of the data contract, the first always "image". unit: CF attribute text. status: the
    meanings of its numbers, where it says why something is undefined. integer: class indices, -1 where undefined.
    single: kept in float32. needs: the perturbation family, or "features", without which a run does not hold it.
    derived: computed when a run is opened, never stored.
    """

    name: str
    dims: tuple[str, ...]
    unit: str
    long_name: str
    status: type[IntEnum] | None = None
    integer: bool = False
    single: bool = False
    needs: str | None = None
    derived: Derived | None = None

    @property
    def dtype(self) -> str:
        """float64 or float32 (NaN = undefined), int32 (-1 = undefined), or int8 for flags (-1 = not determined)."""
        if self.status:
            return "int8"
        return "int32" if self.integer else "float32" if self.single else "float64"

    @property
    def real(self) -> bool:
        """Whether it holds real numbers, NaN where undefined."""
        return self.dtype.startswith("float")

    @property
    def flags(self) -> tuple[str, ...]:
        """What the numbers 0, 1, ... of a status mean; empty for anything else."""
        return tuple(flag.name.lower() for flag in self.status) if self.status else ()

    @property
    def attributes(self) -> dict[str, Any]:
        """CF attributes: units, long_name and, for flags, flag_values (int8) and flag_meanings."""
        attributes: dict[str, Any] = {"units": self.unit, "long_name": self.long_name}
        if self.flags:
            attributes["flag_values"] = np.arange(len(self.flags), dtype="int8")
            attributes["flag_meanings"] = " ".join(self.flags)
        return attributes
