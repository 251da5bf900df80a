"""What a comparison says in sentences."""

import numpy as np

from analyzer.measures.quantities import HIGHER
from analyzer.statistics import FEW_IMAGES
from analyzer.text import short
from analyzer.verdicts.compare.paired import Entry, Pair


def ordered(overall: Entry, more_robust: str | None = None) -> list[str]:
    """Names by their values: the more robust first, lowest first where neither direction is, undefined last."""
    values, sign = overall["values"], -1 if more_robust == HIGHER else 1
    return sorted(values, key=lambda name: (np.isnan(values[name]), sign * values[name]))


def winner(pair: Pair, more_robust: str) -> str:
    """The more robust of two runs on more images than the other."""
    return pair["first"] if (pair["above"] > pair["below"]) != (more_robust == HIGHER) else pair["second"]


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
    numbers += f"; above 0 on {pair['above']} of {pair['n']} images, below on {pair['below']}; p = {pair['p_holm']:.2g}"
    if pair["reason"]:
        return f"no verdict, {pair['reason']} ({numbers})."
    if not pair["distinguishable"]:
        return f"not distinguishable ({numbers})."
    verdict = "they differ on more images one way than the other, which is no ranking"
    if more_robust:
        verdict = f"{winner(pair, more_robust)} is more robust on more images"
    return f"{verdict} ({numbers})."


def _interval(pair: Pair) -> str:
    return f", {_number(pair['low'])} to {_number(pair['high'])}" if np.isfinite(pair["low"]) else ""


def _number(value: float) -> str:
    return short(value, "+.2g")
