"""Whether a run's numbers are good enough: conditions on the names of summary.json, and on changes from a baseline.

Returns verdicts and writes JUnit XML and Markdown; prints nothing and raises nothing for a gate that does not pass.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from analyzer import store, summary
from analyzer.compare import runs
from analyzer.errors import InputError, UsageError
from analyzer.gate.changes import change
from analyzer.gate.conditions import MAX, MIN, REGRESSION, Change, Condition, Verdict, check_names, judge, parse
from analyzer.gate.documents import cells, junit, markdown, partial, reason, sign, write_text
from analyzer.statistics import Estimate

SCHEMA = 1

__all__ = [
    "MAX",
    "MIN",
    "REGRESSION",
    "Change",
    "Condition",
    "Verdict",
    "cells",
    "conditions_of",
    "examine",
    "judge",
    "junit",
    "markdown",
    "parse",
    "partial",
    "reason",
    "sign",
    "write_text",
]


def conditions_of(
    maxima: Sequence[str], minima: Sequence[str], regressions: Sequence[str], *, baseline: bool
) -> list[Condition]:
    """The conditions of ``NAME=VALUE`` texts; baseline: whether one is given, which goes with `regressions`.

    Raises UsageError when there are none, when one cannot be read, or when the baseline is missing or of no use.
    """
    given = ((MAX, maxima), (MIN, minima), (REGRESSION, regressions))
    conditions = [parse(kind, text) for kind, texts in given for text in texts]
    if not conditions:
        raise UsageError("gate: nothing to judge; give --max NAME=VALUE, --min NAME=VALUE or --max-regression NAME=10%")
    if baseline != bool(regressions):
        missing = "--baseline RUN" if regressions else "--max-regression NAME=10%"
        raise UsageError(f"gate: --baseline and --max-regression go together; {missing} is missing")
    return conditions


def examine(
    run: Path, conditions: Sequence[Condition], *, baseline: Path | None = None, strict: bool = False
) -> dict[str, Any]:
    """Judge a run.

    Returns, NaN where undefined:

        schema      1
        run         {name, path, finished, selected, complete, missing: what is left to be done, "" for nothing}
        baseline    the same of the baseline, or null
        strict      whether undecided counts as failed
        notes       [sentence]: what a reader of the changes from the baseline has to know
        passed      every verdict passed and both runs are complete
        verdicts    [{condition, kind, name, bound, relative, status, passed, judged, low, high, n, value, baseline,
                    explanation}]

    `judged` with `low` and `high` is what was held against the bound: the value, or how much worse it is than the
    baseline's; `value` and `baseline` are the numbers themselves. Raises UsageError for unknown names and different
    protocols, or a baseline that is the run itself, InputError where there is no run, IncompleteError where one is
    damaged.
    """
    paths = [Path(run), *([] if baseline is None else [Path(baseline)])]
    if baseline is not None and paths[0].resolve() == paths[1].resolve():
        raise UsageError(f"--baseline {baseline}: that is the run itself; give another run")
    names = runs.names_of(paths)
    permuted = any(c.kind == REGRESSION and c.name.startswith("mantel_p_") for c in conditions)
    runs.check_protocols(paths, also=("permutations",) if permuted else ())
    described = [_described(path, name) for path, name in zip(paths, names, strict=True)]
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "run": described[0],
        "baseline": described[1] if baseline else None,
        "strict": strict,
        "notes": [],
    }
    if not all(one["finished"] for one in described):  # there are no numbers, nor names, to judge
        return {**document, "passed": False, "verdicts": []}
    found = [_estimates(path) for path in paths]
    check_names(conditions, list(found[0]), names[0])
    regressions = [condition for condition in conditions if condition.kind == REGRESSION]
    changes: dict[Condition, Change] = {}
    if regressions:
        check_names(regressions, list(found[1]), f"the baseline {names[1]}")
        changes, document["notes"] = _changes(paths, names, regressions, found)
    verdicts = judge(found[0], conditions, changes=changes, strict=strict)
    passed = all(verdict.passed for verdict in verdicts) and all(one["complete"] for one in described)
    return {**document, "passed": passed, "verdicts": [_entry(verdict) for verdict in verdicts]}


def _described(path: Path, name: str) -> dict[str, Any]:
    state = runs.state(path)
    return {
        "name": name,
        "path": str(path),
        "finished": state.finished,
        "selected": state.selected,
        "complete": state.complete,
        "missing": state.missing,
    }


def _estimates(path: Path) -> dict[str, Estimate]:
    if store.has_results(path):
        return summary.estimates(store.read_summary(path))
    with store.open_run(path) as dataset:
        return summary.estimates(summary.summarise(dataset))


def _changes(
    paths: Sequence[Path], names: Sequence[str], regressions: Sequence[Condition], found: Sequence[dict[str, Estimate]]
) -> tuple[dict[Condition, Change], list[str]]:
    """The change of each condition's number, and what a reader of them has to know."""
    with ExitStack() as stack:
        opened = [stack.enter_context(runs.opened(path, name)) for path, name in zip(paths, names, strict=True)]
        run, baseline = opened
        try:
            here, there = runs.matched(opened)
        except InputError:  # the summaries can still be held against each other
            here = there = np.array([], dtype=np.intp)
        changes = {
            each: change(each, (run, baseline), (here, there), (found[0][each.name], found[1][each.name]))
            for each in regressions
        }
        return changes, list(runs.notes(opened, [here, there]))


def _entry(verdict: Verdict) -> dict[str, Any]:
    condition, judged = verdict.condition, verdict.judged
    return {
        "condition": condition.text,
        **condition._asdict(),
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
