"""What a comparison says in sentences."""

import numpy as np

from analyzer.measures.quantities import HIGHER
from analyzer.statistics import FEW_IMAGES
from analyzer.verdicts.compare.paired import Entry, Pair


def ordered(overall: Entry, more_robust: str | None = None) -> list[str]:
    """Names by their values: the more robust first, lowest first where neither direction is, undefined last."""
    values, sign = overall["values"], -1 if more_robust == HIGHER else 1
    return sorted(values, key=lambda name: (np.isnan(values[name]), sign * values[name]))


def winner(pair: Pair, more_robust: str) -> str:
    """The more robust of two runs whose difference is not 0."""
    return pair["first"] if (pair["difference"] > 0) != (more_robust == HIGHER) else pair["second"]


def sentence(title: str, overall: Entry, more_robust: str | None) -> str:
    """What the overall differences of a property say. more_robust: which direction is, if any."""
    pairs = overall["pairs"]
    if overall["n"] == 0:
        return f"{title}: undefined in some run for every common image."
    if overall["n"] < FEW_IMAGES:
        return f"{title}: {overall['n']} image(s) cannot tell; {FEW_IMAGES} are needed."
    silent = [f"{p['first']} and {p['second']} ({p['reason']})" for p in pairs if p["reason"]]
    equal = [f"{p['first']} and {p['second']}" for p in pairs if not p["distinguishable"] and not p["reason"]]
    if len(pairs) == 1:
        return f"{title}: {_of_two(pairs[0], more_robust)}"
    order = ", ".join(ordered(overall, more_robust))
    first = "most robust" if more_robust else "lowest"
    text = f"{title}: {first} first: {order}"
    none = len(equal) + len(silent) == len(pairs)
    if none:
        text = f"{title}: no verdict" if silent else f"{title}: no two are distinguishable"
    if equal and (silent or not none):
        text += f"; not distinguishable: {', '.join(equal)}"
    if silent:
        text += f"; no verdict on {', '.join(silent)}"
    return text + ("." if more_robust or none else "; this is no ranking of quality.")


def _of_two(pair: Pair, more_robust: str | None) -> str:
    numbers = f"{pair['second']} minus {pair['first']}: {_number(pair['difference'])}{_interval(pair)}"
    numbers += f", p = {pair['p_holm']:.2g}, {pair['n']} images"
    if pair["reason"]:
        return f"no verdict, {pair['reason']} ({numbers})."
    if not pair["distinguishable"]:
        return f"not distinguishable ({numbers})."
    verdict = f"{winner(pair, more_robust)} is more robust" if more_robust else "they differ, which is no ranking"
    return f"{verdict} ({numbers})."


def _interval(pair: Pair) -> str:
    return f", {_number(pair['low'])} to {_number(pair['high'])}" if np.isfinite(pair["low"]) else ""


def _number(value: float) -> str:
    return f"{value:+.2g}"
