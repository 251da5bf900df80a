"""The measures: pure functions of arrays, usable without ONNX. `REGISTRY` lists those that a run can take."""

from collections.abc import Sequence
from importlib import import_module

from analyzer.measures import added, flips, geometry, scores
from analyzer.measures.base import Measure, Observation, Table
from analyzer.measures.quantities import Number, Quantity
from analyzer.measures.variables import Scales, Variable

_MODULES = (
    "isotropy",
    "symmetry",
    "topology",
    "lipschitz",
    "linearity",
    "certified",
)
"""The modules of this package that are measures, in the order in which results hold and tables show them."""

REGISTRY: dict[str, Measure] = {name: import_module(f"{__name__}.{name}").MEASURE for name in _MODULES}

TABLES: tuple[Table, ...] = (added.TABLE, flips.TABLE, *REGISTRY.values())
"""Everything that declares numbers: what was added to the pixels, how far a flip is, and the measures."""

NUMBERS: dict[str, Number] = {number.name: number for table in TABLES for number in table.numbers}
"""Every number of a summary by its name without radius and layer."""

__all__ = [
    "NUMBERS",
    "REGISTRY",
    "TABLES",
    "Measure",
    "Number",
    "Observation",
    "Quantity",
    "Scales",
    "Table",
    "Variable",
    "flips",
    "geometry",
    "scores",
    "tables_of",
]


def tables_of(names: Sequence[str]) -> list[Table]:
    """What a run of these measures has numbers of, in the order of its summary."""
    return [table for table in TABLES if not isinstance(table, Measure)] + [REGISTRY[name] for name in names]
