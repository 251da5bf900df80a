"""Which of several runs is more robust: paired differences over the images they share; prints nothing.

Every number is a median over the common images, a difference the median of the paired differences with its
order-statistic interval, and p says whether more images have one sign than the other: the exact sign test, corrected
after Holm for the number of pairs. Both hold for any distribution, which no test of a mean of few images does. Of
shares of images, numbers and differences are means, and the sign test is McNemar's. Each measure declares the
quantities that are compared, and which direction is the more robust one, if any: topology has none, since a low Mantel
r is no evidence of anything by itself.
"""

import itertools
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from analyzer.errors import InputError, UsageError
from analyzer.measures import Quantity
from analyzer.measures.quantities import VALUE, Array, mean_of_known
from analyzer.measures.ranges import within_rounding
from analyzer.measures.scores import in_words_of
from analyzer.store import Run
from analyzer.summary import radius_text
from analyzer.text import one_line
from analyzer.verdicts import pairing
from analyzer.verdicts.compare import notes
from analyzer.verdicts.compare.paired import Difference, Entry, Judged, Pair, centre, compared
from analyzer.verdicts.compare.sentences import ordered, sentence, winner
from analyzer.verdicts.pairing import OpenRun

SCHEMA = 1
FAINT = "below the noise floor"
"""Why no verdict: ranges not above what rounding may do over as many trials are rounding, not response."""

__all__ = ["FAINT", "SCHEMA", "Comparison", "compare", "compare_opened"]


class ComparedRun(TypedDict):
    """One of the runs."""

    name: str
    path: str
    model: str
    layers: list[str]
    finished: int
    selected: int
    complete: bool


class Ranked(TypedDict):
    """A run in a ranking, with the runs that it is distinguishably more robust than."""

    name: str
    value: float
    more_robust_than: list[str]


class Property(TypedDict):
    """One compared quantity: by the text of each radius, and of each image's mean over the radii."""

    title: str
    unit: str
    more_robust: str | None
    sentence: str
    radii: dict[str, Entry]
    overall: Entry
    ranking: list[Ranked] | None


class Comparison(TypedDict):
    """What `compare` returns; numbers are NaN where undefined."""

    schema: int
    runs: list[ComparedRun]
    images: int
    pairing: str
    notes: list[str]
    properties: dict[str, Property]


def compare(runs: Sequence[Path], *, names: Sequence[str] | None = None) -> Comparison:
    """Compare two or more runs of one protocol on the images they share. Prints nothing.

    Args:
        runs: run directories, finished or not.
        names: what they are called; their folders by default.

    Returns:
        "images": how many are common to all; "pairing": "perturbation" (every run saw the same ones), or "image" where
        the input sizes differ; "properties": by quantity[/layer], the median of each run (of shares: the mean) and
        every pair's difference (second - first) with interval, n (images), on how many it is above and below 0, p, and
        whether they are distinguishable: true, false, or null where the images are too few to tell or the ranges that
        normalise come from different images. `reason` says why there
        is no verdict. `ranking` is null where no direction is the more robust one.

    Raises:
        UsageError: fewer than two different runs, or different protocols.
        InputError: there is no run, no common image or no common measure.
        IncompleteError: a run is damaged or has no image yet.

    Example:
        >>> document = compare([Path("runs/a"), Path("runs/b")])  # doctest: +SKIP
        >>> document["properties"]["isotropy_log_odds_range"]["sentence"]  # doctest: +SKIP
    """
    paths = [Path(path) for path in runs]
    if len({path.resolve() for path in paths}) < max(2, len(paths)):
        raise UsageError(f"compare needs two or more different runs, got {', '.join(map(one_line, paths)) or 'none'}")
    names, readers = names or pairing.names_of(paths), [Run(path) for path in paths]
    pairing.check_protocols(readers, names)
    with ExitStack() as stack:
        return compare_opened(
            [stack.enter_context(pairing.opened(run, name)) for run, name in zip(readers, names, strict=True)]
        )


def compare_opened(runs: Sequence[OpenRun]) -> Comparison:
    """`compare` of runs that are open and of one protocol."""
    places = pairing.matched(runs)
    layers = pairing.paired_layers(runs)
    properties: dict[str, Property] = {}
    restricted: list[str] = []
    for quantity in notes.quantities(runs):
        if not all(run.has(quantity) for run in runs):
            continue
        for suffix, where in layers.items() if quantity.layered else [("", [0] * len(runs))]:
            values = [run.by_radius(quantity, layer)[at] for run, layer, at in zip(runs, where, places, strict=True)]
            properties[quantity.name + suffix] = _property(quantity, runs, values, places)
            if quantity.censored:
                restricted += notes.restricted(quantity, runs, values)
    if not properties:
        raise InputError(
            f"no measure is common to {' and '.join(run.name for run in runs)}\n"
            "measure one of them again with the `measures` and `layers` of the other"
        )
    return {
        "schema": SCHEMA,
        "runs": [_described(run) for run in runs],
        "images": len(places[0]),
        "pairing": "perturbation" if pairing.same_perturbations(runs) else "image",
        "notes": [
            *pairing.unfinished(runs),
            *pairing.notes(runs, places),
            *notes.missing(runs),
            *notes.in_steps(runs),
            *restricted,
            *notes.few(len(places[0])),
        ],
        "properties": properties,
    }


def _described(run: OpenRun) -> ComparedRun:
    return {
        "name": run.name,
        "path": str(run.run.path),
        "model": run.run.context["model"],
        "layers": run.run.layers,
        "finished": run.dataset.sizes["image"],
        "selected": run.state.selected,
        "complete": run.state.complete,
    }


def _property(
    quantity: Quantity, runs: Sequence[OpenRun], values: Sequence[Array], places: Sequence[NDArray[np.intp]]
) -> Property:
    """One property from (image, radius) of each run, (image, 1) without radii; what one lacks counts for none."""
    everywhere = np.isfinite(np.stack(values)).all(axis=0)
    used = [np.where(everywhere, each, np.nan) for each in values]
    columns = [np.column_stack([each, mean_of_known(each)]) if quantity.radial else each for each in used]
    names = [run.name for run in runs]
    pairs = list(itertools.combinations(range(len(names)), 2))
    faint = np.array(
        [_buried(quantity, run, column, at) for run, column, at in zip(runs, columns, places, strict=True)]
    )
    entries: list[Entry] = []
    for k, differences in enumerate(compared(columns, pairs, shares=quantity.kind != VALUE)):
        labelled: list[Pair] = [
            {
                "first": names[a],
                "second": names[b],
                **_with_verdict(
                    one,
                    faint=bool(faint[a, k] or faint[b, k]),
                    other_ranges=quantity.normalised and not pairing.same_calibration([runs[a], runs[b]]),
                ),
            }
            for (a, b), one in zip(pairs, differences, strict=True)
        ]
        values_of = {
            name: centre(column[:, k], shares=quantity.kind != VALUE)
            for name, column in zip(names, columns, strict=True)
        }
        entries.append({"n": int(np.isfinite(columns[0][:, k]).sum()), "values": values_of, "pairs": labelled})
    radii = [radius_text(float(radius)) for radius in runs[0].dataset["radius"].values if quantity.radial]
    overall, title = entries[-1], in_words_of((run.run.kind for run in runs), quantity.title)
    return {
        "title": title,
        "unit": quantity.unit,
        "more_robust": quantity.more_robust,
        "sentence": sentence(title, overall, quantity.more_robust),
        "radii": dict(zip(radii, entries[:-1], strict=True)),
        "overall": overall,
        "ranking": _ranking(overall, quantity.more_robust) if quantity.more_robust else None,
    }


def _buried(quantity: Quantity, run: OpenRun, column: Array, places: NDArray[np.intp]) -> list[bool]:
    """For each radius, and at last for their mean, whether the median is not above what rounding may do.

    column: (image, radius + 1). The mean is buried too where every radius is.
    """
    if not quantity.floor:
        return [False] * column.shape[1]
    floor = np.asarray(run.dataset[quantity.floor].values[places], dtype=np.float64)
    defined = floor[np.isfinite(floor)]
    limit = float(np.median(defined)) if defined.size else np.nan
    trials = run.dataset.sizes["trial"]
    medians = [float(np.median(c[np.isfinite(c)])) if np.isfinite(c).any() else np.nan for c in column.T]
    below = [bool(each) for each in within_rounding(np.array(medians), np.array(limit), trials=trials)]
    return [*below[:-1], below[-1] or all(below[:-1])]


def _with_verdict(difference: Difference, *, faint: bool, other_ranges: bool) -> Judged:
    """A difference with the `reason` why nothing is said of it, null where its verdict stands."""
    if faint and difference["distinguishable"] is not None:
        return {**difference, "distinguishable": False, "reason": FAINT}
    if other_ranges:
        return {**difference, "distinguishable": None, "reason": pairing.OTHER_RANGES}
    return {**difference, "reason": None}


def _ranking(overall: Entry, more_robust: str) -> list[Ranked]:
    """The more robust first, undefined last; each with the runs that it is distinguishably more robust than."""
    return [
        {"name": name, "value": overall["values"][name], "more_robust_than": _beaten(overall, name, more_robust)}
        for name in ordered(overall, more_robust)
    ]


def _beaten(overall: Entry, name: str, more_robust: str) -> list[str]:
    return [
        pair["second"] if winner(pair, more_robust) == pair["first"] else pair["first"]
        for pair in overall["pairs"]
        if pair["distinguishable"] and winner(pair, more_robust) == name
    ]
