"""What a comparison says in sentences."""

from typing import Any

import numpy as np

from analyzer.statistics import FEW_IMAGES


def ordered(overall: dict[str, Any]) -> list[str]:
    """Names by their values: lowest first, undefined last."""
    values = overall["values"]
    return sorted(values, key=lambda name: (np.isnan(values[name]), values[name]))


def sentence(title: str, overall: dict[str, Any], *, ranked: bool) -> str:
    """What the overall differences of a property say. ranked: whether the lower is the steadier."""
    start, pairs = title, overall["pairs"]
    if overall["n"] == 0:
        return f"{start}: undefined in some run for every common image."
    if overall["n"] < FEW_IMAGES:
        return f"{start}: {overall['n']} image(s) cannot tell; {FEW_IMAGES} are needed."
    silent = [f"{p['first']} and {p['second']} ({p['reason']})" for p in pairs if p["reason"]]
    equal = [f"{p['first']} and {p['second']}" for p in pairs if not p["distinguishable"] and not p["reason"]]
    if len(pairs) == 1:
        (pair,) = pairs
        numbers = f"{pair['second']} minus {pair['first']}: {_number(pair['difference'])}{_interval(pair)}"
        numbers += f", p = {pair['p_holm']:.2g}, {pair['n']} images"
        if pair["reason"]:
            return f"{start}: no verdict, {pair['reason']} ({numbers})."
        if equal:
            return f"{start}: not distinguishable ({numbers})."
        winner = pair["first"] if pair["difference"] > 0 else pair["second"]
        verdict = f"{winner} is steadier" if ranked else "they differ, which is no ranking"
        return f"{start}: {verdict} ({numbers})."
    order = ", ".join(ordered(overall))
    said = f"{start}: {'steadiest' if ranked else 'lowest'} first: {order}"
    none = len(equal) + len(silent) == len(pairs)
    if none:
        said = f"{start}: no verdict" if silent else f"{start}: no two are distinguishable"
    if equal and (silent or not none):
        said += f"; not distinguishable: {', '.join(equal)}"
    if silent:
        said += f"; no verdict on {', '.join(silent)}"
    return said + ("." if ranked or none else "; this is no ranking of quality.")


def _interval(pair: dict[str, Any]) -> str:
    return f", {_number(pair['low'])} to {_number(pair['high'])}" if np.isfinite(pair["low"]) else ""


def _number(value: float) -> str:
    return f"{value:+.2g}"
