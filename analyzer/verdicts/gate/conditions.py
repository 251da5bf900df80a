"""Conditions on a run's numbers, and the verdict on each; pure functions."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from analyzer.errors import UsageError
from analyzer.estimate import at_worst, outside
from analyzer.measures import NUMBERS
from analyzer.measures.quantities import HIGHER, LOWER
from analyzer.statistics import Estimate
from analyzer.summary import parts

MAX, MIN, REGRESSION = "max", "min", "max-regression"
NEAR = 5  # names that a mistyped one may have meant, shown first


class Condition(NamedTuple):
    """kind: MAX, MIN or REGRESSION; relative: the bound is a fraction of the baseline's value."""

    kind: str
    name: str
    bound: float
    relative: bool = False

    @property
    def text(self) -> str:
        """As a person writes it: ``lipschitz_image_q95_median <= 1``."""
        if self.kind == REGRESSION:
            way = {1: "rises", -1: "falls", 0: "changes"}[worse(self.name)]
            bound = f"{self.bound:.12g}" if not self.relative else f"{100 * self.bound:.12g}%"
            return f"{self.name} {way} by at most {bound}"
        return f"{self.name} {'<=' if self.kind == MAX else '>='} {self.bound:.12g}"


class Change(NamedTuple):
    """Run minus baseline, a fraction of the baseline's value where the condition is relative."""

    estimate: Estimate
    value: float
    baseline: float
    note: str = ""


class Verdict(NamedTuple):
    """What became of a condition.

    status: "passes", "fails", "undecided" (the interval straddles the bound, or there is none) or "undefined".
    passed: whether the gate lets it through. judged: the value or the change that was held against the bound.
    """

    condition: Condition
    status: str
    passed: bool
    judged: Estimate
    value: float
    baseline: float
    text: str


def parse(kind: str, text: str) -> Condition:
    """``NAME=VALUE`` -> a condition; VALUE a number, or a percentage where `kind` is REGRESSION.

    The name ends at the last "=". Raises UsageError for anything else.
    """
    name, _, bound = text.rpartition("=")
    name, bound = name.strip(), bound.strip()
    relative = kind == REGRESSION and bound.endswith("%")
    try:
        value = float(bound.removesuffix("%") if relative else bound)
    except ValueError:
        value = math.nan
    if not name or not math.isfinite(value):
        example = "isotropy_range_median@1=10%" if kind == REGRESSION else "lipschitz_image_q95_median=1.0"
        raise UsageError(f"`{_parameter(kind)}` {text}: expected NAME=VALUE with a finite number, as {example}")
    if kind == REGRESSION and value < 0:
        raise UsageError(f"`{_parameter(kind)}` {text}: a regression allowed is 0 or more")
    return Condition(kind, name, value / 100 if relative else value, relative)


def _parameter(kind: str) -> str:
    return kind.replace("-", "_")


def check_names(conditions: Iterable[Condition], names: Sequence[str], whose: str) -> None:
    """Raise UsageError for the first name that is not among `names`, with the nearest ones and all there are."""
    for condition in conditions:
        if condition.name not in names:
            stem, radius, layer = parts(condition.name)
            radii = [name for name in names if "@" in name and parts(name)[0::2] == (stem, layer)]
            if radii:
                measured = ", ".join(name.partition("@")[2].partition("/")[0] for name in radii)
                lacking = "add one of them, as NAME@R" if radius is None else "not at this one"
                raise UsageError(f"{condition.name}: {whose} has it at the radii {measured}; {lacking}")
            near = difflib.get_close_matches(condition.name, names, n=NEAR, cutoff=0.5)
            near = near or [name for name in names if condition.name in name][:NEAR]
            hint = f"; nearest: {', '.join(near)}" if near else ""
            raise UsageError(f"{condition.name}: {whose} has no such number{hint}\nthere are: {listed(names)}")


def listed(names: Iterable[str]) -> str:
    """All names in one line: radii and layers, which would make hundreds of them, are said once."""
    stems: dict[str, None] = {}
    radii: dict[str, None] = {}
    layers: dict[str, None] = {}
    for name in names:
        head, slash, layer = name.partition("/")
        stem, at, radius = head.partition("@")
        stems[stem + ("@R" if at else "") + ("/LAYER" if slash else "")] = None
        radii |= {radius: None} if at else {}
        layers |= {layer: None} if slash else {}
    text = ", ".join(stems)
    text += f"; R one of {', '.join(radii)}" if radii else ""
    return text + (f"; LAYER one of {', '.join(layers)}" if layers else "")


def worse(name: str) -> int:
    """1 where a rise of this number is a regression, -1 where a fall is, 0 where any change is."""
    number = NUMBERS.get(parts(name).stem)
    return {LOWER: 1, HIGHER: -1}.get((number and number.quantity.more_robust) or "", 0)


def judge(
    estimates: Mapping[str, Estimate],
    conditions: Sequence[Condition],
    *,
    changes: Mapping[Condition, Change] | None = None,
    radii: Sequence[float] = (),
    strict: bool = False,
) -> list[Verdict]:
    """One verdict a condition, in their order.

    estimates: the run's numbers by the names of summary.json. changes: of each REGRESSION condition. radii: of the run;
    a radius outside them is held against the bound at its worst. A value on the bound passes. Where the interval
    straddles the bound, or there is none, the condition is undecided: the value decides, unless `strict`, which lets
    nothing undecided through. An undefined value never passes.

    Raises UsageError for a name that is not in `estimates`.
    """
    check_names(conditions, list(estimates), "the run")
    verdicts = []
    for condition in conditions:
        if condition.kind == REGRESSION:
            change = (changes or {})[condition]
            judged = _worsening(change.estimate, worse(condition.name))
            value, baseline, note = change.value, change.baseline, change.note
        else:
            known = estimates[condition.name]
            judged = at_worst(known, radii, largest=condition.kind == MAX) if radii else known
            value, baseline, note = judged.value, math.nan, outside(known, radii)
        status, by_value = _status(condition, judged)
        passed = by_value and not (strict and status == "undecided")
        verdicts.append(
            Verdict(condition, status, passed, judged, value, baseline, _text(status, by_value, judged, strict, note))
        )
    return verdicts


def _status(condition: Condition, judged: Estimate) -> tuple[str, bool]:
    """The status, and whether the value alone passes."""
    if math.isnan(judged.value):
        return "undefined", False
    # One comparison for both directions: a minimum is a maximum of the negatives.
    sign = -1 if condition.kind == MIN else 1
    value, bound = sign * judged.value, sign * condition.bound
    low, high = sorted((sign * judged.low, sign * judged.high))
    by_value = value <= bound
    if math.isnan(low) or math.isnan(high):
        return ("undecided" if math.isfinite(value) else "passes" if by_value else "fails"), by_value
    if (high <= bound) if by_value else (low > bound):
        return ("passes" if by_value else "fails"), by_value
    return "undecided", by_value


def _worsening(change: Estimate, direction: int) -> Estimate:
    """A signed change as how much worse it is; with direction 0, how far it is from none."""
    if direction == 1:
        return change
    if direction == -1:
        return Estimate(-change.value, -change.high, -change.low, change.n)
    ends = sorted((abs(change.low), abs(change.high)))
    return Estimate(abs(change.value), 0.0 if change.low <= 0 <= change.high else ends[0], ends[1], change.n)


def _text(status: str, by_value: bool, judged: Estimate, strict: bool, note: str) -> str:
    text = status
    if status == "undecided":
        straddles = not (math.isnan(judged.low) or math.isnan(judged.high))
        why = "the interval straddles the bound" if straddles else "there is no interval"
        text = f"undecided (value {'passes' if by_value else 'fails'}): {why}"
        text += ", which `strict` does not let through" if strict and by_value else ""
    elif status == "undefined":
        text = "undefined, which never passes"
    return f"{text}; {note}" if note else text
