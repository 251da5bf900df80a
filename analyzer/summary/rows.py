"""From what measures declare to the numbers of a summary."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from numpy.typing import NDArray

from analyzer.measures import Number, Scales, Table
from analyzer.measures.quantities import contributions, estimates, per_image, scaled
from analyzer.statistics import Estimate
from analyzer.summary.names import end_of, layer_suffix, name_of

_LAYERS_AT_ONCE = 8
"""Held at a time; each group of layers reads the distances once."""


def numbers(
    table: Table, dataset: Any, scales: Scales, *, lacks: frozenset[str] = frozenset()
) -> Iterator[tuple[str, Estimate]]:
    """(name, estimate) of every number of a table that the data set of measured images has, layer by layer.

    lacks: what the network has not, see `measures.quantities.lacking`: no number is made of what needs it.
    """
    wanted = [
        number
        for number in table.numbers
        if number.quantity.measured_in(dataset)
        and number.quantity.needs not in lacks
        and number.least_radii <= dataset.sizes["radius"]
    ]
    if not table.layered:
        yield from _rows(table, wanted, dataset, scales, [""])
        return
    layers = [str(layer) for layer in dataset["layer"].values]
    suffixes = [layer_suffix(layer, len(layers)) for layer in layers]
    for start in range(0, len(layers), _LAYERS_AT_ONCE):
        group = slice(start, start + _LAYERS_AT_ONCE)
        part = dataset.isel(layer=group)
        yield from _rows(table, wanted, part, scales.of_layers(group), suffixes[group], first=start == 0)


def _rows(
    table: Table,
    wanted: list[Number],
    dataset: Any,
    scales: Scales,
    suffixes: list[str],
    *,
    first: bool = True,
) -> Iterator[tuple[str, Estimate]]:
    """first: whether the first of the suffixes is the run's first layer."""
    quantities = list(dict.fromkeys(number.quantity for number in wanted))
    values = dict(zip(quantities, per_image(dataset, quantities, scales), strict=True))
    radii = [float(radius) for radius in dataset["radius"].values]
    for j, suffix in enumerate(suffixes):
        if j or not first:  # what no layer has is said once
            wanted = [number for number in wanted if number.quantity.layered]
        for _, of_block in groupby(wanted, key=lambda number: number.block):
            block = list(of_block)
            for place, radius in [(None, None), *enumerate(radii)]:
                here = [number for number in block if (number.overall if radius is None else number.by_radius)]
                computed = _estimates(here, values, j, place, scales)
                for n in here:
                    yield name_of(n.name, radius=radius, suffix=end_of(n, suffix)), computed[n]


def _estimates(
    here: list[Number], values: dict[Any, NDArray[Any]], layer: int, radius: int | None, scales: Scales
) -> dict[Number, Estimate]:
    """The estimates of some numbers of one layer and radius; statistics of the same points share their work."""
    result: dict[Number, Estimate] = {}
    for number in here:
        if number in result:
            continue
        quantity = number.quantity
        scale = float(scales.ratio[layer]) if quantity.layered else 1.0
        given = values[quantity]
        alike = [n for n in here if _same_points(n, number)]
        points = contributions(quantity, given[..., layer] if quantity.layered else given, radius=radius, scale=scale)
        computed = estimates(quantity, points, [n.statistic for n in alike], pooled=radius is None)
        for n, estimate in zip(alike, computed, strict=True):
            result[n] = scaled(estimate, scale) if n.quantity.scaled else estimate
    return result


def _same_points(one: Number, other: Number) -> bool:
    a, b = one.quantity, other.quantity
    return (a.reads, a.reduce, a.within, a.kind) == (b.reads, b.reduce, b.within, b.kind)
