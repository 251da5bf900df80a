"""Whether a run's numbers are good enough: conditions on the names of summary.json, and on changes from a baseline.

Returns verdicts and writes JUnit XML and Markdown; prints nothing and raises nothing for a gate that does not pass.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from analyzer import summary
from analyzer.errors import InputError, UsageError
from analyzer.estimate import estimate_of
from analyzer.statistics import Estimate
from analyzer.store import Run
from analyzer.verdicts import drift, pairing
from analyzer.verdicts.gate.changes import change
from analyzer.verdicts.gate.conditions import (
    MAX,
    MIN,
    REGRESSION,
    Change,
    Condition,
    Verdict,
    check_names,
    judge,
    parse,
)
from analyzer.verdicts.gate.documents import (
    JudgedRun,
    Judgement,
    VerdictEntry,
    cells,
    junit,
    markdown,
    partial,
    reason,
    sign,
    write_text,
)

SCHEMA = 1
DRIFT = "drift_"
"""How the names begin that `analyzer drift` gives, of the run against the baseline."""

__all__ = [
    "MAX",
    "MIN",
    "REGRESSION",
    "Change",
    "Condition",
    "Judgement",
    "Verdict",
    "cells",
    "conditions_of",
    "examine",
    "gate",
    "judge",
    "junit",
    "markdown",
    "parse",
    "partial",
    "reason",
    "sign",
    "write_text",
]


def gate(
    run: Path,
    *,
    max: Mapping[str, float] | None = None,
    min: Mapping[str, float] | None = None,
    baseline: Path | None = None,
    max_regression: Mapping[str, float | str] | None = None,
    strict: bool = False,
) -> Judgement:
    """Judge a run by the numbers of its summary. Prints nothing, and raises nothing for a run that does not pass.

    Args:
        run: the run directory.
        max, min: the largest and the smallest value allowed, by the names of summary.json, or by those that
            `analyzer drift` gives of the run against the baseline: drift_flip_share@1 and so on.
        baseline: a run to be no worse than.
        max_regression: how much worse than the baseline a number may be: 0.1, or "10%" of the baseline's value.
        strict: whether what its interval leaves undecided counts as failed.

    Returns:
        "passed", whether every verdict passed and both runs are complete, and "verdicts"; see `examine`.

    Raises:
        UsageError: no condition, an unknown name, different protocols, or a baseline that is the run itself.
        InputError: there is no run.
        IncompleteError: a run is damaged.

    Example:
        >>> gate(Path("runs/new"), max={"misclassified_share@5": 0.02})["passed"]  # doctest: +SKIP
    """
    given = (max or {}, min or {}, max_regression or {})
    texts = ([f"{name}={bound}" for name, bound in conditions.items()] for conditions in given)
    return examine(run, conditions_of(*texts, baseline=baseline is not None), baseline=baseline, strict=strict)


def conditions_of(
    maxima: Sequence[str], minima: Sequence[str], regressions: Sequence[str], *, baseline: bool
) -> list[Condition]:
    """The conditions of ``NAME=VALUE`` texts; baseline: whether one is given, which goes with `regressions`.

    Raises UsageError when there are none, when one cannot be read, or when the baseline is missing or of no use.
    """
    given = ((MAX, maxima), (MIN, minima), (REGRESSION, regressions))
    conditions = [parse(kind, text) for kind, texts in given for text in texts]
    if not conditions:
        raise UsageError("gate: nothing to judge; give `max` NAME=VALUE, `min` NAME=VALUE or `max_regression` NAME=10%")
    drifts = [condition for condition in conditions if condition.name.startswith(DRIFT)]
    if odd := [condition.name for condition in drifts if condition.kind == REGRESSION]:
        raise UsageError(f"`max_regression` {odd[0]}: a drift is a change already; give `max` {odd[0]}=VALUE")
    if baseline != bool(regressions or drifts):
        missing = "`baseline` RUN" if regressions or drifts else f"`max_regression` NAME=10% or `max` {DRIFT}...=VALUE"
        raise UsageError(f"gate: `baseline` goes with `max_regression` and with drifts; {missing} is missing")
    return conditions


def examine(
    run: Path, conditions: Sequence[Condition], *, baseline: Path | None = None, strict: bool = False
) -> Judgement:
    """`gate` for conditions that `parse` gave.

    Of each verdict, `judged` with `low` and `high` is what was held against the bound: the value, or how much worse it
    is than the baseline's; `value` and `baseline` are the numbers themselves. NaN where undefined.
    """
    paths = [Path(run), *([] if baseline is None else [Path(baseline)])]
    if baseline is not None and paths[0].resolve() == paths[1].resolve():
        raise UsageError(f"`baseline` {baseline}: that is the run itself; give another run")
    names, runs = pairing.names_of(paths), [Run(path) for path in paths]
    permuted = any(c.kind == REGRESSION and "mantel_p" in summary.reads(c.name) for c in conditions)
    pairing.check_protocols(runs, names, also=("permutations",) if permuted else ())
    described = [_described(run, name) for run, name in zip(runs, names, strict=True)]
    document: Judgement = {
        "schema": SCHEMA,
        "run": described[0],
        "baseline": described[1] if baseline else None,
        "strict": strict,
        "notes": [],
        "passed": False,
        "verdicts": [],
    }
    if not all(one["finished"] for one in described):  # there are no numbers, nor names, to judge
        return document
    numbers = [summary.estimates(summary.of_run(run)) for run in runs]
    if baseline is not None and any(condition.name.startswith(DRIFT) for condition in conditions):
        found, document["notes"] = _drift(runs, names)
        numbers[0] |= found
    check_names(conditions, list(numbers[0]), names[0])
    regressions = [condition for condition in conditions if condition.kind == REGRESSION]
    changes: dict[Condition, Change] = {}
    if regressions:
        check_names(regressions, list(numbers[1]), f"the baseline {names[1]}")
        changes, notes = _changes(runs, names, regressions, numbers)
        document["notes"] = list(dict.fromkeys([*document["notes"], *notes]))
    verdicts = judge(numbers[0], conditions, changes=changes, radii=runs[0].identity["radii"], strict=strict)
    document["passed"] = all(verdict.passed for verdict in verdicts) and all(one["complete"] for one in described)
    document["verdicts"] = [_entry(verdict) for verdict in verdicts]
    return document


def _described(run: Run, name: str) -> JudgedRun:
    state = run.state
    return {
        "name": name,
        "path": str(run.path),
        "finished": state.finished,
        "selected": state.selected,
        "complete": state.complete,
        "missing": state.missing,
    }


def _changes(
    runs: Sequence[Run], names: Sequence[str], regressions: Sequence[Condition], numbers: Sequence[dict[str, Estimate]]
) -> tuple[dict[Condition, Change], list[str]]:
    """The change of each condition's number, and what a reader of them has to know."""
    with ExitStack() as stack:
        opened = [stack.enter_context(pairing.opened(run, name)) for run, name in zip(runs, names, strict=True)]
        run, baseline = opened
        try:
            here, there = pairing.matched(opened)
        except InputError:  # the summaries can still be held against each other
            here = there = np.array([], dtype=np.intp)
        changes = {
            each: change(each, (run, baseline), (here, there), (numbers[0][each.name], numbers[1][each.name]))
            for each in regressions
        }
        return changes, list(pairing.notes(opened, [here, there]))


def _drift(runs: Sequence[Run], names: Sequence[str]) -> tuple[dict[str, Estimate], list[str]]:
    """How far the run is from the baseline, by the names of `analyzer drift`, and what to know of it."""
    drift.check_shapes([runs[1], runs[0]], [names[1], names[0]])
    with ExitStack() as stack:
        opened = [stack.enter_context(pairing.opened(run, name)) for run, name in zip(runs, names, strict=True)]
        document = drift.drift_opened(opened[::-1])
        (candidate,) = document["candidates"]
        found = {name: estimate_of(entry) for name, entry in candidate.items() if name.startswith(DRIFT)}
        return found, document["notes"]


def _entry(verdict: Verdict) -> VerdictEntry:
    condition, judged = verdict.condition, verdict.judged
    return {
        "condition": condition.text,
        "kind": condition.kind,
        "name": condition.name,
        "bound": condition.bound,
        "relative": condition.relative,
        "status": verdict.status,
        "passed": verdict.passed,
        "judged": judged.value,
        "low": judged.low,
        "high": judged.high,
        "n": judged.n,
        "value": verdict.value,
        "baseline": verdict.baseline,
        "explanation": verdict.text,
    }
